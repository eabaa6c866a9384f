"""Forgetting: a record stays small, and its count stays right.

Messages are forgotten one by one, the oldest first, and old lineages are folded into one
number. The vocabulary is that of `merging`.
"""

import msgspec

from smsd.conversation.merging import slots_of, without_blanks
from smsd.conversation.record import NOTHING, WINDOW, Entry, Lineage, Record

MAX_LINEAGES = 64
"""Open lineages that are kept apart; older ones are folded into `base`. Each loss of
the record and each outage of a replica creates one. If the limit is too low, counts
that a replica still holds in a folded lineage are lost (random faults showed it with
16)."""

OPEN_GRACE_MS = 120_000
"""A message without an answer is remembered one by one this long after its place or its
lease ran out."""


def compacted(record: Record, now_ms: int) -> Record:
    """At most WINDOW messages one by one and MAX_LINEAGES lineages. The count stays."""
    return folded_to(trimmed(record, WINDOW, now_ms), MAX_LINEAGES)


def trimmed(record: Record, most: int, now_ms: int | None = None) -> Record:
    """At most the latest `most` messages are known one by one; the count stays.

    With `now_ms`, messages that wait for their answer, or for somebody to fetch it, are
    known beyond that.
    """
    if len(record.lineages) == 1 and len(record.lineages[0].tail) <= most:
        return record  # the usual case
    known = [
        (line.id > record.floor, entry.number, line.id, ordinal)
        for line in record.lineages
        for ordinal, entry in slots_of(line)
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
    tail = [NOTHING if ordinal in ordinals else entry for ordinal, entry in slots_of(line)]
    return msgspec.structs.replace(line, tail=without_blanks(tail))


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
