"""Every alert is valid, unit-tested both ways, asks for metrics that exist, has its section in deploy/k8s/README.md."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from .cluster import CHECKOUT, one
from .queries import exposed, problems

HERE = Path(__file__).parent
SPEC: dict[str, Any] = one("production-monitoring", "PrometheusRule", "smsd")["spec"]
ALERTS: dict[str, dict[str, Any]] = {
    rule["alert"]: rule for group in SPEC["groups"] for rule in group["rules"]
}


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    """The rules as a file for Prometheus, with their unit tests beside it."""
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(SPEC))
    shutil.copy(HERE / "alerts_test.yaml", tmp_path)
    return tmp_path / "rules.yaml"


def promtool(*args: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["promtool", *map(str, args)], check=False, capture_output=True, text=True, timeout=60
    )


def test_prometheus_takes_the_rules(rules: Path) -> None:
    done = promtool("check", "rules", rules)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(ALERTS)} rules found" in done.stdout


def test_alerts_fire_on_their_bad_days_and_are_silent_on_good_ones(rules: Path) -> None:
    done = promtool("test", "rules", rules.with_name("alerts_test.yaml"))
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
def test_unit_tests_know_the_alert_silent_and_firing(alert: str) -> None:
    tests = yaml.safe_load((HERE / "alerts_test.yaml").read_text())["tests"]
    silent = [
        t for test in tests for t in test.get("alert_rule_test", []) if t["alertname"] == alert
    ]
    firing = [
        s for test in tests for t in test.get("promql_expr_test", []) for s in t["exp_samples"]
    ]
    named = [s for s in firing if f'alertname="{alert}"' in s["labels"]]
    assert any(t["exp_alerts"] == [] for t in silent)
    assert named or any(t["exp_alerts"] for t in silent)


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
def test_the_runbook_is_a_section_of_the_operators_page(alert: str) -> None:
    readme = (CHECKOUT / "deploy/k8s/README.md").read_text()
    headings = re.findall(
        r"^#+ +(.+?) *$",
        re.sub(r"^```.*?^```", "", readme, flags=re.MULTILINE | re.DOTALL),
        re.MULTILINE,
    )
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    file, _, anchor = ALERTS[alert]["annotations"]["runbook_url"].partition("#")
    assert file == "deploy/k8s/README.md"
    assert anchor == alert.lower()
    assert anchor in anchors
