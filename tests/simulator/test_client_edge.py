"""Both clients against a real server on real sockets."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import ClassVar

import pytest
import pytest_asyncio
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler

from smsd.simulator import Account, BlockingClient, Client, Failure, Outcome, Response

pytestmark = pytest.mark.asyncio

PUBLIC = "https://sms.example.com/texts/sms"


class Echo(RequestHandler):
    seen: ClassVar[list[str]] = []

    def post(self) -> None:
        self.seen.append(self.get_body_argument("MessageSid", ""))
        self.set_header("Content-Type", "text/xml")
        for name in ("a", "b"):
            self.add_header("Set-Cookie", f"{name}={len(self.seen)}; Path=/")
        told = f"{self.request.host} {self.request.headers.get('Cookie')} {self.request.headers.get('X-Extra')}"
        self.write(f"<Response><Message>{told}</Message></Response>")


class Slow(RequestHandler):
    async def post(self) -> None:
        await asyncio.Event().wait()


class Status(RequestHandler):
    def post(self) -> None:
        self.set_status(204)


@pytest_asyncio.fixture
async def address() -> AsyncIterator[str]:
    """The address of a server on an unused port."""
    Echo.seen.clear()
    routes = [("/texts/sms", Echo), ("/slow", Slow), ("/status", Status)]
    sock, port = bind_unused_port()
    server = HTTPServer(Application(routes))
    server.add_socket(sock)
    yield f"127.0.0.1:{port}"
    server.stop()
    await server.close_all_connections()


async def test_public_url_is_signed_whatever_address_is_connected_to(address: str) -> None:
    async with Client(PUBLIC, connect_to=address, headers=[("X-Extra", "1")]) as client:
        assert (await client.text("hi")).text == "sms.example.com None 1"
        outcome = await client.text("hi")
        assert outcome.text == "sms.example.com a=1; b=1 1"
        assert outcome.cookie_sent == "a=1; b=1"
        assert outcome.elapsed_s > 0


async def test_the_blocking_client_does_the_same(address: str) -> None:
    client = BlockingClient(PUBLIC, connect_to=address)
    first = await asyncio.to_thread(client.text, "hi")
    second = await asyncio.to_thread(client.text, "hi")
    assert (first.text, second.text) == (
        "sms.example.com None None",
        "sms.example.com a=1; b=1 None",
    )


async def test_without_connect_to_the_url_itself_is_asked(address: str) -> None:
    async with Client(f"http://{address}/texts/sms") as client:
        assert (await client.text("hi")).text == f"{address} None None"


async def test_one_message_goes_to_many_addresses_at_once(address: str) -> None:
    async with Client(PUBLIC) as client:
        message = client.compose("hi")
        outcomes = await client.everywhere(message, [address] * 5)
        assert [outcome.status for outcome in outcomes] == [200] * 5
        assert Echo.seen == [message.sid] * 5


async def test_recorded_request_can_be_changed_and_sent_again(address: str) -> None:
    async with Client(PUBLIC, connect_to=address) as client:
        request = (await client.text("hi")).attempts[0].request
        result = await client.perform(replace(request, body=b"MessageSid=other"))
        assert isinstance(result, Response)
        assert Echo.seen[-1] == "other"


async def test_status_callbacks_reach_the_service(address: str) -> None:
    async with Client(PUBLIC, connect_to=address) as client:
        outcome = await client.text("hi")
        told = await client.status(outcome, "delivered", url="https://sms.example.com/status")
        assert (told.status, told.codes) == (204, ())
        silent: Outcome = replace(outcome, replies=())
        assert (
            await client.status(silent, "sent", url="https://sms.example.com/status")
        ).status == 204


async def test_any_bytes_can_be_sent(address: str) -> None:
    async with Client(PUBLIC, connect_to=address) as client:
        assert (await client.raw(b"GET / HTTP/1.0\r\n\r\n")).startswith(b"HTTP/1.1 404")
        assert (
            await client.raw(b"POST /slow HTTP/1.1\r\nHost: a\r\n", address=address, timeout_s=0.05)
            == b""
        )


def _silent() -> socket.socket:
    """A listener whose queue is full: connecting to it gets no answer."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    return listener


@pytest.mark.parametrize("kind", [Client, BlockingClient])
async def test_what_goes_wrong_on_the_wire_has_twilios_code(
    kind: type[Client] | type[BlockingClient], address: str
) -> None:
    async def code(url: str, account: Account | None = None) -> tuple[int, ...]:
        client = kind(url, account=account)
        if isinstance(client, BlockingClient):
            return (await asyncio.to_thread(client.text, "hi")).codes
        async with client:
            return (await client.text("hi")).codes

    free, port = bind_unused_port()
    free.close()
    assert await code(f"http://127.0.0.1:{port}/sms") == (11202,)
    assert await code(f"http://{address}/slow#rt=100") == (11203,)
    assert await code("http://no-such-host.invalid/sms#rc=0") == (11210,)
    assert await _serve(_closing, "http", code) == (11205,)
    babble = await _serve(_babbling, "http", code)
    assert babble == (
        (11206,) if kind is BlockingClient else (11205,)
    )  # Tornado's client just hangs up
    assert await _serve(_babbling, "https", code) == (11220,)
    assert await _serve(_stopping, "http", code) == (11203,)
    with _silent() as full, socket.socket() as first, socket.socket() as second:
        for filler in (first, second):
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        assert await code(f"http://127.0.0.1:{full.getsockname()[1]}/sms#ct=100&rc=0") == (11205,)


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def _serve(
    handle: Handler, scheme: str, code: Callable[[str], Awaitable[tuple[int, ...]]]
) -> tuple[int, ...]:
    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        return await code(
            f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}/sms#rt=300&rp=all"
        )
    finally:
        server.close()


async def _closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.close()


async def _babbling(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.write(b"hello, this is no HTTP\r\n\r\n")
    writer.close()


async def _stopping(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Begins an answer, which must not be asked for again, and never ends it."""
    await reader.read(1)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")
    await reader.read()
    writer.close()


def test_a_failure_tells_what_happened() -> None:
    free, port = bind_unused_port()
    free.close()
    outcome = BlockingClient(f"http://127.0.0.1:{port}/sms").text("hi")
    result = outcome.attempts[0].result
    assert isinstance(result, Failure)
    assert (result.kind, len(outcome.attempts), outcome.status) == ("refused", 2, None)


async def test_a_status_goes_where_the_reply_says(address: str) -> None:
    async with Client(PUBLIC, connect_to=address) as client:
        outcome = await client.text("hi")
        status_url, action = (
            "https://sms.example.com/status?of=1",
            "https://sms.example.com/did",
        )
        for reply, asked in (
            (replace(outcome.replies[0], action=action), action),
            (
                replace(outcome.replies[0], action=action, status_callback=status_url),
                status_url,
            ),
        ):
            told = await client.status(replace(outcome, replies=(reply,)), "delivered")
            assert told.attempts[0].request.url == asked
