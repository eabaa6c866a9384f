"""Deadlines of connections, and what happens when there are too many; in process, with
real sockets."""

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler

from smsd.web import accept, connections
from smsd.web.accept import BoundedServer
from smsd.web.connections import Connections

pytestmark = pytest.mark.asyncio

HEAD = b"POST /sms HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n"
LARGE = b"x" * 16_000_000
"""More than the buffers of both sockets hold."""


class Echo(RequestHandler):
    async def post(self) -> None:
        if self.request.body == b"neverrrrrr":
            await asyncio.Event().wait()
        self.finish(LARGE if self.request.body == b"0123456789" else self.request.body)


class LargePage(RequestHandler):
    def get(self) -> None:
        self.finish(LARGE)


class Server(BoundedServer):
    """Remembers its port and its clients."""

    port: int
    clients: list[asyncio.StreamWriter]


@asynccontextmanager
async def serving(*, most: int = 1000, **deadlines_s: Any) -> AsyncIterator[Server]:
    server = Server(
        Application([("/sms", Echo), ("/large", LargePage)]),
        name="public",
        max_body_bytes=65536,
        max_connections=most,
        deadlines=Connections(**deadlines_s),
    )
    sock, server.port = bind_unused_port()
    server.clients = []
    server.add_sockets([sock])

    async def watch() -> None:
        while True:
            server.watch()
            await asyncio.sleep(0.01)

    watching = asyncio.create_task(watch())
    try:
        yield server
    finally:
        watching.cancel()
        server.stop()
        for writer in server.clients:
            writer.close()
        await server.close_all_connections()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


async def connect(server: Server) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    server.clients.append(writer)
    return reader, writer


async def is_closed(reader: asyncio.StreamReader) -> bool:
    async with asyncio.timeout(20):
        try:
            return await reader.read() == b""
        except ConnectionError:
            return True


@pytest.mark.parametrize(
    ("sent", "deadlines_s"),
    [
        (b"", {"idle_s": 0.1}),
        (b"POST /sms HT", {"idle_s": 0.1}),
        (HEAD + b"01234", {"body_s": 0.1}),
        (HEAD.replace(b"/sms", b"/large") + b"01234", {"body_s": 0.1}),
    ],
    ids=["silent", "head", "body", "body of a page"],
)
async def test_request_that_never_ends_is_closed(sent: bytes, deadlines_s: dict[str, Any]) -> None:
    async with serving(**deadlines_s) as server:
        reader, writer = await connect(server)
        writer.write(sent)
        assert await is_closed(reader)
        await until(lambda: not server.connections)
        assert len(server._deadlines) == 0


@pytest.mark.parametrize(
    "request_",
    [HEAD + b"0123456789", b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n"],
    ids=["webhook", "page"],
)
@pytest.mark.parametrize("reads", [0, 100])
async def test_peer_that_does_not_read_its_answer_is_closed(request_: bytes, reads: int) -> None:
    """Neither does a peer gain time by reading a little now and then."""
    async with serving(unread_s=0.3) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as peer:
            peer.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(peer, request_)
            await until(lambda: server.connections)

            async def read_a_little() -> None:
                while reads:
                    await loop.sock_recv(peer, reads)
                    await asyncio.sleep(0.02)

            reading = asyncio.create_task(read_a_little())
            await until(lambda: not server.connections)
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


async def test_peer_that_pipelines_and_reads_nothing_is_closed() -> None:
    async with serving(unread_s=0.3) as server:
        _, writer = await connect(server)
        writer.write((HEAD + b"9876543210") * 100 + (HEAD + b"0123456789") * 2)
        await until(lambda: server.connections)
        await until(lambda: not server.connections)


async def test_request_that_is_never_answered_is_closed() -> None:
    """A bug of ours must not hold a connection."""
    async with serving(serving_s=0.2) as server:
        reader, writer = await connect(server)
        writer.write(HEAD + b"neverrrrrr")
        assert await is_closed(reader)
        await until(lambda: not server.connections)


async def test_connection_within_its_deadlines_is_kept() -> None:
    async with serving(idle_s=20, body_s=20, serving_s=20, unread_s=20) as server:
        reader, writer = await connect(server)
        for _ in range(3):
            writer.write(HEAD + b"98765")
            await asyncio.sleep(0.05)
            writer.write(b"43210")
            answer = await reader.readuntil(b"9876543210")
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert server.connections == 1


# ---- too many


def refused_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == accept.log.name]


async def test_no_more_connections_are_accepted_than_allowed(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "RECYCLED_AFTER_S", 60)
    async with serving(most=5) as server:
        peers = [await connect(server) for _ in range(12)]  # the kernel accepts for us
        await until(lambda: server.connections == 5)
        for _, writer in peers:
            writer.write(HEAD + b"9876543210")
        for reader, writer in peers:
            async with asyncio.timeout(20):
                await reader.readuntil(b"9876543210")
            assert server.connections <= 5
            writer.close()
    assert refused_lines(caplog) == ["too many connections"]


async def test_idle_connections_make_room_for_new_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "RECYCLED_AFTER_S", 0.05)
    async with serving(most=8) as server:
        for _ in range(30):
            await connect(server)
        reader, writer = await connect(server)
        writer.write(HEAD + b"9876543210")
        async with asyncio.timeout(20):
            await reader.readuntil(b"9876543210")


async def test_connection_with_a_request_makes_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "RECYCLED_AFTER_S", 0)
    async with serving(most=1) as server:
        reader, writer = await connect(server)
        writer.write(HEAD + b"98765")
        await until(lambda: server._deadlines._receiving)
        await connect(server)
        await asyncio.sleep(0.1)
        writer.write(b"43210")
        await reader.readuntil(b"9876543210")


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.EPROTO])
async def test_accept_that_fails_backs_off_with_one_line_and_recovers(
    number: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(accept, "BACK_OFF_S", 0.02)

    class Failing:
        """A listening socket whose `accept` fails as often as it is told."""

        def __init__(self, sock: socket.socket) -> None:
            self.fileno, self.close, self._sock = sock.fileno, sock.close, sock
            self.failures = 5
            self.calls = 0

        def accept(self) -> Any:
            self.calls += 1
            if self.calls == 1:
                raise ConnectionAbortedError
            if self.failures:
                self.failures -= 1
                raise OSError(number, "no")
            return self._sock.accept()

    async with serving() as server:
        sock, port = bind_unused_port()
        failing = Failing(sock)
        server.add_sockets([failing])  # type: ignore[list-item]
        server.port = port
        reader, writer = await connect(server)
        writer.write(HEAD + b"9876543210")
        await reader.readuntil(b"9876543210")
        assert failing.failures == 0
        assert failing.calls < 10
    assert refused_lines(caplog) == ["accept failed"]
