"""What the phone page may ask for: numbers, short codes, channels; and the page's own
pattern agrees."""

import re

import pytest

from smsd.dev.page_handlers import ADDRESS, PAGE, BadRequest, parse_draft, parse_numbers

GOOD = [
    "+14158675309",
    "14158675309",
    "12345",
    "whatsapp:+14158675309",
    "messenger:1046",
    "rcs:bot_x",
]
BAD = [
    "",
    "not a number",
    "+0123456",
    "+1",
    "++14158675309",
    "whatsapp:",
    "a b:+1",
    "+1415 867",
    "x\n",
]


@pytest.mark.parametrize("address", GOOD)
def test_numbers_short_codes_and_channel_addresses_are_accepted(address: str) -> None:
    draft = parse_draft({"from": f" {address} ", "to": "12345"})
    assert (draft.from_, draft.to) == (address, "12345")


@pytest.mark.parametrize("address", BAD)
@pytest.mark.parametrize("field", ["from", "to"])
def test_anything_else_is_refused_with_its_field(address: str, field: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_draft({"from": "12345", "to": "12345", field: address})
    assert caught.value.field == field
    assert caught.value.problem.startswith(field.capitalize())


def test_the_page_checks_with_the_same_pattern() -> None:
    patterns = set(re.findall(r'pattern="(.*?)"', (PAGE / "index.html").read_text()))
    (pattern,) = patterns
    for address in GOOD:
        assert re.fullmatch(pattern, f" {address} "), address
    for address in BAD:
        assert bool(re.fullmatch(pattern, address)) == bool(ADDRESS.fullmatch(address.strip())), (
            address
        )


def test_a_draft_has_defaults() -> None:
    draft = parse_draft({"from": "12345", "to": "whatsapp:+14158141829"})
    assert (draft.body, draft.deliveries, draft.cookie, draft.forged) == ("", 1, "jar", False)


def test_both_numbers_are_needed() -> None:
    assert parse_numbers({"from": "12345", "to": "23456"}) == ("12345", "23456")
    with pytest.raises(BadRequest) as caught:
        parse_numbers({"from": "12345"})
    assert caught.value.problem.startswith("To: a number is missing")
