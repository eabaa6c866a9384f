"""`session.end()`: the conversation is over, and the messages that wait begin the next
one.

The vocabulary is that of `merging` and `turns`.
"""

import msgspec

from smsd.conversation.counting import closed
from smsd.conversation.identity import lineage_id
from smsd.conversation.record import NOTHING, Entry, Lineage, Record, Turn
from smsd.conversation.turns import LEASE_MS, PLACE_MS, open_messages, shows_running


def ended(record: Record, *, now_ms: int, random_bits: int) -> Record:
    """The record after `session.end()`: nothing counts any more, and no older cookie
    brings it back. Messages that already wait become the first of the next
    conversation.

    They move to a lineage of their own, above the floor. Their epochs rise, so that the
    places which an older version still shows for them lose every join.
    """
    floor = lineage_id(now_ms, random_bits, record.newest)
    moving = open_messages(record)
    over = closed(_without_open(record) if moving else record, floor)
    if not moving:
        return over
    own = lineage_id(now_ms, random_bits, floor)
    tail = tuple([_moved(found.entry, number) for number, found in enumerate(moving, 1)])
    line = Lineage(own, len(tail), (), tail, len(tail))
    return msgspec.structs.replace(over, lineages=(*over.lineages, line), own=own)


def _moved(entry: Entry, number: int) -> Entry:
    before = entry.turn or Turn(0, 0)
    if shows_running(entry):
        until_ms = before.until_ms - LEASE_MS + PLACE_MS
        turn = Turn(before.epoch + 1, until_ms, 0, before.lost_runs)
    else:
        turn = Turn(before.epoch + 2, before.until_ms, 0, before.lost_runs)
    return msgspec.structs.replace(entry, number=number, turn=turn)


def _without_open(record: Record) -> Record:
    lineages = [
        msgspec.structs.replace(
            line, tail=tuple([NOTHING if entry.is_open else entry for entry in line.tail])
        )
        for line in record.lineages
    ]
    return msgspec.structs.replace(record, lineages=tuple(lineages))
