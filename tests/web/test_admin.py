"""The admin listener: what Prometheus, the kubelet and people ask for."""

import json
import signal
from collections.abc import Iterator

import pytest
from prometheus_client import parser
from prometheus_client.core import Metric
from prometheus_client.openmetrics import parser as openmetrics_parser

from smsd.version import VERSION
from tests import raw_http as wire
from tests.processes import Memcached, Smsd, wait_for

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.3,*/*;q=0.1"
)
PAGES = ("/metrics", "/livez", "/readyz", "/status")


@pytest.fixture(scope="module")
def smsd() -> Iterator[Smsd]:
    with Smsd() as server:
        yield server


def ask(
    server: Smsd,
    path: str,
    method: str = "GET",
    headers: dict[str, str] | None = None,
    body: bytes = b"",
) -> wire.Answer:
    return wire.request(f"127.0.0.1:{server.admin_port}", method, path, body, headers)


def scraped(answer: wire.Answer) -> dict[str, Metric]:
    """The families of a scrape, read as Prometheus reads the format that the answer
    says it has."""
    text = answer.body.decode()
    kind = str(answer.header("Content-Type"))
    read = openmetrics_parser if "openmetrics" in kind else parser
    return {family.name: family for family in read.text_string_to_metric_families(text)}


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", "text/plain; version=0.0.4"),
        ("*/*", "text/plain; version=0.0.4"),
        ("text/plain; version=0.0.4", "text/plain; version=0.0.4"),
        (OPENMETRICS, "application/openmetrics-text; version=1.0.0"),
        (PROMETHEUS, "application/openmetrics-text; version=1.0.0"),
        ("application/openmetrics-text", "application/openmetrics-text; version=1.0.0"),
        ("application/openmetrics-text; version=new", "text/plain; version=0.0.4"),
        ("text/plain; version=1.x", "text/plain; version=0.0.4"),
        (",;=,;;==\xff", "text/plain; version=0.0.4"),
    ],
)
def test_metrics_come_in_the_requested_format(smsd: Smsd, accept: str, expected: str) -> None:
    answer = ask(smsd, "/metrics", headers={"Accept": accept})
    assert answer.status == 200
    assert str(answer.header("Content-Type")).startswith(expected)
    assert answer.header("ETag") is None
    families = scraped(answer)
    assert families["smsd_messages"].type == "counter"
    assert families["smsd_request_duration_seconds"].type == "histogram"


def test_metrics_contain_version_and_process(smsd: Smsd) -> None:
    families = scraped(ask(smsd, "/metrics"))
    (info,) = families["smsd_build_info"].samples
    assert (info.labels, info.value) == ({"version": VERSION}, 1)
    assert families["process_resident_memory_bytes"].samples[0].value > 1e6


def test_event_loop_lag_is_measured(smsd: Smsd) -> None:
    wait_for(lambda: smsd.metric("smsd_event_loop_lag_seconds") > 0, "a lag, however small")


def test_it_is_alive_and_ready(smsd: Smsd) -> None:
    assert smsd.admin("/livez") == (200, "alive\n")
    assert smsd.admin("/readyz") == (200, "ready\n")


def test_readiness_does_not_depend_on_memcached() -> None:
    with Memcached() as node, Smsd({"SMSD_STORE": f"memcached://{node.node}"}) as server:
        node.kill()
        wire.post(server.address, wire.message())
        wait_for(
            lambda: server.metric(f'smsd_store_up{{node="{node.node}"}}') == 0, "the node seen down"
        )
        assert server.admin("/readyz")[0] == server.admin("/livez")[0] == 200
        told = json.loads(server.admin("/status")[1])
        assert told["nodes"] == {node.node: "down"}
        assert told["pending"] == 1
        assert told["store"] == "memcached"


def test_draining_server_is_alive_but_not_ready() -> None:
    with Smsd({"SMSD_DRAIN_DELAY": "300"}) as server:
        server.signal(signal.SIGTERM)
        wait_for(lambda: server.admin("/readyz") == (503, "draining\n"), "readiness to fail")
        assert server.admin("/livez")[0] == 200
        assert json.loads(server.admin("/status")[1])["draining"] is True
        assert wire.post(server.address, wire.message()).header("Connection") == "close"
        server.signal(signal.SIGTERM)
        assert server.process
        assert server.process.wait(20) == 130, "a second signal ends it at once"
        assert "Uncaught" not in server.log()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_after_the_drain_it_ends_well(number: int) -> None:
    with Smsd({"SMSD_DRAIN_DELAY": "0.2"}) as server:
        server.signal(number)
        assert server.process
        assert server.process.wait(20) == 0
        assert '"event":"stopped"' in server.log()


def test_status_tells_what_runs_here(smsd: Smsd) -> None:
    answer = ask(smsd, "/status")
    assert answer.header("Content-Type") == "application/json"
    assert json.loads(answer.body) == {
        "version": VERSION,
        "store": "memory",
        "nodes": {},
        "pending": 0,
        "dialogue": "smsd.dialogues.greeting:reply",
        "draining": False,
    }


@pytest.mark.parametrize("path", PAGES)
def test_pages_are_read_only_and_never_cached(smsd: Smsd, path: str) -> None:
    head = ask(smsd, path, "HEAD")
    assert (head.status, head.body) == (200, b"")
    assert head.header("Cache-Control") == "no-store"
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND"):
        answer = ask(smsd, path, method)
        assert (answer.status, answer.header("Allow"), answer.body) == (405, "GET, HEAD", b"")


@pytest.mark.parametrize(
    "path", ["/", "/sms", "/sms/status", "/metrics/", "/debug/pprof/", "/phone"]
)
def test_admin_listener_has_no_other_pages(smsd: Smsd, path: str) -> None:
    form = wire.message()
    for method in ("GET", "POST"):
        headers = {"X-Twilio-Signature": wire.signature(form)}
        answer = ask(smsd, path, method, headers)
        assert (answer.status, answer.body) == (404, b"")


def test_odd_requests_do_no_harm_here_either(smsd: Smsd) -> None:
    for accept in ("application/openmetrics-text; version=" + "9" * 5000, "a" * 10_000, ";" * 5000):
        assert ask(smsd, "/metrics", headers={"Accept": accept}).status == 200
    assert "request failed" not in smsd.log()
