"""Counting and merging: which messages a conversation has, and how two versions of it
become one.

No network, no clock, no environment, no randomness: the caller brings time and bits.

Several writers may count in one conversation without seeing each other: replicas on
memcached, a replica on its overlay while memcached is away, and whoever finds the record
lost and restores it from the cookie. So the record is a state-based CRDT: any two
versions can be joined, in any order and any number of times, and nothing is lost or
counted twice.

Each writer counts in a *lineage* of its own, where messages have the ordinals 1, 2,
3 ... Only the copy that *owns* a lineage adds to it. So

    a slot (lineage, ordinal)   always stands for the same message;
    count = base + for each open lineage: its top minus its redundant slots;
    join  = the higher top of each lineage, and the union of everything else.

An example: memcached counted messages A and B in lineage 1. Then it went away, one
replica counted C in lineage 2, and Twilio delivered B again to a third replica, which
knew neither and counted it in lineage 3. The join holds 1:A, 1:B, 2:C and 3:B; the slot
3:B is redundant because lineage 1 holds B; the count is 3.

>>> a = Record(0, lineages=(Lineage(1, 2, tail=(Entry(b"A"), Entry(b"B"))),))
>>> b = Record(0, lineages=(Lineage(2, 1, tail=(Entry(b"C"),)), Lineage(3, 1, tail=(Entry(b"B"),))))
>>> join(a, b).count, join(a, b) == join(b, a)
(3, True)

Glossary:

lineage    the messages counted by one writer; known to theory as a replica of a G-counter
slot       one place in a lineage (a dot of a dotted version vector); holds an `Entry`
own        the lineage that this copy of the record may add to; no other copy may
top        the last ordinal of a lineage
redundant  a slot whose message a lower lineage counts already, and which does not count
floor      lineages up to this id are closed: nobody adds to them any more
base       how many messages the closed lineages stand for
moved      slots of messages that waited when `session.end()` closed the conversation:
           they count again in the next one, so they are never redundant
stamp      the version of `data`; of two versions the larger stamp wins
overlay    the record that a process keeps while memcached is away (`smsd.store.overlay`)
progress   how far the answer of a message has come; the join keeps the furthest

Lineage ids grow with time. So a floor also closes older lineages that a stale cookie
brings back later.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from smsd.conversation.identity import lineage_id
from smsd.conversation.record import (
    ANSWERED_EPOCH,
    NOTHING,
    UNWRITTEN,
    WINDOW,
    Copy,
    Entry,
    Lineage,
    Record,
    Turn,
)

MAX_LINEAGES = 64
"""Open lineages that are kept apart; older ones are folded into `base`. Each loss of the
record and each outage of a replica creates one. If the limit is too low, counts that a
replica still holds in a folded lineage are lost (random faults showed it with 16)."""

MAX_YOUNGER = 6
"""A copy whose own lineage has this many younger ones beside it starts a new one: the
cookie may fold old lineages early for lack of room, and what is still being added to
must not be among them."""

OPEN_GRACE_MS = 120_000
"""A message without an answer is remembered one by one this long after its place or its
lease ran out."""


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


# --- joining


def join(a: Record, b: Record) -> Record:
    """The smallest record that knows what both know."""
    floor, base = max((a.floor, a.base), (b.floor, b.base))
    by_id = {lineage.id: lineage for lineage in a.lineages}
    for lineage in b.lineages:
        known = by_id.get(lineage.id)
        by_id[lineage.id] = _join_lineages(known, lineage) if known else lineage
    lineages = _mark_redundant([by_id[id_] for id_ in sorted(by_id)])
    stamp, data = max((a.stamp, a.data), (b.stamp, b.data))
    return Record(max(a.last_ms, b.last_ms), floor, base, lineages, data, stamp)


def _join_lineages(a: Lineage, b: Lineage) -> Lineage:
    slots = dict(_slots(a))
    for ordinal, entry in _slots(b):
        known = slots.get(ordinal)
        slots[ordinal] = _join_entries(known, entry) if known else entry
    top = max(a.top, b.top)
    first = min(slots, default=top + 1)
    tail = tuple([slots.get(ordinal, NOTHING) for ordinal in range(first, top + 1)])
    redundant = tuple(sorted({*a.redundant, *b.redundant}))
    return Lineage(a.id, top, redundant, tail, max(a.moved, b.moved))


def _join_entries(a: Entry, b: Entry) -> Entry:
    return max(a, b, key=lambda entry: (entry.digest, progress(entry), entry.number, entry.at_s))


Progress = tuple[bool, bool, bytes, int, int, int, int, bool, bool, str]


def progress(entry: Entry) -> Progress:
    """Orders the states of one message: not known, waiting or running by epoch and lease,
    answered with a reply that was forgotten, answered with a reply.
    """
    turn = entry.turn or _NO_TURN
    is_answered = entry.reply is not None or turn.epoch >= ANSWERED_EPOCH
    state = is_answered, entry.reply is not None, entry.reply or b""
    lease = turn.epoch, turn.until_ms, turn.holder, turn.lost_runs
    return *state, *lease, entry.one_moment, entry.text is not None, entry.text or ""


_NO_TURN = Turn(-1, 0)


def _slots(lineage: Lineage) -> Iterable[tuple[int, Entry]]:
    """Ordinals and entries of its tail."""
    return enumerate(lineage.tail, lineage.top - len(lineage.tail) + 1)


def _mark_redundant(lineages: Sequence[Lineage]) -> tuple[Lineage, ...]:
    """Mark the slots whose message stands in a lower lineage too.

    A redundant slot also forgets its message, so that doubles do not fill the window.
    It must not if its entry has come further than those of all lower slots: it may hold
    the only reply. Comparing with the *best* lower slot, not with the lowest, is what
    keeps the join associative when three lineages hold one message.
    """
    best: dict[bytes, Progress] = {}
    marked = []
    for lineage in lineages:
        redundant = set(lineage.redundant)
        tail = list(lineage.tail)
        for place, (ordinal, entry) in enumerate(_slots(lineage)):
            if not entry.digest:
                continue
            reached, lower = progress(entry), best.get(entry.digest)
            if lower is not None and ordinal > lineage.moved:
                redundant.add(ordinal)
                if reached <= lower:
                    tail[place] = NOTHING
                    continue
            best[entry.digest] = reached if lower is None else max(reached, lower)
        marked.append(
            msgspec.structs.replace(
                lineage, redundant=tuple(sorted(redundant)), tail=_without_blanks(tail)
            )
        )
    return tuple(marked)


def _without_blanks(tail: Sequence[Entry]) -> tuple[Entry, ...]:
    """The tail from its first known message on."""
    first = next((place for place, entry in enumerate(tail) if entry.digest), len(tail))
    return tuple(tail[first:])


def covers(a: Record, b: Copy) -> bool:
    """Whether a join with `b` would add nothing to `a` that counts. Usually it would not,
    and this is cheaper than a join.
    """
    if (a.floor, a.base) < (b.floor, b.base) or a.last_ms < b.last_ms or a.stamp < b.stamp:
        return False
    known = {lineage.id: lineage for lineage in a.lineages}
    for lineage in b.lineages:
        here = known.get(lineage.id)
        if here is None or here.top < lineage.top:
            return False
        if lineage.redundant and not set(lineage.redundant) <= set(here.redundant):
            return False
        if isinstance(lineage, Lineage) and not _covers_slots(here, lineage):
            return False
    return True


def _covers_slots(a: Lineage, b: Lineage) -> bool:
    """Whether `a` knows every message of `b`'s tail that is still open in `b`, or known
    to it in another state. A cookie's copy has no turns and needs no such look.
    """
    if a.tail is b.tail:
        return True
    here = dict(_slots(a))
    return all(
        progress(here.get(ordinal, NOTHING)) >= progress(entry)
        for ordinal, entry in _slots(b)
        if entry.digest and (entry.reply is not None or entry.turn is not None)
    )


# --- one message


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
            merged = join(merged, copy.record())
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
    """The slot where a message stands: of several the one whose answer has come furthest,
    then the lowest.
    """
    found = None
    for lineage in record.lineages:
        for place, entry in enumerate(lineage.tail):
            if entry.digest == digest and (
                found is None or progress(entry) > progress(found.entry)
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
    if len(tail) == WINDOW and not tail[0].is_open:
        tail = tail[1:]
    return Lineage(lineage.id, lineage.top + 1, lineage.redundant, (*tail, entry), lineage.moved)


def is_small(record: Record) -> bool:
    """Whether there is nothing to forget: the usual case."""
    return len(record.lineages) == 1 and len(record.lineages[0].tail) <= WINDOW


def reconciled(
    stored: Record | None, overlay: Record, *, now_ms: int, ttl_ms: int, random_bits: int
) -> Record:
    """The overlay's record merged into the stored one, which goes on in a lineage of its
    own: the overlay may go on, too.
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
        for entry in lineage.tail:  # a generator takes twice as long, and this is hot
            if after_s < entry.at_s <= until_s:
                sent += bool(entry.reply) + entry.one_moment
    return sent


