"""G1: a MessageSid counts once, however often and to however many replicas it is
delivered; every delivery gets the same reply.
"""

import asyncio
from collections.abc import Iterator

import pytest

from smsd.simulator import FORGETFUL, JAR, LOST, STALE
from tests.faults.history import Recorder
from tests.faults.proxy import Fault
from tests.faults.world import PATIENT, World, counted, number, wait_until_merged, world
from tests.processes import wait_for

pytestmark = pytest.mark.asyncio


@pytest.fixture(scope="module")
def three() -> Iterator[World]:
    with world(nodes=2, replicas=3, proxied=True) as made:
        yield made


@pytest.fixture(autouse=True)
def _healed(three: World) -> Iterator[None]:
    yield
    for proxy in three.proxies:
        proxy.set(Fault.PASS)
    wait_until_merged(three)


async def test_g1_a_message_delivered_to_all_replicas_at_once_counts_once(three: World) -> None:
    before = sum(map(counted, three.replicas))
    async with Recorder(three.replicas) as twilio:
        for from_ in [number() for _ in range(4)]:
            for _ in range(5):
                message = twilio.compose(from_)
                await asyncio.gather(*(twilio.deliver(message, r) for r in three.replicas * 2))
        assert twilio.violations() == []
    assert sum(map(counted, three.replicas)) == before + 20


@pytest.mark.parametrize("cookies", [JAR, LOST, STALE, FORGETFUL])
async def test_g1_a_late_retry_gets_the_first_reply_whatever_the_cookie(
    three: World, cookies: object
) -> None:
    async with Recorder(three.replicas) as twilio:
        from_ = number()
        messages = [twilio.compose(from_) for _ in range(32)]
        for message in messages:
            await twilio.deliver(message)
        for message in messages:
            await twilio.deliver(message, cookies=cookies)  # type: ignore[arg-type]
        assert twilio.violations() == []
        assert (await twilio.text(from_)).count == 33


async def test_g1_a_duplicate_on_two_overlays_counts_once_after_merging(three: World) -> None:
    async with Recorder(three.replicas) as twilio:
        from_ = number()
        for _ in range(3):
            await twilio.text(from_)
        for proxy in three.proxies:
            proxy.set(Fault.REFUSE)
        messages = [twilio.compose(from_) for _ in range(3)]
        for message in messages:
            await asyncio.gather(*(twilio.deliver(message, r) for r in three.replicas))
        for proxy in three.proxies:
            proxy.set(Fault.PASS)
        await asyncio.to_thread(wait_until_merged, three)
        for message in messages:
            await twilio.deliver(message, cookies=LOST)
        await twilio.text(from_, cookies=LOST)
        assert twilio.violations() == []
        assert twilio.history[-1].count == 7


async def test_g1_a_retry_after_the_process_died_between_commit_and_answer_counts_once(
    three: World,
) -> None:
    """memcached has stored the message, the process that stored it is killed before it
    can answer."""
    victim, other = three.replicas[0], three.replicas[1]
    async with Recorder([other]) as twilio:
        from_ = number()
        first = await twilio.text(from_, victim)
        message = twilio.compose(from_)
        for proxy in three.proxies:
            proxy.set(Fault.HOLD_WRITES)
        lost = asyncio.create_task(twilio.client.deliver(message, connect_to=victim.address))
        await asyncio.to_thread(
            wait_for, lambda: any(p.held for p in three.proxies), "a write is stored"
        )
        victim.kill()
        assert (await lost).status is None
        for proxy in three.proxies:
            proxy.set(Fault.PASS)
        assert [first.count] == [1]
        assert (await twilio.deliver(message, other)).count == 2
        assert (await twilio.deliver(message, other, LOST)).count == 2
        assert (await twilio.text(from_, other)).count == 3
        assert twilio.violations() == []
        assert other.metric('smsd_messages_total{outcome="duplicate"}') >= 2
    victim.start()


async def test_g1_a_write_that_timed_out_and_was_applied_all_the_same_counts_once(
    three: World,
) -> None:
    """The command reaches memcached, its answer comes too late: the message is counted
    on the overlay too."""
    async with Recorder(three.replicas) as twilio:
        from_ = number()
        await twilio.text(from_)
        for fault in (Fault.HOLD_WRITES, Fault.SILENT):
            for proxy in three.proxies:
                proxy.set(fault)
            message = twilio.compose(from_)
            await twilio.deliver(message)
            for proxy in three.proxies:
                proxy.set(Fault.PASS)
            await asyncio.to_thread(wait_until_merged, three)
            await twilio.deliver(message, cookies=LOST)
        await twilio.text(from_, cookies=LOST)
        assert [d.count for d in twilio.history] == [1, 2, 2, 3, 3, 4]
        assert twilio.violations() == []


async def test_g1_32_long_replies_beside_much_data_are_kept() -> None:
    """Each run of this dialogue replies something else, 15 kB of it."""
    env = {**PATIENT, "SMSD_DIALOGUE": "tests.faults.dialogues:hoards"}
    with world(nodes=1, replicas=2, env=env) as made:
        async with Recorder(made.replicas) as twilio:
            from_ = number()
            messages = [twilio.compose(from_) for _ in range(32)]
            for message in messages:
                await twilio.deliver(message)
            for message in messages:
                await twilio.deliver(message, cookies=LOST)
            assert twilio.violations() == []
