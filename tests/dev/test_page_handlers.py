"""What the phone page may ask for: numbers, short codes, channels; and the page's own
pattern agrees."""

import re

import pytest

from smsd.dev.order import ADDRESS, OrderError, parse_order, parse_pair
from smsd.dev.page_handlers import PAGE

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
    order = parse_order({"from": f" {address} ", "to": "12345"})
    assert (order.from_, order.to) == (address, "12345")


@pytest.mark.parametrize("address", BAD)
@pytest.mark.parametrize("field", ["from", "to"])
def test_anything_else_is_refused_with_its_field(address: str, field: str) -> None:
    with pytest.raises(OrderError) as caught:
        parse_order({"from": "12345", "to": "12345", field: address})
    assert caught.value.field == field
    assert str(caught.value).startswith(field.capitalize())


def test_the_page_checks_with_the_same_pattern() -> None:
    patterns = set(re.findall(r'pattern="(.*?)"', (PAGE / "index.html").read_text()))
    (pattern,) = patterns
    for address in GOOD:
        assert re.fullmatch(pattern, f" {address} "), address
    for address in BAD:
        assert bool(re.fullmatch(pattern, address)) == bool(ADDRESS.fullmatch(address.strip())), (
            address
        )


def test_an_order_has_defaults() -> None:
    order = parse_order({"from": "12345", "to": "whatsapp:+14158141829"})
    assert (order.body, order.deliveries, order.cookie, order.forged) == ("", 1, "jar", False)


def test_a_pair_needs_both_numbers() -> None:
    assert parse_pair({"from": "12345", "to": "23456"}) == ("12345", "23456")
    with pytest.raises(OrderError, match="To: a number is missing"):
        parse_pair({"from": "12345"})
