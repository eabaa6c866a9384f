"""G11: a dialogue may take long; its reply still arrives, once, whatever replica is
replaced or dies on the way.
"""

import asyncio
from collections.abc import Iterator

import pytest

from smsd.simulator import LOST, Inbound, Outcome
from tests.faults.turns import Scene, Texter, scene, turn_violations, until
from tests.faults.world import number
from tests.processes import PUBLIC_URL, Smsd

pytestmark = pytest.mark.asyncio

QUICK = {
    "SMSD_STORE_TIMEOUT": "2",
    "SMSD_LOOP_LIMIT": "0",
    "SMSD_ANSWER_WITHIN": "1",
    "SMSD_DIALOGUE_TIMEOUT": "35",
}
"""Twilio is asked to come again after a second."""


@pytest.fixture(scope="module")
def three() -> Iterator[Scene]:
    with scene(nodes=2, replicas=3, env=QUICK) as made:
        yield made


def redirects(replicas: list[Smsd]) -> float:
    return sum(replica.metric("smsd_redirects_total") for replica in replicas)


async def test_g11_slow_reply_arrives_once_after_some_hops(three: Scene) -> None:
    texter, from_ = Texter(three.replicas), number()
    before = redirects(three.replicas)
    outcome = await texter.text("take 4.5", from_)
    assert (outcome.text, len(outcome.replies)) == ("1 times, heard [1]", 1)
    assert outcome.hops == redirects(three.replicas) - before >= 3
    assert turn_violations(three.notes.runs(from_), [outcome]) == []
    duplicates = [
        replica.metric('smsd_messages_total{outcome="duplicate"}') for replica in three.replicas
    ]
    assert duplicates == [0, 0, 0], "a hop is no duplicate"


async def test_g11_hop_keeps_the_operators_query_and_shows_no_number(three: Scene) -> None:
    url = f"{PUBLIC_URL}/sms?shop=a%26b&turn=0&hop=0&list=1"
    texter, from_ = Texter(three.replicas, url=url), number()
    outcome = await texter.text("take 2.5", from_)
    assert outcome.text == "1 times, heard [1]"
    hops = [attempt.request.url for attempt in outcome.attempts[1:]]
    assert hops[0] == f"{PUBLIC_URL}/sms?shop=a%26b&list=1&hop=1"
    assert hops[1] == f"{PUBLIC_URL}/sms?shop=a%26b&list=1&hop=2"


async def test_g11_message_behind_a_slow_one_arrives_too(three: Scene) -> None:
    texter, from_ = Texter(three.replicas), number()
    first = asyncio.create_task(texter.text("take 3", from_))
    await until(lambda: three.notes.runs(from_), "the first dialogue runs")
    second = await texter.text("take 2", from_)
    assert [(await first).text, second.text] == ["1 times, heard [1]", "2 times, heard [1, 2]"]
    assert turn_violations(three.notes.runs(from_), texter.outcomes) == []


async def test_g11_after_the_last_hop_the_apology_is_sent_and_the_dialogue_ends(
    three: Scene,
) -> None:
    texter, from_ = Texter(three.replicas), number()
    message = texter.compose("take 30", from_)
    first = asyncio.create_task(texter.deliver(message))
    await until(lambda: three.notes.runs(from_), "the dialogue runs")
    last = Texter(three.replicas, url=f"{PUBLIC_URL}/sms?hop=40")
    outcome = await last.deliver(message)
    assert "went wrong" in str(outcome.text)
    assert (await first).text == outcome.text
    await until(lambda: three.notes.runs(from_)[0].end_s, "the dialogue is canceled")
    assert not three.notes.runs(from_)[0].has_finished
    assert (await texter.text("take 0", from_)).text == "2 times, heard [2]"


async def test_g11_hop_of_a_message_that_nobody_knows_is_a_new_message(three: Scene) -> None:
    texter, from_ = Texter(three.replicas, url=f"{PUBLIC_URL}/sms?turn=7"), number()
    assert (await texter.text("take 0", from_, cookies=LOST)).text == "1 times, heard [1]"


