"""Every refusal leaves a line that says what to change, and nothing of the request."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any, get_args
from urllib.parse import urlencode

import pytest

from smsd.telemetry.metrics import Metrics
from smsd.web.refusals import ADVICE, RefusalKind, Refusals
from tests import raw_http as wire
from tests.processes import ACCOUNT, PUBLIC_URL, TOKEN, Smsd, wait_for

MARK = "private-words"
NUMBER = "+15005550006"
SIGNATURE = "c2lnbmF0dXJlLXNpZ25hdHVyZQ=="


@pytest.fixture(scope="module")
def smsd() -> Iterator[Smsd]:
    with Smsd({"TWILIO_ACCOUNT_SID": ACCOUNT}) as server:
        yield server


def private(**changes: str | None) -> dict[str, str]:
    """A message whose texts must not be logged."""
    return wire.message(**{"From": NUMBER, "Body": MARK, **changes})


def get(server: Smsd, query: str, *, signed: bool = True, path: str = "/sms") -> wire.Answer:
    headers = {"X-Twilio-Signature": SIGNATURE} if signed else {}
    return wire.request(server.address, "GET", f"{path}{query}", headers=headers)


def unsigned(server: Smsd) -> wire.Answer:
    headers = {"Content-Type": wire.FORM}
    return wire.request(server.address, "POST", "/sms", urlencode(private()).encode(), headers)


def json_webhook(server: Smsd) -> wire.Answer:
    """Signed as Twilio signs JSON: the URL with the hash of the body, and no fields."""
    target = "/sms?bodySHA256=" + "a" * 64
    signature = wire.signature({}, PUBLIC_URL + target)
    body = json.dumps(private()).encode()
    headers = {"Content-Type": "application/json", "X-Twilio-Signature": signature}
    return wire.request(server.address, "POST", target, body, headers)


def large(server: Smsd) -> wire.Answer:
    form = private(AddOns="x" * 70_000)
    headers = {"X-Twilio-Signature": SIGNATURE, "Content-Type": wire.FORM}
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as sock:
        length = len(urlencode(form))
        head = f"POST /sms HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n"
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        sock.sendall(f"{head}{lines}\r\n{urlencode(form)[:500]}".encode())
        status = sock.makefile("rb").readline().split()[1]
    return wire.Answer(int(status), (), b"")


def many_fields(server: Smsd) -> wire.Answer:
    return wire.post(server.address, private(**{f"F{n}": "" for n in range(1000)}))


def raw(request: bytes) -> Callable[[Smsd], wire.Answer]:
    def send(server: Smsd) -> wire.Answer:
        received = wire.talk(server.address, request)
        return wire.Answer(int(received.split()[1]), (), b"")

    return send


def post(path: str = "/sms", **changes: Any) -> Callable[[Smsd], wire.Answer]:
    return lambda server: wire.post(server.address, private(**changes), path)


VOICE: dict[str, Any] = {
    "MessageSid": None,
    "NumMedia": None,
    "CallSid": "CA" + "1" * 32,
    "CallStatus": "ringing",
}
CHAT: dict[str, Any] = {
    "MessageSid": "IM" + "1" * 32,
    "ConversationSid": "CH" + "1" * 32,
    "From": None,
}
BROKEN_CHUNK = (
    b"POST /sms HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
    b"X-Twilio-Signature: " + SIGNATURE.encode() + b"\r\n\r\nprivate-words\r\n"
)

KINDS: list[tuple[RefusalKind, int, str | None, Callable[[Smsd], wire.Answer]]] = [
    ("signature_missing", 403, "signature_missing", unsigned),
    ("account", 403, "account", post(AccountSid="AC" + "9" * 32)),
    ("get_webhook", 405, "method", lambda s: get(s, f"?MessageSid=SM1&From={NUMBER}&Body={MARK}")),
    ("redirected", 405, "method", lambda s: get(s, "")),
    ("redirected", 405, "method", lambda s: get(s, "", path="/sms/")),
    ("method", 405, "method", lambda s: get(s, "", signed=False)),
    ("method", 405, "method", lambda s: wire.request(s.address, "PUT", "/sms/status")),
    ("method", 405, "method", lambda s: wire.request(s.address, "POST", "/healthz")),
    ("voice", 400, "malformed", post(**VOICE)),
    ("voice", 400, "malformed", post("/sms/status", **VOICE)),
    ("conversations", 400, "malformed", post(**CHAT)),
    ("json", 400, "malformed", json_webhook),
    ("status_callback", 400, "malformed", post(MessageStatus="delivered")),
    ("inbound_message", 400, "malformed", post("/sms/status")),
    ("malformed", 400, "malformed", post(To=None)),
    ("malformed", 400, "malformed", post("/sms/status", MessageSid="x", MessageStatus="sent")),
    ("not_http", 400, "malformed", raw(b"private-words\r\n\r\n")),
    ("not_http", 400, "malformed", raw(BROKEN_CHUNK)),
    ("too_large", 400, "too_large", large),
    ("too_large", 413, "too_large", many_fields),
    ("not_found", 404, None, lambda s: wire.request(s.address, "GET", f"/{NUMBER}/{MARK}")),
    ("not_found", 404, None, lambda s: get(s, f"?Body={MARK}", path="/other")),
]


def lines(server: Smsd) -> list[dict[str, object]]:
    """The log's lines about refusals."""
    found = [json.loads(line) for line in server.log().splitlines()]
    return [line for line in found if line["event"] in ("request refused", "signature mismatch")]


