"""G3: restart, flush, eviction or loss of any memcached node loses no count of a
conversation whose cookie Twilio holds.
"""

import asyncio
from collections.abc import Callable, Iterator

import pytest

from smsd.conversation.identity import conversation_id, hashing_key, storage_key
from smsd.simulator import JAR, LOST, Cookies
from tests.faults.history import TO, Recorder
from tests.faults.world import World, number, wait_until_merged, world
from tests.processes import ACCOUNT, SETTINGS, Memcached

pytestmark = pytest.mark.asyncio


@pytest.fixture(scope="module")
def small() -> Iterator[World]:
    """Two nodes with 1 MB each; without the maintainer what is asked for often is
    evicted as well."""
    with world(
        nodes=2,
        replicas=2,
        options=("-m", "1", "-I", "512k", "-o", "no_lru_crawler,no_lru_maintainer"),
    ) as made:
        yield made


def key_of(from_: str) -> str:
    hash_key = hashing_key(SETTINGS["SMSD_HASH_KEY"].encode())
    return storage_key(conversation_id(hash_key, ACCOUNT, TO, from_)).decode()


def stands(node: Memcached, from_: str) -> bool:
    """Whether the node holds the conversation's record."""
    client = node.client()
    try:
        return client.get(key_of(from_)) is not None
    finally:
        client.close()


def flush(node: Memcached, from_: str) -> None:
    node.flush()


def restart(node: Memcached, from_: str) -> None:
    node.kill()
    node.start()


def evict(node: Memcached, from_: str) -> None:
    """Others' values of every size, until the record had to go. Looking too often would
    keep it."""
    client = node.client()
    for turn in range(20):
        for i in range(8000):
            client.set(f"other:{turn}:{i}", b"x" * (100 + i % 20 * 50), noreply=True)
        if client.get(key_of(from_)) is None:
            break
    assert int(client.stats()[b"evictions"]) > 0
    client.close()


LOSSES: list[Callable[[Memcached, str], None]] = [flush, restart, evict]


@pytest.mark.parametrize("lose", LOSSES)
async def test_g3_no_count_is_lost_with_the_record(
    small: World, lose: Callable[[Memcached, str], None]
) -> None:
    before = sum(
        r.metric('smsd_conversations_restored_total{source="cookie"}') for r in small.replicas
    )
    async with Recorder(small.replicas) as twilio:
        from_ = number()
        for _ in range(6):
            await twilio.text(from_)
            await twilio.text(from_)
            assert any(stands(node, from_) for node in small.nodes)
            for node in small.nodes:
                if stands(node, from_):
                    await asyncio.to_thread(lose, node, from_)
            assert not any(stands(node, from_) for node in small.nodes)
        await twilio.text(from_)
        assert twilio.violations() == []
    after = sum(
        r.metric('smsd_conversations_restored_total{source="cookie"}') for r in small.replicas
    )
    assert after == before + 6


async def test_g3_a_restarted_node_is_not_taken_for_an_outage(small: World) -> None:
    before = sum(r.metric('smsd_messages_total{outcome="degraded"}') for r in small.replicas)
    async with Recorder(small.replicas) as twilio:
        froms = [number() for _ in range(6)]
        for _ in range(3):
            for from_ in froms:
                await twilio.text(from_)
            for node in small.nodes:
                await asyncio.to_thread(restart, node, "")
        for from_ in froms:
            await twilio.text(from_)
        assert twilio.violations() == []
    after = sum(r.metric('smsd_messages_total{outcome="degraded"}') for r in small.replicas)
    assert after == before


async def test_g3_a_retry_with_the_cookie_from_before_counts_once_though_the_record_is_lost(
    small: World,
) -> None:
    async with Recorder(small.replicas) as twilio:
        from_ = number()
        for _ in range(20):
            message = twilio.compose(from_)
            held = twilio.client.twilio.jar.header(message.pair)
            await twilio.deliver(message)
            for node in small.nodes:
                node.flush()
            await twilio.deliver(message, cookies=Cookies(send=held, keep=False) if held else LOST)
        await twilio.text(from_)
        assert twilio.violations() == []


@pytest.mark.parametrize("older_first", [True, False])
async def test_g3_a_stale_cookie_loses_and_doubles_nothing(small: World, older_first: bool) -> None:
    """Ten messages; the record is lost; two arrive at once, one with the cookie after
    the tenth, one with the cookie after the seventh.
    """
    async with Recorder(small.replicas) as twilio:
        from_ = number()
        for _ in range(10):
            await twilio.text(from_)
        for node in small.nodes:
            node.flush()
        stale, newest = Cookies(back=3, keep=False), JAR
        for cookies in (stale, newest) if older_first else (newest, stale):
            await twilio.text(from_, cookies=cookies)
        assert (await twilio.text(from_)).count == 13


async def test_g3_a_message_without_cookie_after_the_loss_is_added_once_the_cookie_is_back(
    small: World,
) -> None:
    async with Recorder(small.replicas) as twilio:
        from_ = number()
        for _ in range(5):
            await twilio.text(from_)
        for node in small.nodes:
            node.flush()
        assert (await twilio.text(from_, cookies=Cookies(omit=True, keep=False))).count == 1
        assert (await twilio.text(from_)).count == 7
        assert (await twilio.text(from_, cookies=LOST)).count == 8


async def test_g3_a_lost_cookie_loses_nothing_while_the_record_stands(small: World) -> None:
    async with Recorder(small.replicas) as twilio:
        from_ = number()
        for _ in range(10):
            await twilio.text(from_, cookies=LOST)
        assert twilio.violations() == []


async def test_g3_nodes_that_lose_everything_under_load_lose_no_count(small: World) -> None:
    """Forty conversations go on while nodes are flushed, restarted and overfull, one
    after the other."""
    async with Recorder(small.replicas) as twilio:
        from_s = [number() for _ in range(40)]

        async def converse(from_: str) -> None:
            while not over.is_set():
                await twilio.text(from_)

        over = asyncio.Event()
        talks = [asyncio.create_task(converse(from_)) for from_ in from_s]
        for turn in range(6):
            node = small.nodes[turn % 2]
            await asyncio.to_thread((flush, restart)[turn // 2 % 2], node, "")
            await asyncio.sleep(0.1)
        over.set()
        await asyncio.gather(*talks)
        await asyncio.to_thread(wait_until_merged, small)
        for from_ in from_s:
            await twilio.text(from_)
        assert twilio.violations() == []
        assert len(twilio.history) > 200
