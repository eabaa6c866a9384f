"""The kustomizations that deploy/k8s/README.md shows: they render, and do what the page
says."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from .cluster import CHECKOUT, K8S, kustomize

PAGE = (K8S / "README.md").read_text(encoding="utf-8")
SHOWN = re.findall(
    r"^```yaml\n# mine/kustomization.yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL
)


def rendered(text: str, folder: Path) -> list[dict[str, Any]]:
    """What the kustomization gives in a folder beside a checkout named smsd."""
    (folder / "smsd").symlink_to(CHECKOUT)
    mine = folder / "mine"
    mine.mkdir()
    (mine / "kustomization.yaml").write_text(text.replace("../smsd", str(_relative(mine))))
    return list(yaml.safe_load_all(kustomize(mine)))


def _relative(folder: Path) -> Path:
    """The way to the checkout: kustomize resolves links first."""
    return Path(*[".."] * (len(folder.resolve().parts) - 1)) / CHECKOUT.relative_to("/")


@pytest.mark.parametrize("place", range(len(SHOWN)))
def test_shown_kustomization_renders(place: int, tmp_path: Path) -> None:
    kinds = {manifest["kind"] for manifest in rendered(SHOWN[place], tmp_path)}
    assert {"Deployment", "Service", "Ingress"} <= kinds


def test_managed_memcached_removes_the_stateful_set_and_opens_the_way(tmp_path: Path) -> None:
    (text,) = [shown for shown in SHOWN if "$patch: delete" in shown]
    manifests = rendered(text, tmp_path)
    assert not [m for m in manifests if m["metadata"]["name"] == "memcached"]
    (policy,) = [
        m["spec"]
        for m in manifests
        if m["kind"] == "NetworkPolicy" and m["metadata"]["name"] == "smsd"
    ]
    assert policy["egress"][-1] == {
        "to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}],
        "ports": [{"port": 11211, "protocol": "TCP"}],
    }


def test_the_page_shows_a_kustomization() -> None:
    assert len(SHOWN) >= 2
