"""Opens a conversation, finds a message in it, adds one.

The caller brings the time and the random bits. The vocabulary is that of `merging`.
"""

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from smsd.conversation.identity import lineage_id
from smsd.conversation.merging import covers, join, progress, without_forgotten
from smsd.conversation.record import UNWRITTEN, WINDOW, Copy, Entry, Lineage, Record
from smsd.conversation.trimming import OPEN_GRACE_MS, compacted

MAX_YOUNGER = 6
"""A copy whose own lineage has this many younger ones beside it starts a new one: the
cookie may fold old lineages early for lack of room, and what is still being added to
must not be among them."""


class Found(NamedTuple):
    """Where a message stands in a record."""

    lineage: int
    ordinal: int
    entry: Entry

    @property
    def number(self) -> int:
        """The message's number in the conversation."""
        return self.entry.number

    @property
    def reply(self) -> bytes | None:
        """Its TwiML verbs; None without an answer, or if it is not known."""
        return self.entry.reply


class Opened(NamedTuple):
    """A conversation that is ready for one more message."""

    record: Record
    restored: bool
    """The stored record was gone, and a copy brought the count back."""


def opened(
    stored: Record | None, copies: Iterable[Copy], *, now_ms: int, ttl_ms: int, random_bits: int
) -> Opened:
    """The conversation that the stored record and its copies (cookie, overlay) tell of,
    ready for one more message.

    It goes on in the stored record's own lineage, or in a new one if the record is new
    or restored. It is over `ttl_ms` after its last message, but not while a message
    waits for its answer.
    """
    alive = stored if stored is not None and is_alive(stored, now_ms, ttl_ms) else None
    merged = alive
    for copy in copies:
        if not is_alive(copy, now_ms, ttl_ms):
            continue
        if merged is None:
            merged = copy.record()
        elif not covers(merged, copy):
            version = copy.record()
            # what was answered and forgotten in the store must not come back as open
            merged = join(merged, without_forgotten(version, alive) if alive else version)
    if merged is None:
        merged = closed(stored) if stored else Record(now_ms)
    own = alive.own if alive else 0
    return Opened(
        _with_own(merged, own, now_ms, random_bits), restored=alive is None and merged.count > 0
    )


def is_alive(copy: Copy, now_ms: int, ttl_ms: int) -> bool:
    """Whether the conversation that `copy` tells of is not over yet."""
    if now_ms - copy.last_ms < ttl_ms:
        return True
    # a cookie keeps no conversation alive by what it tells of open messages
    return isinstance(copy, Record) and now_ms < copy.open_until_ms + OPEN_GRACE_MS


def _with_own(record: Record, own: int, now_ms: int, random_bits: int) -> Record:
    younger = sum([line.id > own for line in record.lineages])
    if own > record.floor and younger < MAX_YOUNGER:
        return record if record.own == own else msgspec.structs.replace(record, own=own)
    new = Lineage(lineage_id(now_ms, random_bits, record.newest), 0)
    return msgspec.structs.replace(record, lineages=(*record.lineages, new), own=new.id)


def resumed(copy: Record) -> Record:
    """A cookie's copy where there is no store. It may add to its newest lineage, since
    nobody else does.
    """
    return msgspec.structs.replace(copy, own=copy.newest)


def closed(record: Record, floor: int | None = None) -> Record:
    """The conversation is over and counts nothing; its messages are still recognized."""
    floor = record.newest if floor is None else floor
    return Record(record.last_ms, floor, 0, record.lineages, b"", (floor, 0, record.last_ms))


def find(record: Record, digest: bytes) -> Found | None:
    """The slot where a message stands: of several the one whose answer has come
    furthest, then the lowest.
    """
    found = None
    newest = record.lineages[-1] if record.lineages else None
    if newest and newest.tail and newest.tail[-1].digest == digest and len(record.lineages) == 1:
        return Found(newest.id, newest.top, newest.tail[-1])  # it was just written
    for lineage in record.lineages:
        # a message that moved on to this conversation may still wait in the one before,
        # where an older version brought it back
        waited = found is not None and found.entry.is_open and found.lineage <= record.floor
        moved_on = waited and lineage.id > record.floor
        for place, entry in enumerate(lineage.tail):
            if entry.digest == digest and (
                found is None or moved_on or progress(entry) > progress(found.entry)
            ):
                found = Found(lineage.id, lineage.top - len(lineage.tail) + 1 + place, entry)
    return found


def added(
    opened_record: Record,
    digest: bytes,
    reply: bytes,
    *,
    now_ms: int,
    data: bytes,
    text: str | None = None,
) -> Record:
    """The record with one more message, answered at once.

    reply  its TwiML verbs
    data   the dialogue's JSON object from now on
    text   what the sender wrote, if it is kept
    """
    record = opened_record
    number, last_ms = record.count + 1, max(record.last_ms, now_ms)
    entry = Entry(digest, number, now_ms // 1000, reply, text=text)
    stamp = next_stamp(record, number, last_ms, data)
    grown = Record(last_ms, record.floor, record.base, grow(record, entry), data, stamp, record.own)
    return grown if is_small(grown) else compacted(grown, now_ms)


def next_stamp(record: Record, count: int, now_ms: int, data: bytes) -> tuple[int, int, int]:
    """The stamp of `data` that is written now: larger than any before.

    Data may be unknown here since it was too large for the cookie. Then an empty object
    does not mean that the dialogue emptied it: a record that comes back later wins.
    """
    if not data and record.stamp == UNWRITTEN and record.count:
        return UNWRITTEN
    if (record.floor, count, now_ms) > record.stamp:
        return record.floor, count, now_ms
    return record.stamp[0], record.stamp[1], record.stamp[2] + 1


def grow(record: Record, entry: Entry) -> tuple[Lineage, ...]:
    """The lineages with one more entry in the record's own."""
    return tuple(
        [_grown(line, entry) if line.id == record.own else line for line in record.lineages]
    )


def _grown(lineage: Lineage, entry: Entry) -> Lineage:
    tail = lineage.tail
    first = tail[0].turn if tail else None
    is_needed = first is not None and entry.at_s * 1000 < first.until_ms  # see `compacted`
    if len(tail) == WINDOW and not (is_needed or tail[0].is_open):
        tail = tail[1:]
    return Lineage(lineage.id, lineage.top + 1, lineage.redundant, (*tail, entry), lineage.moved)


def is_small(record: Record) -> bool:
    """Whether there is nothing to forget: the usual case."""
    return len(record.lineages) == 1 and len(record.lineages[0].tail) <= WINDOW


def reconciled(
    stored: Record | None, overlay: Record, *, now_ms: int, ttl_ms: int, random_bits: int
) -> Record:
    """The overlay's record merged into the stored one, which goes on in a lineage of
    its own: the overlay may go on, too.
    """
    merged = opened(
        stored, (overlay,), now_ms=now_ms, ttl_ms=ttl_ms, random_bits=random_bits
    ).record
    return compacted(merged, now_ms)


def replies_within(record: Record, now_s: int, window_s: int) -> int:
    """How many texts were sent in the last `window_s` seconds, as far as is remembered.

    The window has two ends: after a clock was set back, replies "from the future" must
    not silence anybody. A second is allowed for the clocks of other replicas.
    """
    after_s, until_s, sent = now_s - window_s, now_s + 1, 0
    for lineage in record.lineages:
        for entry in lineage.tail:  # not a generator: this is hot
            if after_s < entry.at_s <= until_s:
                sent += bool(entry.reply) + entry.one_moment
    return sent
