"""The webhooks as ordinary Tornado handlers: wrapped by instrumentation, with cookies
that Tornado makes and reads, and what a bug of ours looks like. In process.
"""

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

import pytest
from tornado.httpclient import AsyncHTTPClient, HTTPResponse
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler, create_signed_value, decode_signed_value

from smsd.app import Service
from smsd.clock import now_ms
from smsd.dialogues import loading
from smsd.settings.table import load
from smsd.web.admission import Admission
from smsd.web.cookies import NAME
from smsd.web.handlers import MessageHandler, StatusHandler
from tests import raw_http as wire
from tests.processes import PUBLIC_URL, SETTINGS

pytestmark = pytest.mark.asyncio

KEYS = {1: SETTINGS["SMSD_COOKIE_KEYS"].removeprefix("1:").encode()}


class Running:
    """A service whose public application is served."""

    def __init__(self, service: Service, application: Application, port: int) -> None:
        self.service = service
        self.application = application
        self.port = port

    async def post(self, form: dict[str, str], path: str = "/sms", **headers: str) -> HTTPResponse:
        signature = wire.signature(form, PUBLIC_URL + path)
        return await AsyncHTTPClient().fetch(
            f"http://127.0.0.1:{self.port}{path}",
            method="POST",
            headers={"X-Twilio-Signature": signature, **headers},
            body=urlencode(form),
            raise_error=False,
        )

    async def raw(self, request: bytes) -> bytes:
        """What is sent back to these bytes, until the server closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(request)
        received = await reader.read()
        writer.close()
        return received

    def requests(self, code: int) -> float:
        """How many requests for /sms were counted with this status."""
        text = self.service.metrics.expose("")[0].decode()
        labels = f'{{code="{code}",handler="sms"}}'
        found = re.search(
            rf"(?m)^smsd_request_duration_seconds_count{re.escape(labels)} (.*)$", text
        )
        return float(found[1]) if found else 0


@asynccontextmanager
async def running(**env: str) -> AsyncIterator[Running]:
    settings = load({**SETTINGS, "SMSD_STORE": "cookie://", **env})
    loaded = loading.load(settings.dialogue, settings)
    service = Service(settings, loaded, now_ms=now_ms, clock_s=time.monotonic)
    application = service.public()
    server, (sock, port) = HTTPServer(application), bind_unused_port()
    server.add_socket(sock)
    try:
        yield Running(service, application, port)
    finally:
        server.stop()
        await server.close_all_connections()
        await service.close()


async def test_instrumentation_of_request_handlers_sees_both_webhooks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As OpenTelemetry does it: `__init__` wraps what a request calls later."""
    seen: list[tuple[str, str, int]] = []
    initialize = RequestHandler.__init__

    def patched(handler: RequestHandler, *args: Any, **more: Any) -> None:
        cls = type(handler)
        if "_is_wrapped" not in vars(cls):
            prepare, on_finish = cls.prepare, cls.on_finish

            def wrapped_prepare(self: RequestHandler) -> Any:
                seen.append(("prepare", type(self).__name__, 0))
                return prepare(self)

            def wrapped_on_finish(self: RequestHandler) -> None:
                seen.append(("on_finish", type(self).__name__, self.get_status()))
                on_finish(self)

            monkeypatch.setattr(cls, "prepare", wrapped_prepare)
            monkeypatch.setattr(cls, "on_finish", wrapped_on_finish)
            monkeypatch.setattr(cls, "_is_wrapped", True, raising=False)
        initialize(handler, *args, **more)

    monkeypatch.setattr(RequestHandler, "__init__", patched)
    async with running() as here:
        assert (await here.post(wire.message())).code == 200
        assert (await here.post(wire.status(), "/sms/status")).code == 204
        assert here.service.admission.under_way == 0
    assert seen == [
        ("prepare", MessageHandler.__name__, 0),
        ("on_finish", MessageHandler.__name__, 200),
        ("prepare", StatusHandler.__name__, 0),
        ("on_finish", StatusHandler.__name__, 204),
    ]


async def test_tornado_reads_the_cookie_and_makes_one_that_is_read() -> None:
    async with running() as here:
        form = wire.message()
        answer = await here.post(form)
        (line,) = answer.headers.get_list("Set-Cookie")
        value = line.partition(";")[0].removeprefix(f"{NAME}=")
        payload = decode_signed_value(KEYS, NAME, value, min_version=2)
        assert payload
        again = create_signed_value(
            KEYS, NAME, payload, version=2, key_version=1, clock=lambda: 1_000_000_000
        )
        for cookie in (value, again.decode()):
            second = await here.post(wire.message(From=form["From"]), Cookie=f"{NAME}={cookie}")
            assert b" 2 times" in second.body


