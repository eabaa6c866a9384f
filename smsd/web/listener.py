"""From Tornado's connection to a webhook and back, without a RequestHandler, which would make a message a fifth
dearer (772 instead of 646 microseconds). It knows no message, no signature and no metric.

Paths that are no webhook's go to an ordinary Tornado application.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from email.utils import formatdate
from functools import lru_cache
from http.client import responses
from types import MappingProxyType
from typing import Protocol, cast
from urllib.parse import unquote_to_bytes

import msgspec
from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPMessageDelegate,
    HTTPServerConnectionDelegate,
    RequestStartLine,
    ResponseStartLine,
    parse_body_arguments,
)

MOST_AT_ONCE = 50
"""Requests begun in one turn of the event loop; others wait in a queue. So turns stay short however many come, and
neither a node of memcached nor a probe is taken for late.
"""

USUAL_BYTES = 4096
"""Twilio's forms are smaller. Tornado's reader is the slower one for small bodies, and the faster one for large
bodies full of escapes.
"""


HELD_S = 5.0
"""At most so long a connection is not read after a 503, which takes half the time of an answer: whoever comes again at
once, and is shed again, would take the time that answers need (of 1,400 a second at four times the capacity 560 were
left).
"""


class Response(msgspec.Struct, frozen=True):
    """What a webhook answers."""

    status: int
    headers: Mapping[str, str] = MappingProxyType({})
    body: bytes = b""


class Webhook(Protocol):
    async def serve(self, request: "Request") -> Response:
        """The answer to a request that is wholly read. Raises nothing."""
        ...

    def shed(self, request: "Request") -> Response:
        """The answer to a request for which there is no time."""
        ...


class Listener(HTTPServerConnectionDelegate):
    """`webhooks`: path to what serves it. `announced` is told the Content-Length of each request.

    Requests are begun in the order in which they came. One that would have to wait much longer than `patience_s` is
    shed, and its connection is not read again before there is room, or HELD_S is over.

    A connection may be silent between two requests, or take for the head of one, `idle_s`, and for a body `body_s`.
    `close_late`, to be called about once a second, ends those that take longer. Tornado's own time-outs cost two timers
    and two tasks for each request.
    """

    def __init__(
        self,
        webhooks: Mapping[str, Webhook],
        others: HTTPServerConnectionDelegate,
        announced: Callable[[str], None],
        *,
        idle_s: float,
        body_s: float,
        patience_s: float,
    ) -> None:
        self.webhooks = webhooks
        self.others = others
        self.announced = announced
        self.tasks: set[asyncio.Task[None]] = set()
        """A task for each request under way."""
        self.deadlines_s: dict[object, float] = {}
        """Until when each connection has to say more, on the monotonic clock."""
        self._idle_s = idle_s
        self.body_s = body_s
        self._patience_s = patience_s
        self._room = MOST_AT_ONCE
        self._queue: deque[Request] = deque()
        self._held: deque[Request] = deque()
        """Shed, and their connections not read again yet."""

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> "Request":
        self.deadlines_s[server_conn] = time.monotonic() + self._idle_s
        return Request(self, server_conn, request_conn)

    @property
    def busy(self) -> bool:
        """Whether a request is under way, or waits, read or unread."""
        return bool(self.tasks or self._queue or self._held)

    @property
    def late(self) -> bool:
        """Whether there is no time for one more request: who came before waits too long already."""
        return bool(self._queue) and self._queue[0].age_s() > self._patience_s

    def take(self, request: "Request") -> None:
        """Begin it, now or in its turn."""
        if self._room:
            self._begin(request)
        else:
            self._queue.append(request)

    def hold(self, request: "Request") -> None:
        """It is shed: read no more from its connection for now."""
        self._held.append(request)

    def answered(self, task: "asyncio.Task[None]") -> None:
        """That makes room: two for one, so that nobody is held any more soon after the rush."""
        self.tasks.discard(task)
        if self._held and len(self._queue) < MOST_AT_ONCE:
            for _ in range(min(2, len(self._held))):
                self._held.popleft().release()

    def _begin(self, request: "Request") -> None:
        if self._room == MOST_AT_ONCE:
            asyncio.get_running_loop().call_soon(self._next_turn)
        self._room -= 1
        request.begin()

    def _next_turn(self) -> None:
        self._room = MOST_AT_ONCE
        while self._queue and self._room:
            self._begin(self._queue.popleft())

    def close_late(self) -> None:
        """End the connections whose time is over; read from those that were held long enough, or for nobody's sake."""
        while self._held and (not self.tasks or self._held[0].age_s() > HELD_S):
            self._held.popleft().release()
        now_s = time.monotonic()
        for connection, deadline_s in list(self.deadlines_s.items()):
            if deadline_s < now_s:
                connection.stream.close()  # type: ignore[attr-defined]  # Tornado's HTTP1ServerConnection

    def on_close(self, server_conn: object) -> None:
        self.deadlines_s.pop(server_conn, None)


