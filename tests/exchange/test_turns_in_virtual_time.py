"""Turns over several replicas, in virtual time: what each rule of `conversation.turns`
and `exchange.keeper` is for. `tests/faults` shows the same with real processes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from smsd.conversation import turns
from smsd.exchange.runner import AT_ONCE_TIMES
from tests.exchange.cluster import Cluster, Replica
from tests.faults.turns import turn_violations

TAKEOVER_S = (turns.LEASE_MS + turns.CLOCK_SKEW_MS) / 1000


@contextmanager
def cluster(replicas: int = 2, **settings: Any) -> Iterator[Cluster]:
    made = Cluster(replicas, **settings)
    try:
        yield made
        assert made.loop.errors == []
    finally:
        made.close()


@pytest.fixture
def two() -> Iterator[Cluster]:
    with cluster() as made:
        yield made


def replicas_of(made: Cluster) -> list[Replica]:
    return [*made.replicas.values()]


def replies(made: Cluster) -> list[str | None]:
    """What each delivery got, in the order of the texts."""
    return [delivered.text for delivered in made.delivered]


def counts(made: Cluster) -> list[int]:
    return [run.count for run in made.runs]


def violations(made: Cluster, **allowed: Any) -> list[str]:
    return turn_violations(made.dialogue_runs(), made.delivered, **allowed)  # type: ignore[arg-type]


# --- order


def test_second_text_waits_for_the_first_at_another_replica(two: Cluster) -> None:
    a, b = replicas_of(two)
    two.text("wait 5", at=a)
    two.let(0.5)
    two.text("wait 5", at=b)
    two.finish()
    assert replies(two) == ["1 times, heard 1", "2 times, heard 2"]
    assert two.runs[1].start_s >= (two.runs[0].end_s or 0)
    assert violations(two) == []


def test_texts_at_once_run_one_at_a_time_and_each_once(two: Cluster) -> None:
    for place in range(12):
        two.text("wait 0.3", at=replicas_of(two)[place % 2])
    two.finish()
    assert counts(two) == [*range(1, 13)]
    assert violations(two) == []


def test_duplicate_at_another_replica_waits_for_the_same_reply(two: Cluster) -> None:
    a, b = replicas_of(two)
    message = two.message("wait 5")
    for replica in (a, b, a, b):
        two.deliver(message, replica, with_cookie=False)
    two.finish()
    assert set(replies(two)) == {"1 times, heard 1"}
    assert len(two.runs) == 1
    assert sorted(event.outcome for event in two.events) == ["counted", *["duplicate"] * 3]


def test_reply_that_another_replica_wrote_is_delivered_soon(two: Cluster) -> None:
    a, b = replicas_of(two)
    two.text("wait 5", at=a)
    two.let(0.5)
    two.deliver(two.delivered[0].message, b)
    two.until(lambda: two.delivered[0].is_answered)
    two.let(1.1)
    assert replies(two) == ["1 times, heard 1"] * 2


def test_instant_text_waits_for_a_slow_one_before_it(two: Cluster) -> None:
    a, b = replicas_of(two)
    two.text("wait 2", at=a)
    two.let(0.1)
    two.text("now", at=b)
    two.finish()
    assert replies(two) == ["1 times, heard 1", "2 times, heard 2"]
    assert violations(two) == []


def test_opt_out_word_waits_for_nobody(two: Cluster) -> None:
    two.text("wait 5")
    two.let(0.5)
    stopped = two.text("STOP")
    two.let(0.1)
    assert stopped.result().text is None
    two.finish()
    assert [event.outcome for event in two.events] == ["opted_out", "counted"]


def test_thirty_third_waiting_text_gets_the_apology_and_counts(two: Cluster) -> None:
    two.text("wait 1")
    two.let(0.1)
    for _ in range(turns.MOST_WAITING + 2):
        two.text("wait 0.01")
    two.let(0.5)
    assert replies(two).count("Sorry") == 2
    two.finish()
    assert replies(two).count("Sorry") == 2
    assert counts(two) == sorted(counts(two))
    assert len(two.runs) == turns.MOST_WAITING + 1
    assert sorted(event.number for event in two.events) == [*range(1, turns.MOST_WAITING + 4)]


def test_text_that_gives_no_sign_of_life_blocks_for_20_seconds_only(two: Cluster) -> None:
    a, b = replicas_of(two)
    lost = two.text("wait 50", at=a)
    two.let(0.5)
    lost.cancel()  # Twilio does not ask again
    two.kill(a)
    two.delivered.clear()
    two.text("wait 1", at=b)
    two.let(10)
    assert counts(two) == [1]
    two.finish()
    assert counts(two) == [1, 2]
    assert 20 < two.runs[1].start_s < 25


def test_text_that_comes_back_late_waits_while_a_later_one_runs() -> None:
    with cluster(3) as made:
        a, b, c = replicas_of(made)
        lost = made.text("wait 1", at=a)
        message = made.delivered[0].message
        made.let(0.5)
        lost.cancel()
        made.kill(a)
        made.text("wait 8", at=b)
        made.until(lambda: len(made.runs) == 2)
        made.delivered.pop(0)
        made.deliver(message, c)
        made.finish()
        first, second, again = made.runs
        assert (again.sid, again.count) == (first.sid, 1)
        assert second.end_s is not None
        assert again.start_s >= second.end_s


# --- end()


def test_waiting_texts_become_the_first_of_the_next_conversation(two: Cluster) -> None:
    a, b = replicas_of(two)
    two.text("wait 1 end", at=a)
    two.let(0.2)
    two.text("wait 1", at=b)
    two.let(0.2)
    two.text("wait 1", at=a)
    two.finish()
    assert replies(two) == ["1 times, heard 1", "1 times, heard 1", "2 times, heard 2"]
    assert violations(two) == []


# --- who dies


def test_killed_holder_is_taken_over_when_its_lease_runs_out(two: Cluster) -> None:
    a, b = replicas_of(two)
    two.text("wait 8", at=a)
    two.let(3.5)
    two.kill(a)
    two.finish()
    assert replies(two) == ["1 times, heard 1"]
    first, second = two.runs
    assert (first.replica, second.replica) == ("r1", "r2")
    assert 3.5 < second.start_s < 3.5 + TAKEOVER_S + 1.5
    assert b.takeovers == 1


def test_frozen_holder_that_comes_back_answers_nothing(two: Cluster) -> None:
    a, _b = replicas_of(two)
    two.text("wait 6", at=a)
    two.let(0.5)
    two.freeze(a, 20)
    two.finish()
    assert [run.replica for run in two.runs] == ["r1", "r2"]
    assert len(two.events) - sum(event.outcome == "duplicate" for event in two.events) == 1
    assert set(replies(two)) == {"1 times, heard 1"}
    assert two.stored().count == 1


def test_result_of_a_holder_that_was_replaced_is_dropped(two: Cluster) -> None:
    a, b = replicas_of(two)
    two.text("wait 6", at=a)
    two.let(0.5)
    two.freeze(a, 7)
    two.deliver(two.delivered[0].message, b)
    two.finish()
    assert [run.replica for run in two.runs] == ["r1", "r2"]
    assert two.runs[0].has_finished, "it thawed while the other one ran"
    assert [event.outcome for event in a.events if event.outcome != "duplicate"] == []
    assert [event.outcome for event in b.events if event.outcome != "duplicate"] == ["counted"]


def test_clock_that_is_nearly_a_second_ahead_takes_nothing_over() -> None:
    with cluster(1) as made:
        [a], b = replicas_of(made), made.start(skew_ms=900)
        made.text("wait 6", at=a)
        made.let(0.6)
        made.deliver(made.delivered[0].message, b)
        made.let(0.3)
        made.freeze(a, 2.0)  # it renews late, though within its lease
        made.finish()
        assert len(made.runs) == 1
        assert b.takeovers == 0


def test_poison_text_gets_the_apology_after_three_lost_runs() -> None:
    with cluster(4) as made:
        made.text("poison", at=made.replicas["r1"])
        made.finish()
        assert replies(made) == ["Sorry"]
        assert len(made.runs) == turns.MOST_LOST_RUNS
        made.text("now")
        made.finish()
        assert replies(made)[1] == "2 times, heard 1"


def test_stopped_replica_gives_its_dialogues_back(two: Cluster) -> None:
    a, b = replicas_of(two)
    two.text("wait 8", at=a)
    two.let(1)
    two.loop.run(two.stop(a))
    two.let(0.2)
    two.finish()
    assert replies(two) == ["1 times, heard 1"]
    assert [run.replica for run in two.runs] == ["r1", "r2"]
    assert two.runs[1].start_s < 1.5, "nobody waits for the lease to run out"
    assert b.takeovers == 0, "a replica that stops is not gone"


def test_stopping_replica_claims_nothing_and_finishes_what_runs(two: Cluster) -> None:
    a, _b = replicas_of(two)
    two.text("wait 3", at=a)
    two.let(0.1)
    waiting = two.text("wait 1", at=a)
    two.let(0.1)
    a.exchange.stop_waiting()
    a.is_up = False
    two.let(0.1)
    assert waiting.done() is False
    two.finish()
    assert [run.replica for run in two.runs] == ["r1", "r2"]
    assert violations(two) == []
    assert two.delivered[1].hops >= 1


# --- hops


def test_slow_dialogue_is_fetched_by_hops_and_runs_once() -> None:
    with cluster(3, one_moment="One moment", dialogue_timeout_s=300.0) as made:
        made.text("wait 40")
        made.finish()
        [delivered] = made.delivered
        assert delivered.texts == ["One moment", "1 times, heard 1"]
        assert delivered.hops == 3
        assert len(made.runs) == 1
        assert [event.outcome for event in made.events] == ["counted"]


def test_request_waits_no_longer_than_it_should(two: Cluster) -> None:
    a, b = replicas_of(two)
    two.text("wait 100", at=a)
    two.let(0.5)
    two.text("now", at=b)
    two.let(11.3)
    assert [delivered.hops for delivered in two.delivered] == [0, 0]
    two.let(0.9)
    assert [delivered.hops for delivered in two.delivered] == [1, 1]


def test_after_40_hops_the_apology_is_sent_and_the_dialogue_is_canceled() -> None:
    with cluster(2, answer_within_s=1.0, dialogue_timeout_s=300.0) as made:
        made.text("wait 200")
        made.finish()
        [delivered] = made.delivered
        assert (delivered.text, delivered.hops) == ("Sorry", 40)
        assert not made.runs[0].has_finished
        assert made.runs[0].end_s == pytest.approx(40, abs=2)


def test_hop_that_nobody_knows_is_a_new_message(two: Cluster) -> None:
    a, _ = replicas_of(two)
    message = two.message("now")
    [answered] = [two.loop.run(a.exchange.answer(message, [], "absent", hop=3))]
    assert b"1 times" in answered.twiml
    assert [event.outcome for event in two.events] == ["counted"]


def test_late_dialogue_gets_the_apology_and_the_next_one_its_turn() -> None:
    with cluster(2, dialogue_timeout_s=2.0) as made:
        made.text("wait 50")
        made.let(0.1)
        made.text("wait 1")
        made.finish()
        assert replies(made) == ["Sorry", "2 times, heard 1"]
        assert [event.outcome for event in made.events] == ["failed", "counted"]


# --- announcing


def test_unknown_handler_is_announced_first_and_a_known_instant_one_is_not() -> None:
    with cluster(1) as made:
        [link] = [replica.link for replica in replicas_of(made)]
        operations = []
        for body in ["now"] * (AT_ONCE_TIMES + 2) + ["wait 0.1"] * 2 + ["now"]:
            before = link.operations
            made.text(body)
            made.finish()
            operations.append(link.operations - before)
        assert operations == [*[3] * AT_ONCE_TIMES, 2, 2, 3, 3, 2]


def test_handler_that_waits_for_once_is_announced_then_and_runs_on(two: Cluster) -> None:
    a, _ = replicas_of(two)
    for _ in range(AT_ONCE_TIMES):
        two.text("wait 0", at=a)
        two.finish()
    before = a.link.operations
    two.text("wait 0.5", at=a)
    two.finish()
    assert a.link.operations - before == 3
    assert len(two.runs) == AT_ONCE_TIMES + 1
    before = a.link.operations
    two.text("wait 0", at=a)
    two.finish()
    assert a.link.operations - before == 3, "it is not trusted any more"


def test_instant_handler_begins_in_vain_once_at_most() -> None:
    with cluster(3) as made:
        for place in range(AT_ONCE_TIMES * 3):
            made.text("now", at=replicas_of(made)[place % 3])
            made.finish()
        made.runs.clear()
        for place in range(30):
            made.text("now", at=replicas_of(made)[place % 3])
        made.finish()
        begun = [run.sid for run in made.runs]
        assert max(begun.count(sid) for sid in begun) <= 2
        assert sorted(event.number for event in made.events) == [*range(1, 40)]


def test_run_that_began_in_vain_is_canceled(two: Cluster) -> None:
    for place in range(AT_ONCE_TIMES * 2):
        two.text("wait 0", at=replicas_of(two)[place % 2])
        two.finish()
    two.runs.clear()
    for replica in replicas_of(two):
        two.text("wait 5", at=replica)
    two.let(1)
    [runs_on] = [run for run in two.runs if run.end_s is None]
    [in_vain] = [run for run in two.runs if run.end_s is not None]
    assert not in_vain.has_finished
    two.finish()
    assert [run.sid for run in two.runs if run.has_finished] == [runs_on.sid, in_vain.sid]


def test_text_behind_one_that_may_answer_at_once_is_not_registered(two: Cluster) -> None:
    a, _ = replicas_of(two)
    two.text("now", at=a)
    two.text("now", at=a)
    two.finish()
    assert a.link.operations == 3 + 4, "one read in vain, and no write"


def test_slow_handler_never_begins_in_vain() -> None:
    with cluster(3) as made:
        for place in range(30):
            made.text("wait 0.001", at=replicas_of(made)[place % 3])
        made.finish()
        assert counts(made) == [*range(1, 31)]
        assert violations(made) == []


# --- the store


def test_outage_with_turns_open_runs_nothing_twice(two: Cluster) -> None:
    a, b = replicas_of(two)
    two.text("wait 9", at=a)
    two.let(1)
    for replica in (a, b):
        replica.link.is_up = False
    two.text("wait 1", at=a)
    two.let(3)
    two.finish()
    assert len(two.runs) == 2
    assert {text for text in replies(two) if text} == {"1 times, heard 1", "2 times, heard 2"}
    assert two.stored().count == 2


def test_outage_longer_than_a_lease_takes_nothing_over(two: Cluster) -> None:
    a, b = replicas_of(two)
    two.text("wait 20", at=a)
    two.let(0.5)
    two.deliver(two.delivered[0].message, b)
    two.let(0.5)
    for replica in (a, b):
        replica.link.is_up = False
    two.let(9)
    assert len(two.runs) == 1
    b.link.is_up = True
    two.let(0.9)
    a.link.is_up = True
    two.finish()
    assert len(two.runs) == 1, "nor when it is over, before the holder could renew its lease"
    assert set(replies(two)) == {"1 times, heard 1"}


def test_flushed_record_comes_back_from_the_process_that_runs(two: Cluster) -> None:
    a, b = replicas_of(two)
    two.text("wait 5", at=a)
    two.let(0.5)
    two.loop.run(two.memory.flush())
    two.let(1.5)
    two.text("wait 1", at=b)
    two.finish()
    assert replies(two) == ["1 times, heard 1", "2 times, heard 2"]
    assert violations(two) == []


@pytest.mark.parametrize("body", ["now", "wait 1"])
def test_write_whose_outcome_is_not_known_runs_and_counts_once(two: Cluster, body: str) -> None:
    a, _ = replicas_of(two)
    a.link.forgets = 1
    two.text(body, at=a)
    two.finish()
    assert replies(two) == ["1 times, heard 1"]
    assert len(two.runs) == 1
    assert two.stored().count == 1


def test_store_that_is_far_away_degrades_nobody(two: Cluster) -> None:
    for replica in replicas_of(two):
        replica.link.latency_s = 0.01
    for _ in range(4):
        two.text("now", at=replicas_of(two)[0])
    two.finish()
    assert {event.outcome for event in two.events} == {"counted"}


def test_nothing_is_remembered_of_a_conversation_that_is_answered(two: Cluster) -> None:
    for place in range(6):
        two.text("wait 0.5", at=replicas_of(two)[place % 2])
    two.finish()
    for replica in two.replicas.values():
        assert not [*replica.exchange._ledger]
        assert not replica.exchange.is_busy
        assert replica.waiting == 0


def test_dialogue_that_ends_when_no_request_waits_leaves_nothing_behind(two: Cluster) -> None:
    a, _ = replicas_of(two)
    two.text("wait 13", at=a)
    two.let(1)
    a.is_up = False  # its hops go to the other one
    two.finish()
    assert replies(two) == ["1 times, heard 1"]
    assert not [*a.exchange._ledger]
    assert not a.exchange.is_busy
