"""The overlay counts while the store is away, and is merged when the store is back.

The store is a dict with a switch.
"""

from collections.abc import Callable
from typing import Any

import pytest

from smsd.conversation import counting
from smsd.conversation.identity import message_digest
from smsd.conversation.record import Record
from smsd.dev.switch import Switch
from smsd.errors import StoreUnavailable
from smsd.store import View
from smsd.store.memory import Memory
from smsd.store.overlay import OverlayStore
from tests.conversation.test_merging import START_MS
from tests.observer import Told

pytestmark = pytest.mark.asyncio

TTL_S = 14_400
KEY = b"smsd:key"


class Bench:
    """An overlay around an in-memory store that can be switched off, with both clocks."""

    def __init__(self, **settings: Any) -> None:
        self.now_ms = START_MS
        self.clock_s = 0.0
        self.told = Told()
        self.bits = 0
        self.remote = Switch(Memory(TTL_S, lambda: self.now_ms))
        self.store = self.another(**settings)
        self.sent = 0

    def another(self, **settings: Any) -> OverlayStore:
        """Another replica with the same store."""
        return OverlayStore(
            self.remote,
            ttl_s=TTL_S,
            now_ms=lambda: self.now_ms,
            clock_s=lambda: self.clock_s,
            random_bits=self._random_bits,
            observer=self.told,
            **{"timeout_s": 1, **settings},
        )

    def elapse(self, seconds: int) -> None:
        """Let time pass on both clocks."""
        self.now_ms += seconds * 1000
        self.clock_s += seconds

    def _random_bits(self) -> int:
        self.bits += 1
        return self.bits

    async def text(
        self,
        key: bytes = KEY,
        *,
        copy: Record | None = None,
        sid: str = "",
        store: OverlayStore | None = None,
    ) -> int:
        """Count one message as `exchange` does; return its number."""
        self.elapse(1)
        self.sent += 1
        store = store or self.store
        digest = message_digest(sid or f"SM{self.sent}")
        view = await store.load(key)
        while True:
            record = counting.opened(
                view.stored,
                (copy, *view.versions) if copy else view.versions,
                now_ms=self.now_ms,
                ttl_ms=TTL_S * 1000,
                random_bits=self._random_bits(),
            ).record
            known = counting.find(record, digest)
            if known:
                return known.number
            self.last = counting.added(record, digest, b"reply", now_ms=self.now_ms, data=b"")
            if await store.save(key, self.last, view.token):
                return self.last.count
            view = await store.load(key, view)


async def test_counts_made_during_an_outage_are_merged() -> None:
    bench = Bench()
    assert await bench.text() == 1
    cookie = bench.last
    bench.remote.up = False
    assert await bench.text(copy=cookie) == 2
    assert await bench.text(copy=cookie) == 3
    assert (bench.store.pending, bench.told.pending) == (1, 1)
    bench.remote.up = True
    await bench.store.reconcile()
    assert (bench.store.pending, bench.told.pending, bench.told.merged) == (0, 0, 1)
    assert await bench.text(store=bench.another()) == 4  # another replica, no cookie


async def test_next_message_merges_the_overlay() -> None:
    bench = Bench()
    await bench.text()
    bench.remote.up = False
    await bench.text(copy=bench.last)
    bench.remote.up = True
    assert await bench.text() == 3
    assert bench.store.pending == 0


async def test_message_on_two_overlays_counts_once() -> None:
    bench = Bench()
    other = bench.another()
    await bench.text()
    cookie = bench.last
    bench.remote.up = False
    assert await bench.text(copy=cookie, sid="SMx") == 2
    assert await bench.text(copy=cookie, sid="SMx", store=other) == 2
    bench.remote.up = True
    await bench.store.reconcile()
    await other.reconcile()
    assert await bench.text() == 3


async def test_failed_write_continues_on_the_overlay() -> None:
    bench = Bench()
    await bench.text()
    view = await bench.store.load(KEY)
    record = counting.opened(
        view.stored, (), now_ms=bench.now_ms, ttl_ms=TTL_S * 1000, random_bits=5
    ).record
    bench.remote.up = False
    assert await bench.store.save(KEY, record, view.token) is None
    again = await bench.store.load(KEY, view)
    assert again.is_degraded
    assert again.versions == (view.stored,)


