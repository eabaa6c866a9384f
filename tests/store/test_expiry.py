"""How long records are kept, with clocks that are right, set back or ahead."""

import pytest

from smsd.conversation.record import Entry, Lineage, Record, Turn
from smsd.store.memory import EXPIRY_MARGIN_S, OPEN_TURN_S, expires_in_s

NOW_MS = 1_790_000_000_000
HOUR_MS = 3_600_000
LONGEST_TTL_S = 2_591_000
DATE_S = 60 * 60 * 24 * 30
"""memcached takes a longer expiry for seconds since 1970."""


@pytest.mark.parametrize(
    ("age_ms", "expected_s"),
    [
        (0, 14400),
        (1, 14400),
        (1000, 14399),
        (14_399_999, 1),
        (14_400_000, 1),
        (1000 * HOUR_MS, 1),
        (-HOUR_MS, 14400),
        (-1000 * HOUR_MS, 14400),
    ],
)
def test_record_is_kept_for_the_rest_of_its_lifetime(age_ms: int, expected_s: int) -> None:
    record = Record(NOW_MS - age_ms)
    assert expires_in_s(record, ttl_s=14400, now_ms=NOW_MS) == expected_s + EXPIRY_MARGIN_S


@pytest.mark.parametrize("age_ms", [0, -1, -HOUR_MS, -10_000 * HOUR_MS])
def test_no_expiry_is_a_date_to_memcached(age_ms: int) -> None:
    record = Record(NOW_MS - age_ms)
    assert expires_in_s(record, ttl_s=LONGEST_TTL_S, now_ms=NOW_MS) <= DATE_S


@pytest.mark.parametrize(("ttl_s", "expected_s"), [(1, OPEN_TURN_S), (14400, 14400)])
def test_record_with_an_open_turn_is_kept_at_least_three_minutes(
    ttl_s: int, expected_s: int
) -> None:
    waiting = Entry(b"digest", turn=Turn(0, NOW_MS + 27_000))
    record = Record(NOW_MS, lineages=(Lineage(1, 1, tail=(waiting,)),))
    assert expires_in_s(record, ttl_s=ttl_s, now_ms=NOW_MS) == expected_s + EXPIRY_MARGIN_S
