"""Every pod keeps every rule of the Pod Security Standard "restricted", which the
namespace enforces."""

from collections.abc import Callable

import pytest

from .cluster import SETS, Manifest, manifests, one, pods

VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
SECCOMP = {"RuntimeDefault", "Localhost"}


def containers(pod: Manifest) -> list[Manifest]:
    spec = pod["spec"]
    return [
        *spec["containers"],
        *spec.get("initContainers", []),
        *spec.get("ephemeralContainers", []),
    ]


def security(pod: Manifest, container: Manifest) -> Manifest:
    """The container's security context over the pod's."""
    return {**pod["spec"].get("securityContext", {}), **container.get("securityContext", {})}


def no_host(pod: Manifest) -> bool:
    spec = pod["spec"]
    shared = any(spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC"))
    ports = [port for c in containers(pod) for port in c.get("ports", []) if port.get("hostPort")]
    return not shared and not ports


def harmless_volumes(pod: Manifest) -> bool:
    return all(set(volume) - {"name"} <= VOLUMES for volume in pod["spec"].get("volumes", []))


def not_root(pod: Manifest) -> bool:
    contexts = [security(pod, c) for c in containers(pod)]
    return all(
        c.get("runAsNonRoot") is True and c.get("runAsUser") not in (0, None) for c in contexts
    )


def no_more_rights(pod: Manifest) -> bool:
    contexts = [security(pod, c) for c in containers(pod)]
    return all(
        c.get("allowPrivilegeEscalation") is False and not c.get("privileged") for c in contexts
    )


def no_capabilities(pod: Manifest) -> bool:
    given = [security(pod, c).get("capabilities", {}) for c in containers(pod)]
    return all(
        "ALL" in c.get("drop", []) and set(c.get("add", [])) <= {"NET_BIND_SERVICE"} for c in given
    )


def seccomp(pod: Manifest) -> bool:
    return all(
        security(pod, c).get("seccompProfile", {}).get("type") in SECCOMP for c in containers(pod)
    )


def plain_kernel(pod: Manifest) -> bool:
    contexts = [security(pod, c) for c in containers(pod)]
    return not any(
        c.get("procMount") or c.get("sysctls") or c.get("seLinuxOptions") for c in contexts
    )


def read_only_root(pod: Manifest) -> bool:  # more than "restricted" asks
    return all(security(pod, c).get("readOnlyRootFilesystem") is True for c in containers(pod))


def no_token(pod: Manifest) -> bool:  # more than "restricted" asks
    return pod["spec"].get("automountServiceAccountToken") is False


RULES = [
    no_host,
    harmless_volumes,
    not_root,
    no_more_rights,
    no_capabilities,
    seccomp,
    plain_kernel,
]


@pytest.mark.parametrize("rule", [*RULES, read_only_root, no_token], ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("name", SETS)
def test_pods_keep_the_rule(name: str, rule: Callable[[Manifest], bool]) -> None:
    found = pods(name)
    assert set(found) == {"smsd", "memcached"}
    assert [workload for workload, pod in found.items() if not rule(pod)] == []


@pytest.mark.parametrize(
    ("rule", "spec"),
    [
        (no_host, {"hostNetwork": True}),
        (harmless_volumes, {"volumes": [{"name": "x", "hostPath": {"path": "/"}}]}),
        (not_root, {"securityContext": {"runAsNonRoot": True, "runAsUser": 0}}),
        (no_more_rights, {}),
        (no_capabilities, {}),
        (seccomp, {"securityContext": {"seccompProfile": {"type": "Unconfined"}}}),
        (
            plain_kernel,
            {"securityContext": {"sysctls": [{"name": "net.core.somaxconn", "value": "1"}]}},
        ),
        (read_only_root, {}),
        (no_token, {}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_each_rule_refuses_a_pod_that_breaks_it(
    rule: Callable[[Manifest], bool], spec: Manifest
) -> None:
    assert not rule({"spec": {"containers": [{"name": "x"}], **spec}})


@pytest.mark.parametrize("name", SETS)
def test_the_namespace_enforces_it(name: str) -> None:
    labels = one(name, "Namespace", "smsd")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.parametrize("name", SETS)
def test_service_accounts_have_no_token_and_no_rights(name: str) -> None:
    accounts = [m for m in manifests(name) if m["kind"] == "ServiceAccount"]
    assert {a["metadata"]["name"] for a in accounts} == {"smsd", "memcached"}
    assert all(a["automountServiceAccountToken"] is False for a in accounts)
    assert not [m for m in manifests(name) if "Role" in m["kind"]]
