"""One set of tests for all stores, and for everything that the overlay can wrap."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from smsd.conversation import counting
from smsd.conversation.identity import message_digest
from smsd.conversation.record import Record
from smsd.dev.switch import Switch
from smsd.store.memcached import Memcached
from smsd.store.memory import CookieOnly, Memory
from smsd.store.overlay import OverlayStore
from tests import processes
from tests.observer import Told

pytestmark = pytest.mark.asyncio

TTL_S = 14_400


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def record(*sids: str) -> Record:
    made: Record | None = None
    for sid in sids:
        opened = counting.opened(
            made, (), now_ms=now_ms(), ttl_ms=TTL_S * 1000, random_bits=hash(sid)
        )
        made = counting.added(
            opened.record, message_digest(sid), b"re " + sid.encode(), now_ms=now_ms(), data=b""
        )
    assert made
    return made


@pytest.fixture(scope="module")
def nodes() -> Iterator[list[processes.Memcached]]:
    with processes.Memcached() as one, processes.Memcached() as two, processes.Memcached() as three:
        yield [one, two, three]


Remotes = Callable[[list[str]], Any]


def memory(_nodes: list[str]) -> Memory:
    return Memory(TTL_S, now_ms)


def memcached(nodes: list[str]) -> Memcached:
    return Memcached(nodes, timeout_s=5, ttl_s=TTL_S, now_ms=now_ms, observer=Told())


def switched(nodes: list[str]) -> Switch:
    return Switch(memcached(nodes))


@asynccontextmanager
async def emptied(make: Remotes, nodes: list[processes.Memcached]) -> AsyncIterator[Any]:
    remote = make([node.node for node in nodes])
    await remote.flush()
    try:
        yield remote
    finally:
        await remote.close()


remotes = pytest.mark.parametrize("make", [memory, memcached, switched])


@remotes
async def test_load_returns_what_save_wrote(
    make: Remotes, nodes: list[processes.Memcached]
) -> None:
    async with emptied(make, nodes) as remote:
        for key in (b"smsd:%d" % i for i in range(20)):
            found, token = await remote.load(key)
            assert found is None
            assert await remote.save(key, record(key.decode()), token)
            found, _ = await remote.load(key)
            assert found.count == 1
            assert counting.find(found, message_digest(key.decode())).reply == b"re " + key  # type: ignore[union-attr]


@remotes
async def test_only_one_of_two_writers_succeeds(
    make: Remotes, nodes: list[processes.Memcached]
) -> None:
    async with emptied(make, nodes) as remote:
        _, mine = await remote.load(b"smsd:k")
        _, other = await remote.load(b"smsd:k")
        assert await remote.save(b"smsd:k", record("1"), mine)
        assert not await remote.save(b"smsd:k", record("2"), other)
        _, mine = await remote.load(b"smsd:k")
        _, other = await remote.load(b"smsd:k")
        assert await remote.save(b"smsd:k", record("1", "2"), other)
        assert not await remote.save(b"smsd:k", record("1", "3"), mine)
        found, _ = await remote.load(b"smsd:k")
        assert counting.find(found, message_digest("2"))


@remotes
async def test_save_fails_if_the_record_was_lost_meanwhile(
    make: Remotes, nodes: list[processes.Memcached]
) -> None:
    async with emptied(make, nodes) as remote:
        _, token = await remote.load(b"smsd:k")
        await remote.save(b"smsd:k", record("1"), token)
        _, token = await remote.load(b"smsd:k")
        await remote.flush()
        assert not await remote.save(b"smsd:k", record("1", "2"), token)
        assert (await remote.load(b"smsd:k"))[0] is None


@remotes
async def test_save_again_needs_the_current_token(
    make: Remotes, nodes: list[processes.Memcached]
) -> None:
    async with emptied(make, nodes) as remote:
        _, stale = await remote.load(b"smsd:k")
        assert await remote.save(b"smsd:k", record("1"), stale, again=True)
        assert not await remote.save(b"smsd:k", record("2"), stale, again=True)
        _, token = await remote.load(b"smsd:k")
        assert await remote.save(b"smsd:k", record("1", "2"), token, again=True)
        found, _ = await remote.load(b"smsd:k")
        assert found.count == 2


@remotes
async def test_concurrent_operations_do_not_mix(
    make: Remotes, nodes: list[processes.Memcached]
) -> None:
    async with emptied(make, nodes) as remote:

        async def one(i: int) -> None:
            key = b"smsd:%d" % i
            _, token = await remote.load(key)
            assert await remote.save(key, record(f"first {i}"), token)
            found, token = await remote.load(key)
            assert counting.find(found, message_digest(f"first {i}"))
            assert await remote.save(key, record(f"first {i}", "x" * i), token)
            found, _ = await remote.load(key)
            assert found.count == 2

        await asyncio.gather(*map(one, range(300)))


@remotes
async def test_large_records_are_saved_and_loaded(
    make: Remotes, nodes: list[processes.Memcached]
) -> None:
    async with emptied(make, nodes) as remote:
        opened = counting.opened(
            None, (), now_ms=now_ms(), ttl_ms=TTL_S * 1000, random_bits=1
        ).record
        large = counting.added(
            opened, b"digest", b"r" * 60_000, now_ms=now_ms(), data=b"d" * 100_000
        )
        keys = [b"smsd:%d" % i for i in range(30)]
        tokens = [(await remote.load(key))[1] for key in keys]
        saved = await asyncio.gather(
            *(remote.save(key, large, token) for key, token in zip(keys, tokens, strict=True))
        )
        loaded = await asyncio.gather(*map(remote.load, keys))
        assert all(saved)
        assert all(found == large for found, _ in loaded)


@asynccontextmanager
async def store(kind: str, nodes: list[str]) -> AsyncIterator[Any]:
    if kind == "cookie":
        yield CookieOnly()
        return
    remote: Any = memory(nodes) if kind == "memory" else memcached(nodes)
    await remote.flush()
    made = OverlayStore(
        remote, timeout_s=5, ttl_s=TTL_S, now_ms=now_ms, random_bits=lambda: 1, observer=Told()
    )
    try:
        yield made
    finally:
        await made.close(within_s=0)


@pytest.mark.parametrize("kind", ["memory", "cookie", "memcached"])
async def test_store_saves_only_with_the_latest_token(
    kind: str, nodes: list[processes.Memcached]
) -> None:
    async with store(kind, [node.node for node in nodes]) as made:
        view = await made.load(b"smsd:k")
        opened = counting.opened(
            view.stored,
            (record("from the cookie"),),
            now_ms=now_ms(),
            ttl_ms=TTL_S * 1000,
            random_bits=9,
        ).record
        grown = counting.added(opened, message_digest("2"), b"", now_ms=now_ms(), data=b"")
        assert await made.save(b"smsd:k", grown, view.token)
        assert made.pending == 0
        assert made.data_limit == (400 if kind == "cookie" else 100_000)
        assert made.keeps_records == (kind != "cookie")
        if made.keeps_records:
            assert await made.save(b"smsd:k", grown, view.token) is None
            assert (await made.load(b"smsd:k", view)).stored == grown


async def test_memory_sweeps_expired_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smsd.store.memory._SWEEP_EVERY", 10)
    clock_s = 1000.0
    remote = Memory(TTL_S, now_ms, lambda: clock_s)
    for i in range(9):
        await remote.save(b"%d" % i, record("old"), None)
    clock_s += TTL_S + 5
    fresh = Record(now_ms())
    await remote.save(b"new", fresh, None)
    assert len(remote) == 1
    assert (await remote.load(b"new"))[0] == fresh


async def test_memcached_keeps_a_record_two_seconds_longer(
    nodes: list[processes.Memcached],
) -> None:
    async with emptied(memcached, nodes[:1]) as remote:
        _, token = await remote.load(b"smsd:k")
        await remote.save(b"smsd:k", record("1"), token)
    meta = nodes[0].client()
    line = meta.raw_command("mg smsd:k t").decode()
    meta.close()
    left_s = int(line.split("t")[-1])
    assert TTL_S < left_s <= TTL_S + 2


async def test_new_node_takes_over_only_its_share_of_keys() -> None:
    names = [f"127.0.0.1:{port}" for port in (1, 2, 3)]
    three, again = memcached(names), memcached(names[::-1])
    four = memcached([*names, "127.0.0.1:4"])
    keys = [b"smsd:%d" % i for i in range(3000)]
    assert [three.node_of(key).name for key in keys] == [again.node_of(key).name for key in keys]
    moved = [
        four.node_of(key).name for key in keys if three.node_of(key).name != four.node_of(key).name
    ]
    assert set(moved) == {"127.0.0.1:4"}
    assert 600 < len(moved) < 900
    for remote in (three, again, four):
        await remote.close()
