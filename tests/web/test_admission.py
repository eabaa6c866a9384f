"""Requests under load: their order, which are shed, and what is held."""

import asyncio
import time
from collections.abc import Callable
from typing import Any, cast

import pytest
from tornado.httputil import HTTPHeaders, RequestStartLine, ResponseStartLine
from tornado.web import Application

from smsd.telemetry.metrics import Metrics
from smsd.web import admission as admission_module
from smsd.web.admission import MOST_AT_ONCE, Admission
from smsd.web.handlers import WebhookHandler
from smsd.web.refusals import Refusals

pytestmark = pytest.mark.asyncio


class Echo(WebhookHandler):
    label = "sms"

    async def post(self) -> None:
        self.finish(self.request.body)


class Never(WebhookHandler):
    label = "sms"

    async def post(self) -> None:
        await asyncio.Event().wait()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


class Connection:
    """Remembers what is answered, and in which order."""

    def __init__(self, answered: list["Connection"]) -> None:
        self.context = None
        self.status = 0
        self.is_finished = False
        """The answer is finished: the next request may be read."""
        self._answered = answered

    def set_close_callback(self, callback: object) -> None:
        pass

    def write_headers(
        self, line: ResponseStartLine, headers: HTTPHeaders, body: bytes | None
    ) -> None:
        self.status = line.code
        self._answered.append(self)

    def write(self, chunk: bytes) -> None:
        assert not chunk

    def finish(self) -> None:
        self.is_finished = True


class Site:
    """An application whose requests are admitted by one `Admission`."""

    def __init__(self, handler: type[WebhookHandler], *, patience_s: float) -> None:
        self.admission = Admission(patience_s=patience_s)
        self.metrics = Metrics()
        shared = {
            "gate": None,
            "metrics": self.metrics,
            "refusals": Refusals(self.metrics, time.monotonic),
            "admission": self.admission,
        }
        self._application = Application(
            [("/sms", handler, shared)], log_function=lambda _handler: None
        )
        self.answered: list[Connection] = []

    def arrive(self) -> Connection:
        """A request, wholly there."""
        connection = Connection(self.answered)
        request = self._application.start_request(None, cast("Any", connection))
        line = RequestStartLine("POST", "/sms", "HTTP/1.1")
        request.headers_received(line, HTTPHeaders({"Host": "a"}))
        request.finish()
        return connection

    def counted(self, status: int) -> float:
        samples = self.metrics.expose("")[0].decode()
        labels = f'{{code="{status}",handler="sms"}}'
        (line,) = [
            line
            for line in samples.splitlines()
            if line.startswith(f"smsd_request_duration_seconds_count{labels}")
        ]
        return float(line.split()[-1])


async def test_requests_beyond_capacity_are_shed_at_once() -> None:
    site = Site(Echo, patience_s=0.05)
    come = [site.arrive() for _ in range(3 * MOST_AT_ONCE)]
    assert site.admission.under_way == len(come)
    await asyncio.sleep(0)
    assert site.answered == come[:MOST_AT_ONCE], "so many in one turn of the loop"
    time.sleep(0.06)  # the loop is busy
    late = site.arrive()
    await asyncio.sleep(0)
    assert late.status == 503
    assert not late.is_finished, "nothing is read from it yet"
    assert site.counted(503) == 1
    await until(lambda: len(site.answered) == len(come) + 1)
    assert [connection for connection in site.answered if connection is not late] == come
    assert {connection.status for connection in come} == {200}
    await until(lambda: not site.admission.under_way)
    assert all(connection.is_finished for connection in [late, *come])
    assert (site.counted(200), site.counted(503)) == (len(come), 1)
    again = site.arrive()
    await until(lambda: not site.admission.under_way)
    assert again.status == 200


async def test_request_that_arrives_meanwhile_does_not_overtake() -> None:
    site = Site(Echo, patience_s=10)
    come = [site.arrive() for _ in range(MOST_AT_ONCE + 3)]
    for _ in range(5):
        await asyncio.sleep(0)
        come.append(site.arrive())
    await until(lambda: not site.admission.under_way)
    assert site.answered == come


async def test_shed_connection_is_released_when_its_time_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    site = Site(Never, patience_s=0)
    for _ in range(2 * MOST_AT_ONCE):
        site.arrive()
    await asyncio.sleep(0)
    shed = [site.arrive(), site.arrive()]
    await until(lambda: [connection.status for connection in shed] == [503, 503])
    site.admission.release_late()
    await asyncio.sleep(0.01)
    assert not any(connection.is_finished for connection in shed)
    monkeypatch.setattr(admission_module, "HELD_S", 0)
    site.admission.release_late()
    await until(lambda: all(connection.is_finished for connection in shed))
    assert site.admission.under_way == 2 * MOST_AT_ONCE


async def test_shed_connections_are_released_when_nobody_is_served() -> None:
    admission = Admission()
    for _ in range(3):
        admission.arrive()
    held = [admission.hold() for _ in range(3)]
    admission.release_late()
    assert all(future.done() for future in held)


async def test_each_answer_releases_two_connections_unless_many_wait() -> None:
    admission = Admission()
    held = [admission.hold() for _ in range(3)]
    for _ in range(2 * MOST_AT_ONCE):
        admission.turn()
    admission.release_two()
    assert not any(future.done() for future in held)
    await asyncio.sleep(0.01)
    admission.release_two()
    assert [future.done() for future in held] == [True, True, False]
    admission.release_two()
    assert held[2].done()


async def test_canceled_request_keeps_nobody_waiting() -> None:
    admission = Admission()
    turns = [admission.turn() for _ in range(MOST_AT_ONCE + 2)]
    canceled, last = turns[-2:]
    assert canceled
    assert last
    canceled.cancel()
    async with asyncio.timeout(10):
        await last
