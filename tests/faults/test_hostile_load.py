"""Hostile peers in numbers: whatever they do, others are served within a second."""

import asyncio
import contextlib
import resource
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest

from tests.faults.history import Recorder
from tests.faults.world import World, number, world

pytestmark = pytest.mark.asyncio

HEAD = b"POST /sms HTTP/1.1\r\nHost: sms.example.com\r\nContent-Type: application/x-www-form-urlencoded\r\n"
UNSIGNED = HEAD + b"Content-Length: 6\r\n\r\nBody=x"
MISMATCH = HEAD + b"X-Twilio-Signature: c2lnbmF0dXJl\r\nContent-Length: 6\r\n\r\nBody=x"
Peer = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture(scope="module")
def one() -> Iterator[World]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 8192)), hard))
    with world(replicas=1) as made:
        yield made
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def idle(peer: Peer) -> None:
    """Says nothing."""


async def slow_headers(peer: Peer) -> None:
    for byte in HEAD:
        peer[1].write(bytes((byte,)))
        await asyncio.sleep(0.5)


async def slow_body(peer: Peer) -> None:
    peer[1].write(HEAD + b"Content-Length: 60000\r\n\r\n")
    while True:
        peer[1].write(b"a=b&")
        await asyncio.sleep(0.5)


async def endless_headers(peer: Peer) -> None:
    peer[1].write(HEAD + b"X: " + b"x" * 1_000_000)
    await peer[1].drain()


async def pipelined(peer: Peer) -> None:
    """Many requests in one go, and no answer is ever read."""
    peer[1].write(UNSIGNED * 200)
    await peer[1].drain()


async def forger(peer: Peer) -> None:
    """Signatures that do not fit, one after the other."""
    while True:
        peer[1].write(MISMATCH)
        await peer[0].readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.1)


async def chunks(peer: Peer) -> None:
    """A chunked body of a hundred thousand chunks."""
    peer[1].write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    peer[1].write(b"4\r\na=b&\r\n" * 100_000)
    await peer[1].drain()


@contextlib.asynccontextmanager
async def attack(
    port: int, behave: Callable[[Peer], Awaitable[None]], peers: int
) -> AsyncIterator[None]:
    """So many peers that behave so, for the length of the block."""
    connections = [await asyncio.open_connection("127.0.0.1", port) for _ in range(peers)]

    async def misbehave(peer: Peer) -> None:
        with contextlib.suppress(OSError, EOFError):
            await behave(peer)

    tasks = [asyncio.create_task(misbehave(peer)) for peer in connections]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for _, writer in connections:
            writer.transport.abort()
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("behave", "peers"),
    [
        (idle, 2000),
        (slow_headers, 200),
        (slow_body, 200),
        (endless_headers, 50),
        (pipelined, 20),
        (forger, 20),
        (chunks, 3),
    ],
)
async def test_others_are_served_within_a_second(
    one: World, behave: Callable[[Peer], Awaitable[None]], peers: int
) -> None:
    async with Recorder(one.replicas) as twilio, attack(one.replicas[0].port, behave, peers):
        from_ = number()
        for _ in range(10):
            await twilio.text(from_)
            await asyncio.sleep(0.03)
        assert twilio.violations() == []
        assert max(delivery.took_s for delivery in twilio.history) < 1
    assert "Traceback" not in one.replicas[0].log()
