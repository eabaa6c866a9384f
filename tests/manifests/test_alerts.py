"""Alerts are valid, fire and go away in unit tests, and ask for metrics that exist.

Each has a heading of its name in the operator's page, deploy/k8s/README.md.
"""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from .cluster import K8S, kustomize, one
from .queries import exposed, problems

UNIT_TESTS = sorted(Path(__file__).parent.glob("alerts_*test.yaml"))
RULE = one("production-monitoring", "PrometheusRule", "smsd")
SPEC: dict[str, Any] = RULE["spec"]
ALERTS: dict[str, dict[str, Any]] = {
    rule["alert"]: rule for group in SPEC["groups"] for rule in group["rules"]
}
EVERYTHING_THAT_FIRES = 'sum without (alertstate) (ALERTS{alertstate="firing"})'


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    """The rules as a file for Prometheus, with their unit tests beside it."""
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(SPEC))
    for file in UNIT_TESTS:
        shutil.copy(file, tmp_path)
    return tmp_path / "rules.yaml"


def promtool(*args: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["promtool", *map(str, args)], check=False, capture_output=True, text=True, timeout=300
    )


def test_prometheus_takes_the_rules(rules: Path) -> None:
    done = promtool("check", "rules", rules)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(ALERTS)} rules found" in done.stdout


def test_alerts_fire_on_bad_days_and_go_away_after(rules: Path) -> None:
    done = promtool("test", "rules", *(rules.with_name(file.name) for file in UNIT_TESTS))
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_unit_tests_fail_when_a_rule_is_wrong(rules: Path) -> None:
    rules.write_text(
        rules.read_text().replace(
            "smsd_event_loop_lag_seconds) > 0.2", "smsd_event_loop_lag_seconds) > 2"
        )
    )
    done = promtool("test", "rules", rules.with_name("alerts_test.yaml"))
    assert done.returncode != 0
    assert "SmsdEventLoopLag" in done.stdout + done.stderr


@pytest.mark.parametrize("alert", ALERTS)
def test_unit_tests_show_the_alert_firing_and_then_gone(alert: str) -> None:
    """Each query of the unit tests lists everything that fires at that time."""
    tests = [test for file in UNIT_TESTS for test in yaml.safe_load(file.read_text())["tests"]]
    assert any(_goes_away(alert, test.get("promql_expr_test", [])) for test in tests)


def _goes_away(alert: str, checks: list[dict[str, Any]]) -> bool:
    assert {check["expr"] for check in checks} == {EVERYTHING_THAT_FIRES}
    is_firing = [
        any(f'alertname="{alert}"' in sample["labels"] for sample in check["exp_samples"])
        for check in sorted(checks, key=lambda check: _seconds(check["eval_time"]))
    ]
    return True in is_firing and not is_firing[-1]


def _seconds(duration: str) -> int:
    """Of a Prometheus duration in minutes and seconds, such as 24m30s."""
    found = re.fullmatch(r"(\d+)m(?:(\d+)s)?", duration)
    assert found, duration
    return 60 * int(found[1]) + int(found[2] or 0)


@pytest.mark.parametrize("alert", ALERTS)
def test_single_event_raises_no_alert_later(alert: str) -> None:
    """Otherwise a fault that is over raises an alert minutes later."""
    rule = ALERTS[alert]
    windows_s = [_seconds(window) for window in re.findall(r"rate\([^]]*\[(\w+)\]", rule["expr"])]
    if "for" in rule:
        assert all(window_s < _seconds(rule["for"]) for window_s in windows_s)
    else:
        assert windows_s == [], "a rate without `for` fires on a single event"


@pytest.mark.parametrize("alert", ALERTS)
def test_the_query_names_what_smsd_exposes(alert: str) -> None:
    assert problems(ALERTS[alert]["expr"], exposed()) == []


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("rate(smsd_mesages_total[5m])", "no metric smsd_mesages_total"),
        ('smsd_messages_total{outcome="lost"}', "smsd_messages_total has no outcome=lost"),
        ('smsd_messages_total{result="ok"}', "smsd_messages_total has no label result"),
        ("sum by (outcom) (smsd_messages_total)", "no label outcom"),
    ],
)
def test_a_wrong_name_in_a_query_is_found(query: str, problem: str) -> None:
    assert problems(query, exposed()) == [problem]


@pytest.mark.parametrize("alert", ALERTS)
def test_the_alert_says_what_and_how_bad(alert: str) -> None:
    rule = ALERTS[alert]
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert {"summary", "description", "runbook_url"} <= set(rule["annotations"])


@pytest.mark.parametrize("alert", ALERTS)
def test_the_runbook_is_a_heading_of_the_operators_page(alert: str) -> None:
    page = (K8S / "README.md").read_text()
    text = re.sub(r"^```.*?^```", "", page, flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ +(.+?) *$", text, re.MULTILINE)
    anchors = [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]
    url, _, anchor = ALERTS[alert]["annotations"]["runbook_url"].partition("#")
    assert url == RULE["metadata"]["annotations"]["runbook/address"]
    assert anchor == alert.lower()
    assert anchors.count(anchor) == 1


def test_the_runbooks_address_is_set_once(tmp_path: Path) -> None:
    shutil.copytree(K8S, tmp_path / "k8s")
    file = tmp_path / "k8s/components/monitoring/prometheusrule.yaml"
    (address,) = re.findall(r"https://\S+", file.read_text())
    file.write_text(file.read_text().replace(address, "https://wiki.example.org/smsd"))
    overlay = tmp_path / "kustomization.yaml"
    overlay.write_text("resources: [k8s]\ncomponents: [k8s/components/monitoring]\n")
    rendered = kustomize(tmp_path)
    urls = re.findall(r"runbook_url: (.*)#", rendered)
    assert len(urls) == len(ALERTS)
    assert set(urls) == {"https://wiki.example.org/smsd"}