class Request(HTTPMessageDelegate):
    """One request, as it comes in and until it is answered."""

    method: str
    target: str
    """The path and the query as they were sent."""
    headers: HTTPHeaders
    body = b""
    form: dict[str, list[bytes]]

    def __init__(self, listener: Listener, server_conn: object, connection: HTTPConnection) -> None:
        self._listener = listener
        self._server_conn = server_conn
        self._connection = connection
        self._other: HTTPMessageDelegate | None = None

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> Awaitable[None] | None:
        """The head is there."""
        self._began_s = time.monotonic()
        self._listener.deadlines_s[self._server_conn] = self._began_s + self._listener.body_s
        self.method, self.target, _ = cast("RequestStartLine", start_line)
        self.headers = headers
        self._listener.announced(self.header("Content-Length"))
        webhook = self._listener.webhooks.get(self.target.partition("?")[0])
        if webhook:
            self._webhook = webhook
            return None
        self._other = self._listener.others.start_request(self._server_conn, self._connection)
        return self._other.headers_received(start_line, headers)

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        """More of the body."""
        if self._other:
            return self._other.data_received(chunk)
        self.body += chunk
        return None

    def finish(self) -> None:
        """It is wholly read. Tornado answers a form that is none with 400."""
        del self._listener.deadlines_s[self._server_conn]
        if self._other:
            self._other.finish()
            return
        if self._listener.late:
            self._write(self._webhook.shed(self))
            self._listener.hold(self)
            return
        self.form = self._parsed()
        self._listener.take(self)

    def begin(self) -> None:
        """Have it answered."""
        self._task = asyncio.get_running_loop().create_task(self._serve())
        self._listener.tasks.add(self._task)

    def on_connection_close(self) -> None:
        """It will never be read wholly."""
        if self._other:
            self._other.on_connection_close()

    def header(self, name: str) -> str:
        """The values of a header, with commas between them; "" if it is not there. Tornado's own `get` raises and
        catches an exception then.
        """
        return ",".join(self.headers.get_list(name))

    def age_s(self) -> float:
        """Seconds since its head was read."""
        return time.monotonic() - self._began_s

    def _parsed(self) -> dict[str, list[bytes]]:
        content_type = self.header("Content-Type")
        is_form = content_type.startswith("application/x-www-form-urlencoded")
        if (
            is_form
            and len(self.body) <= USUAL_BYTES
            and not self.headers.get_list("Content-Encoding")
        ):
            return parse_form(self.body)
        form: dict[str, list[bytes]] = {}
        parse_body_arguments(content_type, self.body, form, {}, self.headers)
        return form

    async def _serve(self) -> None:
        try:
            self._write(await self._webhook.serve(self))
            self.release()
        finally:
            self._listener.answered(self._task)

    def release(self) -> None:
        """The next request of its connection may be read."""
        self._connection.finish()

    def _write(self, response: Response) -> None:
        headers = HTTPHeaders(response.headers)
        headers["Date"] = _http_date(int(time.time()))
        if response.status != 204:
            headers["Content-Length"] = str(len(response.body))
        line = ResponseStartLine("HTTP/1.1", response.status, responses[response.status])
        self._connection.write_headers(line, headers, response.body or None)


def parse_form(body: bytes) -> dict[str, list[bytes]]:
    """An application/x-www-form-urlencoded body: names, read as Latin-1, to values; blank ones count.

    Exactly what Tornado makes of it (a test compares them) in less than half the time.
    """
    form: dict[str, list[bytes]] = {}
    for field in body.decode("latin-1").replace("+", " ").split("&"):
        if not field:
            continue
        name, _, text = field.partition("=")
        value = text.encode("latin-1")
        if "%" in text:
            value = unquote_to_bytes(value)
        if "%" in name:
            name = unquote_to_bytes(name.encode("latin-1")).decode("latin-1")
        if name in form:
            form[name].append(value)
        else:
            form[name] = [value]
    return form


@lru_cache(maxsize=2)
def _http_date(second: int) -> str:
    return formatdate(second, usegmt=True)