async def test_save_fails_if_the_overlay_was_merged_meanwhile() -> None:
    bench = Bench()
    bench.remote.up = False
    await bench.text()
    view = await bench.store.load(KEY)
    bench.remote.up = True
    await bench.store.reconcile()
    bench.remote.up = False
    record = counting.added(
        counting.opened(
            view.stored, (), now_ms=bench.now_ms, ttl_ms=TTL_S * 1000, random_bits=5
        ).record,
        b"digest",
        b"",
        now_ms=bench.now_ms,
        data=b"",
    )
    assert await bench.store.save(KEY, record, view.token) is None
    again = await bench.store.load(KEY, view)
    assert again.is_degraded
    assert again.stored is None
    assert again.versions == (view.stored,)


async def test_failed_merge_is_retried() -> None:
    bench = Bench()
    bench.remote.up = False
    await bench.text()
    save = bench.remote.save

    async def fail(key: bytes, record: Record, token: Any, *, again: bool = False) -> Any:
        await save(key, record, token)  # applied, and nobody hears of it
        raise StoreUnavailable("node", "timeout")

    bench.remote.up = True
    bench.remote.save = fail  # type: ignore[method-assign]
    await bench.store.reconcile()
    assert bench.store.pending == 1
    bench.remote.save = save  # type: ignore[method-assign]
    await bench.store.reconcile()
    assert bench.store.pending == 0
    assert await bench.text() == 2


async def test_ended_conversations_are_not_merged() -> None:
    bench = Bench()
    bench.remote.up = False
    await bench.text()
    bench.remote.up = True
    bench.elapse(TTL_S)
    await bench.store.reconcile()
    assert (bench.store.pending, bench.told.merged) == (0, 0)
    assert await bench.text() == 1


async def test_oldest_records_are_dropped_at_the_memory_limit() -> None:
    bench = Bench(max_pending_bytes=4000)
    bench.remote.up = False
    cookies = {}
    for i in range(100):
        key = b"smsd:%d" % i
        assert await bench.text(key) == 1
        cookies[key] = bench.last
    assert 0 < bench.store.pending < 100
    assert bench.told.dropped == 100 - bench.store.pending
    assert await bench.text(b"smsd:0", copy=cookies[b"smsd:0"]) == 2


async def test_close_merges_pending_records() -> None:
    bench = Bench()
    bench.remote.up = False
    await bench.text()
    bench.remote.up = True
    await bench.store.close(within_s=5)
    assert (bench.store.pending, bench.told.lost) == (0, 0)
    assert await bench.text(store=bench.another()) == 2


async def test_close_ends_at_its_deadline() -> None:
    bench = Bench()
    bench.remote.up = False
    await bench.text()
    await bench.store.close(within_s=0.05)
    assert (bench.store.pending, bench.told.lost) == (1, 1)


@pytest.mark.parametrize("jump_s", [-5 * 3600, 5 * 3600])
async def test_clock_jump_ends_no_pending_conversation(jump_s: int) -> None:
    bench = Bench()
    bench.remote.up = False
    await bench.text()
    await bench.text()
    bench.remote.up = True
    bench.now_ms += jump_s * 1000
    await bench.store.reconcile()
    bench.now_ms -= jump_s * 1000
    await bench.store.reconcile()
    assert (bench.store.pending, bench.told.merged) == (0, 1)
    assert await bench.text(store=bench.another()) == 3


def refuse(bench: Bench, refused: Callable[[bytes], bool]) -> list[bytes]:
    """Refuse the writes of some keys, as a full memcached does. Returns the keys tried."""
    tried: list[bytes] = []
    save = bench.remote.remote.save

    async def saving(key: bytes, record: Record, token: Any, *, again: bool = False) -> Any:
        tried.append(key)
        if refused(key):
            raise StoreUnavailable("node", "server")
        return await save(key, record, token)

    bench.remote.remote.save = saving  # type: ignore[method-assign]
    return tried


