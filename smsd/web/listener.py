"""Carries requests from Tornado's connections to the webhooks, and their answers back.

It knows no message, no signature and no metric, and uses no RequestHandler, which would
make a message a fifth dearer (`make bench`). Requests for paths that belong to no
webhook go to an ordinary Tornado application.

Under load, requests begin in the order in which they arrived, MOST_AT_ONCE in one turn
of the event loop, so that turns stay short and neither memcached nor a probe seems
late. A request that would wait longer than `patience_s` is *shed*: it gets a 503 at
once.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Mapping
from email.utils import formatdate
from functools import lru_cache
from http.client import responses
from types import MappingProxyType
from typing import Protocol, cast

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

from smsd.web.connections import ClientConnection, Connections
from smsd.web.forms import parse_form

MOST_AT_ONCE = 50
"""Requests begun in one turn of the event loop."""

HELD_S = 5.0
"""After shedding a request, stop reading from its connection for up to this long:
refusing costs half as much as answering, and a client that is refused may come again at
once.
"""

FORM = "application/x-www-form-urlencoded"
USUAL_BYTES = 4096
"""Twilio's forms are smaller. For large bodies Tornado's reader is the faster one."""


class WebhookResponse(msgspec.Struct, frozen=True):
    """What a webhook answers."""

    status: int
    headers: Mapping[str, str] = MappingProxyType({})
    body: bytes = b""


class Webhook(Protocol):
    """Serves the requests for one path."""

    async def serve(self, request: "WebhookRequest") -> WebhookResponse:
        """Answer a request that has arrived completely. Raises nothing."""
        ...

    def shed(self, request: "WebhookRequest") -> WebhookResponse:
        """Answer a request for which there is no time."""
        ...


class Listener(HTTPServerConnectionDelegate):
    """Takes the requests of one port.

    webhooks    path -> the webhook that serves it
    others      serves every other path
    patience_s  a request that waits longer than this is shed
    """

    def __init__(
        self,
        webhooks: Mapping[str, Webhook],
        others: HTTPServerConnectionDelegate,
        *,
        connections: Connections | None = None,
        patience_s: float = 2.0,
    ) -> None:
        self.webhooks = webhooks
        self.others = others
        self.connections = Connections() if connections is None else connections
        self.tasks: set[asyncio.Task[None]] = set()
        """A task for each request being served."""
        self._patience_s = patience_s
        self._room = MOST_AT_ONCE
        self._queue: deque[WebhookRequest] = deque()
        self._held: deque[WebhookRequest] = deque()
        """Shed requests whose connections are not read from yet."""

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> "WebhookRequest":
        """Tornado is ready to read a request from this connection."""
        connection = cast("ClientConnection", server_conn)
        self.connections.wait(connection)
        return WebhookRequest(self, connection, request_conn)

    def on_close(self, server_conn: object) -> None:
        """The connection is closed."""
        self.connections.forget(cast("ClientConnection", server_conn))

    @property
    def is_busy(self) -> bool:
        """Whether a request is being served or waits to be."""
        return bool(self.tasks or self._queue or self._held)

    @property
    def is_late(self) -> bool:
        """Whether earlier requests wait so long already that a new one has to be shed."""
        return bool(self._queue) and self._queue[0].age_s() > self._patience_s

    def enqueue(self, request: "WebhookRequest") -> None:
        """Begin the request now or in its turn."""
        if self._room:
            self._begin(request)
        else:
            self._queue.append(request)

    def hold(self, request: "WebhookRequest") -> None:
        """Stop reading from the connection of a request that was shed."""
        self._held.append(request)

    def on_answered(self, task: "asyncio.Task[None]") -> None:
        """Use the room that an answered request leaves.

        Two held connections are released for each answer, so that soon after a rush
        none is held any more.
        """
        self.tasks.discard(task)
        if self._held and len(self._queue) < MOST_AT_ONCE:
            for _ in range(min(2, len(self._held))):
                self._held.popleft().release()

    def close_late(self) -> None:
        """Close late connections, and release those that were held long enough."""
        while self._held and (not self.tasks or self._held[0].age_s() > HELD_S):
            self._held.popleft().release()
        self.connections.close_late()

    def _begin(self, request: "WebhookRequest") -> None:
        if self._room == MOST_AT_ONCE:
            asyncio.get_running_loop().call_soon(self._next_turn)
        self._room -= 1
        request.begin()

    def _next_turn(self) -> None:
        self._room = MOST_AT_ONCE
        while self._queue and self._room:
            self._begin(self._queue.popleft())


class WebhookRequest(HTTPMessageDelegate):
    """One request, from its head to its answer."""

    method: str
    target: str
    """Path and query, as they were sent."""
    headers: HTTPHeaders
    body = b""
    form: dict[str, list[bytes]]
    """Names, read as Latin-1, to raw values. Empty unless the body is a form."""

    def __init__(
        self, listener: Listener, server_conn: ClientConnection, connection: HTTPConnection
    ) -> None:
        self._listener = listener
        self._server_conn = server_conn
        self._connection = connection
        self._other: HTTPMessageDelegate | None = None

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> Awaitable[None] | None:
        """The head has arrived."""
        self._began_s = time.monotonic()
        self._listener.connections.receive(self._server_conn, self._began_s)
        self.method, self.target, _ = cast("RequestStartLine", start_line)
        self.headers = headers
        if "Expect" in headers and headers["Expect"].lower() == "100-continue":
            headers["Expect"] = "100-continue"  # Tornado knows it in lower case only
        webhook = self._listener.webhooks.get(self.target.partition("?")[0])
        if webhook:
            self._webhook = webhook
            return None
        self._other = self._listener.others.start_request(self._server_conn, self._connection)
        return self._other.headers_received(start_line, headers)

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        """More of the body has arrived."""
        if self._other:
            return self._other.data_received(chunk)
        self.body += chunk
        return None

    def finish(self) -> None:
        """The request has arrived completely. Tornado answers a malformed form with
        400."""
        self._listener.connections.answer(self._server_conn)
        if self._other:
            self._other.finish()
            return
        if self._listener.is_late:
            self._write(self._webhook.shed(self))
            self._listener.hold(self)
            return
        self.form = {}
        if self.media_type == FORM:
            if len(self.body) <= USUAL_BYTES and not self.headers.get_list("Content-Encoding"):
                self.form = parse_form(self.body)
            else:
                parse_body_arguments(FORM, self.body, self.form, {}, self.headers)
        self._listener.enqueue(self)

    def begin(self) -> None:
        """Serve it, in a task of its own."""
        loop = asyncio.get_running_loop()
        self._task = asyncio.Task(self._serve(), loop=loop)  # past the factory for user code
        self._listener.tasks.add(self._task)

    def on_connection_close(self) -> None:
        """The rest of the request will never arrive."""
        if self._other:
            self._other.on_connection_close()

    def header(self, name: str, separator: str = ",") -> str:
        """All values of a header, joined; "" if there is none.

        HTTPHeaders.get raises and catches an exception for a missing header.
        """
        return separator.join(self.headers.get_list(name))

    @property
    def media_type(self) -> str:
        """The media type of the body, in lower case and without parameters.

        If the header came twice, the first one counts.
        """
        return self.header("Content-Type").partition(",")[0].partition(";")[0].strip().lower()

    def age_s(self) -> float:
        """Seconds since the head arrived."""
        return time.monotonic() - self._began_s

    async def _serve(self) -> None:
        try:
            self._write(await self._webhook.serve(self))
            self.release()
        finally:
            self._listener.on_answered(self._task)

    def release(self) -> None:
        """Let the next request be read from this connection."""
        self._connection.finish()

    def _write(self, response: WebhookResponse) -> None:
        headers = HTTPHeaders(response.headers)
        headers["Date"] = _http_date(int(time.time()))
        if response.status != 204:
            headers["Content-Length"] = str(len(response.body))
        line = ResponseStartLine("HTTP/1.1", response.status, responses[response.status])
        self._connection.write_headers(line, headers, response.body or None)


@lru_cache(maxsize=2)
def _http_date(second: int) -> str:
    return formatdate(second, usegmt=True)
