"""G10: the dialogues of one conversation run one at a time, in the order of their
numbers, over all replicas, and each runs once.
"""

import asyncio
import signal
from collections.abc import Iterator

import pytest

from smsd.simulator import LOST, Outcome
from tests.faults.turns import Scene, Texter, scene, turn_violations, until
from tests.faults.world import number, wait_until_merged

pytestmark = pytest.mark.asyncio

PATIENT = {"SMSD_STORE_TIMEOUT": "2", "SMSD_LOOP_LIMIT": "0"}


@pytest.fixture(scope="module")
def three() -> Iterator[Scene]:
    with scene(nodes=2, replicas=3, env=PATIENT) as made:
        yield made


async def one_after_the_other(
    texter: Texter, from_: str, bodies: list[str], gap_s: float
) -> list[Outcome]:
    """Texts that are sent this far apart, each to the next replica."""

    async def send(place: int, body: str) -> Outcome:
        await asyncio.sleep(place * gap_s)
        return await texter.text(body, from_, texter.replicas[place % len(texter.replicas)])

    return list(await asyncio.gather(*(send(i, body) for i, body in enumerate(bodies))))


async def test_g10_three_texts_in_a_row_are_answered_in_order(three: Scene) -> None:
    texter, from_ = Texter(three.replicas), number()
    outcomes = await one_after_the_other(texter, from_, ["take 1.0"] * 3, 0.3)
    assert [outcome.text for outcome in outcomes] == [
        "1 times, heard [1]",
        "2 times, heard [1, 2]",
        "3 times, heard [1, 2, 3]",
    ]
    runs = three.notes.runs(from_)
    assert [run.count for run in runs] == [1, 2, 3]
    assert turn_violations(runs, outcomes) == []


async def test_g10_five_texts_at_once_run_one_at_a_time(three: Scene) -> None:
    texter, from_ = Texter(three.replicas), number()
    outcomes = await one_after_the_other(texter, from_, ["take 0.3"] * 5, 0)
    runs = three.notes.runs(from_)
    assert [run.count for run in runs] == [1, 2, 3, 4, 5]
    assert turn_violations(runs, outcomes) == []


async def test_g10_dialogue_that_waits_for_a_moment_runs_once_each(three: Scene) -> None:
    """The shortest wait is the hardest: every replica starts before it knows of others."""
    texter = Texter(three.replicas)
    senders = [number() for _ in range(5)]
    await asyncio.gather(
        *(one_after_the_other(texter, from_, ["take 0.001"] * 6, 0) for from_ in senders)
    )
    for from_ in senders:
        runs = three.notes.runs(from_)
        finished = [run for run in runs if run.has_finished]
        assert [run.count for run in finished] == [1, 2, 3, 4, 5, 6]
    assert turn_violations([], texter.outcomes) == []


async def test_g10_duplicate_at_another_replica_waits_for_the_same_reply(three: Scene) -> None:
    texter, from_ = Texter(three.replicas), number()
    message = texter.compose("take 0.8", from_)
    outcomes = list(
        await asyncio.gather(
            *(texter.deliver(message, replica, LOST) for replica in three.replicas * 2)
        )
    )
    assert {outcome.text for outcome in outcomes} == {"1 times, heard [1]"}
    assert turn_violations(three.notes.runs(from_), outcomes) == []


async def test_g10_opt_out_word_and_instant_dialogue_do_not_wait_for_others(three: Scene) -> None:
    texter, from_ = Texter(three.replicas), number()
    slow = asyncio.create_task(texter.text("take 1.5", from_, three.replicas[0]))
    sid = None
    await until(lambda: three.notes.runs(from_), "the dialogue runs")
    stopped = await texter.text("STOP", from_, three.replicas[1])
    assert not slow.done()
    assert stopped.text is None
    sid = stopped.message.sid
    other = await texter.text("take 0", number(), three.replicas[0])
    assert not slow.done()
    assert other.text == "1 times, heard [1]"
    await texter.text("START", from_)
    assert (await slow).text is not None or texter.client.twilio.opted_out
    outcomes = [each for each in texter.outcomes if each.message.from_ == from_]
    assert turn_violations(three.notes.runs(from_), outcomes[:0], silent=[sid]) == []


async def test_g10_session_end_makes_waiting_messages_the_first_of_the_next(three: Scene) -> None:
    texter, from_ = Texter(three.replicas), number()
    bodies = ["take 0.1", "take 1.0 bye", "take 0.1", "take 0.1"]
    outcomes = await one_after_the_other(texter, from_, bodies, 0.3)
    assert [outcome.text for outcome in outcomes] == [
        "1 times, heard [1]",
        "2 times, heard [1, 2]",
        "1 times, heard [1]",
        "2 times, heard [1, 2]",
    ]


