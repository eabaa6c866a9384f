"""The production set: replicas, rollouts, autoscaling, probes, the ingress, memcached's
limits."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from smsd.version import VERSION

from .cluster import (
    K8S,
    SETS,
    config_map,
    container,
    manifests,
    mebibytes,
    one,
    pods,
)

PRODUCTION = "production"


def test_the_image_tag_is_set_in_the_kustomization_alone() -> None:
    elsewhere = [f for f in K8S.rglob("*") if f.is_file() and re.search(r"smsd:\d", f.read_text())]
    assert elsewhere == []
    assert container(PRODUCTION, "smsd", "smsd")["image"] == f"smsd:{VERSION}"


@pytest.mark.parametrize("name", SETS)
def test_images_have_full_tags(name: str) -> None:
    images = [c["image"] for pod in pods(name).values() for c in pod["spec"]["containers"]]
    assert [
        i for i in images if not re.fullmatch(r"(\S+/)?[a-z-]+:(v?\d+\.\d+\.\d+(-alpine)?|dev)", i)
    ] == []


def test_at_least_three_replicas_spread_and_scaled_calmly() -> None:
    deployment = one(PRODUCTION, "Deployment", "smsd")["spec"]
    scaler = one(PRODUCTION, "HorizontalPodAutoscaler", "smsd")["spec"]
    assert "replicas" not in deployment, "kubectl apply would undo what the autoscaler did"
    assert scaler["scaleTargetRef"] == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "name": "smsd",
    }
    assert scaler["minReplicas"] == 3
    assert scaler["behavior"]["scaleDown"]["stabilizationWindowSeconds"] >= 300
    assert scaler["behavior"]["scaleDown"]["policies"] == [
        {"type": "Pods", "value": 1, "periodSeconds": 120}
    ]
    for pod in pods(PRODUCTION).values():
        spread = pod["spec"]["topologySpreadConstraints"]
        assert "kubernetes.io/hostname" in {s["topologyKey"] for s in spread}
        assert all(
            s["labelSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
            for s in spread
        )


def test_rollout_stops_no_replica_before_its_successor_is_ready() -> None:
    update = one(PRODUCTION, "Deployment", "smsd")["spec"]["strategy"]["rollingUpdate"]
    assert update["maxUnavailable"] == 0
    assert update["maxSurge"] > 0


@pytest.mark.parametrize("name", SETS)
def test_probes_ask_the_admin_port(name: str) -> None:
    mine = container(name, "smsd", "smsd")
    asked = {
        probe: mine[probe]["httpGet"]
        for probe in ("startupProbe", "livenessProbe", "readinessProbe")
    }
    assert asked == {
        "startupProbe": {"path": "/livez", "port": "admin"},
        "livenessProbe": {"path": "/livez", "port": "admin"},
        "readinessProbe": {"path": "/readyz", "port": "admin"},
    }


@pytest.mark.parametrize("name", SETS)
def test_every_container_has_requests_limits_and_probes(name: str) -> None:
    for pod in pods(name).values():
        for each in pod["spec"]["containers"]:
            assert (
                set(each["resources"]["requests"])
                == set(each["resources"]["limits"])
                == {"cpu", "memory"}
            )
            assert {"livenessProbe", "readinessProbe"} <= set(each), each["name"]


def test_no_disruption_takes_more_than_one_pod() -> None:
    budgets = {
        m["metadata"]["name"]: m["spec"]
        for m in manifests(PRODUCTION)
        if m["kind"] == "PodDisruptionBudget"
    }
    assert set(budgets) == set(pods(PRODUCTION))
    for workload, budget in budgets.items():
        assert budget["maxUnavailable"] == 1
        assert (
            budget["selector"]["matchLabels"].items()
            <= pods(PRODUCTION)[workload]["metadata"]["labels"].items()
        )


@pytest.mark.parametrize("name", SETS)
def test_the_service_has_the_public_port_alone(name: str) -> None:
    spec = one(name, "Service", "smsd")["spec"]
    assert [(p["name"], p["targetPort"]) for p in spec["ports"]] == [("http", "http")]
    assert spec.get("type", "ClusterIP") == "ClusterIP"
    assert spec["selector"].items() <= pods(name)["smsd"]["metadata"]["labels"].items()


@pytest.mark.parametrize("name", SETS)
def test_the_service_does_not_fill_the_environment(name: str) -> None:
    assert all(pod["spec"]["enableServiceLinks"] is False for pod in pods(name).values())


def test_ingress_serves_only_the_webhook_at_the_public_host() -> None:
    ingress = one(PRODUCTION, "Ingress", "smsd")
    host = config_map(PRODUCTION, "smsd-settings")["SMSD_PUBLIC_URL"].removeprefix("https://")
    (rule,) = ingress["spec"]["rules"]
    (path,) = rule["http"]["paths"]
    assert (rule["host"], path["path"], path["pathType"]) == (host, "/sms", "Prefix")
    assert path["backend"] == {"service": {"name": "smsd", "port": {"name": "http"}}}
    assert ingress["spec"]["tls"] == [{"hosts": [host], "secretName": "smsd-tls"}]


@pytest.mark.parametrize("name", ["production", "local"])
def test_the_ingress_redirects_nothing_and_injects_no_snippet(name: str) -> None:
    annotations = one(name, "Ingress", "smsd")["metadata"]["annotations"]
    assert annotations == {
        "nginx.ingress.kubernetes.io/ssl-redirect": "false",
        "nginx.ingress.kubernetes.io/proxy-read-timeout": "30",
    }


def test_the_host_is_written_once(tmp_path: Path) -> None:
    shutil.copytree(K8S, tmp_path / "k8s")
    settings = tmp_path / "k8s" / "settings.env"
    settings.write_text(
        settings.read_text().replace("https://sms.example.com", "https://texts.example.org/prefix")
    )
    rendered = subprocess.run(
        ["kubectl", "kustomize", str(tmp_path / "k8s")], capture_output=True, text=True, check=True
    )
    (ingress,) = [m for m in yaml.safe_load_all(rendered.stdout) if m["kind"] == "Ingress"]
    assert (
        ingress["spec"]["rules"][0]["host"]
        == ingress["spec"]["tls"][0]["hosts"][0]
        == "texts.example.org"
    )


def test_an_update_of_memcached_waits_between_nodes() -> None:
    """Under Parallel only readiness makes an update wait; minReadySeconds is ignored."""
    spec = one(PRODUCTION, "StatefulSet", "memcached")["spec"]
    assert spec["podManagementPolicy"] == "Parallel"
    assert spec.get("updateStrategy", {}).get("type", "RollingUpdate") == "RollingUpdate"
    assert "minReadySeconds" not in spec
    probe = container(PRODUCTION, "memcached", "memcached")["readinessProbe"]
    assert probe["initialDelaySeconds"] >= 20
    service = one(PRODUCTION, "Service", "memcached")["spec"]
    assert service["publishNotReadyAddresses"] is True, "smsd must reach the node meanwhile"


def test_memcached_fits_its_memory_limit() -> None:
    args = dict(
        a.removeprefix("--").split("=")
        for a in container(PRODUCTION, "memcached", "memcached")["args"]
    )
    limit = mebibytes(
        container(PRODUCTION, "memcached", "memcached")["resources"]["limits"]["memory"]
    )
    hash_table, thread = (
        32,
        8,
    )  # MiB: the table may double while it grows; logs, LRU crawler and stack of each thread
    connections = int(args["conn-limit"]) * 32 / 1024  # 16 KiB read and 16 KiB write buffer each
    assert (
        int(args["memory-limit"]) + hash_table + thread * int(args["threads"]) + connections
        <= limit
    )


def test_memcached_takes_the_connections_of_all_replicas() -> None:
    args = dict(
        a.removeprefix("--").split("=")
        for a in container(PRODUCTION, "memcached", "memcached")["args"]
    )
    replicas = (
        one(PRODUCTION, "HorizontalPodAutoscaler", "smsd")["spec"]["maxReplicas"] + 1
    )  # one more in a rollout
    assert int(args["conn-limit"]) >= 4 * replicas


@pytest.mark.parametrize("name", SETS)
def test_people_keep_their_name_and_settings_get_a_hash(name: str) -> None:
    names = {m["metadata"]["name"] for m in manifests(name) if m["kind"] == "ConfigMap"}
    assert any(re.fullmatch(r"smsd-settings-[0-9a-z]{10}", n) for n in names), (
        "a new setting must roll the pods"
    )
    if name.startswith("production"):
        assert "smsd-people" in names, "people change without a restart"


def test_nothing_is_mounted_by_subpath() -> None:
    mounts = container(PRODUCTION, "smsd", "smsd")["volumeMounts"]
    assert all("subPath" not in mount and mount["readOnly"] for mount in mounts)
