"""G7: a rolling restart or SIGTERM under load drops no request."""

import asyncio
import time
from collections.abc import Iterator

import pytest

from smsd.simulator import LOST
from tests.faults.balancer import Balancer
from tests.faults.history import Recorder
from tests.faults.world import World, number, wait_until_merged, world
from tests.processes import Smsd, wait_for

pytestmark = pytest.mark.asyncio


@pytest.fixture(scope="module")
def three() -> Iterator[World]:
    with world(nodes=1, replicas=3, env={"SMSD_DRAIN_DELAY": "2"}) as made:
        yield made


RATE = 200
TALKERS = 100


async def load(twilio: Recorder, over: asyncio.Event) -> None:
    """About RATE messages a second, of TALKERS conversations, until it is over."""
    numbers = [number() for _ in range(TALKERS)]

    async def talk(from_: str, begin_s: float) -> None:
        await asyncio.sleep(begin_s)
        while not over.is_set():
            next_s = time.monotonic() + TALKERS / RATE
            await twilio.text(from_)
            await asyncio.sleep(max(0, next_s - time.monotonic()))

    await asyncio.gather(*(talk(from_, i / RATE) for i, from_ in enumerate(numbers)))


@pytest.mark.parametrize("kept", [True, False])
async def test_g7_a_rolling_restart_of_three_replicas_drops_no_request(
    three: World, kept: bool
) -> None:
    """At 200 requests a second; each replica ends with code 0 before the next is told
    to."""
    async with (
        Balancer(three.replicas, kept=kept) as balancer,
        Recorder(three.replicas) as twilio,
    ):
        twilio.client.perform = lambda request, **_: balancer.perform(request)  # type: ignore[method-assign]
        over = asyncio.Event()
        talking = asyncio.create_task(load(twilio, over))
        for replica in three.replicas:
            assert await asyncio.to_thread(replica.terminate) == 0
            await asyncio.to_thread(replica.start)
            while not balancer.is_ready(replica):
                await asyncio.sleep(0.02)
        over.set()
        await talking
        assert twilio.violations() == []
        assert len(twilio.history) > 300
        await asyncio.to_thread(wait_until_merged, three)
        for from_ in {delivery.conversation for delivery in twilio.history}:
            await twilio.text(from_, cookies=LOST)
        assert twilio.violations() == []


async def test_g7_a_request_whose_answer_is_not_ready_at_sigterm_is_answered() -> None:
    """The dialogue is still thinking when the signal comes."""
    env = {"SMSD_DIALOGUE": "tests.faults.dialogues:slower"}
    with world(replicas=1, env=env) as made:
        async with Recorder(made.replicas) as twilio:
            under_way = [asyncio.create_task(twilio.text(number())) for _ in range(10)]
            await asyncio.to_thread(
                wait_for, lambda: asking(made.replicas[0], 10), "ten dialogues run"
            )
            assert await asyncio.to_thread(made.replicas[0].terminate) == 0
            assert [delivery.count for delivery in await asyncio.gather(*under_way)] == [1] * 10


def asking(replica: Smsd, connections: int) -> bool:
    """Whether so many messages have been read from the store: their dialogues run."""
    return replica.metric('smsd_store_duration_seconds_count{operation="read"}') >= connections


async def test_g7_a_connection_that_was_open_at_sigterm_may_still_ask_once_more() -> None:
    with world(replicas=1, env={"SMSD_DRAIN_DELAY": "1"}) as made:
        replica = made.replicas[0]
        async with Balancer([replica], kept=True) as balancer, Recorder([replica]) as twilio:
            twilio.client.perform = lambda request, **_: balancer.perform(request)  # type: ignore[method-assign]
            from_ = number()
            await twilio.text(from_)
            reader, writer = await asyncio.open_connection("127.0.0.1", replica.port)
            request = b"POST /sms HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"
            writer.write(request[:20])
            await writer.drain()
            ended = asyncio.create_task(asyncio.to_thread(replica.terminate))
            await asyncio.to_thread(
                wait_for, lambda: replica.admin("/readyz")[0] == 503, "not ready"
            )
            writer.write(request[20:] + b"a=b&c")
            answer = await reader.read()
            writer.close()
            assert answer.startswith(b"HTTP/1.1 403")
            assert b"Connection: close" in answer
            assert await ended == 0


async def test_g7_replicas_that_drain_are_ready_no_more_but_answer() -> None:
    with world(replicas=1, env={"SMSD_DRAIN_DELAY": "2"}) as made:
        replica = made.replicas[0]
        async with Recorder([replica]) as twilio:
            assert replica.admin("/readyz")[0] == 200
            ended = asyncio.create_task(asyncio.to_thread(replica.terminate))
            await asyncio.to_thread(
                wait_for, lambda: replica.admin("/readyz")[0] == 503, "not ready"
            )
            assert (await twilio.text(number())).count == 1
            assert replica.admin("/livez")[0] == 200
            assert await ended == 0
