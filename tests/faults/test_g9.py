"""G9: a hash ring that grows or shrinks loses no count, and moved names are
followed."""

import asyncio
import time
from collections.abc import Iterator

import pytest

from smsd.simulator import LOST
from tests.faults.history import Recorder
from tests.faults.names import Names
from tests.faults.world import number, store_of
from tests.processes import PATIENCE_S, Memcached, Smsd

pytestmark = pytest.mark.asyncio


@pytest.fixture(scope="module")
def nodes() -> Iterator[list[str]]:
    with Memcached() as one, Memcached() as two, Memcached() as three:
        yield [one.node, two.node, three.node]


@pytest.mark.parametrize(
    "rings",
    [
        [[0], [0, 1], [0, 1, 2]],
        [[0, 1, 2], [0, 1], [1]],
        [[0], [1], [0]],
        [[0, 1, 2], [2, 1, 0], [1, 0, 2]],
    ],
    ids=["grows", "shrinks", "is another one, and back", "is named in another order"],
)
async def test_g9_no_count_is_lost_when_the_ring_changes(
    nodes: list[str], rings: list[list[int]]
) -> None:
    """smsd is restarted with another SMSD_STORE between the messages of 12
    conversations.
    """
    numbers = [number() for _ in range(12)]
    async with Recorder([]) as twilio:
        for ring in rings:
            with Smsd(store_of([nodes[i] for i in ring])) as replica:
                for from_ in numbers * 3:
                    await twilio.text(from_, replica)
                assert await asyncio.to_thread(replica.terminate) == 0
        assert twilio.violations() == []


async def test_g9_no_count_is_lost_between_two_rings(nodes: list[str]) -> None:
    """During a rolling update some replicas know the new node already. Messages go to
    both kinds in turn, some of them twice.
    """
    with Smsd(store_of(nodes[:1])) as before, Smsd(store_of(nodes)) as after:
        async with Recorder([before, after]) as twilio:
            numbers = [number() for _ in range(6)]
            for _ in range(40):
                for from_ in numbers:
                    message = twilio.compose(from_)
                    await twilio.deliver(message)
                    if twilio.random.random() < 0.3:
                        await twilio.deliver(message)
            assert twilio.violations() == []


async def test_g9_concurrent_messages_on_two_rings_add_up(nodes: list[str]) -> None:
    """Each ring continues the conversation. Whichever cookie Twilio keeps, the next
    message finds both.
    """
    with Smsd(store_of(nodes[:1])) as before, Smsd(store_of(nodes[1:])) as after:
        async with Recorder([before, after]) as twilio:
            for _ in range(6):
                from_ = number()
                for replica in (before, after, before, after):
                    await twilio.text(from_, replica)
                await asyncio.gather(*(twilio.text(from_, replica) for replica in (before, after)))
                for replica in (before, after):
                    await twilio.text(from_, replica)
                assert twilio.history[-1].count == 8


@pytest.fixture
def names() -> Iterator[Names]:
    with Names() as made:
        yield made


async def test_g9_moved_name_is_followed(names: Names) -> None:
    """Two replicas, messages all the while. The name's address changes; both addresses
    keep answering; smsd looks every fifth of a second instead of every 30 s.
    """
    names.set("memcached-0.test", "127.0.0.1")
    with Memcached() as old, Memcached(host="127.0.0.2", port=old.port) as new:
        env = store_of([f"memcached-0.test:{old.port}"])
        with names.smsd(env) as one, names.smsd(env) as two:
            async with Recorder([one, two]) as twilio:
                numbers = [number() for _ in range(6)]
                for from_ in numbers * 3:
                    await twilio.text(from_)
                assert items(old) >= len(numbers)
                assert not items(new)
                names.set("memcached-0.test", "127.0.0.2")
                give_up_s = time.monotonic() + PATIENCE_S
                while connected(new) < 2 or connected(old):
                    assert time.monotonic() < give_up_s
                    for from_ in numbers:
                        await twilio.text(from_)
                for from_ in numbers * 3:
                    await twilio.text(from_)
                assert items(new) >= len(numbers)
                for from_ in numbers:  # the record at the new address is whole: no cookie is needed
                    await twilio.text(from_, cookies=LOST)
                assert twilio.violations() == []
            for replica in (one, two):
                assert '"memcached node down"' not in replica.log()


def connected(memcached: Memcached) -> int:
    """Connections of others than the asking client."""
    return stat(memcached, b"curr_connections") - 1


def items(memcached: Memcached) -> int:
    return stat(memcached, b"curr_items")


def stat(memcached: Memcached, name: bytes) -> int:
    client = memcached.client()
    value = int(client.stats()[name])
    client.close()
    return value


async def test_g9_former_nodes_are_read(nodes: list[str]) -> None:
    """A rolling update with SMSD_STORE_FORMER: replicas of both rings count at the same
    time, and no cookie helps. The new ring knows every message.
    """
    new = store_of(nodes[1:]) | {"SMSD_STORE_FORMER": nodes[0]}
    with Smsd(store_of(nodes[:1])) as before, Smsd(new) as after:
        async with Recorder([before, after]) as twilio:
            for _ in range(6):
                from_ = number()
                for _ in range(5):
                    await asyncio.gather(
                        *(twilio.text(from_, replica, LOST) for replica in (before, after))
                    )
                assert (await twilio.text(from_, after, LOST)).count == 11
                assert (await twilio.text(from_, after, LOST)).count == 12
