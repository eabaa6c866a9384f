"""The cookie: signed by Tornado, rotated, small, never quoted; and what is refused."""

import http.cookies
import re
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tornado.web import create_signed_value, decode_signed_value

from smsd.conversation import counting
from smsd.conversation.copy import MAX_PAYLOAD_BYTES, pack
from smsd.conversation.identity import message_digest
from smsd.conversation.record import Record
from smsd.errors import CookieError, CookieForged
from smsd.settings.table import Settings, load
from smsd.web import cookies
from smsd.web.cookies import MAX_BYTES, NAME, set_cookie_line, signing_settings, values
from tests.conversation.test_copy import conversation_of
from tests.conversation.test_merging import START_MS, records
from tests.processes import SETTINGS

KEYS = {
    1: b"first-key-first-key-first-key-fir",
    2: b"second-key-second-key-second-key-",
    3: b"third-key-third-key-third-key-thi",
}
IN_USE = (2, 1)
TTL_S = 14_400
WHOSE = b"c" * 18


@cache
def settings_of(versions: tuple[int, ...]) -> Settings:
    listed = ",".join(f"{version}:{KEYS[version].decode()}" for version in versions)
    return load({**SETTINGS, "SMSD_COOKIE_KEYS": listed})


def signed(payload: bytes, versions: tuple[int, ...] = IN_USE) -> str:
    """As a handler signs: with the first key."""
    found = signing_settings(settings_of(versions))
    secrets, version = found["cookie_secret"], found["key_version"]
    made = create_signed_value(
        secrets, NAME, payload, version=2, key_version=version, clock=lambda: START_MS // 1000
    )
    return made.decode("ascii")


def opened(value: str, versions: tuple[int, ...] = IN_USE, now_ms: int = START_MS) -> Record:
    return cookies.open_cookie(value, settings_of(versions), WHOSE, now_ms)


def test_the_known_answer() -> None:
    record = counting.added(
        counting.opened(None, (), now_ms=START_MS, ttl_ms=TTL_S * 1000, random_bits=1).record,
        message_digest("SM" + "0" * 32),
        b"",
        now_ms=START_MS,
        data=b"",
    )
    assert set_cookie_line(signed(pack(record, WHOSE)).encode(), TTL_S) == (
        "smsd=2|1:2|10:1790000000|4:smsd|100:"
        "AJkBxBJjY2NjY2NjY2NjY2NjY2NjY2PPAAABoMRQbAAAAJMAAc8AAAGgxFBsAMQAkZnPaDEUGwAAAAEBkMQG7VoyOJQHAZAA"
        "AAAA|733d2b6ef1e7f91e476b13a9c73abadf779b6f43b2110134031e0dadffaf0fb7"
        "; Path=/; HttpOnly; Secure; Max-Age=14400"
    )


def test_cookie_of_version_0_1_0_is_read() -> None:
    value = (
        "2|1:2|10:1790000000|4:smsd|96:"
        "AZgBxBJjY2NjY2NjY2NjY2NjY2NjY2PPAAABoMRQbAAAAJMAAc8AAAGgxFBsAMQA"
        "kZbPaDEUGwAAAAEBkMQG7VoyOJQHAZAA"
        "|f11334259bfa16546ade13bac2cd400f07d4ff006f1892e7becdf6ea4e7ecec6"
    )
    copy = opened(value)
    assert copy.count == 1
    found = counting.find(copy, message_digest("SM" + "0" * 32))
    assert found
    assert (found.number, found.reply) == (1, None)


@given(records)
def test_no_library_would_quote_it(record: Record) -> None:
    value = signed(pack(record, WHOSE))
    line = set_cookie_line(value.encode(), TTL_S)
    assert len(line) <= MAX_BYTES
    assert re.fullmatch(r"[!#$%&'*+./0-9:A-Z^_`a-z|~-]+", value), (
        "RFC 6265 cookie octets, no = and no quotes"
    )
    jar = http.cookies.SimpleCookie(line)
    assert jar[NAME].value == value
    assert jar[NAME]["path"] == "/"
    assert jar[NAME]["max-age"] == str(TTL_S)
    assert jar[NAME]["secure"]
    assert jar[NAME]["httponly"]


