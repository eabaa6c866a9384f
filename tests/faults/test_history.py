"""The checker of histories: it lets good ones pass, and rejects bad ones made by hand."""

from dataclasses import replace

import pytest

from tests.faults.history import Delivery, violations
from tests.faults.turns import DialogueRun, turn_violations


def delivery(
    sid: str,
    count: int | None,
    at_s: float,
    *,
    took_s: float = 0.5,
    status: int | None = 200,
    reply: str = "",
) -> Delivery:
    text = (reply or f"{count} times").encode()
    return Delivery("+14155550001", sid, at_s, at_s + took_s, status, text, count, "127.0.0.1:1")


@pytest.mark.parametrize(
    "history",
    [
        [],
        [delivery("a", 1, 0), delivery("b", 2, 1), delivery("c", 3, 2)],
        [delivery("a", 2, 0), delivery("b", 1, 0.1)],  # at the same time: either order
        [delivery("a", 1, 0), delivery("b", 2, 1), delivery("a", 1, 2)],  # a late retry
        [delivery("b", 2, 0, took_s=3), delivery("a", 1, 0, took_s=3), delivery("c", 3, 4)],
    ],
)
def test_good_histories_pass(history: list[Delivery]) -> None:
    assert violations(history) == []


@pytest.mark.parametrize(
    ("history", "problem"),
    [
        ([delivery("a", 1, 0), delivery("a", 2, 1)], "a got 2 replies"),
        ([delivery("a", 1, 0), delivery("a", 1, 1, reply="Hello, 1 times")], "a got 2 replies"),
        ([delivery("a", 1, 0), delivery("b", 1, 1)], "1 was given to ['a', 'b']"),
        ([delivery("a", 1, 0), delivery("b", 1, 0.1)], "1 was given to ['a', 'b']"),
        ([delivery("a", 1, 0), delivery("b", 3, 1)], "nobody got [2]"),
        ([delivery("a", 2, 0)], "nobody got [1]"),
        ([delivery("a", 2, 0), delivery("b", 1, 1)], "a got 2, and b after it 1"),
        (
            [delivery("a", 3, 0), delivery("b", 1, 1), delivery("c", 2, 2)],
            "a got 3, and c after it 2",
        ),
        ([delivery("a", None, 0, status=None)], "a was answered with None"),
        ([delivery("a", None, 0, status=500), delivery("a", 1, 1)], "a was answered with 500"),
        ([delivery("a", None, 0, reply="Sorry")], "a got a reply without a count"),
    ],
)
def test_bad_histories_are_rejected(history: list[Delivery], problem: str) -> None:
    assert any(problem in found for found in violations(history)), violations(history)


def test_a_gap_is_accepted_where_none_is_excluded() -> None:
    assert violations([delivery("a", 1, 0), delivery("b", 3, 1)], gapless=False) == []


def test_conversations_are_looked_at_one_by_one() -> None:
    other = replace(delivery("b", 1, 1), conversation="+14155550002")
    assert violations([delivery("a", 1, 0), other]) == []


# --- order and overlap of dialogues


def ran(
    sid: str, count: int, start_s: float, end_s: float | None = None, process: int = 1
) -> DialogueRun:
    ended_s = start_s + 1 if end_s is None else end_s
    return DialogueRun("+14155550001", sid, count, process, start_s, ended_s, True)


@pytest.mark.parametrize(
    "runs",
    [
        [],
        [ran("a", 1, 0), ran("b", 2, 1), ran("c", 3, 5)],
        [ran("a", 1, 0), ran("b", 2, 1), ran("c", 1, 2)],  # a new conversation began
    ],
)
def test_dialogues_in_turn_pass(runs: list[DialogueRun]) -> None:
    assert turn_violations(runs, []) == []


@pytest.mark.parametrize(
    ("runs", "problem"),
    [
        ([ran("a", 1, 0, 2), ran("b", 2, 1)], "1 still ran when 2 started"),
        ([replace(ran("a", 1, 0), end_s=None), ran("b", 2, 1)], "1 still ran when 2 started"),
        ([ran("b", 3, 0), ran("a", 2, 1)], "2 started after 3"),
        ([ran("a", 2, 0), ran("b", 2, 1)], "2 started after 2"),
        ([ran("a", 1, 0), ran("a", 1, 2)], "a ran 2 times"),
    ],
)
def test_dialogues_out_of_turn_are_rejected(runs: list[DialogueRun], problem: str) -> None:
    assert turn_violations(runs, []) == [f"+14155550001: {problem}"]


def test_killed_process_excuses_its_own_runs_only() -> None:
    runs = [ran("a", 1, 0, 9, process=1), ran("a", 1, 2, process=2), ran("b", 2, 2.5, process=3)]
    found = turn_violations(runs, [], killed=[1], may_run_again=["a"])
    assert found == ["+14155550001: 1 still ran when 2 started"]
