"""What stands in front of smsd in different clusters: health checks, time-outs, address
families.

Nothing here talks to a cloud. The tests hold the rendered annotations and resources
against what smsd serves and how long it may hold a request.
"""

import json

import pytest

from smsd.settings.table import SETTINGS
from smsd.web.connections import IDLE_S

from .cluster import CHECKOUT, Manifest, config_map, container, manifests, one

LONGEST_WAIT_S = 14
"""SMSD_ANSWER_WITHIN is at most that long."""

ALB = "alb.ingress.kubernetes.io"


def annotations(name: str, kind: str) -> dict[str, str]:
    return dict(one(name, kind, "smsd")["metadata"]["annotations"])


def backend_config() -> Manifest:
    return dict(one("production-gke", "BackendConfig", "smsd")["spec"])


def attributes(name: str) -> dict[str, str]:
    """An annotation of the form key=value,key=value."""
    text = annotations("production-eks-alb", "Ingress")[f"{ALB}/{name}"]
    return dict(part.split("=") for part in text.split(","))


def read_timeouts_s() -> dict[str, float]:
    """How long each proxy waits for smsd's answer."""
    (route,) = one("production-gateway-api", "HTTPRoute", "smsd")["spec"]["rules"]
    nginx = annotations("production", "Ingress")["nginx.ingress.kubernetes.io/proxy-read-timeout"]
    return {
        "ingress-nginx": float(nginx),
        "gateway-api": float(route["timeouts"]["request"].removesuffix("s")),
        "gke": backend_config()["timeoutSec"],
        "eks-alb": float(attributes("load-balancer-attributes")["idle_timeout.timeout_seconds"]),
    }


@pytest.mark.parametrize("proxy", ["ingress-nginx", "gateway-api", "gke", "eks-alb"])
def test_proxies_wait_longer_than_smsd_holds_a_request(proxy: str) -> None:
    assert read_timeouts_s()[proxy] > LONGEST_WAIT_S


def test_the_longest_wait_is_that_of_the_settings() -> None:
    (setting,) = [s for s in SETTINGS if s.name == "SMSD_ANSWER_WITHIN"]
    assert setting.cast(str(LONGEST_WAIT_S)) == LONGEST_WAIT_S
    with pytest.raises(Exception, match="14"):
        setting.cast(str(LONGEST_WAIT_S + 0.1))


def test_gke_probes_healthz_on_the_public_port() -> None:
    check = backend_config()["healthCheck"]
    ports = {
        p["name"]: p["containerPort"] for p in container("production-gke", "smsd", "smsd")["ports"]
    }
    assert (check["type"], check["requestPath"], check["port"]) == (
        "HTTP",
        "/healthz",
        ports["http"],
    )
    service = annotations("production-gke", "Service")
    assert json.loads(service["cloud.google.com/backend-config"]) == {"ports": {"http": "smsd"}}
    assert json.loads(service["cloud.google.com/neg"]) == {"ingress": True}


def test_the_alb_probes_healthz_on_the_public_port() -> None:
    found = annotations("production-eks-alb", "Ingress")
    assert found[f"{ALB}/healthcheck-path"] == "/healthz"
    assert found[f"{ALB}/healthcheck-port"] == "traffic-port"
    assert found[f"{ALB}/target-type"] == "ip", "the Service has no node port"
    assert one("production-eks-alb", "Ingress", "smsd")["spec"]["ingressClassName"] == "alb"


@pytest.mark.parametrize("name", ["production-gke", "production-eks-alb"])
def test_load_balancers_redirect_nothing(name: str) -> None:
    """Twilio does not follow a redirect of its POST."""
    found = annotations(name, "Ingress")
    redirects = {key for key in found if "redirect" in key} - {
        "nginx.ingress.kubernetes.io/ssl-redirect"
    }
    assert redirects == set()


def test_load_balancers_close_idle_connections_before_smsd_does() -> None:
    """Otherwise a request may meet a connection that smsd is closing."""
    alb_s = float(attributes("load-balancer-attributes")["idle_timeout.timeout_seconds"])
    gke_s = 600.0  # fixed by Google
    assert max(alb_s, gke_s) < IDLE_S


def test_the_page_names_the_idle_time_out() -> None:
    page = (CHECKOUT / "deploy/k8s/README.md").read_text()
    assert f"below {IDLE_S:.0f} s | smsd closes an idle connection after {IDLE_S:.0f} s" in page


@pytest.mark.parametrize("name", ["production-gke", "production-eks-alb"])
def test_smsd_serves_until_the_load_balancer_has_noticed(name: str) -> None:
    if name == "production-gke":
        check = backend_config()["healthCheck"]
        notices_s = check["unhealthyThreshold"] * (check["checkIntervalSec"] + check["timeoutSec"])
    else:
        found = annotations(name, "Ingress")
        notices_s = int(found[f"{ALB}/unhealthy-threshold-count"]) * (
            int(found[f"{ALB}/healthcheck-interval-seconds"])
            + int(found[f"{ALB}/healthcheck-timeout-seconds"])
        )
    assert int(config_map(name, "smsd-settings")["SMSD_DRAIN_DELAY"]) > notices_s


@pytest.mark.parametrize("name", ["production-dual-stack", "production-eks-alb-dual-stack"])
def test_dual_stack_gives_every_service_both_families(name: str) -> None:
    services = [m for m in manifests(name) if m["kind"] == "Service"]
    assert {s["metadata"]["name"] for s in services} == {"smsd", "memcached"}
    assert {s["spec"]["ipFamilyPolicy"] for s in services} == {"PreferDualStack"}


def test_the_operators_page_names_every_component() -> None:
    page = (CHECKOUT / "deploy/k8s/README.md").read_text()
    folders = [f.name for f in (CHECKOUT / "deploy/k8s/components").iterdir()]
    assert [folder for folder in folders if f"components/{folder}" not in page] == []
