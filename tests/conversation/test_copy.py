"""The cookie: packed, signed, bound, rotated, small, never quoted; and what it refuses."""

import hmac
import http.cookies
import re
from base64 import b64decode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tornado.web import create_signed_value, decode_signed_value

from smsd.conversation import counting, merging
from smsd.conversation.copy import (
    DIGESTS,
    MAX_BYTES,
    MAX_DATA_BYTES,
    NAME,
    CookieCodec,
    pack,
    unpack,
)
from smsd.conversation.identity import conversation_id, hashing_key, message_digest
from smsd.conversation.record import Record
from smsd.errors import CookieError, CookieExpired, CookieForeign, CookieForged
from tests.conversation.test_merging import START_MS, World, records

KEYS = {2: b"second-key-second-key-second-key-", 1: b"first-key-first-key-first-key-fir"}
TTL_S = 14_400
WHOSE = b"c" * 18
OTHER = b"d" * 18
CODEC = CookieCodec(KEYS, TTL_S)


def value_of(set_cookie: str) -> str:
    return set_cookie.partition(";")[0].partition("=")[2]


def conversation_of(messages: int, *, losses: int = 0, data: bytes = b"") -> tuple[Record, World]:
    """A record of so many messages, restored from its cookie so many times."""
    world = World()
    cookie: Record | None = None
    for i in range(messages):
        if losses and i % max(1, messages // losses) == 0:
            world.stored = None
        _, world.stored = world.step(world.stored, f"SM{i}", cookie, data=data)
        cookie = unpack(pack(world.stored, WHOSE)).record()
    assert world.stored
    return world.stored, world


def numbered(record: Record, message: int) -> tuple[int, bytes | None] | None:
    return numbered_sid(record, f"SM{message}")


def numbered_sid(record: Record, sid: str) -> tuple[int, bytes | None] | None:
    """Number and reply of a message, as far as the record knows it."""
    found = counting.find(record, message_digest(sid))
    return (found.number, found.reply) if found else None


def test_the_known_answer() -> None:
    record = counting.added(
        counting.opened(None, (), now_ms=START_MS, ttl_ms=TTL_S * 1000, random_bits=1).record,
        message_digest("SM" + "0" * 32),
        b"",
        now_ms=START_MS,
        data=b"",
    )
    assert CODEC.set_cookie(record, WHOSE, START_MS) == (
        "smsd=2|1:2|10:1790000000|4:smsd|96:"
        "AJgBxBJjY2NjY2NjY2NjY2NjY2NjY2PPAAABoMRQbAAAAJMAAc8AAAGgxFBsAMQAkZfPaDEUGwAAAAEBkMQG7VoyOJQHAZAA"
        "|b020c413648810d351fee9596bba569a3579f8ba18cf1ee24115af6788cbd59d"
        "; Path=/; HttpOnly; Secure; Max-Age=14400"
    )


def test_cookie_of_version_0_1_0_is_read() -> None:
    value = (
        "2|1:2|10:1790000000|4:smsd|96:"
        "AZgBxBJjY2NjY2NjY2NjY2NjY2NjY2PPAAABoMRQbAAAAJMAAc8AAAGgxFBsAMQA"
        "kZbPaDEUGwAAAAEBkMQG7VoyOJQHAZAA"
        "|f11334259bfa16546ade13bac2cd400f07d4ff006f1892e7becdf6ea4e7ecec6"
    )
    copy = CODEC.open(value, WHOSE, START_MS).record()
    assert copy.count == 1
    assert numbered_sid(copy, "SM" + "0" * 32) == (1, None)


def test_it_comes_back_as_it_went() -> None:
    record, world = conversation_of(5, data=b'{"step":2}')
    back = CODEC.open(
        value_of(CODEC.set_cookie(record, WHOSE, world.now_ms)), WHOSE, world.now_ms
    ).record()
    assert (back.count, back.last_ms, back.data, back.stamp) == (
        5,
        record.last_ms,
        record.data,
        record.stamp,
    )
    assert merging.covers(record, back)
    assert not merging.covers(back, record), "the record knows the replies"
    assert [numbered(back, i) for i in range(5)] == [(i + 1, None) for i in range(5)]


@pytest.mark.parametrize("messages", [1, 2, 16, 40, 200])
@pytest.mark.parametrize("losses", [0, 1, 7, 40])
@pytest.mark.parametrize("data", [b"", b"x" * MAX_DATA_BYTES, b"x" * (MAX_DATA_BYTES + 1)])
def test_it_is_small_and_holds_at_least_the_last_16_ids(
    messages: int, losses: int, data: bytes
) -> None:
    record, world = conversation_of(messages, losses=losses, data=data)
    line = CODEC.set_cookie(record, WHOSE, world.now_ms)
    assert len(line) <= MAX_BYTES
    back = CODEC.open(value_of(line), WHOSE, world.now_ms).record()
    assert back.count == record.count == messages
    kept = DIGESTS[-1] if not data or losses < 7 else 4
    for i in range(max(0, messages - kept), messages):
        assert numbered(back, i) == (i + 1, None)
    assert back.data == (data if len(data) <= MAX_DATA_BYTES else b"")


@given(records)
def test_no_library_would_quote_it(record: Record) -> None:
    line = CODEC.set_cookie(record, WHOSE, START_MS)
    value = value_of(line)
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


@given(records)
def test_packing_keeps_what_counts(record: Record) -> None:
    record = merging.join(record, record)
    copy = unpack(pack(record, WHOSE))
    back = copy.record()
    assert copy.conversation == WHOSE
    assert merging.covers(back, copy)
    assert back.count == record.count
    assert (back.floor, back.base, back.last_ms, back.data) == (
        record.floor,
        record.base,
        record.last_ms,
        record.data,
    )


@given(records)
def test_tornado_itself_accepts_it(record: Record) -> None:
    value = value_of(CODEC.set_cookie(record, WHOSE, START_MS))
    keys = {version: key.decode() for version, key in KEYS.items()}
    payload = decode_signed_value(keys, NAME, value, min_version=2, clock=lambda: START_MS / 1000)
    assert payload == pack(record, WHOSE)


@given(st.binary(max_size=700), st.integers(0, 10**11), st.sampled_from(sorted(KEYS)))
def test_a_value_signed_here_is_the_one_that_tornado_signs_and_each_opens_the_others(
    payload: bytes, now_s: int, version: int
) -> None:
    codec = CookieCodec({version: KEYS[version], **KEYS}, TTL_S)
    keys = {number: key.decode() for number, key in KEYS.items()}
    ours = codec.signed(payload, now_s)
    theirs = create_signed_value(
        keys, NAME, payload, version=2, key_version=version, clock=lambda: now_s
    )
    assert ours == theirs
    assert codec.payload(theirs) == payload
    assert decode_signed_value(keys, NAME, ours, min_version=2, clock=lambda: now_s) == payload


@given(st.data())
def test_what_tornado_refuses_is_refused(data: st.DataObject) -> None:
    """Values of good fields and bad ones, each signed with the key that it names or
    with another."""
    keys = {number: key.decode() for number, key in KEYS.items()}
    field = st.sampled_from(
        ["1:1", "1:2", "1:3", "4:smsd", "4:name", "4:AAAA", "8:AAAAAAAA", "10:1790000000", "2", ""]
    )
    time = st.sampled_from(
        ["1:1", "10:1790000000"]
    )  # Tornado reads another one as a number, and raises
    parts = data.draw(st.tuples(st.sampled_from(["2", "1", ""]), field, time, field, field))
    head = "|".join(parts) + "|"
    signature = hmac.digest(KEYS[data.draw(st.sampled_from([1, 2]))], head.encode(), "sha256").hex()
    value = (head + signature).encode()
    opened = decode_signed_value(
        keys, NAME, value, min_version=2, max_age_days=10**6, clock=lambda: START_MS / 1000
    )
    if opened is None:
        with pytest.raises(CookieForged):
            CODEC.payload(value)
    else:
        assert CODEC.payload(value) == opened


def test_no_number_is_readable_in_it() -> None:
    record, world = conversation_of(3)
    key = hashing_key(b"h" * 40)
    whose = conversation_id(key, "AC" + "1" * 32, "+14158141829", "+14158675309")
    value = value_of(CODEC.set_cookie(record, whose, world.now_ms))
    opened = b64decode(value.split("|")[4].split(":")[1])
    for part in (b"14158141829", b"14158675309", b"4158675309"):
        assert part not in opened


def test_the_first_key_signs_and_all_verify() -> None:
    record, world = conversation_of(1)
    old = CookieCodec({1: KEYS[1]}, TTL_S)
    new = CookieCodec({3: b"third-key-third-key-third-key-thi", **KEYS}, TTL_S)
    made_by_old = value_of(old.set_cookie(record, WHOSE, world.now_ms))
    made_by_new = value_of(new.set_cookie(record, WHOSE, world.now_ms))
    assert made_by_new.startswith("2|1:3|")
    assert new.open(made_by_old, WHOSE, world.now_ms).record().count == 1
    with pytest.raises(CookieForged):
        old.open(made_by_new, WHOSE, world.now_ms)


def test_of_another_conversation_it_is_foreign() -> None:
    record, world = conversation_of(1)
    with pytest.raises(CookieForeign):
        CODEC.open(value_of(CODEC.set_cookie(record, OTHER, world.now_ms)), WHOSE, world.now_ms)


def test_it_expires_with_the_conversation_to_the_millisecond() -> None:
    record, _ = conversation_of(1)
    value = value_of(CODEC.set_cookie(record, WHOSE, record.last_ms))
    assert CODEC.open(value, WHOSE, record.last_ms + TTL_S * 1000 - 1).record().count == 1
    with pytest.raises(CookieExpired):
        CODEC.open(value, WHOSE, record.last_ms + TTL_S * 1000)


@given(st.data())
def test_one_changed_byte_is_a_forgery(data: st.DataObject) -> None:
    record, world = conversation_of(2)
    value = value_of(CODEC.set_cookie(record, WHOSE, world.now_ms))
    at = data.draw(st.integers(0, len(value) - 1))
    other = data.draw(st.characters(codec="ascii", exclude_characters=value[at]))
    with pytest.raises(CookieForged):
        CODEC.open(value[:at] + other + value[at + 1 :], WHOSE, world.now_ms)


@given(st.data())
def test_a_truncated_one_is_a_forgery(data: st.DataObject) -> None:
    record, world = conversation_of(2)
    value = value_of(CODEC.set_cookie(record, WHOSE, world.now_ms))
    with pytest.raises(CookieForged):
        CODEC.open(value[: data.draw(st.integers(0, len(value) - 1))], WHOSE, world.now_ms)


@given(st.text() | st.from_regex(r"[0-9]\|[0-9|:a-z=]*", fullmatch=True))
def test_garbage_is_a_forgery(value: str) -> None:
    with pytest.raises(CookieForged):
        CODEC.open(value, WHOSE, START_MS)


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
        CODEC.open(value, WHOSE, START_MS)


@given(st.binary(max_size=60))
def test_a_payload_that_we_signed_but_did_not_pack_is_a_forgery(payload: bytes) -> None:
    keys = {version: key.decode() for version, key in KEYS.items()}
    value = create_signed_value(
        keys, NAME, payload, version=2, key_version=2, clock=lambda: START_MS / 1000
    ).decode()
    with pytest.raises(CookieError):
        CODEC.open(value, WHOSE, START_MS)


def test_a_payload_of_a_later_format_is_a_forgery() -> None:
    record, _ = conversation_of(1)
    payload = bytearray(pack(record, WHOSE))
    payload[2] = 2  # after the padding count and the array's head
    with pytest.raises(CookieForged):
        unpack(bytes(payload))
