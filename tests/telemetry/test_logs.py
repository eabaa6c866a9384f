"""One line an event, always readable, and nothing private in it, whoever logs."""

import errno
import json
import logging
import os
import re
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smsd.errors import ReplyError, SettingsError
from smsd.telemetry import lines, logs, redaction

own = logging.getLogger("smsd.test")
foreign = logging.getLogger("somelibrary")
NUMBER = "+14158675309"
MARK = "zQ7jXw"


class Output:
    """A pipe that logging writes to."""

    def __init__(self) -> None:
        self._read, self.fd = os.pipe()

    def raw(self) -> bytes:
        os.set_blocking(self._read, False)
        pieces = []
        try:
            while piece := os.read(self._read, 65536):
                pieces.append(piece)
        except BlockingIOError:
            pass
        return b"".join(pieces)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.raw().splitlines()]

    def close(self) -> None:
        for fd in (self._read, self.fd):
            os.close(fd)


@pytest.fixture
def output(monkeypatch: pytest.MonkeyPatch) -> Iterator[Output]:
    root, smsd_logger = logging.getLogger(), logging.getLogger("smsd")
    for owner, name in (
        (warnings, "showwarning"),
        (sys, "excepthook"),
        (sys, "unraisablehook"),
        (threading, "excepthook"),
        (logging, "raiseExceptions"),
        (logging, "logThreads"),
        (logging, "logProcesses"),
        (logging, "logMultiprocessing"),
    ):
        monkeypatch.setattr(owner, name, getattr(owner, name))
    monkeypatch.setattr(root, "handlers", [])
    levels = root.level, smsd_logger.level
    out = Output()
    logs.setup("json", "info", fd=out.fd)
    yield out
    root.setLevel(levels[0])
    smsd_logger.setLevel(levels[1])
    out.close()


def caught(fail: Callable[[], object]) -> Exception:
    try:
        fail()
    except Exception as error:  # noqa: BLE001
        return error
    raise AssertionError


def raising(error: BaseException, cause: BaseException | None = None) -> Callable[[], object]:
    def fail() -> None:
        raise error from cause

    return fail


# ---- the line


def test_event_is_one_json_object(output: Output) -> None:
    logs.event(
        own,
        logging.INFO,
        "message",
        conversation="c0ffee",
        sid="SM1",
        outcome="counted",
        count=3,
        ms=1.5,
    )
    [line] = output.lines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    assert list(line.items()) == [
        ("level", "info"),
        ("event", "message"),
        ("conversation", "c0ffee"),
        ("sid", "SM1"),
        ("outcome", "counted"),
        ("count", 3),
        ("ms", 1.5),
    ]


def test_the_time_is_utc_with_milliseconds(output: Output) -> None:
    record = logging.LogRecord("smsd", logging.INFO, "", 0, "", None, None)
    record.created = 1_000_000_000.0625
    assert json.loads(lines.json_line(record, {"event": "x"}))["time"] == "2001-09-09T01:46:40.062Z"


def test_text_has_the_same_in_words(output: Output) -> None:
    logs.setup("text", "info", fd=output.fd)
    logs.event(
        own, logging.WARNING, "log in", sid="SM1", count=3, ok=True, said="two words", at=["a", "b"]
    )
    line = output.raw().decode()
    assert (
        line.partition(" ")[2]
        == 'warning  log in sid=SM1 count=3 ok=true said="two words" at=["a","b"]\n'
    )


def test_pretty_is_aligned_and_leaves_out_what_is_empty(output: Output) -> None:
    logs.setup("pretty", "debug", fd=output.fd)
    fields = {"conversation": "0123456789abcdef", "sid": "SM1", "error_code": "", "none": None}
    logs.event(own, logging.INFO, "message", **fields, count=0)  # type: ignore[arg-type]
    logs.event(own, logging.WARNING, "node down", said="two words", line="a\nb")
    lines_ = output.raw().decode().splitlines()
    assert [re.sub(r"^\d\d:\d\d:\d\d", "TIME", line) for line in lines_] == [
        "TIME  info      message           conversation=01234567 sid=SM1 count=0",
        'TIME  warning   node down         said=two words line="a\\nb"',
    ]


