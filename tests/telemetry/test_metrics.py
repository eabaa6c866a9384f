"""Every metric that the documentation names, with its labels and the values it starts
with. Read from a scrape."""

import re

import pytest
from prometheus_client import parser
from prometheus_client.samples import Sample

from smsd.store import KINDS
from smsd.telemetry.metrics import Metrics
from smsd.twilio.diagnosis import CAUSES
from smsd.version import VERSION
from tests import raw_http as wire
from tests.processes import Memcached, Smsd

NODE = "memcached-0.memcached:11211"

DOCUMENTED = """
smsd_messages_total{outcome=counted|duplicate|degraded|opted_out|looped|failed}
smsd_rejected_total{reason=signature_missing|signature_mismatch|account|malformed|too_large|method}
smsd_signature_mismatch_total{cause=*}
smsd_signatures_total{key=primary|secondary|account|shared}
smsd_cookies_total{state=absent|valid|expired|foreign|forged}
smsd_conversations_started_total
smsd_conversations_restored_total{source=cookie|overlay}
smsd_request_duration_seconds{handler,code}
smsd_store_duration_seconds{operation}
smsd_store_up{node}
smsd_store_errors_total{node,kind}
smsd_fallbacks_total{error_code}
smsd_reloads_total{result=ok|refused}
smsd_store_conflicts_total
smsd_store_pending
smsd_dialogue_duration_seconds
smsd_deliveries_total{status,error_code}
smsd_event_loop_lag_seconds
smsd_build_info{version}
smsd_redirects_total
smsd_turns_waiting
smsd_takeovers_total
"""
"""As the specification of the metrics has it: `a|b` are all values of a label, `*`
those of the doctor."""

KNOWN = {
    "smsd_signature_mismatch_total": {"cause": set(CAUSES)},
    "smsd_request_duration_seconds": {"handler": {"sms", "status", "other"}},
    "smsd_store_duration_seconds": {"operation": {"read", "write"}},
    "smsd_store_up": {"node": {NODE}},
    "smsd_store_errors_total": {"node": {NODE}, "kind": set(KINDS)},
    "smsd_build_info": {"version": {VERSION}},
}
"""Values known beforehand that the table does not write out."""

ALWAYS_ONE = {"smsd_build_info", "smsd_store_up", "smsd_last_reload_successful"}
NOT_DOCUMENTED = {
    "smsd_store_dropped_total",
    "smsd_reply_segments_total",
    "smsd_dialogues_abandoned",
    "smsd_last_reload_successful",
}


def rows() -> list[tuple[str, dict[str, set[str]]]]:
    """Name, and label to its documented values (empty where the table gives none)."""
    found = []
    for line in DOCUMENTED.split():
        name, _, labels = line.rstrip("}").partition("{")
        given = [part.partition("=") for part in labels.split(",") if part]
        values = {
            label: set(text.split("|")) if text and text != "*" else set()
            for label, _, text in given
        }
        found.append((name, values))
    return found


def samples(metrics: Metrics) -> list[Sample]:
    text = metrics.expose("")[0].decode()
    return [
        sample
        for family in parser.text_string_to_metric_families(text)
        for sample in family.samples
    ]


def series(metrics: Metrics, name: str) -> list[Sample]:
    """Those of one metric; of a histogram its counts."""
    return [sample for sample in samples(metrics) if sample.name in (name, f"{name}_count")]


@pytest.mark.parametrize(("name", "labels"), rows(), ids=[name for name, _ in rows()])
def test_each_metric_starts_with_its_labels_at_zero(name: str, labels: dict[str, set[str]]) -> None:
    found = series(Metrics(nodes=[NODE]), name)
    assert found, "missing"
    assert all(set(sample.labels) == set(labels) for sample in found)
    for label, values in labels.items():
        expected = values or KNOWN.get(name, {}).get(label)
        if expected:
            assert {sample.labels[label] for sample in found} == expected
    assert {sample.value for sample in found} == {1.0 if name in ALWAYS_ONE else 0.0}


def test_each_metric_is_documented() -> None:
    documented = {name for name, _ in rows()} | NOT_DOCUMENTED
    ending = re.compile(r"_(bucket|count|sum)$")
    found = {
        sample.name for sample in samples(Metrics(nodes=[NODE])) if sample.name.startswith("smsd_")
    }
    histograms = {ending.sub("", name) for name in found if ending.search(name)}
    assert {
        name for name in found if ending.sub("", name) not in histograms
    } | histograms == documented