def test_largest_payload_fits() -> None:
    line = set_cookie_line(signed(b"x" * MAX_PAYLOAD_BYTES).encode(), TTL_S)
    assert len(line) <= MAX_BYTES


@pytest.mark.parametrize(("ttl_s", "max_age"), [(60, 60), (14_400, 14_400), (2_591_000, 14_400)])
def test_life_of_the_cookie_is_the_sessions_up_to_four_hours(ttl_s: int, max_age: int) -> None:
    assert set_cookie_line(b"v", ttl_s).endswith(f"; Max-Age={max_age}")


@given(records, st.integers(0, 10**11))
def test_age_of_the_signature_does_not_matter(record: Record, signed_s: int) -> None:
    """The payload has a time of its own, and the exchange checks it."""
    payload = pack(record, WHOSE)
    value = create_signed_value(
        KEYS, NAME, payload, version=2, key_version=1, clock=lambda: signed_s
    )
    assert decode_signed_value(KEYS, NAME, value, **cookies.READING) == payload


def test_the_first_key_signs_and_all_verify() -> None:
    record, _ = conversation_of(1)
    payload = pack(record, WHOSE)
    old, new = (1,), (3, 2, 1)
    made_by_old, made_by_new = signed(payload, old), signed(payload, new)
    assert made_by_new.startswith("2|1:3|")
    assert opened(made_by_old, new).count == 1
    with pytest.raises(CookieForged):
        opened(made_by_new, old)


@given(st.data())
def test_one_changed_byte_is_a_forgery(data: st.DataObject) -> None:
    value = signed(pack(conversation_of(2)[0], WHOSE))
    at = data.draw(st.integers(0, len(value) - 1))
    other = data.draw(st.characters(codec="ascii", exclude_characters=value[at]))
    with pytest.raises(CookieForged):
        opened(value[:at] + other + value[at + 1 :])


@given(st.data())
def test_a_truncated_one_is_a_forgery(data: st.DataObject) -> None:
    value = signed(pack(conversation_of(2)[0], WHOSE))
    with pytest.raises(CookieForged):
        opened(value[: data.draw(st.integers(0, len(value) - 1))])


@given(st.text() | st.from_regex(r"[0-9]\|[0-9|:a-z=]*", fullmatch=True))
def test_garbage_is_a_forgery(value: str) -> None:
    with pytest.raises(CookieForged):
        opened(value)


@pytest.mark.parametrize(
    "value",
    [
        "",
        '"2|1:0|10:1|4:smsd|4:AAAA|00"',
        "2|1:9|10:1790000000|4:smsd|4:AAAA|" + "0" * 64,
        "2|1:x|10:1790000000|4:smsd|4:AAAA|" + "0" * 64,
        "1|1:2|10:1790000000|4:smsd|4:AAAA|" + "0" * 64,
        "AAAA|1790000000|" + "0" * 40,  # Tornado's version 1
        "2|" + "9" * 5000 + ":",
        "\ud800",
        "é" * 100,
    ],
)
def test_odd_values_are_forgeries(value: str) -> None:
    with pytest.raises(CookieForged):
        opened(value)


@given(st.binary(max_size=60))
def test_payload_that_we_signed_but_did_not_pack_is_a_forgery(payload: bytes) -> None:
    with pytest.raises(CookieError):
        opened(signed(payload))


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("", []),
        ("a=1", []),
        ('xsmsd=1; smsdx=2; "smsd=1"', []),
        ("smsd", [""]),
        ("smsd=", [""]),
        ("a=1; smsd=2|1:1; b=2", ["2|1:1"]),
        ("a=1;smsd=2|1:1;b=2", ["2|1:1"]),
        ("a=1, smsd=2|1:1, b=2", ["2|1:1"]),
        ("smsd=2%7C1%3A1", ["2|1:1"]),
        ('smsd="2|1:1"', ["2|1:1"]),
        ("smsd=2|1:1; smsd=2%7C1:1", ["2|1:1"]),
        ("smsd=b; smsd=a", ["b", "a"]),
        ("smsd=\xe4; smsd=\xf6", ["\xe4", "\xf6"]),
        ("smsd=%ff%zz", ["\ufffd%zz"]),
    ],
)
def test_every_value_of_ours_is_found_once(header: str, found: list[str]) -> None:
    assert values(header) == found
