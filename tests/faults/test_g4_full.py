"""G4: a memcached that is full and evicts nothing refuses writes: they wait on the
overlay, are retried with back-off, and are merged once there is room.
"""

import asyncio
import time
from collections.abc import Iterator

import pytest
from pymemcache.exceptions import MemcacheServerError

from smsd.simulator import LOST
from tests.faults.history import Recorder
from tests.faults.world import PATIENT, World, number, status, wait_until_merged, world
from tests.processes import Memcached, wait_for

pytestmark = pytest.mark.asyncio


@pytest.fixture(scope="module")
def full() -> Iterator[World]:
    """One replica; one node of two megabytes that refuses instead of evicting."""
    with world(1, 1, PATIENT, options=("-m", "2", "-I", "512k", "-M")) as made:
        yield made


def fill(node: Memcached) -> None:
    """With values of every size, until none goes in."""
    client = node.client()
    for size in (200_000, 20_000, 5000, *range(2000, 0, -20)):
        try:
            for i in range(100_000):
                client.set(f"other:{size}:{i}", b"x" * size)
        except MemcacheServerError:
            continue
    client.close()


def commands(node: Memcached) -> int:
    """Reads and writes that the node was asked for so far."""
    client = node.client()
    stats = client.stats()
    client.close()
    return int(stats[b"cmd_get"]) + int(stats[b"cmd_set"])


def refused(made: World) -> float:
    (replica,), (node,) = made.replicas, made.nodes
    return replica.metric(f'smsd_store_errors_total{{kind="server",node="{node.node}"}}')


async def test_g4_full_memcached_is_retried_with_back_off(
    full: World,
) -> None:
    (node,) = full.nodes
    (replica,) = full.replicas
    async with Recorder(full.replicas) as twilio:
        numbers = [number() for _ in range(200)]
        fill(node)
        for _ in range(2):
            await asyncio.gather(*map(twilio.text, numbers))
        assert status(replica)["pending"] == len(numbers)
        assert max(delivery.took_s for delivery in twilio.history) < 5
        before, begun_s = commands(node), time.monotonic()
        refusals = refused(full)
        wait_for(lambda: refused(full) > refusals, "the reconciliation tries again")
        await asyncio.sleep(4)
        rate = (commands(node) - before) / (time.monotonic() - begun_s)
        assert rate < 100  # 1,600 without back-off: each conversation, four times a second
        assert "down" not in str(status(replica)["nodes"])
        node.flush()
        await asyncio.to_thread(wait_until_merged, full)
        for from_ in numbers:
            await twilio.text(from_, cookies=LOST)
        assert twilio.violations() == []


async def test_g4_full_memcached_does_not_delay_shutdown(full: World) -> None:
    """SIGTERM with conversations that nobody takes: smsd ends, and says how many were
    lost.
    """
    (replica,) = full.replicas
    async with Recorder(full.replicas) as twilio:
        fill(full.nodes[0])
        await asyncio.gather(*(twilio.text(number()) for _ in range(50)))
        assert status(replica)["pending"]
    before = commands(full.nodes[0])
    assert replica.terminate() == 0
    assert '"overlay lost at shutdown"' in replica.log()
    assert '"error"' not in replica.log()
    assert commands(full.nodes[0]) - before < 500
    replica.start()
