"""The NetworkPolicies, evaluated as a cluster does, for pairs of pods and ports."""

from typing import Any, NamedTuple

import pytest

from .cluster import SETS, Manifest, manifests, pods


class Pod(NamedTuple):
    namespace: str
    labels: dict[str, str]
    ports: dict[str, int]


def pod_of(workload: str) -> Pod:
    template = pods("production")[workload]
    ports = {
        p["name"]: p["containerPort"] for c in template["spec"]["containers"] for p in c["ports"]
    }
    return Pod("smsd", template["metadata"]["labels"], ports)


SMSD, MEMCACHED = pod_of("smsd"), pod_of("memcached")
PROMETHEUS = Pod("monitoring", {"app.kubernetes.io/name": "prometheus"}, {})
INGRESS = Pod("ingress-nginx", {"app.kubernetes.io/name": "ingress-nginx"}, {})
STRANGER = Pod("default", {"app": "stranger"}, {})
NEIGHBOUR = Pod("smsd", {"app": "stranger"}, {})
DNS = Pod("kube-system", {"k8s-app": "kube-dns"}, {})
NODE = Pod("no pod's", {}, {})
"""An address that is no pod's: a NodeLocal DNSCache or a load balancer."""

OPENSHIFT_DNS = Pod("openshift-dns", {"dns.operator.openshift.io/daemonset-dns": "default"}, {})


def selects(selector: dict[str, Any] | None, labels: dict[str, str]) -> bool:
    assert not (selector or {}).get("matchExpressions"), "not understood by this test"
    return selector is not None and (selector.get("matchLabels") or {}).items() <= labels.items()


def is_peer(peer: dict[str, Any], pod: Pod, own_namespace: str) -> bool:
    if "ipBlock" in peer:
        return False
    in_namespace = pod.namespace == own_namespace
    if "namespaceSelector" in peer:
        in_namespace = selects(
            peer["namespaceSelector"], {"kubernetes.io/metadata.name": pod.namespace}
        )
    return in_namespace and selects(peer.get("podSelector", {}), pod.labels)


def open_ports(name: str, direction: str, mine: Pod, other: Pod, target: Pod, port: int) -> bool:
    """Whether one side's policies allow it. A pod that no policy selects is open to
    everything."""
    key, peers = ("ingress", "from") if direction == "Ingress" else ("egress", "to")
    policies: list[Manifest] = [
        m["spec"]
        for m in manifests(name)
        if m["kind"] == "NetworkPolicy"
        and m["metadata"]["namespace"] == mine.namespace
        and direction in m["spec"]["policyTypes"]
        and selects(m["spec"]["podSelector"], mine.labels)
    ]
    if not policies:
        return True
    rules = [rule for policy in policies for rule in policy.get(key, [])]
    return any(
        (not rule.get(peers) or any(is_peer(p, other, mine.namespace) for p in rule[peers]))
        and (
            not rule.get("ports")
            or port in [target.ports.get(p["port"], p["port"]) for p in rule["ports"]]
        )
        for rule in rules
    )


def may(name: str, source: Pod, target: Pod, port: int) -> bool:
    out = open_ports(name, "Egress", source, target, target, port)
    return out and open_ports(name, "Ingress", target, source, target, port)


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize(
    ("source", "target", "port", "allowed"),
    [
        pytest.param(INGRESS, SMSD, 8080, True, id="the ingress reaches the webhook"),
        pytest.param(STRANGER, SMSD, 9090, False, id="nobody reaches the admin port"),
        pytest.param(INGRESS, SMSD, 9090, False, id="not even the ingress"),
        pytest.param(MEMCACHED, SMSD, 8080, False, id="memcached calls nobody"),
        pytest.param(PROMETHEUS, SMSD, 9090, True, id="Prometheus scrapes smsd"),
        pytest.param(PROMETHEUS, MEMCACHED, 9150, True, id="Prometheus scrapes the exporter"),
        pytest.param(PROMETHEUS, MEMCACHED, 11211, False, id="Prometheus reads no records"),
        pytest.param(SMSD, MEMCACHED, 11211, True, id="smsd reaches its store"),
        pytest.param(SMSD, MEMCACHED, 9150, False, id="and nothing else there"),
        pytest.param(SMSD, DNS, 53, True, id="smsd asks the cluster's resolver"),
        pytest.param(SMSD, NODE, 53, True, id="smsd asks a NodeLocal DNSCache"),
        pytest.param(SMSD, OPENSHIFT_DNS, 5353, True, id="smsd asks OpenShift's resolver"),
        pytest.param(SMSD, STRANGER, 5353, False, id="that port is open to the resolver alone"),
        pytest.param(MEMCACHED, NODE, 53, False, id="memcached asks nobody"),
        pytest.param(NODE, SMSD, 8080, True, id="a load balancer reaches the webhook"),
        pytest.param(NODE, SMSD, 9090, False, id="and not the admin port"),
        pytest.param(SMSD, STRANGER, 443, False, id="smsd calls nobody else"),
        pytest.param(STRANGER, MEMCACHED, 11211, False, id="nobody else reaches the store"),
        pytest.param(NEIGHBOUR, MEMCACHED, 11211, False, id="nor does a pod of the same namespace"),
        pytest.param(
            NEIGHBOUR, DNS, 53, False, id="default deny holds for any pod of the namespace"
        ),
    ],
)
def test_connection(name: str, source: Pod, target: Pod, port: int, allowed: bool) -> None:
    assert may(name, source, target, port) is allowed
