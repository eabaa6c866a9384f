"""The conversation: which messages it has counted, and how two versions of it become one.

No network, no clock, no environment, no randomness: whoever calls brings the time and the random bits.

A conversation is written by several hands that may not see each other: replicas on memcached, a replica on
its overlay while memcached is away, and again whoever finds the record lost and restores it from the cookie.
Each of them counts in a *lineage* of its own, a number that is drawn at its birth. Within a lineage messages
have the ordinals 1, 2, 3 ..., and only one copy ever adds to it, the one that calls it its own. So

    a slot (lineage, ordinal)   stands for one message, for ever;
    count = base + the sum over the open lineages of (top - redundant slots)
    join  = the larger top of each lineage, the union of everything else.

Join is commutative, associative and idempotent, and the count of a join is the size of the union of the
messages, as long as no version lags by more than WINDOW messages. A message counted in two lineages shows up
as one digest in two slots: all but the lowest are redundant.

What has ended is closed by a *floor*: lineages born up to it no longer count, and what they stood for is in
`base` (0 after `session.end()`). Lineages are numbered by birth, so a lineage that a stale cookie brings back
is closed too.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from smsd.conversation.record import NOTHING, UNWRITTEN, WINDOW, Copy, Entry, Lineage, Record

MAX_LINEAGES = 64
"""Open lineages kept apart; older ones are folded into `base`. One is born at each loss, and at each outage of
a replica. What a replica still holds back of a folded one is lost: few is too few (16 were, under faults at random).
"""

MOST_YOUNGER = 6
"""A copy with so many lineages younger than its own goes on in a new one: what is folded early, in the cookie for want
of room, must not be what is still added to.
"""

DIGEST_BYTES = 6
"""Of a MessageSid: among 32 others, one in ten million million messages is taken for a duplicate."""

_RANDOM_BITS = 22


class Counted(NamedTuple):
    """What is remembered of a message: its number and, while known, its answer (TwiML verbs)."""

    number: int
    reply: bytes | None


class Opened(NamedTuple):
    """A conversation ready for one more message, and where it came from."""

    record: Record
    restored: bool
    """The stored record was gone, and a copy brought the count back."""


# --- identity


def conversation_id(hash_key: bytes, account_sid: str, to: str, from_: str) -> bytes:
    """The 18 bytes that stand for (AccountSid, To, From) in the store, the cookie and the log.

    Keyed, since phone numbers are few enough to be tried out. Lengths stand before the parts, so that no two
    triples read alike.
    """
    text = f"{len(account_sid)},{len(to)},{account_sid}{to}{from_}"
    return hashlib.blake2b(
        text.encode("utf-8", "surrogatepass"), key=hash_key, digest_size=18
    ).digest()


def hashing_key(secret: bytes) -> bytes:
    """The key of `conversation_id` from a secret of any length."""
    return hashlib.blake2b(secret, digest_size=32).digest()


def message_digest(message_sid: str) -> bytes:
    """The short id of a message in records and cookies."""
    return hashlib.blake2b(
        message_sid.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES
    ).digest()


def lineage_id(now_ms: int, random_bits: int, above: int = 0) -> int:
    """A new lineage's number: by birth, and larger than `above` also when clocks disagree."""
    drawn = random_bits & ((1 << _RANDOM_BITS) - 1)
    return max(now_ms << _RANDOM_BITS | drawn, above + 1 + drawn)


# --- merging


def join(a: Record, b: Record) -> Record:
    """The least record that knows what both know."""
    floor, base = max((a.floor, a.base), (b.floor, b.base))
    by_id = {lineage.id: lineage for lineage in a.lineages}
    for lineage in b.lineages:
        known = by_id.get(lineage.id)
        by_id[lineage.id] = _join_lineages(known, lineage) if known else lineage
    lineages = _mark_redundant(tuple(by_id[id_] for id_ in sorted(by_id)))
    stamp, data = max((a.stamp, a.data), (b.stamp, b.data))
    return Record(max(a.last_ms, b.last_ms), floor, base, lineages, data, stamp)