def test_metric_names_follow_the_convention() -> None:
    text = Metrics(nodes=[NODE]).expose("")[0].decode()
    for family in parser.text_string_to_metric_families(text):
        if family.name.startswith("smsd_"):
            assert family.documentation.endswith("."), family.name
            assert family.type in ("counter", "gauge", "histogram")
            assert "milli" not in family.name


def test_turns_are_counted_and_measured() -> None:
    metrics = Metrics()
    metrics.redirected()
    metrics.taken_over()
    metrics.taken_over()
    metrics.turns_waiting(3)
    metrics.dialogues_abandoned(4)
    metrics.dialogue_duration.observe(299)
    found = {sample.name: sample.value for sample in samples(metrics) if not sample.labels}
    assert found["smsd_redirects_total"] == 1
    assert found["smsd_takeovers_total"] == 2
    assert found["smsd_turns_waiting"] == 3
    assert found["smsd_dialogues_abandoned"] == 4
    buckets = {
        sample.labels["le"]: sample.value
        for sample in samples(metrics)
        if sample.name == "smsd_dialogue_duration_seconds_bucket"
    }
    assert (buckets["120.0"], buckets["300.0"]) == (0, 1)


def test_two_registries_do_not_share_anything() -> None:
    one, other = Metrics(), Metrics()
    one.signed("primary")
    (sample,) = [
        each for each in series(other, "smsd_signatures_total") if each.labels["key"] == "primary"
    ]
    assert sample.value == 0


def test_no_label_holds_a_number_or_an_id() -> None:
    form = wire.message(
        Body="my body", ProfileName="My Name", ErrorCode="11200", ErrorUrl="https://x/y"
    )
    with Memcached() as node, Smsd({"SMSD_STORE": f"memcached://{node.node}"}) as server:
        wire.post(server.address, form)
        wire.post(server.address, form, headers={"Cookie": "smsd=my-cookie"})
        wire.post(server.address, form, token="other")
        wire.post(server.address, wire.message(From=f"whatsapp:{wire.REY}"))
        wire.post(server.address, wire.status("delivered", ErrorCode=form["From"]), "/sms/status")
        wire.post(server.address, wire.status(form["From"]), "/sms/status")
        wire.request(server.address, "PROPFIND", f"/{form['From']}")
        wire.request(server.address, "GET", f"/{form['MessageSid']}")
        node.kill()
        wire.post(server.address, wire.message())
        text = server.admin("/metrics")[1]
    known = {node.node, VERSION}
    buckets = {"le"}
    for family in parser.text_string_to_metric_families(text):
        for sample in family.samples:
            free = {value for label, value in sample.labels.items() if label not in buckets} - known
            assert not any(re.search(r"\d{6}|[A-Z]{2}[0-9a-f]{8}", value) for value in free), sample
            assert all(len(value) <= 30 for value in free), sample
    for private in (
        form["From"],
        wire.TO,
        wire.REY,
        "my body",
        "My Name",
        "my-cookie",
        form["MessageSid"],
    ):
        assert private not in text


def test_each_accepted_message_has_one_outcome() -> None:
    with Smsd({"SMSD_LOOP_LIMIT": "2"}) as server:
        sender = wire.new_number()
        forms = [wire.message(From=sender, Body=body) for body in ("a", "b", "c", "STOP")]
        for form in [*forms, forms[0]]:
            assert wire.post(server.address, form).status == 200
        wire.post(server.address, wire.message(From=None))
        outcomes = {
            name: server.metric(f'smsd_messages_total{{outcome="{name}"}}')
            for name in ("counted", "duplicate", "degraded", "opted_out", "looped", "failed")
        }
    assert outcomes == {
        "counted": 2, "duplicate": 1, "degraded": 0, "opted_out": 1, "looped": 1, "failed": 0
    }  # fmt: skip


def test_node_down_and_up_leaves_two_warnings(
    caplog: pytest.LogCaptureFixture,
) -> None:
    metrics = Metrics(nodes=[NODE])
    metrics.store_node_down(NODE, "refused")
    assert value_of(metrics, "smsd_store_up") == 0
    metrics.store_node_up(NODE, "refused", 12.3456)
    assert value_of(metrics, "smsd_store_up") == 1
    assert [(line.levelname, line.getMessage(), line.fields) for line in caplog.records] == [  # type: ignore[attr-defined]
        ("WARNING", "memcached node down", {"node": NODE, "kind": "refused"}),
        ("WARNING", "memcached node up", {"node": NODE, "kind": "refused", "down_s": 12.346}),
    ]


def value_of(metrics: Metrics, name: str) -> float | None:
    return metrics.registry.get_sample_value(name, {"node": NODE})
