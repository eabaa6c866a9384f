"""What an adversary found: counts that `end()` lost, answers that ran again, runners and
records that are lost together. In virtual time, over several replicas.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from smsd.conversation import turns
from tests.exchange.cluster import TTL_S, Cluster
from tests.exchange.test_turns_in_virtual_time import cluster, replicas_of, replies, violations

GONE_S = (turns.LEASE_MS + turns.BLOCK_MS) / 1000
"""So long a dialogue is waited for of which only a cookie tells that it ran."""


@contextmanager
def three(**settings: Any) -> Iterator[Cluster]:
    with cluster(3, dialogue_timeout_s=200.0, **settings) as made:
        yield made


# --- session.end()


@pytest.mark.parametrize("is_flushed", [False, True])
def test_end_while_others_wait_loses_no_number(is_flushed: bool) -> None:
    with three() as made:
        a, b, _ = replicas_of(made)
        made.text("wait 1 end", at=a)
        made.let(0.1)
        made.text("wait 1", at=b)
        made.text("wait 1", at=b)
        made.until(lambda: made.delivered[0].is_answered)
        if is_flushed:
            made.loop.run(made.memory.flush())
        made.text("now", at=b)  # with the cookie of the reply that ended it
        made.finish()
        assert [run.count for run in made.runs] == [1, 1, 2, 3]
        assert replies(made)[3] == "3 times, heard 3"
        assert violations(made) == []


def test_conversation_that_ended_with_a_waiter_lives_no_longer_than_others() -> None:
    with three() as made:
        a, b, _ = replicas_of(made)
        made.text("wait 1 end", at=a)
        made.let(0.1)
        made.text("wait 0.1", at=b)
        made.finish()
        made.let(TTL_S - 1)
        assert made.stored().open_until_ms == 0
        made.let(5)
        made.text("now")
        made.finish()
        assert replies(made)[-1] == "1 times, heard 1"


# --- answered, and forgotten soon


@pytest.mark.parametrize("seconds", [8.0, 8.2, 8.4, 8.6, 8.8])
def test_answer_stays_for_who_fetches_it_however_many_texts_follow(seconds: float) -> None:
    with three() as made:
        a, b, _ = replicas_of(made)
        made.text(f"wait {seconds}", at=a)
        made.let(5)
        made.deliver(made.delivered[0].message, b)  # it looks once a second by then
        made.until(lambda: made.delivered[0].is_answered)
        for _ in range(40):
            made.text("STOP", at=a)
            made.let(0.005)  # one by one, so that nothing remembers what the record forgets
        made.finish()
        assert [reply for reply in replies(made) if reply] == ["1 times, heard 1"] * 2
        assert len(made.runs) == 1


def test_memory_of_a_frozen_process_revives_no_answered_text() -> None:
    with three() as made:
        a, b, _ = replicas_of(made)
        made.text("wait 2", at=a)
        made.let(0.5)
        message = made.delivered[0].message
        elsewhere = made.deliver(message, b)
        made.let(0.5)
        made.freeze(b, 40)
        elsewhere.cancel()  # Twilio gave up
        made.delivered.pop()
        made.until(lambda: made.delivered[0].is_answered)
        made.let(22)  # the answer is kept for who waits for so long
        for _ in range(40):
            made.text("STOP", at=a)
        made.let(20)
        before = len(made.runs)
        made.text("now", at=b)
        made.finish()
        assert [run.sid for run in made.runs[before:]].count(message.sid) == 0
        assert (
            len(
                [
                    each
                    for each in made.events
                    if each.message.sid == message.sid and each.outcome == "counted"
                ]
            )
            == 1
        )


# --- memcached that is far away


def test_three_texts_at_once_far_from_memcached_are_counted_there() -> None:
    with three() as made:
        for replica in replicas_of(made):
            replica.link.latency_s = 0.1
        for replica in replicas_of(made):
            made.text("now", at=replica)
        made.let(1.0)
        assert {event.outcome for event in made.events} == {"counted"}
        made.finish()
        assert sorted(event.number for event in made.events) == [1, 2, 3]


def test_thirty_texts_at_once_at_ten_milliseconds_are_counted_there() -> None:
    with three() as made:
        for replica in replicas_of(made):
            replica.link.latency_s = 0.01
        for place in range(30):
            made.text("now", at=replicas_of(made)[place % 3])
        made.finish()
        assert {event.outcome for event in made.events} == {"counted"}
        assert sorted(event.number for event in made.events) == [*range(1, 31)]


# --- runner and record lost together


def test_fallback_with_a_cookie_that_knows_the_text_runs_it_with_its_data() -> None:
    with three() as made:
        a, *_ = replicas_of(made)
        made.text("now", at=a)
        made.finish()
        made.text("wait 14", at=a)
        made.let(12.5)  # the first hop has brought a cookie that knows the text
        runner = made.replicas[made.runs[-1].replica]
        made.kill(runner)
        made.loop.run(made.memory.flush())
        made.finish()
        assert replies(made)[1] == "2 times, heard 2"
        first, second = made.runs[1:]
        assert second.start_s - first.start_s > GONE_S - 12.5
        assert sum(replica.takeovers for replica in made.replicas.values()) == 1


def test_second_run_that_only_a_cookie_tells_of_counts_as_a_takeover() -> None:
    with three() as made:
        a, b, _ = replicas_of(made)
        message = made.message("wait 30")
        answer = made.loop.run(a.exchange.answer(message, [], "absent"))
        assert answer.come_again
        made.kill(a)
        made.loop.run(made.memory.flush())
        made.cookies[message.from_] = answer.copy
        made.deliver(message, b)
        made.let(GONE_S - 14)
        assert len(made.runs) == 1
        made.finish()
        assert len(made.runs) == 2
        assert sum(replica.takeovers for replica in made.replicas.values()) == 1


def test_cookie_of_a_hop_that_knows_nothing_better_still_tells_that_the_text_ran() -> None:
    with three(answer_within_s=1.0) as made:
        a, *_ = replicas_of(made)
        answered = made.deliver(made.message("wait 3"), a)
        made.let(1.01)  # nobody else has seen the lease
        made.kill(a)
        made.loop.run(made.memory.flush())
        made.finish()
        assert answered.result().text == "1 times, heard 1"
        first, second = made.runs
        assert second.start_s - first.start_s > GONE_S


def test_looking_for_a_lost_record_leaves_nothing_in_the_cookie() -> None:
    with three() as made:
        a, b, _ = replicas_of(made)
        made.text("wait 30", at=a)
        made.let(0.5)
        made.deliver(made.delivered[0].message, b)
        made.let(0.5)
        made.freeze(a, 40)
        made.loop.run(made.memory.flush())
        made.let(2.5)  # it looks again and again, and would open a lineage each time
        [conversation] = b.exchange._ledger
        assert conversation.record
        assert len(conversation.record.lineages) == 1


def test_outage_restarts_no_dialogue_whose_runner_lives() -> None:
    with three() as made:
        replicas = replicas_of(made)
        made.text("wait 30", at=replicas[0])
        made.let(5)
        for replica in replicas:
            replica.link.is_up = False
        made.let(GONE_S - 5)
        assert len(made.runs) == 1
        for replica in replicas:
            replica.link.is_up = True
        made.finish()
        assert replies(made) == ["1 times, heard 1"]
        assert len(made.runs) == 1


def test_restart_of_memcached_runs_nothing_again() -> None:
    for seed in range(10):
        with three(seed=seed) as made:
            made.text("wait 20")
            made.let(12.5)
            made.loop.run(made.memory.flush())
            made.finish()
            assert len(made.runs) == 1
            assert replies(made) == ["1 times, heard 1"]


# --- exactly one


@pytest.mark.parametrize("body", ["now", "wait 1"])
@pytest.mark.parametrize("known", [False, True])
def test_write_whose_outcome_is_not_known_is_told_once_and_is_no_duplicate(
    body: str, known: bool
) -> None:
    with three() as made:
        a, *_ = replicas_of(made)
        for _ in range(3 if known else 0):
            made.text(body, at=a)
            made.finish()
        a.link.forgets = 1
        made.text(body, at=a)
        made.finish()
        assert {event.outcome for event in made.events} == {"counted"}
        assert len(made.events) == len(made.delivered)
        assert len(made.runs) == len(made.delivered)


def test_write_that_others_wrote_upon_before_it_was_settled_is_no_duplicate() -> None:
    with three() as made:
        a, b, _ = replicas_of(made)
        for _ in range(3):
            made.text("now", at=a)
            made.text("now", at=b)
            made.finish()
        a.link.latency_s, a.link.forgets = 0.2, 1
        made.text("now", at=a)
        made.let(0.45)  # written, and not yet read again
        made.text("now", at=b)
        made.finish()
        assert [event.outcome for event in made.events] == ["counted"] * len(made.delivered)
        assert sorted(event.number for event in made.events) == [*range(1, 9)]


@pytest.mark.parametrize("seed", range(8))
def test_lease_that_ran_out_during_an_outage_is_no_reason_to_take_over(seed: int) -> None:
    """Its holder renewed it in its overlay, and merges it a moment later."""
    with three(answer_within_s=1.0, seed=seed) as made:
        replicas = replicas_of(made)
        made.text("wait 30", at=replicas[0])
        made.let(5)
        for replica in replicas:
            replica.link.is_up = False
        made.let(12)
        for replica in replicas[1:]:
            replica.link.is_up = True
        made.let(0.5)
        replicas[0].link.is_up = True
        made.finish()
        assert len(made.runs) == 1
        assert replies(made) == ["1 times, heard 1"]
