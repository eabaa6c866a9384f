"""Counting and merging: which messages a conversation has, and how two versions of it
become one.

Several writers may count in one conversation without seeing each other: replicas on
memcached, a replica on its overlay while memcached is away, and whoever finds the
record lost and restores it from the cookie. So the record is a state-based CRDT: any
two versions can be joined, in any order and any number of times, and nothing is lost or
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

import msgspec

from smsd.conversation.record import (
    ANSWERED,
    ANSWERED_EPOCH,
    NOTHING,
    Copy,
    Entry,
    Lineage,
    Record,
    Turn,
)

MOST_APART = 256
"""Slots that a join keeps one by one: more than `trimming` leaves, and few enough that a
stale or damaged version, whose slots are far from the others, makes no record huge."""


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
    slots = dict(slots_of(a))
    for ordinal, entry in slots_of(b):
        known = slots.get(ordinal)
        slots[ordinal] = _join_entries(known, entry) if known else entry
    top = max(a.top, b.top)
    first = max(min(slots, default=top + 1), top - MOST_APART + 1)
    tail = tuple([slots.get(ordinal, NOTHING) for ordinal in range(first, top + 1)])
    redundant = tuple(sorted({*a.redundant, *b.redundant}))
    return Lineage(a.id, top, redundant, tail, max(a.moved, b.moved))


def _join_entries(a: Entry, b: Entry) -> Entry:
    return max(a, b, key=lambda entry: (entry.digest, progress(entry), entry.number, entry.at_s))


Progress = tuple[bool, bool, bytes, int, int, int, int, bool, bool, str]


def progress(entry: Entry) -> Progress:
    """Orders the states of one message: not known, waiting or running by epoch and
    lease, answered with a reply that was forgotten, answered with a reply.
    """
    turn = entry.turn or _NO_TURN
    is_answered = entry.reply is not None or turn.epoch >= ANSWERED_EPOCH
    state = is_answered, entry.reply is not None, entry.reply or b""
    lease = turn.epoch, turn.until_ms, turn.holder, turn.lost_runs
    return *state, *lease, entry.one_moment, entry.text is not None, entry.text or ""


_NO_TURN = Turn(-1, 0)


def slots_of(lineage: Lineage) -> Iterable[tuple[int, Entry]]:
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
        for place, (ordinal, entry) in enumerate(slots_of(lineage)):
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
                lineage, redundant=tuple(sorted(redundant)), tail=without_blanks(tail)
            )
        )
    return tuple(marked)


def without_blanks(tail: Sequence[Entry]) -> tuple[Entry, ...]:
    """The tail from its first known message on."""
    first = next((place for place, entry in enumerate(tail) if entry.digest), len(tail))
    return tuple(tail[first:])


def covers(a: Record, b: Copy) -> bool:
    """Whether a join with `b` would add nothing to `a` that counts. Usually it would
    not, and this is cheaper than a join.
    """
    if (a.floor, a.base) < (b.floor, b.base) or a.last_ms < b.last_ms or a.stamp < b.stamp:
        return False
    known = {lineage.id: lineage for lineage in a.lineages}
    for lineage in b.lineages:
        here = known.get(lineage.id)
        if here is None or here.top < lineage.top or here.moved < lineage.moved:
            return False
        if lineage.redundant and not set(lineage.redundant) <= set(here.redundant):
            return False
        if isinstance(lineage, Lineage) and not _covers_slots(here, lineage):
            return False
    return True


def without_forgotten(older: Record, stored: Record) -> Record:
    """The older version, in which what the stored record has forgotten is not open any
    more: a record forgets no message that still waits for its answer. Otherwise the
    memory of one process would revive what another one has answered.
    """
    tops = {line.id: line.top for line in stored.lineages}
    known = {entry.digest for line in stored.lineages for entry in line.tail}
    lineages = []
    for line in older.lineages:
        tail = tuple(
            [
                msgspec.structs.replace(entry, turn=ANSWERED)
                if entry.is_open and ordinal <= tops.get(line.id, 0) and entry.digest not in known
                else entry
                for ordinal, entry in slots_of(line)
            ]
        )
        lineages.append(msgspec.structs.replace(line, tail=tail))
    return msgspec.structs.replace(older, lineages=tuple(lineages))


def grew_from(stored: Record, written: Record) -> bool:
    """Whether `written` was the stored record once, and others wrote on top of it.

    Each entry must stand there exactly as it was written: another message in the same
    slot, or another process in the same turn, means that the write was not carried out.
    """
    here = {line.id: dict(slots_of(line)) for line in stored.lineages}
    return stored.floor >= written.floor and all(
        here.get(line.id, {}).get(ordinal) == entry
        for line in written.lineages
        for ordinal, entry in slots_of(line)
    )


def _covers_slots(a: Lineage, b: Lineage) -> bool:
    """Whether `a` knows every message of `b`'s tail that is still open in `b`, or known
    to it in another state. A cookie's copy needs no such look: what it tells of turns
    loses to what any record tells.
    """
    if a.tail is b.tail:
        return True
    here = dict(slots_of(a))
    return all(
        progress(here.get(ordinal, NOTHING)) >= progress(entry)
        for ordinal, entry in slots_of(b)
        if entry.digest and (entry.reply is not None or entry.turn is not None)
    )
