"""An HTTP server that knows how many connections it can take.

Tornado accepts connections until `accept` fails for want of a descriptor, and then
fails in a tight loop, with a traceback each time. This server stops accepting at
`max_connections`, closes idle connections to make room, and backs off if `accept` fails
nevertheless: the dialogue, or the rest of the machine, may have used up the
descriptors. Meanwhile, new connections wait in the kernel's queue. The server recovers
by itself.

Every connection has a deadline in every state (`smsd.web.connections`).
"""

import asyncio
import errno
import logging
import socket
import time
from collections.abc import Awaitable, Iterable
from typing import cast

from tornado.httpserver import HTTPServer
from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPMessageDelegate,
    RequestStartLine,
    ResponseStartLine,
)
from tornado.ioloop import IOLoop
from tornado.iostream import IOStream
from tornado.netutil import bind_sockets
from tornado.web import Application

from smsd.descriptors import RESERVED
from smsd.settings.casts import ALL_ADDRESSES
from smsd.telemetry import logs
from smsd.web.connections import RECYCLED_AFTER_S, ClientConnection, Connections

MAX_HEADER_BYTES = 32 * 1024
CHUNK_BYTES = 8 * 1024
"""Size of a buffer that Tornado makes, and clears, for each of two reads of a request.
A message needs a small part of Tornado's usual 64 KiB."""

BACKLOG = 4096
"""Connections that may wait in the kernel's queue: enough for a rush of some thousand."""

BACK_OFF_S = 0.25
ACCEPT_AT_ONCE = 128
REPORT_EVERY_S = 60.0

NEEDED = RESERVED + 32
"""Descriptors that are needed besides those of the connections."""

log = logging.getLogger("smsd.web.accept")


def bind(host: str, port: int) -> list[socket.socket]:
    """Bind listening sockets. Raises OSError if the address or the port cannot be had.

    All addresses are those of IPv4 and IPv6, or of the one that this machine has. With
    port 0 they share a port that the system chooses.
    """
    if host != ALL_ADDRESSES:
        return bind_sockets(port, host, backlog=BACKLOG)
    sockets: list[socket.socket] = []
    missing: OSError | None = None
    for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):  # noqa: S104
        try:
            sockets += bind_sockets(port, address, family, BACKLOG)
        except OSError as error:
            if error.errno not in _NO_SUCH_FAMILY:
                for sock in sockets:
                    sock.close()
                raise
            missing = error
        if sockets:
            port = sockets[0].getsockname()[1]
    if not sockets:
        raise missing or OSError(errno.EADDRNOTAVAIL, "no address family is available")
    return sockets


_NO_SUCH_FAMILY = (
    errno.EAFNOSUPPORT,
    errno.EADDRNOTAVAIL,
    socket.EAI_FAMILY,
    socket.EAI_NONAME,
)


