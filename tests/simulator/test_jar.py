"""The cookie jar's rules, on a clock that only tests move."""

from email.utils import formatdate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smsd.simulator import Clock, Jar
from smsd.simulator.jar import FOUR_HOURS_S, Reading, violates_http

PAIR = ("AC1", "+2", "+1")
START = 1_800_000_000.0


def _jar(reading: Reading = "set") -> tuple[Jar, Clock]:
    clock = Clock(lambda: START)
    return Jar(clock, reading), clock


@pytest.mark.parametrize(
    ("attributes", "lives_s"),
    [
        ("", FOUR_HOURS_S),
        ("; Path=/; HttpOnly; Secure", FOUR_HOURS_S),
        ("; Max-Age=60", 60),
        ("; max-age=99999", FOUR_HOURS_S),
        (f"; Expires={formatdate(START + 120, usegmt=True)}", 120),
        (f"; Expires={formatdate(START + 9e5, usegmt=True)}", FOUR_HOURS_S),
        (f"; Max-Age=30; Expires={formatdate(START + 120, usegmt=True)}", 30),
        ("; Max-Age=soon", FOUR_HOURS_S),
        ("; Expires=whenever", FOUR_HOURS_S),
    ],
)
def test_cookie_never_lives_over_four_hours(attributes: str, lives_s: int) -> None:
    jar, clock = _jar()
    jar.store(PAIR, ["smsd=1" + attributes])
    clock.advance(lives_s - 1)
    assert jar.header(PAIR) == "smsd=1"
    clock.advance(1)
    assert jar.header(PAIR) is None


@pytest.mark.parametrize(("reading", "still"), [("set", None), ("inactivity", "smsd=1")])
def test_readings_differ_if_a_cookie_is_only_used(reading: Reading, still: str | None) -> None:
    jar, clock = _jar(reading)
    jar.store(PAIR, ["smsd=1"])
    clock.advance(hours=3)
    assert jar.header(PAIR) == "smsd=1"
    clock.advance(hours=3)
    assert jar.header(PAIR) == still


@pytest.mark.parametrize("reading", ["set", "inactivity"])
@given(st.lists(st.integers(0, 5 * 3600), max_size=8))
@settings(max_examples=40, deadline=None)
def test_readings_agree_if_every_answer_sets_the_cookie(reading: Reading, gaps: list[int]) -> None:
    jar, clock = _jar(reading)
    jar.store(PAIR, ["smsd=0; Max-Age=14400"])
    for number, gap_s in enumerate(gaps, 1):
        clock.advance(gap_s)
        assert jar.header(PAIR) == (f"smsd={number - 1}" if gap_s < FOUR_HOURS_S else None)
        jar.store(PAIR, [f"smsd={number}; Max-Age=14400"])


def test_answer_replaces_only_the_cookie_of_its_name() -> None:
    jar, _ = _jar()
    jar.store(PAIR, ["a=1", "b=1"])
    jar.store(PAIR, ["a=2"])
    assert jar.header(PAIR) == "a=2; b=1"
    jar.store(PAIR, ["a=; Max-Age=0", f"b=x; Expires={formatdate(0)}"])
    assert jar.header(PAIR) is None


def test_each_account_and_pair_has_its_own_jar() -> None:
    jar, _ = _jar()
    jar.store(PAIR, ["a=1"])
    others = [("AC2", "+2", "+1"), ("AC1", "+3", "+1"), ("AC1", "+2", "+3"), ("AC1", "+1", "+2")]
    assert [jar.header(other) for other in others] == [None] * 4


def test_stale_goes_back_by_answers_and_ends() -> None:
    jar, _ = _jar()
    for number in range(4):
        jar.store(PAIR, [f"a={number}"])
    assert [jar.stale(PAIR, back) for back in (1, 3, 4)] == ["a=2", "a=0", None]
    jar.drop(PAIR)
    assert jar.header(PAIR) is None


def test_a_value_keeps_its_quotes_and_equal_signs() -> None:
    jar, _ = _jar()
    jar.store(PAIR, ['a="x=y=="; Path=/'])
    assert jar.header(PAIR) == 'a="x=y=="'


@pytest.mark.parametrize(
    "line", ["=1", "  =1; Path=/", "", "; Path=/", "flag", "a=b\tc", "a=1; Path=/\x0b", "a\r=1"]
)
def test_what_breaks_http_is_known(line: str) -> None:
    assert violates_http(line)


def test_an_ordinary_cookie_breaks_nothing() -> None:
    assert not violates_http("smsd=2|1:0|10:1; Path=/; HttpOnly")
