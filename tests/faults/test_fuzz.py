"""Hostile and damaged input in process, bounded: records, cookies, and what smsd goes
on to do with them."""

from contextlib import suppress
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tornado.web import create_signed_value

from smsd.conversation import counting
from smsd.conversation.copy import pack, unpack
from smsd.conversation.identity import conversation_id, hashing_key, storage_key
from smsd.conversation.record import Entry, Lineage, Record, decode, encode
from smsd.errors import CookieError, CookieForged, RecordError
from smsd.settings.table import load
from smsd.web.cookies import NAME, open_cookie, signing_settings
from tests.faults.history import TO, Recorder
from tests.faults.world import number, world
from tests.processes import ACCOUNT, SETTINGS

pytestmark = pytest.mark.asyncio

MANY = settings(max_examples=300, deadline=None)
NOW_MS = 1_790_000_000_000
WHOSE = b"c" * 18
CONFIGURED = load(SETTINGS)
KEYS = signing_settings(CONFIGURED)["cookie_secret"]

ints = st.integers(-(2**48), 2**48) | st.integers(-3, 3)
entries = st.builds(Entry, st.binary(max_size=8), ints, ints, st.none() | st.binary(max_size=20))
lineages = st.builds(
    Lineage,
    ints,
    ints,
    st.lists(ints, max_size=3).map(tuple),
    st.lists(entries, max_size=4).map(tuple),
)
impossible = st.builds(
    Record,
    st.just(NOW_MS) | ints,
    ints,
    ints,
    st.lists(lineages, max_size=4).map(tuple),
    st.binary(max_size=20),
    st.tuples(ints, ints, ints),
    ints,
)
"""Records that decode, and that smsd never writes."""


def opened(value: str) -> Record:
    return open_cookie(value, CONFIGURED, WHOSE, NOW_MS)


def good() -> Record:
    record = counting.opened(None, (), now_ms=NOW_MS, ttl_ms=10**7, random_bits=1).record
    for i in range(20):
        record = counting.added(
            record, b"%06d" % i, b"<Message>hi</Message>", now_ms=NOW_MS, data=b'{"a":1}'
        )
    return record


@MANY
@given(st.data())
def test_a_damaged_record_is_an_error_or_a_record(data: st.DataObject) -> None:
    packed = bytearray(encode(good()))
    for _ in range(data.draw(st.integers(1, 4))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    with suppress(RecordError):
        assert isinstance(decode(bytes(packed)), Record)


def test_a_record_whose_text_is_not_utf_8_is_an_error() -> None:
    record = counting.opened(None, (), now_ms=NOW_MS, ttl_ms=10**7, random_bits=1).record
    kept = counting.added(record, b"digest", b"", now_ms=NOW_MS, data=b"", text="hello")
    damaged = encode(kept).replace(b"hello", b"hell\xff")
    with pytest.raises(RecordError):
        decode(damaged)


@MANY
@given(st.binary(max_size=300))
def test_a_payload_of_any_bytes_is_forged_or_a_record(payload: bytes) -> None:
    with suppress(CookieForged):
        assert isinstance(unpack(payload).record(), Record)


@MANY
@given(st.data())
def test_a_damaged_cookie_is_of_no_use(data: st.DataObject) -> None:
    payload = pack(good(), WHOSE)
    value = create_signed_value(KEYS, NAME, payload, version=2, key_version=1).decode()
    place = data.draw(st.integers(0, len(value) - 1))
    damaged = value[:place] + data.draw(st.characters(max_codepoint=255)) + value[place + 1 :]
    with suppress(CookieError):
        assert opened(damaged) == opened(value)


@MANY
@given(st.text(max_size=400))
def test_a_cookie_of_any_text_is_of_no_use(value: str) -> None:
    with pytest.raises(CookieError):
        opened(value)


@pytest.mark.parametrize("kind", ["garbage", "another version", "flipped bits", "empty", "huge"])
async def test_whatever_stands_in_memcached_messages_are_answered(kind: str) -> None:
    """It is as good as lost: overwritten, and the cookie has the count."""
    random = Random(3)

    def damaged(packed: bytes) -> bytes:
        flipped = bytearray(packed)
        flipped[random.randrange(1, len(flipped))] ^= 1 << random.randrange(8)
        return {
            "garbage": random.randbytes(100),
            "another version": b"\x02" + packed[1:],
            "flipped bits": bytes(flipped),
            "empty": b"",
            "huge": random.randbytes(900_000),
        }[kind]

    with world(replicas=1) as made:
        client = made.nodes[0].client()
        hash_key = hashing_key(SETTINGS["SMSD_HASH_KEY"].encode())
        async with Recorder(made.replicas) as twilio:
            for _ in range(1 if kind != "flipped bits" else 60):
                from_ = number()
                key = storage_key(conversation_id(hash_key, ACCOUNT, TO, from_)).decode()
                await twilio.text(from_)
                client.set(key, damaged(client.get(key)))
                await twilio.text(from_)
                await twilio.text(from_)
            assert all(delivery.status == 200 for delivery in twilio.history)
            if kind != "flipped bits":
                assert twilio.violations() == []
        client.close()
        assert "Traceback" not in made.replicas[0].log()
        assert "failed" not in made.replicas[0].log()


@settings(max_examples=60, deadline=None)
@given(impossible, impossible)
def test_records_that_smsd_never_writes_do_no_harm(stored: Record, copy: Record) -> None:
    opened = counting.opened(
        stored, (copy,), now_ms=NOW_MS, ttl_ms=14_400_000, random_bits=5
    ).record
    counting.find(opened, b"digest")
    grown = counting.added(opened, b"digest", b"reply", now_ms=NOW_MS, data=b"")
    assert isinstance(decode(encode(grown)), Record)
    assert len(pack(grown, WHOSE)) < 1000
