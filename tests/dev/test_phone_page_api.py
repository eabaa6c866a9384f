"""The phone page's endpoints on a real development server: what they do, and whom they
refuse. And their absence."""

import http.client
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from smsd.dev.page_handlers import PAGE
from smsd.dev.phone_page import cookie_value
from tests.dev.processes import DevServer
from tests.processes import Smsd

JSON = {"Content-Type": "application/json"}
ORDER = {"from": "+15551000", "to": "+15552000", "body": "hi"}


@pytest.fixture(scope="module")
def server() -> Iterator[DevServer]:
    with DevServer() as server:
        yield server


def ask(
    server: DevServer | Smsd,
    method: str,
    path: str,
    body: Any = None,
    headers: dict[str, str] | None = None,
) -> tuple[int, Any, http.client.HTTPMessage]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    raw = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    connection.request(method, path, raw, {**(JSON if raw is not None else {}), **(headers or {})})
    response = connection.getresponse()
    content = response.read()
    connection.close()
    is_json = (response.getheader("Content-Type") or "").startswith("application/json")
    return response.status, json.loads(content) if is_json else content.decode(), response.headers


@pytest.mark.parametrize(
    "path", ["", "/", *(f"/{file.name}" for file in PAGE.iterdir() if file.name != "index.html")]
)
def test_the_page_is_served_with_a_strict_policy(server: DevServer, path: str) -> None:
    status, content, headers = ask(server, "GET", f"/phone{path}")
    assert status == 200
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert headers["Cache-Control"] == "no-store"
    for other in ("https://", "http://", "//cdn", "@import", "style="):
        assert other not in content.replace("http://www.w3.org/2000/svg", "")


@pytest.mark.parametrize("path", ["/phone/nothing.js", "/phone/dev_json", "/phone/page/dom.js"])
def test_other_files_are_not_there(server: DevServer, path: str) -> None:
    assert ask(server, "GET", path)[0] == 404


def test_a_text_is_delivered_and_taken_apart(server: DevServer) -> None:
    status, event, _ = ask(server, "POST", "/phone/api/messages", {**ORDER, "twice": True})
    assert status == 200
    first, second = event["deliveries"]
    assert first["replies"][0]["body"] == second["replies"][0]["body"]
    assert first["cookie_sent"] is None
    assert (
        second["cookie_sent"]["count"]
        == first["cookie_received"]["count"]
        == event["record"]["count"]
        == 1
    )
    assert first["attempts"][0]["url"] == f"{server.url}/sms"
    assert event["verdict"]["text"] == "Delivered twice: counted once, same reply."
    assert event["verdict"]["good"] is True
    state = ask(server, "GET", "/phone/api/state")[1]
    assert state["events"][-1] == event
    assert state["webhook"] == f"{server.url}/sms"
    assert state["dialogue"]["name"] == "smsd.dialogues.greeting:reply"
    assert state["dialogue"]["refused"] is None


def test_the_root_leads_to_the_phone(server: DevServer) -> None:
    status, _, headers = ask(server, "GET", "/")
    assert (status, headers["Location"]) == (302, "/phone")


def test_a_text_is_one_event_that_is_replaced(server: DevServer) -> None:
    first = ask(server, "POST", "/phone/api/messages", {**ORDER, "ticket": "t1"})[1]
    events = ask(server, "GET", "/phone/api/state")[1]["events"]
    assert [event for event in events if event["key"] == first["key"]] == [first]
    assert (first["pending"], first["ticket"]) == (False, "t1")
    assert first["id"] > first["key"], "it was published before it was answered"


def test_conversation_goes_on_after_its_thread_is_cleared(server: DevServer) -> None:
    pair = {"from": "+15553000", "to": "+15552000"}
    ask(server, "POST", "/phone/api/messages", {**ORDER, **pair})
    event = ask(server, "POST", "/phone/api/clear", pair)[1]
    assert (event["kind"], event["from"]) == ("clear", "+15553000")
    events = ask(server, "GET", "/phone/api/state")[1]["events"]
    assert not [e for e in events if e["kind"] == "exchange" and e["from"] == "+15553000"]
    assert ask(server, "POST", "/phone/api/messages", {**ORDER, **pair})[1]["record"]["count"] == 2


def test_the_clock_goes_forward_and_back_to_the_present(server: DevServer) -> None:
    pair = {**ORDER, "from": "+15554000"}
    assert ask(server, "POST", "/phone/api/messages", pair)[1]["record"]["count"] == 1
    ahead_s = ask(server, "POST", "/phone/api/clock", {"seconds": 4 * 3600})[1]["ahead_s"]
    assert ahead_s >= 4 * 3600
    assert ask(server, "POST", "/phone/api/messages", pair)[1]["record"]["count"] == 1
    back = ask(server, "POST", "/phone/api/clock", {"seconds": None})[1]
    assert (back["what"], back["ahead_s"], back["seconds"]) == ("present", 0, -ahead_s)
    assert ask(server, "POST", "/phone/api/messages", pair)[1]["record"]["count"] == 2