def _join_lineages(a: Lineage, b: Lineage) -> Lineage:
    top = max(a.top, b.top)
    slots: dict[int, Entry] = {}
    for lineage in (a, b):
        for ordinal, entry in _slots(lineage):
            slots[ordinal] = max(slots.get(ordinal, NOTHING), entry, key=_fullness)
    first = max(min(slots, default=top + 1), top - WINDOW + 1)
    tail = tuple(slots.get(ordinal, NOTHING) for ordinal in range(first, top + 1))
    return Lineage(a.id, top, tuple(sorted({*a.redundant, *b.redundant})), tail)


def _slots(lineage: Lineage) -> Iterable[tuple[int, Entry]]:
    """Ordinals and entries of its tail."""
    return enumerate(lineage.tail, lineage.top - len(lineage.tail) + 1)


def _fullness(entry: Entry) -> tuple[bytes, bool, bytes, int, int]:
    return entry.digest, entry.reply is not None, entry.reply or b"", entry.number, entry.at_s


def _mark_redundant(lineages: tuple[Lineage, ...]) -> tuple[Lineage, ...]:
    """Of the slots that hold one digest all but the lowest count no more. They forget it, unless theirs is the
    only answer: the window is for messages, not for their doubles.
    """
    lowest: dict[bytes, Entry] = {}
    marked = []
    for lineage in lineages:
        again = set(lineage.redundant)
        tail = list(lineage.tail)
        for place, (ordinal, entry) in enumerate(_slots(lineage)):
            first = lowest.setdefault(entry.digest, entry)
            if first is not entry and entry.digest:
                again.add(ordinal)
                if first.reply is not None or entry.reply is None:
                    tail[place] = NOTHING
        marked.append(Lineage(lineage.id, lineage.top, tuple(sorted(again)), _without_blanks(tail)))
    return tuple(marked)


def _without_blanks(tail: Sequence[Entry]) -> tuple[Entry, ...]:
    """From its first message on."""
    first = next((place for place, entry in enumerate(tail) if entry.digest), len(tail))
    return tuple(tail[first:])


def covers(a: Record, b: Copy) -> bool:
    """Whether a join with `b` would add nothing to `a` that counts: the usual case, and cheap to see."""
    if (a.floor, a.base) < (b.floor, b.base) or a.last_ms < b.last_ms or a.stamp < b.stamp:
        return False
    known = {lineage.id: lineage for lineage in a.lineages}
    for lineage in b.lineages:
        mine = known.get(lineage.id)
        if mine is None or mine.top < lineage.top:
            return False
        if lineage.redundant and not set(lineage.redundant) <= set(mine.redundant):
            return False
    return True


# --- one message


def opened(
    stored: Record | None, copies: Iterable[Copy], *, now_ms: int, ttl_ms: int, random_bits: int
) -> Opened:
    """The conversation that the stored record and its copies (cookie, overlay) tell of, ready for `added`.

    It goes on in the stored record's own lineage, or in a new one if the record is new or restored.
    """
    alive = stored if stored and now_ms - stored.last_ms < ttl_ms else None
    merged = alive
    for copy in copies:
        if now_ms - copy.last_ms >= ttl_ms:
            continue
        if merged is None:
            merged = copy.record()
        elif not covers(merged, copy):
            merged = join(merged, copy.record())
    if merged is None:
        merged = _closed(stored) if stored else Record(now_ms)
    return Opened(
        _with_own(merged, alive.own if alive else 0, now_ms, random_bits),
        restored=alive is None and merged.count > 0,
    )


def _with_own(record: Record, own: int, now_ms: int, random_bits: int) -> Record:
    younger = sum([line.id > own for line in record.lineages])
    if own > record.floor and younger < MOST_YOUNGER:
        return record if record.own == own else msgspec.structs.replace(record, own=own)
    new = Lineage(lineage_id(now_ms, random_bits, record.newest), 0)
    return msgspec.structs.replace(record, lineages=(*record.lineages, new), own=new.id)


def resumed(copy: Record) -> Record:
    """A cookie's copy where there is no store: it may add to its newest lineage, since nobody else does."""
    return msgspec.structs.replace(copy, own=copy.newest)


def _closed(record: Record, floor: int | None = None) -> Record:
    """The conversation over, its messages still known."""
    floor = record.newest if floor is None else floor
    return Record(record.last_ms, floor, 0, record.lineages, b"", (floor, 0, record.last_ms))


