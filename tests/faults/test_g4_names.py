"""G4: a slow, hanging or failing name lookup is an outage, of its own node only."""

import asyncio
import json
import time
from collections.abc import Iterator

import pytest

from smsd.simulator import LOST
from tests.faults.history import Recorder
from tests.faults.names import HANGS, Names
from tests.faults.world import World, number, sees, settled, status, store_of, wait_until_merged
from tests.processes import Memcached, wait_for

pytestmark = pytest.mark.asyncio


@pytest.fixture
def names() -> Iterator[Names]:
    with Names() as made:
        yield made


@pytest.fixture(scope="module")
def three() -> Iterator[list[Memcached]]:
    with Memcached() as one, Memcached() as two, Memcached() as last:
        yield [one, two, last]


def named(nodes: list[Memcached]) -> list[str]:
    """A name for each node, as smsd is told: memcached-0.test:PORT and so on."""
    return [f"memcached-{i}.test:{node.port}" for i, node in enumerate(nodes)]


async def test_g4_slow_lookup_delays_no_message(names: Names, three: list[Memcached]) -> None:
    """The lookup takes four times as long as a store operation may."""
    names.set("memcached-0.test", "127.0.0.1", after_s=1.0)
    with names.smsd(store_of(named(three[:1]))) as one:
        made = World(three[:1], [], [one])
        async with Recorder(made.replicas) as twilio:
            numbers = [number() for _ in range(6)]
            for from_ in numbers * 3:
                await twilio.text(from_)
            await asyncio.to_thread(wait_until_merged, made)
            for from_ in numbers:
                await twilio.text(from_, cookies=LOST)
            assert twilio.violations() == []
            assert max(delivery.took_s for delivery in twilio.history) < 1


@pytest.mark.parametrize("fails", ["hangs", "has no address"])
async def test_g4_failing_lookup_affects_only_its_node(
    names: Names, three: list[Memcached], fails: str
) -> None:
    def is_up(node: int) -> bool:
        return f"'{nodes[node]}': 'up'" in str(status(replica)["nodes"])

    nodes = named(three)
    for i in range(3):
        names.set(f"memcached-{i}.test", "127.0.0.1")
    names.set("memcached-0.test", after_s=HANGS if fails == "hangs" else 0)
    with names.smsd(store_of(nodes)) as replica:
        wait_for(lambda: is_up(1) and is_up(2), "the other nodes are up")
        wait_for(sees(replica, "down"), "the failing lookup is seen")
        async with Recorder([replica]) as twilio:
            numbers = [number() for _ in range(12)]
            for _ in range(4):
                for from_ in numbers:
                    await twilio.text(from_)
            assert not is_up(0)
            assert is_up(1)
            assert is_up(2)
            degraded = replica.metric('smsd_messages_total{outcome="degraded"}')
            counted = replica.metric('smsd_messages_total{outcome="counted"}')
            assert degraded + counted == 48
            assert counted >= 12  # about 32
            names.set("memcached-0.test", "127.0.0.1")
            await asyncio.to_thread(wait_until_merged, World(three, [], [replica]))
            for from_ in numbers:
                await twilio.text(from_, cookies=LOST)
            assert twilio.violations() == []
            assert max(delivery.took_s for delivery in twilio.history) < 1
        assert replica.metric(f'smsd_store_errors_total{{kind="lookup",node="{nodes[0]}"}}') > 0
        assert log_events(replica.log(), "memcached node down") == [(nodes[0], "lookup")]
        assert log_events(replica.log(), "memcached node up") == [(nodes[0], "lookup")]


def log_events(log: str, event: str) -> list[tuple[str, str]]:
    """Node and kind of every line of this event."""
    lines = [json.loads(line) for line in log.splitlines() if f'"{event}"' in line]
    assert all(line["level"] == "warning" for line in lines)
    return [(line["node"], line["kind"]) for line in lines]


def test_g4_hanging_lookups_do_not_delay_shutdown(names: Names, three: list[Memcached]) -> None:
    """Every lookup of three nodes hangs for an hour; SIGTERM all the same ends smsd."""
    for i in range(3):
        names.set(f"memcached-{i}.test", after_s=HANGS)
    with names.smsd(store_of(named(three))) as replica:
        wait_for(sees(replica, "down"), "the failing lookup is seen")
        assert replica.terminate() == 0


async def test_g4_hanging_lookup_keeps_the_open_connection(
    names: Names, three: list[Memcached]
) -> None:
    names.set("memcached-0.test", "127.0.0.1")
    with names.smsd(store_of(named(three[:1]))) as replica:
        async with Recorder([replica]) as twilio:
            from_ = number()
            await twilio.text(from_)
            names.set("memcached-0.test", after_s=HANGS)
            ends_s = time.monotonic() + 8  # longer than the budget of a lookup
            while time.monotonic() < ends_s:
                await twilio.text(from_)
                await asyncio.sleep(0.1)
            assert twilio.violations() == []
        assert settled(replica)
        assert replica.metric('smsd_messages_total{outcome="degraded"}') == 0
        assert log_events(replica.log(), "memcached node down") == []


async def test_g4_node_is_reached_at_the_address_that_answers(
    names: Names, three: list[Memcached]
) -> None:
    names.set("memcached-0.test", "127.0.0.2", "127.0.0.3", "127.0.0.1")
    with names.smsd(store_of(named(three[:1]))) as replica:
        wait_for(lambda: settled(replica), "the node is up")
        async with Recorder([replica]) as twilio:
            from_ = number()
            for _ in range(3):
                await twilio.text(from_, cookies=LOST)
            assert twilio.violations() == []