def test_clock_stays_within_three_weeks(server: DevServer) -> None:
    week = {"seconds": 7 * 86400}
    ask(server, "POST", "/phone/api/clock", {"seconds": None})
    codes = [ask(server, "POST", "/phone/api/clock", week)[0] for _ in range(4)]
    assert codes == [200, 200, 200, 400]
    assert ask(server, "POST", "/phone/api/messages", {**ORDER, "from": "+15556000"})[0] == 200
    assert ask(server, "POST", "/phone/api/clock", {"seconds": None})[0] == 200


def test_events_are_streamed_from_where_the_page_was(server: DevServer) -> None:
    sent = ask(server, "POST", "/phone/api/messages", ORDER)[1]
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("GET", "/phone/api/events", headers={"Last-Event-ID": str(sent["id"] - 1)})
    response = connection.getresponse()
    assert response.getheader("Content-Type") == "text/event-stream"
    lines: list[str] = []
    while not lines or not lines[-1].startswith('data: {"name"'):
        lines.append(response.readline().decode().strip())
    assert lines[0] == "event: hello"
    place = lines.index(f"id: {sent['id']}")
    assert json.loads(lines[place + 1].removeprefix("data: ")) == sent
    assert lines[-2] == "event: dialogue"
    connection.close()  # the stream ends with the page


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("messages", b"not JSON"),
        ("messages", []),
        ("messages", {"from": "+15551000", "to": "", "body": ""}),
        ("messages", {**ORDER, "from": "not a number"}),
        ("clear", {"from": "+15551000"}),
        ("clear", []),
        ("messages", {**ORDER, "from": "+1\n2"}),
        ("messages", {**ORDER, "cookie": "chocolate"}),
        ("messages", {**ORDER, "body": "x" * 1601}),
        ("clock", {"seconds": -1}),
        ("clock", {"seconds": "soon"}),
        ("clock", []),
        ("store", {"action": "drop"}),
        ("store", "down"),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_reason(
    server: DevServer, path: str, body: Any
) -> None:
    status, told, _ = ask(server, "POST", f"/phone/api/{path}", body)
    assert status == 400
    assert told["error"]


def test_a_wrong_number_names_its_field(server: DevServer) -> None:
    told = ask(server, "POST", "/phone/api/messages", {**ORDER, "from": "nobody"})[1]
    assert told["field"] == "from"
    assert told["error"].startswith("From: “nobody” is no phone number.")


def test_segments_of_whatever_is_asked(server: DevServer) -> None:
    assert ask(server, "POST", "/phone/api/segments", {"body": "hi"})[1] == {
        "encoding": "GSM-7",
        "units": 2,
        "count": 1,
    }
    assert ask(server, "POST", "/phone/api/segments", 7)[1]["units"] == 0


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", ""]
)
@pytest.mark.parametrize(
    "path", ["/phone", "/phone/dev.json", "/phone/api/state", "/phone/api/events"]
)
def test_other_host_names_are_refused(server: DevServer, host: str, path: str) -> None:
    status, told, _ = ask(server, "GET", path, headers={"Host": host, "X-Smsd-Phone": "1"})
    assert status in (400, 403)
    assert "token" not in str(told)


@pytest.mark.parametrize("host", ["localhost", "phone.localhost:80", "127.0.0.1", "[::1]:8080"])
def test_this_machine_may_ask_by_any_of_its_own_names(server: DevServer, host: str) -> None:
    assert ask(server, "GET", "/phone", headers={"Host": host})[0] == 200


def test_another_origin_a_form_and_a_proxy_change_nothing(server: DevServer) -> None:
    path = "/phone/api/clock"
    body = {"seconds": 60}
    assert ask(server, "POST", path, body, {"Origin": "https://evil.example"})[0] == 403
    assert ask(server, "POST", path, body, {"Origin": "null"})[0] == 403
    assert ask(server, "POST", path, body, {"Content-Type": "text/plain"})[0] == 415
    assert ask(server, "POST", path, body, {"X-Forwarded-For": "10.0.0.1"})[0] == 403
    assert ask(server, "GET", "/phone/api/state")[1]["ahead_s"] == 0
    assert ask(server, "POST", path, body, {"Origin": server.url})[0] == 200


def test_the_token_is_told_to_the_terminal_phone_alone(server: DevServer) -> None:
    path = "/phone/dev.json"
    assert ask(server, "GET", path)[0] == 403
    assert ask(server, "GET", path, headers={"X-Smsd-Phone": "1", "Origin": server.url})[0] == 403
    status, told, _ = ask(server, "GET", path, headers={"X-Smsd-Phone": "1"})
    assert status == 200
    assert set(told) == {"token", "account", "webhook", "people"}


def test_production_has_no_phone_and_imports_none_of_it() -> None:
    with Smsd() as smsd:
        for path in ("/phone", "/phone/phone.js", "/phone/dev.json", "/phone/api/state"):
            assert ask(smsd, "GET", path, headers={"X-Smsd-Phone": "1"})[0] == 404
    unwanted = "m.startswith(('smsd.dev', 'smsd.simulator'))"
    code = f"import sys, smsd.commands.serve; print([m for m in sys.modules if {unwanted}])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("header", "value"),
    [(None, None), ("smsd=a=b; Path=/", "a=b"), ("x=1; smsd=2", "2"), ("smsdx=1", None)],
)
def test_the_cookies_value_is_found(header: str | None, value: str | None) -> None:
    assert cookie_value(header) == value