def find(record: Record, digest: bytes) -> Counted | None:
    """The message's number and answer if it is counted already: its lowest slot's, or that of one with an answer."""
    found = None
    for lineage in record.lineages:
        for entry in lineage.tail:
            if entry.digest == digest and (
                found is None or (found.reply is None and entry.reply is not None)
            ):
                found = Counted(entry.number, entry.reply)
    return found


def added(
    opened_record: Record, digest: bytes, reply: bytes, *, now_ms: int, data: bytes
) -> Record:
    """The record with one more message: `reply` its TwiML verbs, `data` the dialogue's JSON object from now
    on.

    Data that this record never knew, since it was too large for the cookie, is not taken for emptied: what a
    store that cannot be reached has of it wins once they are joined.
    """
    record = opened_record
    number, last_ms = record.count + 1, max(record.last_ms, now_ms)
    entry = Entry(digest, number, now_ms // 1000, reply)
    unknown = not data and record.stamp == UNWRITTEN and record.count
    stamp = UNWRITTEN if unknown else (record.floor, number, last_ms)
    lineages = tuple(
        [_grown(line, entry) if line.id == record.own else line for line in record.lineages]
    )
    grown = Record(last_ms, record.floor, record.base, lineages, data, stamp, record.own)
    return grown if len(lineages) == 1 else folded_to(trimmed(grown, WINDOW), MAX_LINEAGES)


def _grown(lineage: Lineage, entry: Entry) -> Lineage:
    return Lineage(
        lineage.id, lineage.top + 1, lineage.redundant, (*lineage.tail[1 - WINDOW :], entry)
    )


def ended(record: Record, *, now_ms: int, random_bits: int) -> Record:
    """The record after `session.end()`: nothing counts any more, and no older cookie brings it back."""
    return _closed(record, lineage_id(now_ms, random_bits, record.newest))


def reconciled(
    stored: Record | None, overlay: Record, *, now_ms: int, ttl_ms: int, random_bits: int
) -> Record:
    """The overlay's record merged into the stored one, which goes on in a lineage of its own: the overlay may go
    on, too.
    """
    merged = opened(
        stored, (overlay,), now_ms=now_ms, ttl_ms=ttl_ms, random_bits=random_bits
    ).record
    return folded_to(trimmed(merged, WINDOW), MAX_LINEAGES)


def replies_since(record: Record, since_s: int) -> int:
    """How many messages counted after `since_s` (seconds since 1970) were answered with a text."""
    return sum(
        1
        for lineage in record.lineages
        if lineage.id > record.floor
        for entry in lineage.tail
        if entry.at_s > since_s and entry.reply
    )


# --- forgetting


def trimmed(record: Record, most: int) -> Record:
    """At most the latest `most` messages are known one by one; the count stays."""
    if len(record.lineages) == 1:  # as usual
        (line,) = record.lineages
        if len(line.tail) <= most:
            return record
        if all(entry.digest for entry in line.tail):
            return msgspec.structs.replace(record, lineages=(_without(line, line.top - most),))
    known = sorted(
        (line.id > record.floor, entry.number, line.id, ordinal)
        for line in record.lineages
        for ordinal, entry in _slots(line)
        if entry.digest
    )
    if len(known) <= most:
        return record
    cut: dict[int, int] = {}
    for *_, id_, ordinal in known[: len(known) - most]:
        cut[id_] = max(cut.get(id_, 0), ordinal)
    lineages = tuple(
        [_without(line, cut[line.id]) if line.id in cut else line for line in record.lineages]
    )
    return msgspec.structs.replace(record, lineages=lineages)


def _without(line: Lineage, last: int) -> Lineage:
    """Its ordinals up to `last` are forgotten one by one."""
    kept = line.tail[len(line.tail) - (line.top - last) :]
    return Lineage(line.id, line.top, line.redundant, _without_blanks(kept))


def folded_to(record: Record, most: int) -> Record:
    """At most `most` open lineages: the oldest are closed and stand in `base`. Closed ones without ids are
    forgotten.
    """
    live = [line for line in record.lineages if line.id > record.floor]
    old = live[: max(0, len(live) - most)]
    floor = old[-1].id if old else record.floor
    kept = tuple([line for line in record.lineages if line.id > floor or line.tail])
    if len(kept) == len(record.lineages) and not old:
        return record
    return msgspec.structs.replace(
        record,
        floor=floor,
        base=record.base + sum(line.size for line in old),
        lineages=kept,
        own=record.own if record.own > floor else 0,
    )