async def test_g11_late_dialogue_gets_the_apology_and_the_next_one_runs() -> None:
    with scene(replicas=2, env={**QUICK, "SMSD_DIALOGUE_TIMEOUT": "2"}) as made:
        texter, from_ = Texter(made.replicas), number()
        outcome = await texter.text("take 60", from_)
        assert "went wrong" in str(outcome.text)
        assert (await texter.text("take 0", from_)).text == "2 times, heard [2]"
        failed = [r.metric('smsd_messages_total{outcome="failed"}') for r in made.replicas]
        assert sum(failed) == 1


async def test_g11_one_moment_goes_with_the_first_redirect_of_a_message() -> None:
    with scene(replicas=2, env={**QUICK, "SMSD_ONE_MOMENT": "One moment …"}) as made:
        texter, from_ = Texter(made.replicas), number()

        async def late_duplicate(message: Inbound) -> Outcome:
            await until(lambda: made.notes.runs(from_), "the dialogue runs")
            return await texter.deliver(message)

        message = texter.compose("take 3.5", from_)
        first, again = await asyncio.gather(
            texter.deliver(message), asyncio.create_task(late_duplicate(message))
        )
        assert [reply.body for reply in first.replies] == ["One moment …", "1 times, heard [1]"]
        assert [reply.body for reply in again.replies] == ["1 times, heard [1]"]


async def test_g11_hop_after_a_flush_of_the_record_gets_its_reply(three: Scene) -> None:
    texter, from_ = Texter(three.replicas), number()
    slow = asyncio.create_task(texter.text("take 3.5", from_))
    await until(lambda: three.notes.runs(from_), "the dialogue runs")
    for _ in range(3):
        for node in three.world.nodes:
            await asyncio.to_thread(node.flush)
        await asyncio.sleep(0.5)
    assert (await slow).text == "1 times, heard [1]"


@pytest.mark.parametrize("how", ["terminate", "kill"])
async def test_g11_one_reply_while_every_replica_is_replaced(how: str) -> None:
    """A dialogue of 8 s, and three replicas that are replaced one after the other, the
    one that runs it first. Twilio has one fallback request for each document, so the
    next replica is killed when every request has had an answer again.
    """
    with scene(nodes=1, replicas=3, env=QUICK) as made:
        texter, from_ = Texter(made.replicas), number()
        message, second = texter.compose("take 8", from_), texter.compose("take 0.1", from_)
        slow = asyncio.create_task(texter.deliver(message))
        await until(lambda: made.has_started(message.sid), "the dialogue runs")
        following = asyncio.create_task(texter.deliver(second))
        runner = made.runner_of(message.sid)
        order = [runner, *(each for each in made.replicas if each is not runner)]
        killed = []
        for replica in order:
            killed.append(replica.pid)
            texter.down.add(replica.port)
            await asyncio.to_thread(getattr(replica, how))
            await asyncio.to_thread(replica.start)
            texter.down.clear()
            seen = texter.responses.copy()
            for task, sid in ((slow, message.sid), (following, second.sid)):
                await until(
                    lambda task=task, sid=sid, seen=seen: (
                        task.done() or texter.responses[sid] > seen[sid]
                    ),
                    "Twilio was asked to come again",
                )
        outcomes = [await slow, await following]
        assert [outcome.text for outcome in outcomes] == [
            "1 times, heard [1]",
            "2 times, heard [1, 2]",
        ]
        assert [len(outcome.replies) for outcome in outcomes] == [1, 1]
        runs = made.notes.runs(from_)
        again = [outcome.message.sid for outcome in outcomes]
        assert turn_violations(runs, outcomes, killed=killed, may_run_again=again) == []


