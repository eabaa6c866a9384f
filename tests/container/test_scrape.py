"""A real Prometheus scrapes smsd and loads the alert rules."""

import json
import shutil
import subprocess
import urllib.parse
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from smsd.simulator import BlockingClient

from .podman import CHECKOUT, PUBLIC_URL, TOKEN, Container, get, process, wait_until

RULES = CHECKOUT / "deploy/k8s/components/monitoring/prometheusrule.yaml"
API = "http://127.0.0.1:9099/api/v1"


@pytest.fixture(scope="module")
def prometheus(smsd: Container, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("prometheus")
    (folder / "rules.yaml").write_text(yaml.safe_dump(yaml.safe_load(RULES.read_text())["spec"]))
    scrape = {
        "job_name": "smsd",
        "static_configs": [{"targets": [smsd.admin.removeprefix("http://")]}],
    }
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yaml"],
        "scrape_configs": [scrape],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    options = ("--config.file", folder / "prometheus.yml", "--storage.tsdb.path", folder / "data")
    listen = ("--web.listen-address", "127.0.0.1:9099")
    with process(shutil.which("prometheus"), *options, *listen, log=folder / "log"):
        wait_until(_answers, "Prometheus is ready")
        yield


def _answers() -> bool:
    try:
        return bool(get("http://127.0.0.1:9099/-/ready"))
    except OSError:
        return False


def ask(path: str, **query: str) -> Any:
    return json.loads(get(f"{API}/{path}?{urllib.parse.urlencode(query)}"))["data"]


def value(query: str) -> float | None:
    result = ask("query", query=query)["result"]
    return float(result[0]["value"][1]) if result else None


@pytest.mark.usefixtures("prometheus")
def test_the_target_is_up_and_its_messages_are_counted(smsd: Container) -> None:
    wait_until(lambda: value("up") == 1, "the target is up")
    client = BlockingClient(f"{PUBLIC_URL}/sms", token=TOKEN, connect_to=smsd.address)
    for _ in range(3):
        assert client.text("hi").status == 200
    wait_until(
        lambda: value('smsd_messages_total{outcome="counted"}') == 3, "three messages are counted"
    )
    assert value('smsd_request_duration_seconds_count{handler="sms", code="200"}') == 3
    assert value("count(smsd_build_info)") == 1


@pytest.mark.usefixtures("prometheus")
def test_every_rule_is_loaded_and_evaluates_without_error() -> None:
    expected = {
        r["alert"] for g in yaml.safe_load(RULES.read_text())["spec"]["groups"] for r in g["rules"]
    }

    def health() -> dict[str, str]:
        return {
            rule["name"]: rule["health"]
            for group in ask("rules")["groups"]
            for rule in group["rules"]
        }

    wait_until(lambda: "unknown" not in health().values(), "every rule was evaluated")
    assert health() == dict.fromkeys(expected, "ok")


@pytest.mark.usefixtures("prometheus")
def test_a_healthy_process_raises_no_alert() -> None:
    wait_until(lambda: value("up") == 1, "the target is up")
    assert ask("alerts")["alerts"] == []


@pytest.mark.usefixtures("prometheus")
def test_what_it_scrapes_passes_promtools_check(smsd: Container) -> None:
    page = get(f"{smsd.admin}/metrics")
    assert promtool_check(page) == ""


def promtool_check(page: str) -> str:
    done = subprocess.run(
        ["promtool", "check", "metrics"],
        input=page,
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )
    return done.stdout + done.stderr
