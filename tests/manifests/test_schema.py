"""Every set renders, and the API servers of seven Kubernetes versions would accept the
result."""

import kubernetes_validate
import pytest
import yaml

from .cluster import CUSTOM_KINDS, K8S, SETS, manifests

VERSIONS = [f"1.{minor}" for minor in range(29, 36)]


def test_every_kustomization_is_in_a_set() -> None:
    parts = {base for base, _ in SETS.values()} | {
        f"components/{c}" for _, added in SETS.values() for c in added
    }
    folders = {str(file.parent.relative_to(K8S)) for file in K8S.rglob("kustomization.yaml")}
    assert folders == parts | {"base"}


@pytest.mark.parametrize("version", VERSIONS)
def test_every_manifest_fits_the_strict_schema_of(version: str) -> None:
    everything = {
        yaml.safe_dump(manifest): manifest for name in SETS for manifest in manifests(name)
    }
    known = [m for m in everything.values() if m["kind"] not in CUSTOM_KINDS]
    assert len(known) > 16
    for manifest in known:
        kubernetes_validate.validate(manifest, version, strict=True)


def test_the_schema_check_finds_a_wrong_field() -> None:
    manifest = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "x"},
        "spec": {"prots": []},
    }
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, VERSIONS[0], strict=True)


@pytest.mark.parametrize("name", ["production", "local"])
def test_without_components_no_crd_is_needed(name: str) -> None:
    assert {m["kind"] for m in manifests(name)} & CUSTOM_KINDS == set()


@pytest.mark.parametrize("name", SETS)
def test_everything_stands_in_the_namespace(name: str) -> None:
    for manifest in manifests(name):
        if manifest["kind"] != "Namespace":
            assert manifest["metadata"]["namespace"] == "smsd", manifest["metadata"]


def test_gateway_api_replaces_the_ingress_and_serves_the_same() -> None:
    (route,) = [m for m in manifests("production-gateway-api") if m["kind"] == "HTTPRoute"]
    assert not [m for m in manifests("production-gateway-api") if m["kind"] == "Ingress"]
    assert route["spec"]["hostnames"] == ["sms.example.com"]
    (rule,) = route["spec"]["rules"]
    assert rule["matches"] == [{"path": {"type": "PathPrefix", "value": "/sms"}}]
    assert rule["backendRefs"] == [{"name": "smsd", "port": 80}]
    assert "filters" not in rule, "a redirect would lose Twilio's requests"
