"""G12: whatever a dialogue raises, swallows or blocks, the sender gets an answer in
time, the message counts, and the process and other conversations are unharmed.
"""

import asyncio
import json
import time
from collections.abc import Iterator

import pytest

from tests.faults.turns import Texter, until
from tests.faults.world import World, number, world
from tests.processes import wait_for

pytestmark = pytest.mark.asyncio

ENV = {
    "SMSD_DIALOGUE": "tests.faults.dialogues:misbehaves",
    "SMSD_DIALOGUE_TIMEOUT": "1",
    "SMSD_STORE_TIMEOUT": "2",
}
APOLOGY = "went wrong"


@pytest.fixture(scope="module")
def one() -> Iterator[World]:
    with world(replicas=1, env=ENV) as made:
        yield made


@pytest.fixture(scope="module")
def plain() -> Iterator[World]:
    env = {**ENV, "SMSD_DIALOGUE": "tests.faults.dialogues:plain_misbehaves"}
    with world(replicas=1, env=env) as made:
        yield made


def failed(made: World) -> float:
    return made.replicas[0].metric('smsd_messages_total{outcome="failed"}')


def failures_logged(made: World) -> list[list[str]]:
    lines = [json.loads(line) for line in made.replicas[0].log().splitlines() if line[:1] == "{"]
    return [line["error"] for line in lines if line["event"] == "dialogue failed"]


MISDEEDS = {
    "cancelled": "CancelledError",
    "exit": "SystemExit",
    "exit later": "SystemExit",
    "task exits": "UserCodeError",
    "interrupt": "KeyboardInterrupt",
    "generator": "GeneratorExit",
    "its own": "Odd",
    "cancels itself": "CancelledError",
    "swallows": "DialogueTimeout",
    "swallows yielding": "DialogueTimeout",
    "nonsense": "ReplyError",
    "recurses": "RecursionError",
}


@pytest.mark.parametrize("misdeed", MISDEEDS)
async def test_g12_misbehaving_coroutine_harms_nobody_else(one: World, misdeed: str) -> None:
    texter, from_ = Texter(one.replicas), number()
    pid, before = one.replicas[0].pid, failed(one)
    bad = asyncio.create_task(texter.text(misdeed, from_))
    other = await texter.text("count", number())
    assert other.text == "1 times"
    outcome = await bad
    assert APOLOGY in str(outcome.text)
    assert outcome.elapsed_s < 15, "Twilio's own limit"
    assert (await texter.text("count", from_)).text == "2 times"
    assert failed(one) == before + 1
    assert MISDEEDS[misdeed] in failures_logged(one)[-1][0]
    assert "zQ7jXw" not in one.replicas[0].log(), "the text of an error is the author's"
    assert (one.replicas[0].pid, one.replicas[0].admin("/livez")[0]) == (pid, 200)


async def test_g12_task_that_exits_after_the_reply_does_not_end_the_process(one: World) -> None:
    texter, from_ = Texter(one.replicas), number()
    assert (await texter.text("forgotten task exits", from_)).text == "1 times"
    give_up_s = time.monotonic() + 0.5
    while time.monotonic() < give_up_s:
        assert (await texter.text("count", number())).text == "1 times"


async def test_g12_coroutine_that_blocks_is_late_and_others_go_on_afterwards(one: World) -> None:
    texter, from_ = Texter(one.replicas), number()
    blocked = asyncio.create_task(texter.text("blocks", from_))
    other = await texter.text("count", number())
    assert other.text == "1 times"
    assert (await blocked).text == "1 times"
    assert (await texter.text("count", from_)).text == "2 times"


@pytest.mark.parametrize("misdeed", ["block", "exit", "cancelled", "stop iteration", "interrupt"])
async def test_g12_misbehaving_plain_function_harms_nobody_else(plain: World, misdeed: str) -> None:
    texter, from_ = Texter(plain.replicas), number()
    before = failed(plain)
    bad = asyncio.create_task(texter.text(misdeed, from_))
    assert (await texter.text("count", number())).text == "1 times"
    assert APOLOGY in str((await bad).text)
    assert (await texter.text("count", from_)).text == "2 times"
    assert failed(plain) == before + 1
    assert "zQ7jXw" not in plain.replicas[0].log()


async def test_g12_coroutine_left_behind_is_counted_and_does_not_hold_up_the_end() -> None:
    with world(replicas=1, env=ENV) as made:
        texter, replica = Texter(made.replicas), made.replicas[0]
        for _ in range(3):
            assert APOLOGY in str((await texter.text("swallows", number())).text)
        wait_for(lambda: replica.metric("smsd_dialogues_abandoned") == 3, "three are left behind")
        began_s = time.monotonic()
        assert replica.terminate() == 0
        assert time.monotonic() - began_s < 20


async def test_g12_plain_function_that_blocks_does_not_hold_up_the_end(plain: World) -> None:
    env = {**ENV, "SMSD_DIALOGUE": "tests.faults.dialogues:plain_misbehaves"}
    with world(replicas=1, env=env) as made:
        texter = Texter(made.replicas)
        assert APOLOGY in str((await texter.text("block", number())).text)
        assert made.replicas[0].terminate() == 0


async def test_g12_dialogue_that_runs_at_sigterm_may_finish(one: World) -> None:
    with world(replicas=1, env=ENV) as made:
        texter, replica = Texter(made.replicas, fallback=False), made.replicas[0]
        bad = asyncio.create_task(texter.text("swallows", number()))
        await until(lambda: replica.metric("smsd_turns_waiting") == 1, "it runs")
        assert await asyncio.to_thread(replica.terminate) == 0
        assert APOLOGY in str((await bad).text)