def test_pretty_shows_problems_and_errors_below(output: Output) -> None:
    logs.setup("pretty", "info", fd=output.fd)
    logs.event(own, logging.ERROR, "reload refused", problems=["SMSD_PORT: a", "SMSD_HOST: b"])
    logs.event(own, logging.ERROR, "dialogue failed", error=caught(raising(KeyError("hidden"))))
    written = output.raw().decode()
    assert f"reload refused\n{'':20}SMSD_PORT: a\n{'':20}SMSD_HOST: b\n" in written
    assert f"dialogue failed\n{'':20}KeyError\n{'':20}telemetry/test_logs.py:" in written
    assert "hidden" not in written


def test_pretty_has_colors_on_a_terminal_only(
    output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    def escapes() -> int:
        logs.setup("pretty", "info", fd=output.fd)
        logs.event(own, logging.WARNING, "node down", count=1)
        return output.raw().count(b"\x1b[")

    monkeypatch.delenv("NO_COLOR", raising=False)
    assert escapes() == 0
    monkeypatch.setattr(os, "isatty", lambda _fd: True)
    assert escapes() == 8
    monkeypatch.setenv("NO_COLOR", "1")
    assert escapes() == 0


def test_fields_of_a_library_are_hidden(output: Output) -> None:
    logging.getLogger("lib").error("said", extra={"fields": {"body": "hidden"}})
    assert "hidden" not in output.raw().decode()


@pytest.mark.parametrize(
    ("level", "seen"),
    [
        ("debug", ["smsd.debug", "smsd.info", "smsd.error", "lib.warning", "lib.error"]),
        ("info", ["smsd.info", "smsd.error", "lib.warning", "lib.error"]),
        ("error", ["smsd.error", "lib.error"]),
    ],
)
def test_libraries_log_warnings_at_least(output: Output, level: str, seen: list[str]) -> None:
    logs.setup("json", level, fd=output.fd)
    for name in ("debug", "info", "error"):
        logs.event(own, logging.getLevelNamesMapping()[name.upper()], f"smsd.{name}")
    foreign.info("lib.info")
    foreign.warning("lib.warning")
    foreign.error("lib.error")
    assert [line["event"] for line in output.lines()] == seen


def test_second_setup_replaces_the_first(output: Output) -> None:
    logs.setup("json", "info", fd=output.fd)
    logs.event(own, logging.INFO, "once")
    assert len(output.lines()) == 1


hostile = st.text(max_size=60) | st.sampled_from(
    [
        "\n",
        '"\n{"event": "forged"}\n',
        "\x1b[2J",
        "\x9b2J",
        "\u2028",
        "\x7f",
        "\ud800",
        "\u202e",
        "\r\n",
    ]
)


@settings(
    deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(value=hostile, log_format=st.sampled_from(["json", "text"]))
def test_no_text_breaks_the_line(output: Output, value: str, log_format: str) -> None:
    logging.getLogger().handlers = []  # what pytest catches must be UTF-8 for pytest-xdist
    logs.setup(log_format, "info", fd=output.fd)
    logs.event(own, logging.INFO, "said", value=value, values=[value])
    foreign.warning(value)
    foreign.warning("%s", value)
    raw = output.raw()
    assert re.fullmatch(rb"([ -~]+\n){3}", raw)
    if log_format == "json":
        first = json.loads(raw.split(b"\n")[0])
        assert (first["value"], first["values"]) == (value, [value])


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (object(), "object"),
        ({"a": 1}, {"a": 1}),
        (2**70, 2**70),
        (None, None),
        ([object(), "é"], ["object", "é"]),
    ],
)
def test_any_value_can_be_a_field(output: Output, value: object, shown: object) -> None:
    logs.event(own, logging.INFO, "x", value=value)
    assert output.lines()[0]["value"] == shown