async def test_g10_plain_functions_take_turns_too() -> None:
    with scene(replicas=2, env=PATIENT, dialogue="plain_diary") as made:
        texter, from_ = Texter(made.replicas), number()
        outcomes = await one_after_the_other(texter, from_, ["take 0.4"] * 4, 0)
        runs = made.notes.runs(from_)
        assert [run.count for run in runs] == [1, 2, 3, 4]
        assert turn_violations(runs, outcomes) == []


@pytest.mark.parametrize("store", ["memory://", "cookie://"])
async def test_g10_turns_are_kept_without_memcached(store: str) -> None:
    with scene(replicas=1, env={**PATIENT, "SMSD_STORE": store}) as made:
        texter, from_ = Texter(made.replicas), number()
        outcomes = await one_after_the_other(texter, from_, ["take 0.4"] * 3, 0.1)
        assert [outcome.text for outcome in outcomes] == [
            "1 times, heard [1]",
            "2 times, heard [1, 2]",
            "3 times, heard [1, 2, 3]",
        ]
        assert turn_violations(made.notes.runs(from_), outcomes) == []


async def test_g10_thirty_third_message_that_waits_gets_the_apology(three: Scene) -> None:
    texter, from_ = Texter(three.replicas), number()
    first = asyncio.create_task(texter.text("take 3", from_))
    await until(lambda: three.notes.runs(from_), "the dialogue runs")
    crowd = [asyncio.create_task(texter.text("take 0.001", from_)) for _ in range(35)]
    await asyncio.wait(crowd, return_when=asyncio.FIRST_COMPLETED)
    assert not first.done()
    apologies = [task for task in crowd if task.done()]
    assert all("went wrong" in str(task.result().text) for task in apologies)
    outcomes = await asyncio.gather(first, *crowd)
    assert sum("went wrong" in str(outcome.text) for outcome in outcomes) == 3
    assert len({run.count for run in three.notes.runs(from_)}) == 33


# --- faults


async def test_g10_killed_runner_is_taken_over_and_the_order_is_kept() -> None:
    with scene(nodes=1, replicas=3, env=PATIENT) as made:
        texter, from_ = Texter(made.replicas), number()
        first = texter.compose("take 2", from_)
        running = asyncio.create_task(texter.deliver(first, made.replicas[0]))
        await until(lambda: made.has_started(first.sid), "the dialogue runs")
        waiting = asyncio.create_task(texter.text("take 0.1", from_, made.replicas[1]))
        await asyncio.sleep(0.3)
        victim = made.replicas[0].pid
        texter.down.add(made.replicas[0].port)
        made.replicas[0].kill()
        outcomes = [await running, await waiting]
        assert [outcome.text for outcome in outcomes] == [
            "1 times, heard [1]",
            "2 times, heard [1, 2]",
        ]
        runs = made.notes.runs(from_)
        assert [run.count for run in runs] == [1, 1, 2]
        again = [first.sid]
        assert turn_violations(runs, outcomes, killed=[victim], may_run_again=again) == []
        assert sum(replica.metric("smsd_takeovers_total") for replica in made.replicas[1:]) == 1


async def test_g10_killed_waiter_comes_back_elsewhere_in_its_turn() -> None:
    with scene(nodes=1, replicas=3, env=PATIENT) as made:
        texter, from_ = Texter(made.replicas), number()
        first = texter.compose("take 2", from_)
        running = asyncio.create_task(texter.deliver(first, made.replicas[0]))
        await until(lambda: made.has_started(first.sid), "the dialogue runs")
        second = asyncio.create_task(texter.text("take 0.2", from_, made.replicas[1]))
        third = asyncio.create_task(texter.text("take 0.2", from_, made.replicas[2]))
        await asyncio.sleep(0.5)
        texter.down.add(made.replicas[1].port)
        made.replicas[1].kill()
        outcomes = list(await asyncio.gather(running, second, third))
        assert all(outcome.text for outcome in outcomes)
        assert turn_violations(made.notes.runs(from_), outcomes) == []


async def test_g10_frozen_runner_answers_once_although_it_comes_back() -> None:
    with scene(nodes=1, replicas=2, env=PATIENT) as made:
        texter, from_ = Texter(made.replicas, fallback=False), number()
        message = texter.compose("take 1.5", from_)
        frozen = asyncio.create_task(texter.deliver(message, made.replicas[0]))
        await until(lambda: made.has_started(message.sid), "the dialogue runs")
        made.replicas[0].signal(signal.SIGSTOP)
        outcome = await texter.deliver(message, made.replicas[1])
        made.replicas[0].signal(signal.SIGCONT)
        assert (await frozen).text == outcome.text == "1 times, heard [1]"
        assert len(made.notes.runs(from_)) == 2
        assert (await texter.text("take 0", from_)).text == "2 times, heard [1, 2]"
        counted = sum(
            replica.metric('smsd_messages_total{outcome="counted"}') for replica in made.replicas
        )
        assert counted == 2


