"""G2: messages that arrive at the same time on any replicas get different, gapless
counts, while memcached answers."""

import asyncio
from collections.abc import Iterator

import pytest

from smsd.simulator import LOST
from tests.faults.history import Recorder
from tests.faults.proxy import Fault
from tests.faults.world import PATIENT, World, number, world

pytestmark = pytest.mark.asyncio


@pytest.fixture(scope="module")
def four() -> Iterator[World]:
    with world(nodes=2, replicas=4, env=PATIENT, proxied=True) as made:
        yield made


async def at_once(
    made: World, *, conversations: int, messages: int, copies: int = 1, seed: int = 1
) -> Recorder:
    """So many messages of each conversation, all sent at the same time; the history."""
    async with Recorder(made.replicas, seed=seed) as twilio:
        numbers = [number() for _ in range(conversations)]
        sent = [twilio.compose(from_) for from_ in numbers for _ in range(messages)] * copies
        twilio.random.shuffle(sent)
        await asyncio.gather(*(twilio.deliver(message) for message in sent))
        for from_ in numbers:
            assert (await twilio.text(from_, cookies=LOST)).count == messages + 1
        return twilio


async def test_g2_messages_of_many_conversations_at_once_leave_no_gap(four: World) -> None:
    assert (await at_once(four, conversations=20, messages=10)).violations() == []


async def test_g2_eighty_messages_of_one_conversation_at_once_leave_no_gap(four: World) -> None:
    assert (await at_once(four, conversations=1, messages=80)).violations() == []


async def test_g2_duplicates_at_the_same_time_leave_no_gap(four: World) -> None:
    assert (await at_once(four, conversations=4, messages=10, copies=3)).violations() == []


async def test_g2_slow_answers_leave_no_gap(four: World) -> None:
    for proxy in four.proxies:
        proxy.delay_s = 0.01
        proxy.set(Fault.SLOW)
    try:
        assert (await at_once(four, conversations=3, messages=8)).violations() == []
    finally:
        for proxy in four.proxies:
            proxy.set(Fault.PASS)


async def test_g2_replicas_do_collide(four: World) -> None:
    """The tests above would show nothing if no two replicas ever wrote the same record
    at the same time."""
    for _ in range(10):
        await at_once(four, conversations=1, messages=20)
        if any(replica.metric("smsd_store_conflicts_total") for replica in four.replicas):
            break
    else:
        pytest.fail("no two replicas wrote the same record at the same time")
    assert all(
        replica.metric('smsd_messages_total{outcome="degraded"}') == 0 for replica in four.replicas
    )


async def test_g2_slow_dialogue_is_not_taken_for_a_slow_store() -> None:
    """Messages that wait for a second for their turn are counted in memcached all the
    same."""
    with world(replicas=2, env={"SMSD_DIALOGUE": "tests.faults.dialogues:slow"}) as made:
        async with Recorder(made.replicas) as twilio:
            from_ = number()
            messages = [twilio.compose(from_) for _ in range(3)]
            await asyncio.gather(
                *(
                    twilio.deliver(message, made.replicas[i % 2])
                    for i, message in enumerate(messages)
                )
            )
            assert twilio.violations() == []
        for replica in made.replicas:
            assert replica.metric('smsd_messages_total{outcome="degraded"}') == 0


@pytest.mark.parametrize(
    ("messages", "delay_s", "timeout_s"), [(3, 0.15, "0.5"), (20, 0.01, "0.5")]
)
async def test_g2_texts_at_once_far_from_memcached_get_their_own_numbers(
    messages: int, delay_s: float, timeout_s: str
) -> None:
    """Who writes last of three needs six round trips. A time-out twice as long
    beside a distance twice as long leaves a busy machine twice the time of its own.
    """
    env = {"SMSD_STORE_TIMEOUT": timeout_s}
    with world(nodes=1, replicas=3, env=env, proxied=True) as made:
        [proxy] = made.proxies
        proxy.delay_s = delay_s
        async with Recorder(made.replicas) as twilio:
            for _ in range(3):  # they learn that this dialogue answers at once
                await asyncio.gather(*(twilio.text(number(), each) for each in made.replicas))
            proxy.set(Fault.FAR)
            for _ in range(3):
                from_ = number()
                await asyncio.gather(
                    *(twilio.text(from_, made.replicas[i % 3]) for i in range(messages))
                )
            assert twilio.violations() == []
        for replica in made.replicas:
            assert replica.metric('smsd_messages_total{outcome="degraded"}') == 0


async def test_g2_write_whose_answer_is_lost_is_told_once_and_is_no_duplicate() -> None:
    """memcached carries writes out, and the connection ends before its answer."""
    with world(nodes=1, replicas=3, env=PATIENT, proxied=True) as made:
        async with Recorder(made.replicas) as twilio:
            made.proxies[0].set(Fault.RESET)
            for _ in range(12):
                senders = [number() for _ in range(4)]
                await asyncio.gather(*(twilio.text(each) for each in senders for _ in range(5)))
            made.proxies[0].set(Fault.PASS)
            told = {
                outcome: sum(
                    replica.metric(f'smsd_messages_total{{outcome="{outcome}"}}')
                    for replica in made.replicas
                )
                for outcome in ("counted", "degraded", "failed", "duplicate")
            }
            assert made.proxies[0].writes > 100
            assert told["duplicate"] == 0, told
            assert sum(told.values()) == len(twilio.history), told