async def test_refused_record_is_retried_with_back_off() -> None:
    bench = Bench()
    tried = refuse(bench, lambda key: key == KEY)
    await bench.text()
    tried.clear()
    for _ in range(4 * 3600):  # an hour of rounds
        bench.clock_s += 0.25
        await bench.store.reconcile()
    assert 100 < len(tried) < 140  # every 30 s
    assert bench.store.pending == 1


async def test_refused_record_does_not_delay_others() -> None:
    bench = Bench()
    bench.remote.up = False
    keys = [b"smsd:%d" % i for i in range(300)]
    for key in keys:
        await bench.text(key)
    bench.remote.up = True
    refuse(bench, lambda key: key == keys[0])
    await bench.store.reconcile()
    assert bench.store.pending == 1


async def test_next_message_retries_a_refused_record_at_once() -> None:
    bench = Bench()
    refusing = True
    refuse(bench, lambda key: refusing)
    await bench.text()
    for _ in range(100):
        bench.clock_s += 0.25
        await bench.store.reconcile()
    refusing = False
    assert await bench.text() == 2
    assert bench.store.pending == 0


async def test_save_again_returns_the_token_of_the_next_save() -> None:
    bench = Bench()
    loads = 0
    load = bench.remote.remote.load

    async def loading(key: bytes) -> tuple[Record | None, Any]:
        nonlocal loads
        loads += 1
        return await load(key)

    bench.remote.remote.load = loading  # type: ignore[method-assign]
    first = (await bench.store.load(KEY)).token
    second = await bench.store.save(KEY, Record(1), first, again=True)
    assert second
    third = await bench.store.save(KEY, Record(2), second, again=True)
    assert third
    assert await bench.store.save(KEY, Record(3), third)
    assert loads == 1
    assert await bench.store.save(KEY, Record(4), third, again=True) is None
    assert (await bench.store.load(KEY)).stored == Record(3)


async def test_save_on_the_overlay_is_good_for_one_save() -> None:
    bench = Bench()
    bench.remote.up = False
    view = await bench.store.load(KEY)
    token = await bench.store.save(KEY, Record(1), view.token, again=True)
    assert token
    assert await bench.store.save(KEY, Record(2), token) is None  # memcached may be back
    assert await bench.store.save(KEY, Record(2), view.token) is None
    view = await bench.store.load(KEY, view)
    assert view.is_degraded
    assert view.stored == Record(1)
    assert await bench.store.save(KEY, Record(2), view.token)
    bench.remote.up = True
    view = await bench.store.load(KEY, View(Record(2), token=token))
    assert not view.is_degraded
    assert view.versions == (Record(2),)


async def test_refused_write_is_not_tried_again_for_the_same_message() -> None:
    bench = Bench()
    tried = refuse(bench, lambda key: True)
    view = await bench.store.load(KEY)
    assert await bench.store.save(KEY, Record(1), view.token) is None
    view = await bench.store.load(KEY, view)
    assert view.is_degraded
    assert await bench.store.save(KEY, Record(1), view.token)
    assert tried == [KEY]


async def test_message_that_went_to_the_overlay_stays_there() -> None:
    bench = Bench()
    bench.remote.up = False
    view = await bench.store.load(KEY)
    await bench.text()  # another message of the conversation
    bench.remote.up = True
    assert await bench.store.save(KEY, Record(1), view.token) is None
    assert (await bench.store.load(KEY, view)).is_degraded


async def test_record_dropped_from_the_overlay_is_still_known_to_a_message() -> None:
    bench = Bench()
    bench.remote.up = False
    await bench.text()
    bench.remote.up = True
    view = await bench.store.load(KEY)
    await bench.text(store=bench.another())  # of another replica: a conflict
    bench.store._pending.remove(KEY, view.versions[0])
    assert await bench.store.save(KEY, Record(1), view.token) is None
    assert (await bench.store.load(KEY, view)).versions == view.versions
