"""After the list of nodes changed, the former nodes are still read. Real memcached."""

import time
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import pytest_asyncio

from smsd.conversation import counting
from smsd.conversation.identity import message_digest
from smsd.store.memcached import Memcached
from smsd.store.overlay import OverlayStore
from tests import processes
from tests.observer import Told

TTL_S = 14_400
KEY = b"smsd:key"

Make = Callable[..., Memcached]

pytestmark = pytest.mark.asyncio


@pytest.fixture(scope="module")
def nodes() -> Iterator[list[processes.Memcached]]:
    with processes.Memcached() as one, processes.Memcached() as two:
        yield [one, two]


@pytest_asyncio.fixture
async def make(nodes: list[processes.Memcached]) -> AsyncIterator[Make]:
    """Makes stores on a node and its former ones. The nodes are empty."""
    made: list[Memcached] = []

    def make_one(node: str, *former: str) -> Memcached:
        told = Told()
        made.append(
            Memcached([node], timeout_s=5, ttl_s=TTL_S, now_ms=now_ms, observer=told, former=former)
        )
        return made[-1]

    for node in nodes:
        node.flush()
    yield make_one
    for each in made:
        await each.close()


def now_ms() -> int:
    return time.time_ns() // 1_000_000


async def text(remote: Memcached, sid: str, at_ms: int | None = None) -> int:
    """Count one message as the exchange does, without a cookie; its number."""
    bits = iter(range(hash(sid) & 0xFFFF, 1 << 22))
    store = OverlayStore(
        remote,
        timeout_s=5,
        ttl_s=TTL_S,
        now_ms=now_ms,
        random_bits=lambda: next(bits),
        observer=Told(),
    )
    at_ms = at_ms or now_ms()
    view = await store.load(KEY)
    opened = counting.opened(
        view.stored, view.versions, now_ms=at_ms, ttl_ms=TTL_S * 1000, random_bits=next(bits)
    ).record
    record = counting.added(opened, message_digest(sid), b"", now_ms=at_ms, data=b"")
    assert await store.save(KEY, record, view.token)
    store._reconciler.cancel()
    return record.count


async def count(remote: Memcached) -> int:
    record, _ = await remote.load(KEY)
    return record.count if record else 0


async def test_conversation_goes_on_at_its_new_node(
    nodes: list[processes.Memcached], make: Make
) -> None:
    old, new = (node.node for node in nodes)
    before, after = make(old), make(new, old)
    assert [await text(before, sid) for sid in "abc"] == [1, 2, 3]
    assert [await text(after, sid) for sid in "defg"] == [4, 5, 6, 7]
    assert await count(before) == 3  # the former node is never written
    record, _ = await make(new).load(KEY)
    assert record
    assert (record.count, len(record.lineages)) == (7, 2)


async def test_messages_counted_at_both_nodes_add_up(
    nodes: list[processes.Memcached], make: Make
) -> None:
    """During a rolling update replicas of both lists count in turn, without any cookie."""
    old, new = (node.node for node in nodes)
    before, after = make(old), make(new, old)
    for i in range(10):
        await text(before, f"old {i}")
        await text(after, f"new {i}")
    assert await count(after) == 20
    assert await text(after, "last") == 21
    assert await count(make(new)) == 21


async def test_duplicate_of_a_message_at_the_former_node_counts_once(
    nodes: list[processes.Memcached], make: Make
) -> None:
    old, new = (node.node for node in nodes)
    await text(make(old), "a")
    record, _ = await make(new, old).load(KEY)
    assert record
    assert counting.find(record, message_digest("a"))


async def test_conversation_that_is_over_stays_over_at_the_former_node(
    nodes: list[processes.Memcached], make: Make
) -> None:
    old, new = (node.node for node in nodes)
    await text(make(old), "a", now_ms() - TTL_S * 1000)
    after = make(new, old)
    assert await after.load(KEY) == (None, None)
    assert await text(after, "b") == 1
    assert await count(after) == 1


async def test_former_node_that_is_gone_delays_the_first_message_only(
    nodes: list[processes.Memcached], make: Make
) -> None:
    after = make(nodes[1].node, f"127.0.0.1:{processes.free_port()}")
    assert [await text(after, sid) for sid in "abc"] == [1, 2, 3]
    assert list(after.nodes.values()).count(True) == 1


async def test_key_whose_node_stays_is_read_once(
    nodes: list[processes.Memcached], make: Make
) -> None:
    old = nodes[0].node
    remote = make(old, old)
    await text(remote, "a")
    reads = gets(nodes[0])
    await remote.load(KEY)
    assert gets(nodes[0]) == reads + 1


def gets(node: processes.Memcached) -> int:
    client = node.client()
    value = int(client.stats()[b"cmd_get"])
    client.close()
    return value
