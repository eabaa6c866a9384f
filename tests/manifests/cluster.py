"""The manifests as a cluster would get them: rendered by kubectl, read as YAML. Talks
to no cluster."""

import functools
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import yaml

Manifest = dict[str, Any]

CHECKOUT = Path(__file__).parents[2]
K8S = CHECKOUT / "deploy" / "k8s"

SETS: dict[str, tuple[str, tuple[str, ...]]] = {
    "production": (".", ()),
    "production-monitoring": (".", ("monitoring",)),
    "production-gateway-api": (".", ("gateway-api",)),
    "production-everything": (".", ("monitoring", "gateway-api")),
    "production-gke": (".", ("gke", "monitoring")),
    "production-eks-alb": (".", ("eks-alb", "monitoring")),
    "production-dual-stack": (".", ("dual-stack", "monitoring")),
    "production-eks-alb-dual-stack": (".", ("eks-alb", "dual-stack")),
    "local": ("overlays/local", ()),
    "local-monitoring": ("overlays/local", ("monitoring",)),
}
"""Every supported combination: its name, the kustomization it builds on, the components
added."""

CUSTOM_KINDS = {"PodMonitor", "PrometheusRule", "HTTPRoute", "BackendConfig"}
"""Kinds that need a CRD. Only components may contain them."""


@functools.cache
def text(name: str) -> str:
    """A set of `SETS` as one stream of YAML."""
    base, components = SETS[name]
    if not components:
        return kustomize(K8S / base)
    with tempfile.TemporaryDirectory() as folder:
        here = os.path.relpath(K8S, os.path.realpath(folder))
        kustomization = {
            "resources": [f"{here}/{base}"],
            "components": [f"{here}/components/{component}" for component in components],
        }
        Path(folder, "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
        return kustomize(Path(folder))


def kustomize(folder: Path) -> str:
    """What `kubectl apply -k` would send."""
    done = subprocess.run(
        ["kubectl", "kustomize", folder], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@functools.cache
def manifests(name: str) -> list[Manifest]:
    """The documents of a set of `SETS`. Do not change them: they are cached."""
    return list(yaml.load_all(text(name), yaml.CSafeLoader))


def one(name: str, kind: str, called: str) -> Manifest:
    """The one manifest of that kind and name."""
    (found,) = [m for m in manifests(name) if m["kind"] == kind and m["metadata"]["name"] == called]
    return found


def config_map(name: str, prefix: str) -> dict[str, str]:
    """The data of a ConfigMap or Secret whose name may end in a hash; a Secret's values
    are in base64."""
    (found,) = [
        m["data"]
        for m in manifests(name)
        if m["kind"] in ("ConfigMap", "Secret") and m["metadata"]["name"].startswith(prefix)
    ]
    data: dict[str, str] = found
    return data


def pods(name: str) -> dict[str, Manifest]:
    """Pod templates by the name of their workload."""
    return {
        m["metadata"]["name"]: m["spec"]["template"]
        for m in manifests(name)
        if m["kind"] in ("Deployment", "StatefulSet", "DaemonSet", "Job")
    }


def container(name: str, workload: str, called: str) -> Manifest:
    (found,) = [c for c in pods(name)[workload]["spec"]["containers"] if c["name"] == called]
    return dict(found)


def mebibytes(quantity: str) -> int:
    assert quantity.endswith("Mi"), quantity
    return int(quantity.removesuffix("Mi"))
