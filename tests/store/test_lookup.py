"""Names of nodes: slow, hanging, failing and changing lookups, and several addresses.

The resolver is the tests' own; memcached processes and sockets are real. 127.0.0.2 and
its like are other addresses of this machine.
"""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest

from smsd.errors import StoreUnavailable
from smsd.store import lookup
from smsd.store.lookup import AddressInfo, LookupFailed, NameLookup, split_name
from smsd.store.node import Node
from smsd.store.pipeline import Loaded
from tests.observer import Told
from tests.processes import Memcached, free_port
from tests.store.test_node import KEY, fails, until

pytestmark = pytest.mark.asyncio

Addresses = tuple[AddressInfo, ...]


def addresses(*hosts: str, port: int) -> Addresses:
    return tuple(
        (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port)) for host in hosts
    )


class Resolver:
    """Answers with `hosts`, raises if there are none, hangs while `hangs` is set."""

    def __init__(self, *hosts: str) -> None:
        self.hosts = hosts
        self.calls = 0
        self.under_way = 0
        self.most_under_way = 0
        self._released = threading.Event()
        self._released.set()

    def hang(self) -> None:
        self._released.clear()

    def release(self) -> None:
        self._released.set()

    def __call__(self, host: str, port: int) -> Addresses:
        self.calls += 1
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        self._released.wait(20)
        self.under_way -= 1
        if not self.hosts:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return addresses(*self.hosts, port=port)


@asynccontextmanager
async def connected(
    resolver: Resolver, *, port: int, timeout_s: float = 0.25, lookup_every_s: float = 30.0
) -> AsyncIterator[tuple[Node, Told]]:
    told = Told()
    node = Node(
        f"memcached-0.test:{port}",
        timeout_s,
        told,
        resolver=resolver,
        lookup_every_s=lookup_every_s,
    )
    try:
        yield node, told
    finally:
        resolver.release()
        await node.close()


async def is_connected(node: Node) -> None:
    """Wait until the node answers."""
    async with asyncio.timeout(20):
        while True:
            try:
                await node.load(KEY)
            except StoreUnavailable:
                await asyncio.sleep(0.01)
            else:
                return


async def test_node_connects_after_a_slow_lookup() -> None:
    resolver = Resolver("127.0.0.1")
    resolver.hang()

    with Memcached() as memcached:
        async with connected(resolver, port=memcached.port) as (node, told):
            assert await fails(node.load(KEY)) == "lookup"
            assert await fails(node.load(KEY)) == "down"
            resolver.release()
            await is_connected(node)
            assert resolver.calls == 1  # its answer was good, though late
            ((_, kind, _), (_, _, down_s)) = told.outages
            assert (kind, down_s is not None) == ("lookup", True)


async def test_late_lookup_is_used_by_the_next_attempt() -> None:
    resolver = Resolver("127.0.0.1")
    resolver.hang()

    with Memcached() as memcached:
        async with connected(resolver, port=memcached.port) as (node, told):
            node._lookup._budget_s = 0.05
            await until(lambda: told.errors[node.name, "lookup"] >= 3)
            assert resolver.calls == 1
            resolver.release()
            await is_connected(node)
            assert resolver.most_under_way == 1


async def test_hanging_lookup_does_not_delay_other_nodes() -> None:
    hanging, quick = Resolver("127.0.0.1"), Resolver("127.0.0.1")
    hanging.hang()
    with Memcached() as memcached:
        port = memcached.port
        hung = [Node(f"hung-{i}.test:{port}", 0.25, Told(), resolver=hanging) for i in range(8)]
        node = Node(f"quick.test:{port}", 5, Told(), resolver=quick)
        await node.load(KEY)
        hanging.release()
        for each in [*hung, node]:
            await each.close()


async def test_name_without_address_is_retried_until_it_has_one() -> None:
    resolver = Resolver()

    with Memcached() as memcached:
        async with connected(resolver, port=memcached.port) as (node, _told):
            assert await fails(node.load(KEY)) == "lookup"
            resolver.hosts = ("127.0.0.1",)
            await is_connected(node)


async def test_addresses_that_refuse_are_skipped() -> None:
    with Memcached() as memcached:
        async with connected(
            Resolver("127.0.0.2", "127.0.0.3", "127.0.0.1"), port=memcached.port, timeout_s=5
        ) as (node, told):
            await node.load(KEY)
            assert not told.errors


async def test_next_address_is_tried_while_one_hangs() -> None:
    with Memcached() as memcached, black_hole("127.0.0.2", memcached.port):
        async with connected(
            Resolver("127.0.0.2", "127.0.0.1"), port=memcached.port, timeout_s=3
        ) as (node, told):
            await node.load(KEY)
            assert not told.errors


@contextmanager
def black_hole(host: str, port: int) -> Iterator[None]:
    """A port whose queue of connections is full: the system answers no further one."""
    with socket.socket() as listener:
        listener.bind((host, port))
        listener.listen(0)
        queued = [socket.socket() for _ in range(4)]
        for sock in queued:
            sock.setblocking(False)
            sock.connect_ex((host, port))
        try:
            yield
        finally:
            for sock in queued:
                sock.close()


async def test_refused_at_every_address_is_an_outage() -> None:
    async with connected(Resolver("127.0.0.1", "127.0.0.2"), port=free_port(), timeout_s=5) as (
        node,
        _told,
    ):
        assert await fails(node.load(KEY)) == "refused"