# --- forgetting


def compacted(record: Record, now_ms: int) -> Record:
    """At most WINDOW messages one by one and MAX_LINEAGES lineages. The count stays."""
    return folded_to(trimmed(record, WINDOW, now_ms), MAX_LINEAGES)


def trimmed(record: Record, most: int, now_ms: int | None = None) -> Record:
    """At most the latest `most` messages are known one by one; the count stays.

    With `now_ms`, messages that wait for their answer, or for somebody to fetch it, are
    known beyond that.
    """
    known = [
        (line.id > record.floor, entry.number, line.id, ordinal)
        for line in record.lineages
        for ordinal, entry in _slots(line)
        if entry.digest and not (now_ms is not None and _is_needed(entry, now_ms))
    ]
    if len(known) <= most:
        return record
    known.sort()
    forgotten: dict[int, set[int]] = {}
    for _, _, id_, ordinal in known[: len(known) - most]:
        forgotten.setdefault(id_, set()).add(ordinal)
    lineages = tuple(
        [
            _without(line, forgotten[line.id]) if line.id in forgotten else line
            for line in record.lineages
        ]
    )
    return msgspec.structs.replace(record, lineages=lineages)


def _is_needed(entry: Entry, now_ms: int) -> bool:
    if entry.turn is None:
        return False
    return now_ms < entry.turn.until_ms + (OPEN_GRACE_MS if entry.is_open else 0)


def _without(line: Lineage, ordinals: set[int]) -> Lineage:
    """These ordinals are not known one by one any more."""
    tail = [NOTHING if ordinal in ordinals else entry for ordinal, entry in _slots(line)]
    return msgspec.structs.replace(line, tail=_without_blanks(tail))


def folded_to(record: Record, most: int) -> Record:
    """At most `most` open lineages: the oldest are closed and counted in `base`. Closed
    ones without ids are dropped.
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
