"""`session.history` in the record: what is kept, what is dropped first, what a merge
makes of it."""

import json
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from smsd.conversation import counting, ending, merging
from smsd.conversation.copy import pack, unpack
from smsd.conversation.history import MAX_BYTES, HistoryEntry, entries, trimmed_history
from smsd.conversation.identity import message_digest
from smsd.conversation.record import Entry, Lineage, Record, decode, encode
from smsd.conversation.session import Session
from smsd.twilio.markup import texts_of, verbs
from smsd.twilio.reply import Reply
from tests.conversation.test_merging import records

NOW_MS = 1_790_000_000_000


def said(text: str | None, reply: str, most: int, record: Record | None = None) -> Record:
    """The record with one more message and its reply."""
    opened = counting.opened(record, (), now_ms=NOW_MS, ttl_ms=10**9, random_bits=7).record
    digest = message_digest(f"{opened.count}")
    grown = counting.added(
        opened, digest, verbs(Reply(reply).twiml), now_ms=NOW_MS, data=b"", text=text
    )
    return trimmed_history(grown, most)


def conversation(*messages: tuple[str | None, str], most: int = 32) -> Record:
    record = None
    for text, reply in messages:
        record = said(text, reply, most, record)
    assert record is not None
    return record


def history(record: Record, most: int = 32, before: int = 10**6) -> Sequence[HistoryEntry]:
    return entries(record, most, before, texts_of)


def texts(record: Record, most: int = 32) -> list[str]:
    return [entry.text for entry in history(record, most)]


def test_messages_and_replies_come_oldest_first() -> None:
    record = conversation(("hi", "Hello & <welcome>"), ("", "A picture!"), ("silence", ""))
    assert history(record) == (
        HistoryEntry("hi", "Hello & <welcome>", 1, NOW_MS // 1000),
        HistoryEntry("", "A picture!", 2, NOW_MS // 1000),
        HistoryEntry("silence", "", 3, NOW_MS // 1000),
    )


def test_several_messages_of_a_reply_are_joined_and_media_left_out() -> None:
    twiml = Reply("one", "two", media="https://x.example/a.png").twiml
    assert texts_of(verbs(twiml)) == ("one", "two")
    assert texts_of(verbs(Reply(media="https://x.example/a.png").twiml)) == ("",)
    assert texts_of(b"") == ()


def test_messages_without_a_kept_text_are_left_out() -> None:
    assert texts(conversation(("a", "1"), (None, "2"), ("b", "3"))) == ["a", "b"]


def test_only_the_last_messages_keep_their_text() -> None:
    record = conversation(*[(f"m{n}", "ok") for n in range(5)], most=3)
    assert texts(record) == ["m2", "m3", "m4"]
    assert [entry.text for line in record.lineages for entry in line.tail].count(None) == 2
    assert texts(record, 2) == ["m3", "m4"]
    assert texts(trimmed_history(record, 0)) == [], "turned off: the texts go with the next reply"


def test_more_than_16_kb_drops_the_oldest_first() -> None:
    record = conversation(*[(f"{n}" * 1000, "x" * 600) for n in range(10)] * 2)
    kept = history(record)
    assert len(kept) == 9
    assert sum(len(entry.text) + len(entry.reply) for entry in kept) <= MAX_BYTES
    assert kept[-1].number == 20
    assert len(encode(record)) < 2 * MAX_BYTES + 32 * 700


def test_message_that_alone_is_too_large_leaves_nothing() -> None:
    assert texts(conversation(("hi", "ok"), ("long", "\N{GRINNING FACE}" * 5000))) == []


def test_history_ends_before_the_message_that_is_answered() -> None:
    record = conversation(("a", "1"), ("b", "2"), ("c", "3"))
    assert [entry.text for entry in history(record, before=3)] == ["a", "b"]
    assert [entry.text for entry in history(record, 1, before=3)] == ["b"]


def test_end_of_the_conversation_forgets_the_history() -> None:
    record = conversation(("a", "1"), ("b", "2"))
    over = ending.ended(record, now_ms=NOW_MS, random_bits=3)
    assert history(over) == ()
    assert texts(said("c", "3", 32, over)) == ["c"]


def test_message_counted_in_two_lineages_is_remembered_once() -> None:
    reply = verbs(Reply("ok").twiml)
    a = Record(0, lineages=(Lineage(1, 1, tail=(Entry(b"A", 1, 5, reply, text="a"),)),))
    b = Record(0, lineages=(Lineage(2, 1, tail=(Entry(b"A", 1, 5, reply, text="a"),)),))
    both = merging.join(a, b)
    assert (both.count, texts(both)) == (1, ["a"])


def test_text_survives_a_merge_with_a_version_that_does_not_know_it() -> None:
    record = conversation(("a", "1"))
    without = trimmed_history(record, 0)
    assert merging.join(record, without) == merging.join(without, record)
    assert texts(merging.join(without, record)) == ["a"]


def test_texts_are_in_the_record_and_never_in_the_cookie() -> None:
    record = conversation(("my secret text", "your secret reply"))
    assert b"my secret text" in encode(record)
    assert texts(decode(encode(record))) == ["my secret text"]
    cookie = pack(record, b"x" * 18)
    assert b"secret" not in cookie
    assert texts(unpack(cookie).record()) == []


def test_record_of_an_older_version_has_no_texts() -> None:
    entry = b"\x94\xc4\x01A\x01\x05\xc4\x01r"  # digest, number, seconds, reply
    lineage = b"\x94\x01\x01\x90\x91" + entry
    packed = b"\x01\x97\xcd\x03\xe8\x00\x00\x91" + lineage + b"\xc4\x00\x93\x00\x00\x00\x01"
    record = decode(packed)
    assert record.lineages[0].tail == (Entry(b"A", 1, 5, b"r"),)
    assert history(record) == ()


def test_history_is_json_and_read_once_when_asked() -> None:
    asked = []

    def read() -> tuple[HistoryEntry, ...]:
        asked.append(1)
        return (HistoryEntry("hi", "ho", 1, 2),)

    session = Session(2, history=read)
    assert asked == []
    assert json.dumps(session.history) == '[["hi", "ho", 1, 2]]'
    assert session.history == session.history
    assert asked == [1]


@settings(max_examples=200, deadline=None)
@given(records, records, st.integers(0, 4))
def test_trimming_is_idempotent_and_changes_no_count_and_no_reply(
    a: Record, b: Record, most: int
) -> None:
    for record in (a, b, merging.join(a, b)):
        trimmed = trimmed_history(record, most)
        assert trimmed_history(trimmed, most) == trimmed
        assert trimmed.count == record.count
        assert texts(trimmed, most) == texts(record, most)
        assert len(texts(trimmed)) <= most
        assert merging.join(trimmed, record) == merging.join(record, record)