def test_line_longer_than_a_pipe_takes_is_cut(output: Output) -> None:
    logs.event(own, logging.INFO, "long", value="x" * 5000)
    foreign.warning(" ".join("\U0001f600\U0001f601" for _ in range(300)))
    first, second = output.raw().splitlines(keepends=True)
    assert json.loads(first)["event"] == "long"
    assert json.loads(first)["cut"] is True
    assert json.loads(second)["cut"] is True
    assert len(second) <= lines.MAX_LINE_BYTES
    logs.setup("text", "info", fd=output.fd)
    logs.event(own, logging.INFO, "long", value="x" * 5000)
    assert len(line := output.raw()) == lines.MAX_LINE_BYTES
    assert line.endswith(b"xxx cut\n")


# ---- where it goes


def test_full_stderr_blocks_nobody_and_losses_are_counted(
    output: Output,
) -> None:
    for _ in range(2000):  # more than a pipe holds
        logs.event(own, logging.INFO, "filler", value="x" * 100)
    written = len(output.lines())
    assert written < 2000
    logs.event(own, logging.INFO, "after")
    lost, after = output.lines()
    assert (lost["event"], lost["count"]) == ("log lines lost", 2000 - written)
    assert after["event"] == "after"
    logs.event(own, logging.INFO, "again")
    assert [line["event"] for line in output.lines()] == ["again"]


def test_a_stderr_that_is_closed_harms_nobody() -> None:
    read, write = os.pipe()
    handler = logs._Lines(write, lines.json_line)
    record = logging.LogRecord("smsd", logging.INFO, "", 0, "x", None, None)
    os.close(read)
    handler.emit(record)
    os.close(write)
    handler.emit(record)
    assert handler._lost == 2


def test_handler_of_somebody_else_that_raises_fails_no_event(output: Output) -> None:
    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise RuntimeError("as a handler should not")

    broken = Broken()
    logging.getLogger().addHandler(broken)  # after smsd's own
    try:
        logs.event(own, logging.INFO, "still here")
    finally:
        logging.getLogger().removeHandler(broken)
    assert [line["event"] for line in output.lines()] == ["still here"]


def test_line_that_cannot_be_made_counts_as_lost(output: Output) -> None:
    logs.event(own, logging.INFO, "x", value=[float("nan"), "é"])
    logs.event(own, logging.INFO, "y")
    assert [(line["event"], line.get("count")) for line in output.lines()] == [
        ("log lines lost", 1),
        ("y", None),
    ]


# ---- what comes from outside


