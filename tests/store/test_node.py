"""One memcached node under faults: what it reports, how soon, and that it recovers.

The processes and sockets are real.
"""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest

from smsd.errors import SaveUnsettled, StoreUnavailable
from smsd.store.node import Node
from smsd.store.pipeline import Loaded, Token
from tests.observer import Told
from tests.processes import Memcached, free_port, wait_for

pytestmark = pytest.mark.asyncio

KEY = b"smsd:key"


@asynccontextmanager
async def connected(name: str, timeout_s: float = 0.25) -> AsyncIterator[tuple[Node, Told]]:
    """A node, and what it told. Nothing in the event loop may raise meanwhile."""
    raised: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: raised.append(context))
    told = Told()
    node = Node(name, timeout_s, told)
    try:
        yield node, told
    finally:
        await node.close()
    await asyncio.sleep(0.01)  # the connection's end is reported
    assert not raised


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


@contextmanager
def server(*answers: bytes | None) -> Iterator[str]:
    """A server that answers each connection with the next of `answers`, or with silence
    if that is None. After the last it refuses connections.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    stop = threading.Event()

    def serve() -> None:
        for answer in answers:
            with listener.accept()[0] as sock:
                sock.recv(65536)
                if answer is None:
                    stop.wait(10)
                else:
                    sock.sendall(answer)
        listener.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        stop.set()
        thread.join(10)


async def fails(operation: Awaitable[object]) -> str:
    with pytest.raises(StoreUnavailable) as caught:
        await operation
    return caught.value.kind


async def test_save_needs_the_current_token() -> None:
    with Memcached() as memcached:
        async with connected(memcached.node) as (node, told):
            assert await node.load(KEY) == Loaded(None, None)
            assert await node.save(KEY, b"one", None, 60)
            read = await node.load(KEY)
            assert read.value == b"one"
            assert not await node.save(KEY, b"two", None, 60)
            assert await node.save(KEY, b"two", read.token, 60)
            assert not await node.save(KEY, b"three", read.token, 60)
            assert not told.errors


async def test_save_again_returns_the_next_token() -> None:
    with Memcached() as memcached:
        async with connected(memcached.node, timeout_s=5) as (node, _told):
            await until(lambda: node._speaks_meta)
            token = await node.save(KEY, b"one", None, 60, again=True)
            assert token
            assert await node.save(KEY, b"other", None, 60, again=True) is None
            second = await node.save(KEY, b"two", token, 60, again=True)
            assert second
            assert await node.save(KEY, b"three", token, 60, again=True) is None
            assert await node.save(KEY, b"three", second, 60)
            assert (await node.load(KEY)).value == b"three"


async def test_old_memcached_is_written_without_meta_commands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("smsd.store.node.META_SINCE", (99,))

    with Memcached() as memcached:
        async with connected(memcached.node, timeout_s=5) as (node, told):
            token = await node.save(KEY, b"one", None, 60, again=True)
            assert token
            assert not await node.save(KEY, b"two", token, 60)  # it is not known: read first
            token = (await node.load(KEY)).token
            assert await node.save(KEY, b"two", token, 60, again=True)
            assert (await node.load(KEY)).value == b"two"
            assert not told.errors


async def test_read_is_repeated_after_memcached_restarts() -> None:
    with Memcached() as memcached:
        async with connected(memcached.node, timeout_s=5) as (node, told):
            assert await node.save(KEY, b"one", None, 60)
            token = (await node.load(KEY)).token
            memcached.kill()
            memcached.start()
            assert await node.load(KEY) == Loaded(None, None)
            assert not told.errors
            assert node.is_up
            # memcached counts its tokens from 1 again: an old one must not fit by chance
            assert await node.save(KEY, b"other", None, 60)
            assert not await node.save(KEY, b"mine", token, 60)
            assert (await node.load(KEY)).value == b"other"


async def test_write_with_an_old_token_fails_after_a_restart() -> None:
    with Memcached() as memcached:
        async with connected(memcached.node, timeout_s=5) as (node, told):
            assert await node.save(KEY, b"one", None, 60)
            token = (await node.load(KEY)).token
            memcached.kill()
            memcached.start()
            with contextlib.suppress(SaveUnsettled):  # if it was sent before the kill was seen
                assert not await node.save(KEY, b"two", token, 60)
            assert (await node.load(KEY)).value is None
            assert not told.errors


async def test_connection_lost_during_its_probe_is_replaced() -> None:
    """What waits behind the probe is sent over the next connection."""

    with server(b"END\r\n", b"END\r\nEND\r\n") as name:
        async with connected(name, timeout_s=5) as (node, told):
            for _ in range(2):
                assert (await node.load(KEY)).value is None
            assert not told.errors


async def test_half_an_answer_is_forgotten_with_its_connection() -> None:
    half = b"END\r\nVALUE smsd:probe 0 5 1\r\nab"
    with server(half, b"END\r\nEND\r\n") as name:
        async with connected(name, timeout_s=5) as (node, told):
            for _ in range(2):
                assert (await node.load(KEY)).value is None
            assert not told.errors


async def test_server_that_keeps_closing_is_not_hammered() -> None:
    """It answers each probe and closes: the node is up, yet no connection lasts."""
    accepted: list[float] = []

    def serve() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            with sock:
                accepted.append(time.monotonic())
                sock.recv(4096)
                sock.sendall(b"END\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        async with connected(f"127.0.0.1:{listener.getsockname()[1]}", timeout_s=5) as (
            _node,
            told,
        ):
            await until(lambda: len(accepted) >= 12)
            assert accepted[11] - accepted[0] > 0.9  # 0.02, 0.04 and 0.08 s, then 0.1 s each
            assert not told.errors
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)


async def test_node_recovers_from_refused_connections() -> None:
    memcached = Memcached()
    try:
        async with connected(memcached.node) as (node, told):
            assert await fails(node.load(KEY)) == "refused"
            assert told.up == {node.name: False}
            assert await fails(node.load(KEY)) == "down"  # at once: the breaker is open
            memcached.start()
            await until(lambda: node.is_up)
            assert await node.save(KEY, b"one", None, 60)
            assert told.up == {node.name: True}
    finally:
        memcached.kill()


async def test_node_recovers_from_hanging() -> None:
    with Memcached() as memcached:
        async with connected(memcached.node) as (node, _told):
            assert await node.save(KEY, b"one", None, 60)
            memcached.hang()
            kinds = await asyncio.gather(*(fails(node.load(KEY)) for _ in range(100)))
            assert set(kinds) == {"timeout"}
            assert await fails(node.save(KEY, b"two", None, 60)) == "down"
            memcached.resume()
            await until(lambda: node.is_up)
            assert (await node.load(KEY)).value == b"one"


@pytest.mark.parametrize(
    ("answers", "kind"),
    [
        ((None,), "timeout"),
        ((b"",), "closed"),
        ((b"VALUE smsd:key 0 5 1\r\nab",), "closed"),
        ((b"NONSENSE\r\n",), "protocol"),
        ((b"VALUE smsd:key 0 x 1\r\n",), "protocol"),
        ((b"VALUE a b c d e f\r\n",), "protocol"),
        ((b"HTTP/1.1 400 Bad Request\r\n",), "protocol"),
    ],
)
async def test_broken_answer_to_a_read_is_an_outage(
    answers: tuple[bytes | None, ...], kind: str
) -> None:
    with server(*answers) as name:
        async with connected(name) as (node, told):
            assert await fails(node.load(KEY)) == kind
            assert told.errors[node.name, kind] == 1
            assert not node.is_up


@pytest.mark.parametrize("answer", [b"WHAT\r\n", b"VALUE x\r\n"])
async def test_broken_answer_to_a_write_is_an_outage(answer: bytes) -> None:
    with server(answer) as name:
        async with connected(name) as (node, _told):
            assert await fails(node.save(KEY, b"v", None, 60)) == "protocol"


async def test_dripping_answer_ends_at_the_deadline() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    stop = threading.Event()

    def drip() -> None:
        with listener.accept()[0] as sock:
            sock.recv(4096)
            try:
                while not stop.wait(0.05):
                    sock.sendall(b"V")
            except OSError:
                return  # the node gave up, as it must

    thread = threading.Thread(target=drip, daemon=True)
    thread.start()

    async with connected(f"127.0.0.1:{listener.getsockname()[1]}") as (node, _told):
        assert await fails(node.load(KEY)) == "timeout"
    stop.set()
    thread.join(10)
    listener.close()


async def test_unknown_host_is_an_outage() -> None:
    async with connected("memcached-0.invalid:11211", timeout_s=2) as (node, _told):
        assert await fails(node.load(KEY)) == "lookup"


async def test_refused_value_affects_only_itself() -> None:
    with Memcached() as memcached:
        async with connected(memcached.node, timeout_s=5) as (node, told):
            kind, written = await asyncio.gather(
                fails(node.save(b"smsd:large", b"x" * 2_000_000, None, 60)),
                node.save(KEY, b"small", None, 60),
            )
            assert kind == "server"
            assert written
            assert node.is_up
            assert told.errors[node.name, "server"] == 1


async def test_node_accepts_an_ipv6_address_in_brackets() -> None:
    async with connected(f"[::1]:{free_port()}") as (node, _told):
        assert await fails(node.load(KEY)) in {"refused", "network"}


async def test_token_of_another_connection_is_never_sent() -> None:
    with Memcached() as memcached:
        async with connected(memcached.node, timeout_s=5) as (node, _told):
            assert await node.save(KEY, b"one", None, 60)
            read = await node.load(KEY)
            assert read.token
            assert not await node.save(
                KEY, b"two", Token(read.token.generation + 1, read.token.cas), 60
            )
            assert (await node.load(KEY)).value == b"one"


async def test_blocked_event_loop_is_not_taken_for_an_outage() -> None:
    with Memcached() as memcached:
        async with connected(memcached.node) as (node, told):
            assert await node.save(KEY, b"one", None, 60)
            reading = asyncio.gather(*(node.load(KEY) for _ in range(3)))
            await asyncio.sleep(0)
            time.sleep(0.5)  # a dialogue that computes
            assert [read.value for read in await reading] == [b"one"] * 3
            assert not told.errors


async def test_hanging_node_is_noticed_despite_a_blocked_loop() -> None:
    with Memcached() as memcached:
        async with connected(memcached.node) as (node, _told):
            assert await node.save(KEY, b"one", None, 60)
            memcached.hang()
            reading = asyncio.create_task(fails(node.load(KEY)))
            await asyncio.sleep(0)
            time.sleep(0.5)
            assert await reading == "timeout"


async def test_close_closes_the_connection() -> None:
    def connections() -> int:
        client = memcached.client()
        count: int = client.stats()[b"curr_connections"]
        client.close()
        return count

    with Memcached() as memcached:
        async with connected(memcached.node) as (node, _told):
            await node.load(KEY)
            assert connections() == 2  # the node's and the one that asks
        wait_for(lambda: connections() == 1, "the connection closed")