async def test_node_follows_its_name_while_the_old_address_answers() -> None:
    resolver = Resolver("127.0.0.1")

    with Memcached() as old, Memcached(host="127.0.0.2", port=old.port) as new:
        async with connected(resolver, port=old.port, timeout_s=5, lookup_every_s=0.05) as (
            node,
            told,
        ):
            assert await node.save(KEY, b"old", None, 60)
            token = (await node.load(KEY)).token
            resolver.hosts = ("127.0.0.2",)
            await until(lambda: connections(new) > 1)
            assert not await node.save(KEY, b"stale", token, 60)
            assert await node.save(KEY, b"new", None, 60)
            assert (value(old), value(new)) == (b"old", b"new")
            assert not told.errors


async def test_reordered_addresses_keep_the_connection() -> None:
    resolver = Resolver("127.0.0.1", "127.0.0.2")

    with Memcached() as memcached:
        async with connected(resolver, port=memcached.port, timeout_s=5, lookup_every_s=0.05) as (
            node,
            _told,
        ):
            token = (await first_token(node)).token
            resolver.hosts = resolver.hosts[::-1]
            calls = resolver.calls
            await until(lambda: resolver.calls > calls + 1)
            assert await node.save(KEY, b"two", token, 60)


async def test_failing_lookup_keeps_a_working_connection() -> None:
    resolver = Resolver("127.0.0.1")

    with Memcached() as memcached, Memcached(host="127.0.0.2", port=memcached.port) as new:
        async with connected(resolver, port=memcached.port, timeout_s=5, lookup_every_s=0.05) as (
            node,
            told,
        ):
            token = (await first_token(node)).token
            resolver.hosts = ()
            calls = resolver.calls
            await until(lambda: resolver.calls > calls + 1)
            assert await node.save(KEY, b"two", token, 60)
            assert not told.errors
            resolver.hosts = ("127.0.0.2",)
            await until(lambda: connections(new) > 1)


async def test_last_known_address_is_used_while_lookups_hang() -> None:
    resolver = Resolver("127.0.0.1")

    with Memcached() as memcached:
        async with connected(resolver, port=memcached.port, timeout_s=5) as (node, _told):
            await node.load(KEY)
            await asyncio.sleep(lookup.FRESH_S)
            resolver.hang()
            memcached.kill()
            memcached.start()
            await is_connected(node)
            assert resolver.under_way


async def first_token(node: Node) -> Loaded:
    assert await node.save(KEY, b"one", None, 60)
    return await node.load(KEY)


def connections(memcached: Memcached) -> int:
    """Open ones, that of the asking client included."""
    client = memcached.client()
    count: int = client.stats()[b"curr_connections"]
    client.close()
    return count


def value(memcached: Memcached) -> object:
    client = memcached.client()
    found = client.get(KEY.decode())
    client.close()
    return found


# --- the lookup alone


def name_lookup(resolver: lookup.Resolver) -> NameLookup:
    return NameLookup("name.test", 1, resolver=resolver, budget_s=0.05)


@pytest.mark.parametrize(
    "name", ["127.0.0.1:11211", "[::1]:11211", "[0000::1]:11211"], ids=["IPv4", "IPv6", "long"]
)
async def test_ip_addresses_are_not_looked_up(name: str) -> None:
    made = NameLookup(*split_name(name), resolver=Resolver())
    ((_, _, _, _, address),) = await made.addresses()
    assert address[:2] == split_name(name)
    assert await made.addresses_or_known() == await made.addresses()


async def test_system_resolver_finds_localhost() -> None:
    found = {address[4][0] for address in lookup.resolve("localhost", 11211)}
    assert found & {"127.0.0.1", "::1"}


async def test_fresh_answers_are_reused() -> None:
    resolver = Resolver()
    made = name_lookup(resolver)
    for _ in range(5):
        with pytest.raises(LookupFailed):
            await made.addresses()
    assert resolver.calls == 1


async def test_lookup_fails_for_a_name_that_cannot_be_encoded() -> None:
    made = name_lookup(lambda host, port: lookup.resolve("x" * 70 + ".test", port))
    with pytest.raises(LookupFailed):
        await made.addresses()


async def test_lookup_fails_if_no_thread_can_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    made = name_lookup(Resolver("127.0.0.1"))
    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(LookupFailed):
        await made.addresses()
    monkeypatch.undo()


async def test_hung_lookups_are_replaced_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "HUNG_AFTER_S", 0.0)
    resolver = Resolver("127.0.0.1")
    resolver.hang()
    made = name_lookup(resolver)
    for _ in range(10):
        with pytest.raises(LookupFailed):
            await made.addresses()
    assert resolver.calls == lookup.MAX_HUNG + 1
    resolver.release()
    await until(lambda: not resolver.under_way)
    assert await made.addresses()


async def test_answer_after_the_loop_closed_is_ignored() -> None:
    resolver = Resolver("127.0.0.1")
    resolver.hang()

    async def give_up() -> None:
        with pytest.raises(LookupFailed):
            await name_lookup(resolver).addresses()

    await asyncio.to_thread(asyncio.run, give_up())
    resolver.release()
    for thread in threading.enumerate():
        if thread.name == "smsd-lookup":
            assert thread.daemon
            thread.join(20)