class BoundedServer(HTTPServer):
    """An HTTP server of a Tornado application, on sockets that are bound already.

    name             of the listener, in log lines
    max_connections  so many are open at most
    deadlines        of the connections
    """

    def initialize(  # type: ignore[override]
        self,
        application: Application,
        *,
        name: str,
        max_body_bytes: int,
        max_connections: int,
        deadlines: Connections | None = None,
    ) -> None:
        """Tornado's way of writing `__init__`."""
        super().initialize(
            application,
            max_body_size=max_body_bytes,
            max_header_size=MAX_HEADER_BYTES,
            chunk_size=CHUNK_BYTES,
        )
        self.conn_params.header_timeout = None
        self._deadlines = Connections() if deadlines is None else deadlines
        self._name = name
        self._max_connections = max_connections
        self._listening: list[socket.socket] = []
        self._is_accepting = False
        self._is_backing_off = False
        self._is_making_room = False
        self._report_after_s = time.monotonic()

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    def add_sockets(self, sockets: Iterable[socket.socket]) -> None:
        """Accept connections from these."""
        IOLoop.current()  # imports modules the first time, which may fail for want of descriptors
        self._pause()
        self._listening += sockets
        self._resume()

    def stop(self) -> None:
        """Close the listening sockets; connections stay open."""
        self._pause()
        for sock in self._listening:
            sock.close()
        self._listening.clear()

    def start_request(
        self, server_conn: object, request_conn: HTTPConnection
    ) -> HTTPMessageDelegate:
        """Tornado is ready to read a request from this connection."""
        connection = cast("ClientConnection", server_conn)
        self._deadlines.wait(connection)
        delegate = super().start_request(server_conn, request_conn)
        return _TimedRequest(delegate, connection, self._deadlines)

    def on_close(self, server_conn: object) -> None:
        """A connection is closed, and leaves room."""
        super().on_close(server_conn)
        self._deadlines.forget(cast("ClientConnection", server_conn))
        self._resume()

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(ACCEPT_AT_ONCE):
            if len(self._connections) >= self._max_connections:
                self._wait_for_room()
                return
            try:
                accepted, address = listening.accept()
            except BlockingIOError:
                return
            except ConnectionAbortedError:
                continue
            except OSError as error:
                self._back_off(error)
                return
            stream = IOStream(
                accepted, max_buffer_size=self.max_buffer_size, read_chunk_size=self.read_chunk_size
            )
            self.handle_stream(stream, address)

    def _wait_for_room(self) -> None:
        """Accept nothing until a connection closes; close idle ones."""
        self._report(
            "too many connections",
            advice=f"raise the limit of open files (ulimit -n): N connections need N + {NEEDED}",
        )
        self._pause()
        if not self._is_making_room:
            self._make_room()

    def _back_off(self, error: OSError) -> None:
        self._report("accept failed", error=error)
        self._pause()
        self._is_backing_off = True
        asyncio.get_running_loop().call_later(BACK_OFF_S, self._retry)

    def _retry(self) -> None:
        self._is_backing_off = False
        self._resume()

    def _pause(self) -> None:
        if self._is_accepting:
            self._is_accepting = False
            for sock in self._listening:
                asyncio.get_running_loop().remove_reader(sock.fileno())

    def _resume(self) -> None:
        """Accept again, unless there is a reason not to."""
        is_full = len(self._connections) >= self._max_connections
        if self._is_accepting or self._is_backing_off or is_full:
            return
        self._is_accepting = True
        for sock in self._listening:
            asyncio.get_running_loop().add_reader(sock.fileno(), self._accept, sock)

    def watch(self) -> None:
        """Enforce deadlines. Call this about once a second."""
        self._deadlines.close_late()

    def _make_room(self) -> None:
        """Close idle connections, now and again, until connections are accepted."""
        self._is_making_room = not self._is_accepting and bool(self._listening)
        if self._is_making_room:
            self._deadlines.make_room(max(32, self._max_connections // 4))
            asyncio.get_running_loop().call_later(RECYCLED_AFTER_S, self._make_room)

    def _report(self, event: str, *, error: OSError | None = None, **fields: object) -> None:
        now_s = time.monotonic()
        if now_s >= self._report_after_s:
            self._report_after_s = now_s + REPORT_EVERY_S
            logs.event(
                log,
                logging.WARNING,
                event,
                error=error,
                listener=self._name,
                connections=len(self._connections),
                limit=self._max_connections,
                **fields,
            )


class _TimedRequest(HTTPMessageDelegate):
    """Passes a request on to the application, and tells how far it has come."""

    def __init__(
        self, delegate: HTTPMessageDelegate, connection: ClientConnection, deadlines: Connections
    ) -> None:
        self._delegate = delegate
        self._connection = connection
        self._deadlines = deadlines

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> Awaitable[None] | None:
        """The head has arrived."""
        self._deadlines.receive(self._connection)
        if "Expect" in headers and headers["Expect"].lower() == "100-continue":
            headers["Expect"] = "100-continue"  # Tornado knows it in lower case only
        return self._delegate.headers_received(start_line, headers)

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        """More of the body has arrived."""
        return self._delegate.data_received(chunk)

    def finish(self) -> None:
        """The request has arrived completely."""
        self._deadlines.answer(self._connection)
        self._delegate.finish()

    def on_connection_close(self) -> None:
        """The rest of the request will never arrive."""
        self._delegate.on_connection_close()
