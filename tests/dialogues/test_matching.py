"""When one pattern hides another: the usual mistakes are found, and no route is refused
wrongly."""

import re
from itertools import product

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smsd.dialogues.matching import TextFilter


def hides(first: str, second: str, flags: int = 0) -> bool:
    return TextFilter(re.compile(first)).hides(TextFilter(re.compile(second, flags)))


@pytest.mark.parametrize(
    ("general", "special"),
    [
        (r"order (.+)", r"order (\d+)"),
        (r"(\w+) (\w+)", r"(\w+) now"),
        (r".*cake.*", r"(\w+) cake"),
        (r"(?i)hi (.+)", r"hi (\w+)\?"),
        (r"x (.*)", r"x (?P<number>\d\d)"),
        (r"a?b", r"b"),
        (r"(\S+)", r"[a-c]+"),
    ],
)
def test_general_pattern_hides_a_special_one_and_not_the_reverse(
    general: str, special: str
) -> None:
    assert hides(general, special)
    assert not hides(special, general)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (r"order (\d{1,2})", r"order (\d+)"),
        (r"order (?!99)\d+", r"order \d+"),
        (r"name ([^,]+)", r"name (.+)"),
        (r"order ([0-9]+)", r"order (\d+)"),
        (r"(\w+) now", r"pay (\w+)"),
        (r"pay (\w+)", r"(\w+) now"),
        (r"yes|no", r"(\w+)"),
        (r"(.+)", r"(?s)(.*)\n(.*)"),
        (r"colou?r", r"colou?rs"),
    ],
)
def test_patterns_that_only_overlap_do_not_hide_each_other(first: str, second: str) -> None:
    assert not hides(first, second)


def test_flags_of_a_pattern_count() -> None:
    assert not hides("hi (.+)", "hi (.+)", re.IGNORECASE)
    assert hides("(?i)hi (.+)", "hi (.*) there", re.IGNORECASE)
    assert not hides("(.+)", "(.+) x", re.DOTALL)


TYPICAL = [
    r"(.+)", r"(.*)", r"(?s).*", r"(\d+)", r"(\w+)", r"[a-z]+", r"[^0-9]+", r"order (.+)", r"order (\d+)",
    r"order (\d{1,3})", r"(?i)order (.*)", r"(\w+) (\w+)", r"(\w+) now", r"pay (\w+)", r"yes|no", r"y(es)?",
    r"book .*", r"book a table for (?P<seats>\d+)", r"#(\d+)\.?", r"\+(\d+)", r"\?", r"(\S+)@(\S+)", r"a+b*c?",
]  # fmt: skip
HIDDEN = [(a, b) for a, b in product(TYPICAL, TYPICAL) if a != b and hides(a, b)]


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(st.data())
def test_whatever_a_hidden_pattern_takes_the_other_takes_first(data: st.DataObject) -> None:
    first, second = data.draw(st.sampled_from(HIDDEN))
    text = data.draw(st.from_regex(second, fullmatch=True))
    if TextFilter(re.compile(second)).takes(text):
        assert TextFilter(re.compile(first)).takes(text)
