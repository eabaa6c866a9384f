"""G4: with memcached down, slow or hung, every message is still answered within 1 s.
When memcached is back, the counts made meanwhile are merged: none is lost, none is
doubled.
"""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from statistics import median

import pytest

from smsd.conversation.counting import added, opened
from smsd.conversation.record import Record
from smsd.simulator import LOST
from smsd.store.memcached import Memcached as Remote
from smsd.store.overlay import OverlayStore
from tests.faults.history import Delivery, Recorder
from tests.faults.proxy import Fault
from tests.faults.world import (
    PATIENT,
    World,
    counted,
    number,
    sees,
    status,
    wait_until_merged,
    world,
)
from tests.observer import Told
from tests.processes import Memcached, free_port, wait_for

pytestmark = pytest.mark.asyncio


@pytest.fixture(scope="module")
def two() -> Iterator[World]:
    with world(nodes=2, replicas=2, proxied=True) as made:
        yield made


class Lag(threading.Thread):
    """How late this machine wakes a sleeping thread: no event loop is to blame for
    that.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.worst_s = 0.0
        self.over = False

    def run(self) -> None:
        while not self.over:
            asked_s = time.monotonic()
            time.sleep(0.01)
            self.worst_s = max(self.worst_s, time.monotonic() - asked_s - 0.01)


@pytest.fixture(scope="module")
def lag() -> Iterator[Lag]:
    thread = Lag()
    thread.start()
    yield thread
    thread.over = True
    thread.join()


@pytest.fixture(scope="module")
def bare() -> Iterator[World]:
    """Nodes without proxies: the processes themselves fail."""
    with world(nodes=3, replicas=2) as made:
        yield made


@contextmanager
def hung(node: Memcached) -> Iterator[None]:
    node.hang()
    try:
        yield
    finally:
        node.resume()


@contextmanager
def down(node: Memcached) -> Iterator[None]:
    node.kill()
    try:
        yield
    finally:
        node.start()


@contextmanager
def outage(made: World, fault: Fault, delay_s: float = 0.1) -> Iterator[None]:
    for proxy in made.proxies:
        proxy.delay_s = delay_s
        proxy.set(fault)
    try:
        yield
    finally:
        for proxy in made.proxies:
            proxy.set(Fault.PASS)


async def converse(twilio: Recorder, numbers: list[str], messages: int) -> list[Delivery]:
    """Send `messages` from each number, one after the other, all numbers at the same
    time.
    """
    begun = len(twilio.history)

    async def one(from_: str) -> None:
        for _ in range(messages):
            await twilio.text(from_)

    await asyncio.gather(*map(one, numbers))
    return twilio.history[begun:]


FAULTS = [
    (Fault.REFUSE, 0.0),
    (Fault.SILENT, 0.0),
    (Fault.HOLD_WRITES, 0.0),
    (Fault.CUT, 0.0),
    (Fault.GARBAGE, 0.0),
    (Fault.DRIP, 0.02),
    (Fault.SLOW, 0.1),
    (Fault.SLOW, 0.2),
    (Fault.SLOW, 0.4),
]


@pytest.mark.parametrize(("fault", "delay_s"), FAULTS)
async def test_g4_messages_are_answered_and_counted_through_faults(
    two: World, fault: Fault, delay_s: float
) -> None:
    """Each conversation counts on before, during and after the fault. Afterwards a
    message without a cookie finds the sum.
    """
    async with Recorder(two.replicas) as twilio:
        numbers = [number() for _ in range(6)]
        await converse(twilio, numbers, 3)
        with outage(two, fault, delay_s):
            during = await converse(twilio, numbers, 4)
        await asyncio.to_thread(wait_until_merged, two)
        for from_ in numbers:
            await twilio.text(from_, cookies=LOST)
        assert twilio.violations() == []
        assert max(delivery.took_s for delivery in during) < 1


@pytest.mark.parametrize("delay_s", [0.1, 0.2, 0.24])
async def test_g4_concurrent_messages_are_answered_while_memcached_is_slow(
    two: World, delay_s: float
) -> None:
    async with Recorder(two.replicas) as twilio:
        from_ = number()
        with outage(two, Fault.SLOW, delay_s):
            messages = [twilio.compose(from_) for _ in range(12)]
            during = await asyncio.gather(*map(twilio.deliver, messages))
        assert all(delivery.status == 200 for delivery in during)
        assert max(delivery.took_s for delivery in during) < 1
        await asyncio.to_thread(wait_until_merged, two)
        assert (await twilio.text(from_, cookies=LOST)).count == 13


@pytest.mark.parametrize("fault", [hung, down])
@pytest.mark.parametrize("nodes", [1, 3])
async def test_g4_hung_or_killed_nodes_delay_no_answer(
    bare: World, lag: "Lag", fault: Callable[[Memcached], object], nodes: int
) -> None:
    """Bounds the slowest answer, the median after the breaker opened, and the time
    until the return is seen. The event loop is never blocked for 50 ms.
    """
    async with Recorder(bare.replicas) as twilio:
        numbers = [number() for _ in range(12)]
        await converse(twilio, numbers, 2)
        faults = [fault(node) for node in bare.nodes[:nodes]]
        for each in faults:
            each.__enter__()  # type: ignore[attr-defined]
        try:
            first = [
                await twilio.text(from_, replica) for replica in bare.replicas for from_ in numbers
            ]
            for replica in bare.replicas:
                await asyncio.to_thread(wait_for, sees(replica, "down"), "the breaker is open")
            later = [await twilio.text(from_) for from_ in numbers * 5]
        finally:
            for each in faults:
                each.__exit__(None, None, None)  # type: ignore[attr-defined]
        back_s = time.monotonic()
        await asyncio.to_thread(wait_until_merged, bare)
        assert time.monotonic() - back_s < 2
        assert max(delivery.took_s for delivery in first + later) < 1
        assert median(delivery.took_s for delivery in later) < 0.05 + lag.worst_s
        for from_ in numbers:
            await twilio.text(from_, cookies=LOST)
        assert twilio.violations() == []
    for replica in bare.replicas:
        assert replica.metric("smsd_event_loop_lag_seconds") < 0.05 + 2 * lag.worst_s


async def test_g4_outage_leaves_one_log_line_at_each_end() -> None:
    """However many messages come meanwhile. Kind and duration are told, and no node is
    down for a reason of its own: operations may take 5 s.
    """
    with world(1, 1, PATIENT) as made:
        (node,), (replica,) = made.nodes, made.replicas
        async with Recorder([replica]) as twilio:
            numbers = [number() for _ in range(10)]
            await converse(twilio, numbers, 1)
            with down(node):
                await asyncio.to_thread(wait_for, sees(replica, "down"), "the outage is seen")
                await converse(twilio, numbers, 5)
            await asyncio.to_thread(wait_until_merged, made)
        lines = [
            json.loads(line) for line in replica.log().splitlines() if "memcached node" in line
        ]
        assert [(line["level"], line["event"], line["node"], line["kind"]) for line in lines] == [
            ("warning", "memcached node down", node.node, "refused"),
            ("warning", "memcached node up", node.node, "refused"),
        ]
        assert 0 < lines[1]["down_s"] < 60


async def test_g4_writes_of_a_node_that_wakes_double_nothing(bare: World) -> None:
    """It carries out what was sent before the breaker opened."""
    async with Recorder(bare.replicas) as twilio:
        numbers = [number() for _ in range(30)]
        for _ in range(3):
            await converse(twilio, numbers, 1)
            for node in bare.nodes:
                node.hang()
            await converse(twilio, numbers, 2)
            for node in bare.nodes:
                node.resume()
            await converse(twilio, numbers, 1)
        await asyncio.to_thread(wait_until_merged, bare)
        for from_ in numbers:
            await twilio.text(from_, cookies=LOST)
        assert twilio.violations() == []


async def test_g4_replica_cut_off_from_its_nodes_keeps_counting(two: World) -> None:
    """One replica reaches no node, the other reaches all; both get messages in turn."""
    cut_off, other = two.replicas
    async with Recorder(two.replicas) as twilio:
        numbers = [number() for _ in range(6)]
        await converse(twilio, numbers, 2)
        try:
            for proxy in two.proxies:
                proxy.set(Fault.SILENT, only=cut_off)
            await converse(twilio, numbers, 10)
            assert sees(cut_off, "down")()
            assert not sees(other, "down")()
        finally:
            for proxy in two.proxies:
                proxy.set(Fault.PASS)
        await asyncio.to_thread(wait_until_merged, two)
        for from_ in numbers:
            await twilio.text(from_, other, LOST)
        assert twilio.violations() == []


async def test_g4_counts_of_separated_replicas_add_up(two: World) -> None:
    """Both count the same conversation on their overlays, and may show the same numbers
    meanwhile, as docs/promises.md says. Afterwards the sum is right.
    """
    before = sum(map(counted, two.replicas))
    async with Recorder(two.replicas) as twilio:
        from_ = number()
        await twilio.text(from_)
        with outage(two, Fault.REFUSE):
            for _ in range(5):
                await asyncio.gather(*(twilio.text(from_, replica) for replica in two.replicas))
            assert [status(replica)["pending"] for replica in two.replicas] == [1, 1]
        await asyncio.to_thread(wait_until_merged, two)
        for replica in two.replicas:
            await twilio.text(from_, replica, LOST)
        assert [delivery.count for delivery in twilio.history[-2:]] == [12, 13]
    assert sum(map(counted, two.replicas)) == before + 13


async def test_g4_overlay_is_merged_before_its_replica_ends(two: World) -> None:
    """SIGTERM after memcached came back, but before the merge, loses nothing. Messages
    without a cookie show it.
    """
    leaving, other = two.replicas
    async with Recorder([leaving]) as twilio:
        numbers = [number() for _ in range(20)]
        with outage(two, Fault.REFUSE):
            await converse(twilio, numbers, 2)
        assert await asyncio.to_thread(leaving.terminate) == 0
        for from_ in numbers:
            assert (await twilio.text(from_, other, LOST)).count == 3
    leaving.start()


async def test_g4_dropped_overlay_records_live_on_in_cookies() -> None:
    """At the limit the oldest conversations are dropped and counted. A message with its
    cookie still counts on exactly; one without begins again.
    """
    observer = Told()
    now_ms, bits = time.time_ns() // 1_000_000, count(1).__next__
    remote = Remote(
        [f"127.0.0.1:{free_port()}"],
        timeout_s=0.2,
        ttl_s=14400,
        now_ms=lambda: now_ms,
        observer=observer,
    )
    store = OverlayStore(
        remote,
        timeout_s=0.2,
        ttl_s=14400,
        now_ms=lambda: now_ms,
        random_bits=bits,
        observer=observer,
        max_pending_bytes=20_000,
    )

    async def message(key: bytes, copy: Record | None) -> Record:
        view = await store.load(key)
        copies = (copy, *view.versions) if copy else view.versions
        record = opened(
            view.stored, copies, now_ms=now_ms, ttl_ms=14_400_000, random_bits=bits()
        ).record
        record = added(record, b"%06d" % bits(), b"reply", now_ms=now_ms, data=b"")
        assert await store.save(key, record, view.token)
        return record

    keys = [b"conversation-%d" % i for i in range(1000)]
    cookies = {key: await message(key, None) for key in keys}
    assert store.pending < 1000
    assert observer.dropped == 1000 - store.pending
    assert (await message(keys[-1], None)).count == 2
    assert (await message(keys[0], cookies[keys[0]])).count == 2
    assert (await message(keys[1], None)).count == 1
    await store.close(within_s=0)


async def test_g4_conversations_are_quick_again_after_a_hang() -> None:
    """Two texts of each came within milliseconds at one replica during the hang."""
    with world(nodes=1, replicas=1) as made:
        async with Recorder(made.replicas) as twilio:
            senders = [number() for _ in range(30)]
            await asyncio.gather(*(twilio.text(from_) for from_ in senders))
            made.nodes[0].hang()
            for _ in range(3):
                pairs = [twilio.text(from_) for from_ in senders for _ in range(2)]
                await asyncio.gather(*pairs)
            made.nodes[0].resume()
            await asyncio.to_thread(wait_until_merged, made)
            for from_ in senders:
                took = [(await twilio.text(from_)).took_s for _ in range(3)]
                assert min(took) < 0.2, f"{from_}: {took}"
            assert [each for each in twilio.violations() if "was given to" not in each] == []
