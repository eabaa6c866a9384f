"""The checker of histories: it lets good ones pass, and rejects bad ones made by hand."""

from dataclasses import replace

import pytest

from tests.faults.history import Delivery, violations


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
