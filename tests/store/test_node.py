"""One memcached node under faults: what it reports, how soon, and that it recovers.

The processes and sockets are real.
"""

import asyncio
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import pytest

from smsd.errors import StoreUnavailable
from smsd.store import protocol
from smsd.store.node import Node, Read, Token
from tests.observer import Told
from tests.processes import Memcached, free_port, wait_for

KEY = b"smsd:key"


def run(name: str, test: Callable[[Node, Told], Awaitable[None]], timeout_s: float = 0.25) -> None:
    async def whole() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: raised.append(context))
        told = Told()
        node = Node(name, timeout_s, told)
        try:
            await test(node, told)
        finally:
            await node.close()
        await asyncio.sleep(0.01)  # the connection's end is reported

    raised: list[object] = []
    asyncio.run(whole())
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


def test_write_needs_the_current_token() -> None:
    async def test(node: Node, told: Told) -> None:
        assert await node.read(KEY) == Read(None, None)
        assert await node.write(KEY, b"one", None, 60)
        read = await node.read(KEY)
        assert read.value == b"one"
        assert not await node.write(KEY, b"two", None, 60)
        assert await node.write(KEY, b"two", read.token, 60)
        assert not await node.write(KEY, b"three", read.token, 60)
        assert not told.errors

    with Memcached() as memcached:
        run(memcached.node, test)


def test_write_again_returns_the_next_token() -> None:
    async def test(node: Node, told: Told) -> None:
        await until(lambda: node._speaks_meta)
        token = await node.write_again(KEY, b"one", None, 60)
        assert token
        assert await node.write_again(KEY, b"other", None, 60) is None
        second = await node.write_again(KEY, b"two", token, 60)
        assert second
        assert await node.write_again(KEY, b"three", token, 60) is None
        assert await node.write(KEY, b"three", second, 60)
        assert (await node.read(KEY)).value == b"three"

    with Memcached() as memcached:
        run(memcached.node, test, timeout_s=5)


def test_old_memcached_is_written_without_meta_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "META_SINCE", (99,))

    async def test(node: Node, told: Told) -> None:
        token = await node.write_again(KEY, b"one", None, 60)
        assert token
        assert not await node.write(KEY, b"two", token, 60)  # it is not known: read first
        token = (await node.read(KEY)).token
        assert await node.write_again(KEY, b"two", token, 60)
        assert (await node.read(KEY)).value == b"two"
        assert not told.errors

    with Memcached() as memcached:
        run(memcached.node, test, timeout_s=5)


def test_read_is_repeated_after_memcached_restarts() -> None:
    async def test(node: Node, told: Told) -> None:
        assert await node.write(KEY, b"one", None, 60)
        token = (await node.read(KEY)).token
        memcached.kill()
        memcached.start()
        assert await node.read(KEY) == Read(None, None)
        assert not told.errors
        assert node.is_up
        # memcached counts its tokens from 1 again: an old one must not fit by chance
        assert await node.write(KEY, b"other", None, 60)
        assert not await node.write(KEY, b"mine", token, 60)
        assert (await node.read(KEY)).value == b"other"

    with Memcached() as memcached:
        run(memcached.node, test, timeout_s=5)


def test_write_with_an_old_token_fails_after_a_restart() -> None:
    async def test(node: Node, told: Told) -> None:
        assert await node.write(KEY, b"one", None, 60)
        token = (await node.read(KEY)).token
        memcached.kill()
        memcached.start()
        assert not await node.write(KEY, b"two", token, 60)
        assert not told.errors

    with Memcached() as memcached:
        run(memcached.node, test, timeout_s=5)


def test_connection_lost_during_its_probe_is_replaced() -> None:
    """What waits behind the probe is sent over the next connection."""

    async def test(node: Node, told: Told) -> None:
        for _ in range(2):
            assert (await node.read(KEY)).value is None
        assert not told.errors

    with server(b"END\r\n", b"END\r\nEND\r\n") as name:
        run(name, test, timeout_s=5)


def test_server_that_keeps_closing_is_not_hammered() -> None:
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

    async def test(node: Node, told: Told) -> None:
        await until(lambda: len(accepted) >= 12)
        assert accepted[11] - accepted[0] > 0.9  # 0.02, 0.04 and 0.08 s, then 0.1 s each
        assert not told.errors

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        run(f"127.0.0.1:{listener.getsockname()[1]}", test, timeout_s=5)
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)