def refused(server: Smsd) -> dict[str, float]:
    """smsd_rejected_total by reason."""
    text = server.admin("/metrics")[1]
    rows = [line for line in text.splitlines() if line.startswith("smsd_rejected_total{")]
    return {row.split('"')[1]: float(row.split()[-1]) for row in rows}


@pytest.mark.parametrize(
    ("kind", "status", "reason", "send"),
    KINDS,
    ids=[f"{kind}-{number}" for number, (kind, *_) in enumerate(KINDS)],
)
def test_refusal_leaves_one_line_and_a_metric(
    smsd: Smsd,
    kind: RefusalKind,
    status: int,
    reason: str | None,
    send: Callable[[Smsd], wire.Answer],
) -> None:
    time.sleep(1.05)  # another line of this kind may have been written a moment ago
    before, counted = lines(smsd), refused(smsd)
    assert send(smsd).status == status
    wait_for(lambda: len(lines(smsd)) > len(before), "the line is written")
    (line,) = lines(smsd)[len(before) :]
    assert (line["event"], line["kind"], line["advice"]) == ("request refused", kind, ADVICE[kind])
    is_from_twilio = kind != "not_found" or send is KINDS[-1][3]
    assert line["level"] == ("warning" if is_from_twilio else "info")
    changed = {name: n - counted[name] for name, n in refused(smsd).items() if n != counted[name]}
    assert changed == ({reason: 1.0} if reason else {})
    assert not any(secret in smsd.log() for secret in (NUMBER[1:], MARK, SIGNATURE, TOKEN))


def test_every_kind_is_provoked() -> None:
    assert {kind for kind, *_ in KINDS} == set(ADVICE) == set(get_args(RefusalKind))


def test_head_that_is_too_large_leaves_a_line(smsd: Smsd) -> None:
    before = len(lines(smsd))

    def is_logged() -> bool:
        wire.talk(smsd.address, b"GET / HTTP/1.1\r\nCookie: " + b"x" * 40_000)
        return any(line.get("kind") == "not_http" for line in lines(smsd)[before:])

    wait_for(is_logged, "the line is written")


def test_rush_of_refusals_leaves_few_lines(smsd: Smsd) -> None:
    before, counted = len(lines(smsd)), refused(smsd)["signature_missing"]
    started_s = time.monotonic()
    for _ in range(300):
        assert unsigned(smsd).status == 403
    most = time.monotonic() - started_s + 2
    assert refused(smsd)["signature_missing"] == counted + 300
    assert 1 <= len(lines(smsd)) - before <= most


def test_left_out_lines_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    now_s = 100.0
    refusals = Refusals(Metrics(), lambda: now_s)
    caplog.set_level("INFO")
    for next_s in (100.0, 100.5, 100.9, 101.0, 101.1, 50.0, 50.5, 51.0):
        now_s = next_s
        refusals.refuse("voice")
    refusals.refuse("account")
    told = [(r.fields["kind"], r.fields.get("left_out", 0)) for r in caplog.records]  # type: ignore[attr-defined]
    assert told == [("voice", 0), ("voice", 2), ("voice", 1), ("voice", 1), ("account", 0)]


def test_mismatch_leaves_one_line(smsd: Smsd) -> None:
    time.sleep(1.05)
    before = len(lines(smsd))
    assert wire.post(smsd.address, private(), token="wrong").status == 403
    wait_for(lambda: len(lines(smsd)) > before, "the line is written")
    (line,) = lines(smsd)[before:]
    assert (line["event"], line["cause"]) == ("signature mismatch", "unknown")


def test_advice_is_a_whole_sentence() -> None:
    for kind, advice in ADVICE.items():
        assert kind.islower()
        assert advice[0].isupper()
        assert advice.endswith(".")
        assert "{" not in advice
