"""The payload of the cookie: what it keeps, how small it is, and what it refuses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smsd.conversation import counting, merging, turns
from smsd.conversation.copy import (
    DIGESTS,
    MAX_DATA_BYTES,
    MAX_PAYLOAD_BYTES,
    open_copy,
    pack,
    unpack,
)
from smsd.conversation.identity import conversation_id, hashing_key, message_digest
from smsd.conversation.record import Record
from smsd.errors import CookieError, CookieExpired, CookieForeign, CookieForged
from tests.conversation.test_merging import START_MS, World, records

TTL_MS = 14_400_000
WHOSE = b"c" * 18
OTHER = b"d" * 18


def opened(payload: bytes, *, now_ms: int = START_MS) -> Record:
    """The copy in a payload, for the conversation WHOSE."""
    return open_copy(payload, WHOSE, now_ms=now_ms, ttl_ms=TTL_MS).record()


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


def test_it_comes_back_as_it_went() -> None:
    record, world = conversation_of(5, data=b'{"step":2}')
    back = opened(pack(record, WHOSE), now_ms=world.now_ms)
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
    payload = pack(record, WHOSE)
    assert len(payload) <= MAX_PAYLOAD_BYTES
    back = opened(payload, now_ms=world.now_ms)
    assert back.count == record.count == messages
    kept = DIGESTS[-1] if not data or losses < 7 else 4
    for i in range(max(0, messages - kept), messages):
        assert numbered(back, i) == (i + 1, None)
    assert back.data == (data if len(data) <= MAX_DATA_BYTES else b"")


@given(records)
def test_packing_keeps_what_counts(record: Record) -> None:
    record = merging.join(record, record)
    payload = pack(record, WHOSE)
    assert len(payload) <= MAX_PAYLOAD_BYTES
    assert len(payload) % 3 == 0, "its Base64 would end in ="
    copy = unpack(payload)
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


def test_no_number_is_readable_in_it() -> None:
    record, _ = conversation_of(3)
    key = hashing_key(b"h" * 40)
    whose = conversation_id(key, "AC" + "1" * 32, "+14158141829", "+14158675309")
    payload = pack(record, whose)
    for part in (b"14158141829", b"14158675309", b"4158675309"):
        assert part not in payload


def test_of_another_conversation_it_is_foreign() -> None:
    record, world = conversation_of(1)
    with pytest.raises(CookieForeign):
        opened(pack(record, OTHER), now_ms=world.now_ms)


def test_it_expires_with_the_conversation_to_the_millisecond() -> None:
    record, _ = conversation_of(1)
    payload = pack(record, WHOSE)
    assert opened(payload, now_ms=record.last_ms + TTL_MS - 1).count == 1
    with pytest.raises(CookieExpired):
        opened(payload, now_ms=record.last_ms + TTL_MS)


def test_a_payload_of_a_later_format_is_a_forgery() -> None:
    record, _ = conversation_of(1)
    payload = bytearray(pack(record, WHOSE))
    payload[2] = 2  # after the padding count and the array's head
    with pytest.raises(CookieForged):
        unpack(bytes(payload))


@given(st.binary(max_size=60))
def test_payload_that_was_not_packed_is_a_forgery(payload: bytes) -> None:
    with pytest.raises(CookieError):
        opened(payload)


# --- messages without an answer


def test_copy_tells_which_messages_wait_and_which_one_ran() -> None:
    record, world = conversation_of(3)
    now_ms = world.now_ms
    for number in (4, 5):
        digest = message_digest(f"SM{number}")
        if number == 4:
            record = turns.announced(record, digest, 77, now_ms=now_ms)
        else:
            record = turns.registered(record, digest, now_ms=now_ms)
    back = record
    for _ in range(2):  # also a copy of a copy tells it
        back = opened(pack(back, WHOSE), now_ms=now_ms)
        answered, ran, waits = (
            counting.find(back, message_digest(f"SM{number}")) for number in (2, 4, 5)
        )
        assert answered
        assert ran
        assert waits
        assert not answered.entry.is_open
        assert turns.ran_somewhere(ran.entry)
        assert ran.entry.turn
        assert ran.entry.turn.until_ms == now_ms + turns.LEASE_MS
        assert waits.entry.is_open
        assert not turns.ran_somewhere(waits.entry)


def test_whatever_is_known_of_a_turn_beats_what_a_copy_tells() -> None:
    record, world = conversation_of(3)
    now_ms, digest = world.now_ms, message_digest("SM9")
    running = turns.announced(record, digest, 77, now_ms=now_ms)
    copy = opened(pack(running, WHOSE), now_ms=now_ms)
    found = counting.find(running, digest)
    assert found
    answered = turns.answered(running, found, b"re", now_ms=now_ms)
    given_back = turns.given_back(running, found, now_ms=now_ms)
    for version in (running, answered, given_back):
        joined = counting.find(merging.join(copy, version), digest)
        known = counting.find(version, digest)
        assert joined
        assert known
        assert (joined.entry.turn, joined.reply) == (known.entry.turn, known.reply)