def test_node_recovers_from_refused_connections() -> None:
    async def test(node: Node, told: Told) -> None:
        assert await fails(node.read(KEY)) == "refused"
        assert told.up == {node.name: False}
        assert await fails(node.read(KEY)) == "down"  # at once: the breaker is open
        memcached.start()
        await until(lambda: node.is_up)
        assert await node.write(KEY, b"one", None, 60)
        assert told.up == {node.name: True}

    memcached = Memcached()
    try:
        run(memcached.node, test)
    finally:
        memcached.kill()


def test_node_recovers_from_hanging() -> None:
    async def test(node: Node, told: Told) -> None:
        assert await node.write(KEY, b"one", None, 60)
        memcached.hang()
        kinds = await asyncio.gather(*(fails(node.read(KEY)) for _ in range(100)))
        assert set(kinds) == {"timeout"}
        assert await fails(node.write(KEY, b"two", None, 60)) == "down"
        memcached.resume()
        await until(lambda: node.is_up)
        assert (await node.read(KEY)).value == b"one"

    with Memcached() as memcached:
        run(memcached.node, test)


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
def test_broken_answer_to_a_read_is_an_outage(answers: tuple[bytes | None, ...], kind: str) -> None:
    async def test(node: Node, told: Told) -> None:
        assert await fails(node.read(KEY)) == kind
        assert told.errors[node.name, kind] == 1
        assert not node.is_up

    with server(*answers) as name:
        run(name, test)


@pytest.mark.parametrize("answer", [b"WHAT\r\n", b"VALUE x\r\n"])
def test_broken_answer_to_a_write_is_an_outage(answer: bytes) -> None:
    async def test(node: Node, told: Told) -> None:
        assert await fails(node.write(KEY, b"v", None, 60)) == "protocol"

    with server(answer) as name:
        run(name, test)


def test_dripping_answer_ends_at_the_deadline() -> None:
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

    async def test(node: Node, told: Told) -> None:
        assert await fails(node.read(KEY)) == "timeout"

    run(f"127.0.0.1:{listener.getsockname()[1]}", test)
    stop.set()
    thread.join(10)
    listener.close()


def test_unknown_host_is_an_outage() -> None:
    async def test(node: Node, told: Told) -> None:
        assert await fails(node.read(KEY)) == "lookup"

    run("memcached-0.invalid:11211", test, timeout_s=2)


def test_refused_value_affects_only_itself() -> None:
    async def test(node: Node, told: Told) -> None:
        kind, written = await asyncio.gather(
            fails(node.write(b"smsd:large", b"x" * 2_000_000, None, 60)),
            node.write(KEY, b"small", None, 60),
        )
        assert (kind, written) == ("server", True)
        assert node.is_up
        assert told.errors[node.name, "server"] == 1

    with Memcached() as memcached:
        run(memcached.node, test, timeout_s=5)


def test_node_accepts_an_ipv6_address_in_brackets() -> None:
    async def test(node: Node, told: Told) -> None:
        assert await fails(node.read(KEY)) in {"refused", "network"}

    run(f"[::1]:{free_port()}", test)


def test_token_of_another_connection_is_never_sent() -> None:
    async def test(node: Node, told: Told) -> None:
        assert await node.write(KEY, b"one", None, 60)
        read = await node.read(KEY)
        assert read.token
        assert not await node.write(
            KEY, b"two", Token(read.token.connection + 1, read.token.cas), 60
        )
        assert (await node.read(KEY)).value == b"one"

    with Memcached() as memcached:
        run(memcached.node, test, timeout_s=5)


def test_blocked_event_loop_is_not_taken_for_an_outage() -> None:
    async def test(node: Node, told: Told) -> None:
        assert await node.write(KEY, b"one", None, 60)
        reading = asyncio.gather(*(node.read(KEY) for _ in range(3)))
        await asyncio.sleep(0)
        time.sleep(0.5)  # a dialogue that computes
        assert [read.value for read in await reading] == [b"one"] * 3
        assert not told.errors

    with Memcached() as memcached:
        run(memcached.node, test)


def test_hanging_node_is_noticed_despite_a_blocked_loop() -> None:
    async def test(node: Node, told: Told) -> None:
        assert await node.write(KEY, b"one", None, 60)
        memcached.hang()
        reading = asyncio.create_task(fails(node.read(KEY)))
        await asyncio.sleep(0)
        time.sleep(0.5)
        assert await reading == "timeout"

    with Memcached() as memcached:
        run(memcached.node, test)


def test_close_closes_the_connection() -> None:
    async def test(node: Node, told: Told) -> None:
        await node.read(KEY)
        assert connections() == 2  # the node's and the one that asks

    def connections() -> int:
        client = memcached.client()
        count: int = client.stats()[b"curr_connections"]
        client.close()
        return count

    with Memcached() as memcached:
        run(memcached.node, test)
        wait_for(lambda: connections() == 1, "the connection closed")
