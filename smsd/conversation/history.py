"""`session.history`: what was said in a conversation, for dialogues that ask a model.

The texts must not get into the cookie or a log: people wrote them.

They live in the slots of the record, beside the replies that smsd keeps anyway. So
they merge as everything else does, and a message counted twice is remembered once.
Whoever writes a reply also drops the oldest texts beyond SMSD_HISTORY and MAX_BYTES; if
an older version brings one back, the next reply drops it again.
"""

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from smsd.conversation.counting import Found
from smsd.conversation.merging import progress
from smsd.conversation.record import Entry, Lineage, Record

MAX_BYTES = 16_000
"""Of the texts of a conversation and their replies, as TwiML."""

MAX_TEXT = 1_600
"""Characters of one text; Twilio delivers no more."""


class HistoryEntry(NamedTuple):
    """One earlier message of a conversation, and its reply. Added in 0.2.

    text    what the sender wrote, at most 1,600 characters; "" for a picture alone
    reply   what smsd replied: several messages joined by newlines, the apology if the
            dialogue failed, "" for no reply
    number  of the message in the conversation, from 1
    at_s    when the reply was ready, in seconds since 1970

    `json.dumps` writes it as a list.

    >>> HistoryEntry("How much is a pizza?", "12.50", 1, 1_790_000_000).reply
    '12.50'
    """

    text: str
    reply: str
    number: int
    at_s: int


def entries(
    record: Record, most: int, before: int, texts_of: Callable[[bytes], tuple[str, ...]]
) -> tuple[HistoryEntry, ...]:
    """The last `most` messages with their replies, oldest first.

    before    the number of the message that is being answered: later ones are left out
    texts_of  reads the texts of a reply, kept as TwiML verbs
    """
    return tuple(
        HistoryEntry(
            found.entry.text or "",
            "\n".join(texts_of(found.entry.reply or b"")),
            found.number,
            found.entry.at_s,
        )
        for found in _kept(record, most, before)
    )


def trimmed_history(record: Record, most: int) -> Record:
    """The record with the texts of the last `most` messages, and no others."""
    if not any(entry.text is not None for line in record.lineages for entry in line.tail):
        return record
    kept = {(found.lineage, found.ordinal) for found in _kept(record, most)}
    lineages = tuple([_with_texts(line, kept) for line in record.lineages])
    return msgspec.structs.replace(record, lineages=lineages)


def _kept(record: Record, most: int, before: int | None = None) -> list[Found]:
    """The messages whose texts are kept, oldest first."""
    best: dict[bytes, Found] = {}
    for line in record.lineages:
        if line.id <= record.floor:  # an earlier conversation, which has ended
            continue
        for ordinal, entry in enumerate(line.tail, line.top - len(line.tail) + 1):
            known = best.get(entry.digest)
            if entry.text is None or (before is not None and entry.number >= before):
                continue
            if known is None or progress(entry) > progress(known.entry):
                best[entry.digest] = Found(line.id, ordinal, entry)
    newest = sorted(best.values(), key=lambda found: (found.number, *found[:2]), reverse=True)
    room = MAX_BYTES
    kept = []
    for found in newest[:most]:
        room -= _size(found.entry)
        if room < 0:
            break
        kept.append(found)
    return kept[::-1]


def _size(entry: Entry) -> int:
    return len((entry.text or "").encode("utf-8", "surrogatepass")) + len(entry.reply or b"")


def _with_texts(line: Lineage, kept: set[tuple[int, int]]) -> Lineage:
    first = line.top - len(line.tail) + 1
    tail = [
        entry
        if entry.text is None or (line.id, ordinal) in kept
        else msgspec.structs.replace(entry, text=None)
        for ordinal, entry in enumerate(line.tail, first)
    ]
    return msgspec.structs.replace(line, tail=tuple(tail))