@settings(
    deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(value=st.text(max_size=40).map(MARK.__add__))
def test_values_in_a_library_message_are_hidden(output: Output, value: str) -> None:
    foreign.warning(
        "Invalid cookie %r of %s after %d ms", value, value.encode("utf-8", "replace"), 12
    )
    foreign.warning("%(body)s from %(n)d", {"body": value, "n": 3})
    foreign.warning(f"Malformed {value!r} and {{'Cookie': {value!r}}}")
    foreign.warning(f"Cookie: smsd={value}".replace("\n", ""))
    raw = output.raw()
    assert MARK.encode() not in raw
    assert [json.loads(line)["event"] for line in raw.splitlines()][:2] == [
        "Invalid cookie *** of *** after 12 ms",
        "*** from 3",
    ]


PHONES = st.from_regex(r"\+?[1-9]([ ().-]?[0-9]){7,14}", fullmatch=True)


@settings(deadline=None, max_examples=150)
@given(before=st.text(max_size=20), phone=PHONES, after=st.text(max_size=20))
def test_no_phone_number_survives_the_scrubber(before: str, phone: str, after: str) -> None:
    scrubbed = redaction.scrub(f"{before} {phone} {after}")
    assert phone not in scrubbed
    assert re.sub(r"\D", "", phone) not in re.sub(r"\D", "", scrubbed) or phone in before + after


@pytest.mark.parametrize(
    ("text", "scrubbed"),
    [
        ("Task exception was never retrieved", "Task exception was never retrieved"),
        ("can't reach node's port 11211", "can't reach node's port 11211"),
        (f"call {NUMBER}, please", "call ***, please"),
        ("call +1 (415) 867-5309 now", "call *** now"),
        (r"bad value 'it\'s secret' here", "bad value '***' here"),
        ("bad value 'a\\\nsecret' here", "bad value '***' here"),
        ("bad value b'abc", "bad value '***'"),
        ("X-Twilio-Signature: abc=\nnext", "X-Twilio-Signature: *** next"),
        ("Body=hello there", "Body: ***"),
        ("GET /sms?Body=hi HTTP/1.1", "GET /sms?*** HTTP/1.1"),
        ("at https://user:pass@host.example/x", "at https://***@host.example/x"),
        ("digest 0a1ff7634d9ab3b95db5c9a2dfe9416e here", "digest *** here"),
        ("signed L/OH5YylLD5NRKLltdqwSvS0BnU= so", "signed *** so"),
        ("two\nlines\t\x1b[2J", "two lines [2J"),
        ("short " * 200, ("short " * 200)[: redaction.MAX_TEXT] + "***"),
    ],
)
def test_scrub(text: str, scrubbed: str) -> None:
    assert redaction.scrub(text) == scrubbed


def test_message_with_wrong_values_is_logged_without_them(output: Output) -> None:
    foreign.warning("%d calls", MARK)
    foreign.warning("%(a)s calls", {"b": MARK})
    foreign.warning("%y calls", MARK)
    foreign.warning(ValueError(MARK))
    assert [line["event"] for line in output.lines()] == [
        "%d calls",
        "%(a)s calls",
        "%y calls",
        "ValueError",
    ]


def test_warning_names_its_kind_and_place(output: Output) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn(f"do not call {NUMBER}", UserWarning, stacklevel=1)
    [line] = output.lines()
    assert (line["event"], line["kind"], line["text"]) == (
        "warning",
        "UserWarning",
        "do not call ***",
    )
    assert re.fullmatch(r"telemetry/test_logs\.py:\d+", line["place"])


# ---- exceptions


def test_exception_is_logged_by_type_and_place_only(output: Output) -> None:
    error = caught(raising(ValueError(f"{MARK} {NUMBER}")))
    logs.event(own, logging.ERROR, "dialogue failed", error=error)
    foreign.error("failed", exc_info=error)
    first, second = output.lines()
    assert first["error"] == second["error"]
    assert [re.sub(r":\d+", "", line) for line in first["error"]] == [
        "ValueError",
        "telemetry/test_logs.py fail",
        "telemetry/test_logs.py caught",
    ]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError(MARK), "ValueError"),
        (OSError(errno.EMFILE, MARK, MARK), "OSError: EMFILE"),
        (OSError(99999, MARK), "OSError: errno unknown"),
        (OSError(MARK), "OSError"),
        (json.JSONDecodeError(MARK, MARK, 0), "json.decoder.JSONDecodeError"),
        (
            ReplyError("11 messages, 10 are allowed"),
            "smsd.errors.ReplyError: 11 messages, 10 are allowed",
        ),
        (ReplyError(f"cannot text {NUMBER}"), "smsd.errors.ReplyError: cannot text ***"),
        (
            SettingsError("SMSD_PORT: a", "SMSD_HOST: b"),
            "smsd.errors.SettingsError: SMSD_PORT: a; SMSD_HOST: b",
        ),
        (
            ExceptionGroup(MARK, [ValueError(MARK), KeyError(MARK)]),
            "ExceptionGroup: ValueError, KeyError",
        ),
    ],
)
def test_the_first_line_of_an_exception(error: Exception, said: str) -> None:
    assert redaction.describe(error) == [said]


def test_chained_exceptions_are_described() -> None:
    def context() -> None:
        try:
            raising(KeyError(MARK))()
        except KeyError:
            raise ValueError(MARK)  # noqa: B904

    def kinds(fail: Callable[[], object]) -> list[str]:
        return [line for line in redaction.describe(caught(fail)) if ":" not in line]

    assert kinds(context) == ["ValueError", "KeyError"]
    assert kinds(raising(ValueError(MARK), KeyError(MARK))) == ["ValueError", "KeyError"]
    error = ValueError(MARK)
    error.__context__, error.__suppress_context__ = KeyError(MARK), True
    assert kinds(raising(error)) == ["ValueError"]


def test_long_chains_and_deep_stacks_are_bounded() -> None:
    def deep() -> None:
        deep()

    error = caught(deep)
    assert len(redaction.describe(error)) == 1 + redaction.MAX_FRAMES
    link: Exception = ValueError()
    for _ in range(10):
        link = caught(raising(ValueError(), link))
    assert redaction.describe(link).count("ValueError") == redaction.MAX_CHAIN


