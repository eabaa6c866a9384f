"""The listener under load, and what a bug of ours looks like."""

import asyncio
import logging
import time
from typing import Any, cast

import pytest
from smsd.web.listener import MOST_AT_ONCE, Listener, WebhookRequest, WebhookResponse
from tornado.httputil import HTTPHeaders, RequestStartLine, ResponseStartLine
from tornado.web import Application

from smsd.telemetry.metrics import Metrics
from smsd.web.handlers import MessageWebhook
from smsd.web.refusals import Refusals


class Echo:
    def shed(self, request: WebhookRequest) -> WebhookResponse:
        return WebhookResponse(503)

    async def serve(self, request: WebhookRequest) -> WebhookResponse:
        return WebhookResponse(200, {"X-Age": str(request.age_s())}, request.body)


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


class RecordingConnection:
    """Remembers what is answered, and in which order."""

    def __init__(self, answered: list["RecordingConnection"]) -> None:
        self.stream = self
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

    def writing(self) -> bool:
        return False


def arrive(listener: Listener, answered: list[RecordingConnection]) -> RecordingConnection:
    """A request, wholly there."""
    connection = RecordingConnection(answered)
    request = listener.start_request(connection, cast("Any", connection))
    request.headers_received(RequestStartLine("POST", "/sms", "HTTP/1.1"), HTTPHeaders())
    request.finish()
    return connection


def test_requests_beyond_capacity_are_shed_at_once() -> None:
    async def test() -> None:
        listener = Listener({"/sms": Echo()}, Application(), patience_s=0.05)
        answered: list[RecordingConnection] = []
        come = [arrive(listener, answered) for _ in range(3 * MOST_AT_ONCE)]
        assert not answered
        assert listener.is_busy
        time.sleep(0.06)  # the loop is busy
        late = arrive(listener, answered)
        assert late.status == 503
        assert not late.read_again
        await until(lambda: len(answered) == len(come) + 1)
        assert answered == [late, *come]
        assert {connection.status for connection in come} == {200}
        assert all(connection.read_again for connection in [late, *come])
        assert arrive(listener, answered).status == 0
        await until(lambda: not listener.is_busy)
        assert answered[-1].status == 200

    asyncio.run(test())


def test_shed_connection_is_released_when_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    class Never(Echo):
        async def serve(self, request: WebhookRequest) -> WebhookResponse:
            await asyncio.Event().wait()
            return WebhookResponse(200)

    async def test() -> None:
        listener = Listener({"/sms": Never()}, Application(), patience_s=0)
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


def test_shed_connection_is_released_when_nobody_is_served() -> None:
    async def test() -> None:
        listener = Listener({}, Application(), patience_s=0)
        connection = RecordingConnection([])
        listener.hold(listener.start_request(connection, cast("Any", connection)))
        assert listener.is_busy
        listener.close_late()
        assert connection.read_again
        assert not listener.is_busy

    asyncio.run(test())


def test_bug_of_ours_is_a_silent_500_and_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken:
        def check(self, *_: object) -> str:
            raise ZeroDivisionError

    metrics = Metrics()
    refused = Refusals(metrics, time.monotonic)
    request: Any = WebhookRequest(*cast("Any", (None, None, None)))
    request.method, request.target, request.form, request.headers = (
        "POST",
        "/sms",
        {},
        HTTPHeaders(),
    )
    request._began_s = 0.0
    with caplog.at_level(logging.ERROR):
        webhook = MessageWebhook(Broken(), Broken(), metrics, refused, Broken())  # type: ignore[arg-type]
        response = asyncio.run(webhook.serve(request))
    assert response == WebhookResponse(500)
    assert [record.getMessage() for record in caplog.records] == ["request failed"]
    samples = metrics.expose("")[0].decode()
    assert 'smsd_request_duration_seconds_count{code="500",handler="sms"} 1.0' in samples