async def test_g10_flush_in_the_middle_of_a_turn_loses_neither_turn_nor_reply() -> None:
    with scene(nodes=2, replicas=3, env=PATIENT) as made:
        texter, from_ = Texter(made.replicas), number()
        texts = asyncio.create_task(one_after_the_other(texter, from_, ["take 1.0"] * 3, 0.1))
        await until(lambda: made.notes.runs(from_), "the first dialogue runs")
        await asyncio.sleep(0.4)
        for node in made.world.nodes:
            await asyncio.to_thread(node.flush)
        outcomes = await texts
        assert sorted(str(outcome.text) for outcome in outcomes) == [
            "1 times, heard [1]",
            "2 times, heard [1, 2]",
            "3 times, heard [1, 2, 3]",
        ]
        assert turn_violations(made.notes.runs(from_), outcomes) == []


async def test_g10_memcached_goes_away_and_comes_back_during_a_turn() -> None:
    """The reply is written to the overlay, and merged: nothing is lost, nothing
    doubled."""
    env = {"SMSD_STORE_TIMEOUT": "0.25", "SMSD_LOOP_LIMIT": "0"}
    with scene(nodes=1, replicas=1, env=env) as made:
        texter, from_ = Texter(made.replicas), number()
        texts = asyncio.create_task(one_after_the_other(texter, from_, ["take 1.2"] * 3, 0.2))
        await until(lambda: made.notes.runs(from_), "the first dialogue runs")
        await asyncio.sleep(0.3)
        await asyncio.to_thread(made.world.nodes[0].kill)
        await until(lambda: len(made.notes.runs(from_)) == 2, "the second dialogue runs")
        await asyncio.to_thread(made.world.nodes[0].start)
        outcomes = await texts
        assert [outcome.text for outcome in outcomes] == [
            "1 times, heard [1]",
            "2 times, heard [1, 2]",
            "3 times, heard [1, 2, 3]",
        ]
        assert turn_violations(made.notes.runs(from_), outcomes) == []
        await asyncio.to_thread(wait_until_merged, made.world)
        assert (await texter.text("take 0", from_)).text == "4 times, heard [1, 2, 3, 4]"


async def test_g10_dialogue_that_kills_its_process_runs_three_times_at_most() -> None:
    with scene(nodes=1, replicas=4, env=PATIENT, dialogue="kills") as made:
        texter, from_ = Texter(made.replicas, fallback=False), number()
        message = texter.compose("kill", from_)
        for replica in made.replicas[:3]:
            outcome = await texter.deliver(message, replica)
            assert outcome.text is None
            await until(lambda r=replica: r.process.poll() is not None, "it is dead")
        outcome = await texter.deliver(message, made.replicas[3])
        assert "went wrong" in str(outcome.text)
        hello = await texter.text("hello", from_, made.replicas[3])
        assert hello.text == "1 times"
        assert made.replicas[3].metric('smsd_messages_total{outcome="failed"}') == 1


async def test_g10_end_while_two_wait_elsewhere_loses_no_number(three: Scene) -> None:
    """The fourth text brings the cookie of the reply that ended the conversation."""
    texter = Texter(three.replicas)

    async def texts(from_: str) -> list[str | None]:
        at, elsewhere, _ = three.replicas
        first = asyncio.create_task(texter.text("take 1 bye", from_, at))
        await until(lambda: three.notes.runs(from_), "the first dialogue runs")
        waiting = [asyncio.create_task(texter.text("take 0.3", from_, elsewhere)) for _ in range(2)]
        ended = (await first).text
        fourth = (await texter.text("take 0", from_, elsewhere)).text
        middle = sorted([str((await task).text) for task in waiting])
        return [ended, *middle, fourth]

    for found in await asyncio.gather(*(texts(number()) for _ in range(5))):
        assert [str(text).partition(",")[0] for text in found] == [
            "1 times",
            "1 times",
            "2 times",
            "3 times",
        ]


async def test_g10_answered_message_stays_answered_behind_31_others() -> None:
    """They come right when its reply is written, while a hop waits at another replica."""
    env = {**PATIENT, "SMSD_ANSWER_WITHIN": "1"}
    with scene(nodes=2, replicas=3, env=env) as made:
        texter = Texter(made.replicas)
        texter.only = made.replicas[1]

        async def texts(from_: str) -> None:
            slow = asyncio.create_task(texter.text("take 2.3", from_, made.replicas[0]))
            await until(
                lambda: any(run.has_finished for run in made.notes.runs(from_)), "it is done"
            )
            await asyncio.gather(
                *(texter.text("HELP", from_, made.replicas[2 * (i % 2)]) for i in range(31))
            )
            assert (await slow).text == "1 times, heard [1]"

        senders = [number() for _ in range(10)]
        await asyncio.gather(*map(texts, senders))
        assert [len(made.notes.runs(from_)) for from_ in senders] == [1] * 10
        told = [
            replica.metric('smsd_messages_total{outcome="counted"}') for replica in made.replicas
        ]
        assert sum(told) == 10
