"""How often the ledger reads: its own last write spares a read, and hides no other's."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from smsd.conversation.identity import storage_key
from smsd.conversation.record import Entry, Lineage, Record
from smsd.errors import StoreUnavailable
from smsd.exchange.ledger import Conversation, Ledger, Page
from smsd.store.memory import CookieOnly, Memory
from smsd.store.overlay import OverlayStore
from tests.observer import Told

pytestmark = pytest.mark.asyncio

KEY = storage_key(b"id")
NOW_MS = 1_790_000_000_000


class CountingMemory(Memory):
    """Counts its loads, and fails while it is down."""

    loads = 0
    is_down = False

    async def load(self, key: bytes) -> tuple[Record | None, Record | None]:
        self.loads += 1
        if self.is_down:
            raise StoreUnavailable("node", "down")
        return await super().load(key)


Replica = Callable[[], Ledger]


@pytest.fixture
def remote() -> CountingMemory:
    return CountingMemory(14400, lambda: NOW_MS)


@pytest_asyncio.fixture
async def replica(remote: CountingMemory) -> AsyncIterator[Replica]:
    """Makes the ledger of one more replica on the same remote store."""
    stores: list[OverlayStore] = []

    def make() -> Ledger:
        settings: dict[str, Any] = {
            "ttl_s": 14400,
            "now_ms": lambda: NOW_MS,
            "random_bits": lambda: len(stores),
        }
        stores.append(OverlayStore(remote, timeout_s=1, observer=Told(), **settings))
        return Ledger(stores[-1], **settings)

    yield make
    for store in stores:
        await store.close(within_s=0)


def with_data(data: bytes) -> Callable[[Page], Record | None]:
    """Set the record's data; leave it alone if it is that already."""

    def change(page: Page) -> Record | None:
        if page.record.data == data:
            return None
        stamp = (0, 0, max(page.record.stamp[2], NOW_MS) + 1)
        return msgspec.structs.replace(page.record, data=data, stamp=stamp)

    return change


async def test_change_after_a_change_reads_nothing(
    remote: CountingMemory, replica: Replica
) -> None:
    ledger, conversation = replica(), Conversation(b"id")
    for data in (b"1", b"2", b"3"):
        assert await ledger.change(conversation, with_data(data))
    assert remote.loads == 1
    record, _ = await remote.load(KEY)
    assert record
    assert record.data == b"3"


async def test_change_after_another_replicas_write_sees_it(replica: Replica) -> None:
    one, other = replica(), replica()
    mine, theirs = Conversation(b"id"), Conversation(b"id")
    await one.change(mine, with_data(b"1"))
    await other.change(theirs, with_data(b"2"))
    written = await one.change(mine, with_data(b"3"))
    assert written
    assert written.page.record.data == b"2"


async def test_change_that_finds_nothing_to_do_looks_again_first(
    remote: CountingMemory, replica: Replica
) -> None:
    one, other = replica(), replica()
    mine, theirs = Conversation(b"id"), Conversation(b"id")
    await one.change(mine, with_data(b"1"))
    await other.change(theirs, with_data(b"2"))
    assert await one.change(mine, with_data(b"1"))  # it would be none, by its own last write
    assert remote.loads == 3


async def test_change_after_a_write_to_the_overlay_reads_the_store_again(
    remote: CountingMemory, replica: Replica
) -> None:
    ledger, conversation = replica(), Conversation(b"id")
    remote.is_down = True
    await ledger.change(conversation, with_data(b"1"))
    remote.is_down = False
    written = await ledger.change(conversation, with_data(b"2"))
    assert written
    assert not written.page.is_degraded
    record, _ = await remote.load(KEY)
    assert record
    assert record.data == b"2"


def cookie(*numbers: int) -> Record:
    """What a cookie may hold: one lineage with these messages."""
    tail = tuple(Entry(b"%06d" % number, number) for number in numbers)
    return Record(NOW_MS, lineages=(Lineage(1, len(tail), tail=tail),))


async def test_cookie_still_counts_after_another_replicas_write(replica: Replica) -> None:
    one, other = replica(), replica()
    mine, copy = Conversation(b"id"), cookie(1, 2)
    page = await one.read(mine, copy)
    assert page.number == 3
    await other.change(Conversation(b"id"), with_data(b"1"))
    assert not await one.write(mine, page.record, page, again=False)
    again = await one.read(mine, copy, page.view)
    assert again.number == 3
    assert again.record.data == b"1"


async def test_conversation_goes_on_in_the_cookies_lineage_without_a_store() -> None:
    ledger = Ledger(
        CookieOnly(), ttl_s=14400, now_ms=lambda: NOW_MS, random_bits=lambda: 1, history=0
    )
    page = await ledger.read(Conversation(b"id"), cookie(1, 2))
    assert page.number == 3
    assert page.record.own == page.record.newest == 1