async def test_g11_rolling_restart_under_slow_dialogues_loses_and_doubles_nothing() -> None:
    env = {**QUICK, "SMSD_DRAIN_DELAY": "0.5"}
    with scene(nodes=2, replicas=3, env=env) as made:
        texter = Texter(made.replicas)
        over = asyncio.Event()
        sent: dict[str, int] = {}

        async def talk(from_: str, seconds: float) -> None:
            sent[from_] = 0
            while not over.is_set():
                sent[from_] += 1
                outcome = await texter.text(f"take {seconds}", from_)
                assert str(outcome.text).startswith(f"{sent[from_]} times"), outcome

        talks = [
            asyncio.create_task(talk(number(), seconds))
            for seconds in (0.5, 0.7, 1.0, 1.5, 2.5) * 3
        ]
        for replica in made.replicas:
            texter.down.add(replica.port)
            assert await asyncio.to_thread(replica.terminate) == 0
            await asyncio.to_thread(replica.start)
            texter.down.clear()
        over.set()
        await asyncio.gather(*talks)
        assert sum(sent.values()) > 30
        assert turn_violations(made.notes.runs(), texter.outcomes) == []


async def test_g11_runner_and_record_lost_together() -> None:
    """A cookie knows the text: it runs again with the cookie's data, once its process
    had time to come back. Beside it, an outage and a restart of memcached during slow
    dialogues, whose hops go to any replica: none runs again.
    """
    env = {**QUICK, "SMSD_STORE_TIMEOUT": "0.25"}
    with (
        scene(nodes=1, replicas=3, env=env) as lost,
        scene(nodes=1, replicas=3, env=env) as cut_off,
        scene(nodes=1, replicas=3, env=env) as restarted,
    ):
        await asyncio.gather(_loses_both(lost), _is_cut_off(cut_off), _restarts(restarted))


async def _loses_both(made: Scene) -> None:
    texter, from_ = Texter(made.replicas), number()
    assert (await texter.text("take 0", from_)).text == "1 times, heard [1]"
    message = texter.compose("take 3", from_)
    texter.only = runner = made.replicas[0]  # nobody else remembers the lease
    slow = asyncio.create_task(texter.deliver(message))
    await until(lambda: texter.responses[message.sid] == 1, "a cookie knows the text")
    await asyncio.sleep(0.3)
    texter.only = None
    texter.down.add(runner.port)
    made.world.nodes[0].flush()
    runner.kill()
    assert (await slow).text == "2 times, heard [1, 2]"
    first, second = made.notes.runs(from_)
    assert second.start_s - first.start_s > 20
    up = [replica for replica in made.replicas if replica.port not in texter.down]
    assert sum(replica.metric("smsd_takeovers_total") for replica in up) == 1


async def _is_cut_off(made: Scene) -> None:
    texter = Texter(made.replicas)
    texts = [asyncio.create_task(texter.text("take 20", number())) for _ in range(6)]
    await until(lambda: len(made.notes.runs()) == 6, "the dialogues run")
    await asyncio.sleep(1.5)
    made.world.nodes[0].hang()
    await asyncio.sleep(15)
    made.world.nodes[0].resume()
    await _ran_once(made, texter, texts)


async def _restarts(made: Scene) -> None:
    texter = Texter(made.replicas)
    texts = [asyncio.create_task(texter.text("take 6", number())) for _ in range(6)]
    await until(lambda: len(made.notes.runs()) == 6, "the dialogues run")
    await asyncio.sleep(1.5)
    await asyncio.to_thread(made.world.nodes[0].kill)
    await asyncio.to_thread(made.world.nodes[0].start)
    await _ran_once(made, texter, texts)


async def _ran_once(made: Scene, texter: Texter, texts: list[asyncio.Task[Outcome]]) -> None:
    outcomes = await asyncio.gather(*texts)
    assert {outcome.text for outcome in outcomes} == {"1 times, heard [1]"}
    assert turn_violations(made.notes.runs(), texter.outcomes) == []
    assert sum(replica.metric("smsd_takeovers_total") for replica in made.replicas) == 0
