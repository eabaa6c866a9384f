"""The listener below the webhooks: what ends a request that never ends, and what a mistake of ours looks like."""

import asyncio
import logging
import math
import time
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tornado.escape import parse_qs_bytes
from tornado.httputil import HTTPHeaders, RequestStartLine, ResponseStartLine
from tornado.testing import bind_unused_port
from tornado.web import Application

from smsd.server import _Public
from smsd.telemetry.metrics import Metrics
from smsd.web.handlers import Inbound
from smsd.web.listener import MOST_AT_ONCE, Listener, Request, Response, parse_form

HEAD = b"POST /sms HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n"


class Echo:
    def shed(self, request: Request) -> Response:
        return Response(503)

    async def serve(self, request: Request) -> Response:
        return Response(200, {"X-Age": str(request.age_s())}, request.body)


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


@given(
    st.binary(max_size=80)
    | st.text("ab=&+%20gé\xff", max_size=40).map(lambda text: text.encode("latin-1"))
)
def test_a_form_is_read_as_tornado_reads_it(body: bytes) -> None:
    assert parse_form(body) == parse_qs_bytes(body, keep_blank_values=True)


def test_who_takes_too_long_is_ended_and_nobody_else() -> None:
    """A body that never ends, a head that never comes; and a connection that is waiting for its answer."""

    async def test() -> None:
        listener = Listener(
            {"/sms": Echo()},
            Application(),
            lambda _length: None,
            idle_s=60,
            body_s=0,
            patience_s=60,
        )
        server = _Public(listener)
        sock, port = bind_unused_port()
        server.add_sockets([sock])
        slow_reader, slow = await asyncio.open_connection("127.0.0.1", port)
        whole_reader, whole = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(2):
            whole.write(HEAD + b"0123456789")
            assert (await whole_reader.readuntil(b"0123456789")).startswith(b"HTTP/1.1 200 OK\r\n")
        slow.write(HEAD + b"01234")
        await until(lambda: min(listener.deadlines_s.values(), default=math.inf) < time.monotonic())
        listener.close_late()
        assert await slow_reader.read() == b""
        await until(lambda: len(listener.deadlines_s) == 1)
        whole.write(HEAD + b"9876543210")
        assert b"9876543210" in await whole_reader.readuntil(b"9876543210")
        assert not listener.tasks
        await until(lambda: listener.deadlines_s)
        for connection in listener.deadlines_s:
            listener.deadlines_s[connection] = 0
        listener.close_late()
        assert await whole_reader.read() == b""
        await until(lambda: not listener.deadlines_s)
        for writer in (slow, whole):
            writer.close()
        server.stop()

    asyncio.run(test())


class Connection:
    """Remembers what is answered, and in which order."""

    def __init__(self, answered: list["Connection"]) -> None:
        self.status = 0
        self.read_again = False
        self._answered = answered

    def write_headers(
        self, line: ResponseStartLine, headers: HTTPHeaders, body: bytes | None
    ) -> None:
        self.status = line.code
        self._answered.append(self)

    def finish(self) -> None:
        self.read_again = True


def arrive(listener: Listener, answered: list[Connection]) -> Connection:
    """A request, wholly there."""
    connection = Connection(answered)
    request = listener.start_request(connection, cast("Any", connection))
    request.headers_received(RequestStartLine("POST", "/sms", "HTTP/1.1"), HTTPHeaders())
    request.finish()
    return connection


def test_beyond_capacity_the_first_are_answered_first_and_those_without_a_chance_at_once() -> None:
    async def test() -> None:
        listener = Listener(
            {"/sms": Echo()},
            Application(),
            lambda _length: None,
            idle_s=9,
            body_s=9,
            patience_s=0.05,
        )
        answered: list[Connection] = []
        come = [arrive(listener, answered) for _ in range(3 * MOST_AT_ONCE)]
        assert not answered
        assert listener.busy
        time.sleep(0.06)  # the loop is busy
        late = arrive(listener, answered)
        assert late.status == 503
        assert not late.read_again
        await until(lambda: len(answered) == len(come) + 1)
        assert answered == [late, *come]
        assert {connection.status for connection in come} == {200}
        assert all(connection.read_again for connection in [late, *come])
        assert arrive(listener, answered).status == 0
        await until(lambda: not listener.busy)
        assert answered[-1].status == 200

    asyncio.run(test())


def test_who_was_shed_is_read_again_when_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    class Never(Echo):
        async def serve(self, request: Request) -> Response:
            await asyncio.Event().wait()
            return Response(200)

    async def test() -> None:
        listener = Listener(
            {"/sms": Never()}, Application(), lambda _length: None, idle_s=9, body_s=9, patience_s=0
        )
        for _ in range(MOST_AT_ONCE + 1):
            arrive(listener, [])
        shed = [arrive(listener, []), arrive(listener, [])]
        assert [connection.status for connection in shed] == [503, 503]
        listener.close_late()
        assert not any(connection.read_again for connection in shed)
        monkeypatch.setattr("smsd.web.listener.HELD_S", 0)
        listener.close_late()
        assert all(connection.read_again for connection in shed)
        for task in listener.tasks:
            task.cancel()

    asyncio.run(test())


def test_who_was_shed_is_read_again_when_nobody_is_served() -> None:
    async def test() -> None:
        listener = Listener(
            {}, Application(), lambda _length: None, idle_s=9, body_s=9, patience_s=0
        )
        connection = Connection([])
        listener.hold(listener.start_request(connection, cast("Any", connection)))
        assert listener.busy
        listener.close_late()
        assert connection.read_again
        assert not listener.busy

    asyncio.run(test())


def test_a_mistake_of_ours_is_a_silent_500_and_one_line_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken:
        def check(self, *_: object) -> str:
            raise ZeroDivisionError

    metrics = Metrics()
    request: Any = Request(Any, None, Any)  # type: ignore[arg-type]
    request.method, request.target, request.form, request.headers = (
        "POST",
        "/sms",
        {},
        HTTPHeaders(),
    )
    request._began_s = 0.0
    with caplog.at_level(logging.ERROR):
        response = asyncio.run(Inbound(Broken(), Broken(), metrics).serve(request))  # type: ignore[arg-type]
    assert response == Response(500)
    assert [record.getMessage() for record in caplog.records] == ["request failed"]
    samples = metrics.expose("")[0].decode()
    assert 'smsd_request_duration_seconds_count{code="500",handler="sms"} 1.0' in samples