# ---- the real ones, in a process of their own

SCRIPT = r"""
import asyncio, gc, logging, sys, threading, urllib.parse, warnings
from tornado.httpclient import AsyncHTTPClient
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application, HTTPError, RequestHandler
from smsd.telemetry import lines, logs, redaction

logs.setup(sys.argv[1], "debug")
logging.basicConfig()  # as a library may: must add nothing
SECRET = "zQ7jXw"

class Fails(RequestHandler):
    def post(self):
        raise ValueError(f"{SECRET} {self.get_body_argument('Body')} +14158675309")

class Refuses(RequestHandler):
    def get(self):
        raise HTTPError(400, "bad body %s", SECRET)

class Cookie(RequestHandler):
    def get(self):
        self.get_signed_cookie("smsd")

class Unraisable:
    def __del__(self):
        raise ValueError(SECRET)

async def forgotten():
    raise ValueError(SECRET + " +14158675309")

async def main():
    sock, port = bind_unused_port()
    routes = [("/fails", Fails), ("/refuses", Refuses), ("/cookie", Cookie)]
    server = HTTPServer(Application(routes, cookie_secret="k" * 32))
    server.add_socket(sock)
    url = f"http://127.0.0.1:{port}"
    client = AsyncHTTPClient()
    body = urllib.parse.urlencode({"Body": SECRET, "From": "+14158675309"})
    await client.fetch(f"{url}/fails?token={SECRET}", method="POST", body=body, raise_error=False,
                       headers={"Cookie": f"smsd={SECRET}", "X-Twilio-Signature": SECRET})
    await client.fetch(f"{url}/refuses", raise_error=False)
    value = f"{SECRET}|1700000000|" + "0" * 40  # of the old form, whose refusal Tornado logs
    await client.fetch(f"{url}/cookie", headers={"Cookie": f"smsd={value}"}, raise_error=False)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"POST /{SECRET} HTTP/1.1\r\n{SECRET} +14158675309\r\n\r\n".encode())
    await reader.read()
    writer.close()
    for text in (SECRET, "+14158675309"):
        warnings.warn(f"deprecated: '{text}'", stacklevel=1)
    asyncio.get_running_loop().create_task(forgotten())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    gc.collect()
    await asyncio.to_thread(logging.getLogger("pymemcache").warning, "error with key %s", SECRET)
    thread = threading.Thread(target=lambda: int(SECRET))
    thread.start()
    thread.join()
    Unraisable()
    logging.getLogger("x").error("%d", SECRET)
    server.stop()

asyncio.run(main())
raise RuntimeError(SECRET)
"""


@pytest.fixture(scope="module", params=["json", "text"])
def real(request: pytest.FixtureRequest) -> tuple[str, str]:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, request.param],
        cwd=root,
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    return request.param, done.stderr


def test_real_failures_leave_events_without_private_data(
    real: tuple[str, str],
) -> None:
    log_format, text = real
    assert MARK not in text
    assert NUMBER[1:] not in text
    for line in text.splitlines():
        if log_format == "json":
            assert {"time", "level", "event"} <= json.loads(line).keys()
        else:
            assert re.match(r"[-0-9]{10}T[:.0-9]{12}Z (debug|info|warning|error|critical) ", line)


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        ("Uncaught exception *** ***", "ValueError"),
        ("Invalid cookie signature ***", None),
        ("400 ***: ***", None),
        ("Task exception was never retrieved", "ValueError"),
        ("error with key ***", None),
        ("warning", None),
        ("uncaught exception", "ValueError"),
        ("uncaught exception", "RuntimeError"),
    ],
)
def test_real_failures_are_told(real: tuple[str, str], event: str, kind: str | None) -> None:
    log_format, text = real
    if log_format == "text":
        assert f" {event}" in text
    else:
        found = [
            line for line in map(json.loads, text.splitlines()) if line["event"].startswith(event)
        ]
        assert kind in [line.get("error", [None])[0] for line in found]