async def test_cookie_of_an_unknown_key_counts_as_none() -> None:
    async with running() as here:
        form = wire.message()
        line = (await here.post(form)).headers["Set-Cookie"]
        value = line.partition(";")[0].removeprefix(f"{NAME}=")
        payload = decode_signed_value(KEYS, NAME, value, min_version=2)
        assert payload
        forged = create_signed_value(
            {1: b"x" * 40}, NAME, payload, version=2, key_version=1
        ).decode()
        second = await here.post(wire.message(From=form["From"]), Cookie=f"{NAME}={forged}")
        assert b" 1 times" in second.body


HEADERS = {
    "message": ["Content-Length", "Content-Type", "Date", "Set-Cookie"],
    "status callback": ["Date"],
    "unsigned": ["Content-Length", "Date"],
    "malformed": ["Content-Length", "Date"],
    "other method": ["Allow", "Content-Length", "Date"],
    "unknown method": ["Allow", "Content-Length", "Date"],
    "unreadable form": ["Content-Length", "Date"],
}


def requests() -> dict[str, bytes]:
    """A request for each row of HEADERS."""
    message, status, malformed = wire.message(), wire.status(), wire.message(From=None)
    body = urlencode(message).encode()
    return {
        "message": wire.raw_post(body, signed=wire.signature(message)),
        "status callback": wire.raw_post(
            urlencode(status).encode(),
            target=b"/sms/status",
            signed=wire.signature(status, f"{PUBLIC_URL}/sms/status"),
        ),
        "unsigned": wire.raw_post(body),
        "malformed": wire.raw_post(urlencode(malformed).encode(), signed=wire.signature(malformed)),
        "other method": b"GET /sms HTTP/1.1\r\nHost: a\r\n\r\n",
        "unknown method": b"BREW /sms HTTP/1.1\r\nHost: a\r\n\r\n",
        "unreadable form": wire.raw_post(body, b"Content-Encoding: gzip", signed="x"),
    }


@pytest.mark.parametrize("kind", HEADERS)
async def test_no_header_is_sent_that_nobody_needs(kind: str) -> None:
    """No ETag, and no Server that tells a version."""
    raw = requests()[kind].replace(b"\r\nHost:", b"\r\nConnection: close\r\nHost:")
    async with running() as here:
        head, _, body = (await here.raw(raw)).partition(b"\r\n\r\n")
    names = [line.partition(b":")[0].decode() for line in head.split(b"\r\n")[1:]]
    names.remove("Connection")
    assert sorted(names) == HEADERS[kind]
    assert bool(body) == (kind == "message")


async def test_multipart_is_not_read() -> None:
    """Twilio sends none. Broken multipart is as good as any other body."""
    async with running() as here:
        raw = wire.raw_post(b"--x\r\nbroken").replace(
            wire.FORM.encode(), b"multipart/form-data; boundary=x\r\nConnection: close"
        )
        assert (await here.raw(raw)).startswith(b"HTTP/1.1 403 ")


async def test_connection_of_a_shed_request_is_read_again_when_it_is_released(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running() as here:
        reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
        monkeypatch.setattr(Admission, "is_late", True)
        writer.write(requests()["message"])
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        assert head.startswith("HTTP/1.1 503 ")
        assert "Content-Length: 0\r\n" in head
        monkeypatch.setattr(Admission, "is_late", False)
        writer.write(requests()["message"])
        answer = asyncio.create_task(reader.readuntil(b"</Response>"))
        done, _ = await asyncio.wait([answer], timeout=0.1)
        assert not done
        assert (here.requests(503), here.requests(200)) == (1, 0)
        here.service.admission.release_late()
        assert (await answer).startswith(b"HTTP/1.1 200 ")
        writer.close()


async def test_bug_of_ours_is_a_silent_500_and_one_line(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    async with running() as here:
        monkeypatch.setattr(here.service.gate, "check", fail)
        with caplog.at_level(logging.ERROR):
            answer = await here.post(wire.message())
        assert (answer.code, answer.body) == (500, b"")
        assert [record.getMessage() for record in caplog.records] == ["request failed"]
        assert here.requests(500) == 1
        assert here.service.admission.under_way == 0
