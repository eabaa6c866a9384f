"""Turns: in one conversation dialogues run one at a time, in the order of the numbers.

The caller brings the time and the name of its process.

A message gets its number when it is written to the record. Unless its reply is written
with it, its entry also carries a `Turn`, so that one compare-and-swap decides number,
turn and reply together:

    arrival ──> answered at once (no turn)
       │
       ├──> waiting, epoch 0 ──claim──> running, epoch 1 ──answer──> answered
       │                                   │  ▲
       └──> running, epoch 1               │  └── lease ran out: claim, epoch + 2
                                           └── given back: waiting, epoch + 1

An epoch is even while the message waits and odd while its dialogue runs. Epochs only
grow, and the join of two versions keeps the one that has come further (`merging`): an
answer beats any turn, then the later epoch wins, then the later lease. Who runs a
dialogue may write its answer only while the record still shows its own epoch and
holder; so a process that was frozen and replaced cannot answer a second time.

A running message has a lease of LEASE_MS that its process renews. When it has run out,
and CLOCK_SKEW_MS more have passed, anybody who holds a request for that message may
claim the turn and run the dialogue again. A waiting message keeps its place for
PLACE_MS and renews it with each request.
A message holds up those behind it until BLOCK_MS after its last sign of life; when it
comes back later it is still answered, as soon as nobody runs.

If the record is lost, a cookie still tells which messages waited, and which ran
somewhere (`SOMEWHERE`). It does not tell where, nor whether they still run. A process
that runs such a dialogue and can reach memcached writes the record again when it renews
its lease. So such a message is claimed only when its lease and BLOCK_MS more are over.

>>> record = registered(Record(0, lineages=(Lineage(1, 0),), own=1), b"first", now_ms=0)
>>> record = registered(record, b"second", now_ms=0)
>>> [may_run(record, find(record, sid), 7, now_ms=0) for sid in (b"first", b"second")]
[True, False]
"""

from collections.abc import Collection

import msgspec

from smsd.conversation.counting import Found, grow, is_small, next_stamp
from smsd.conversation.record import (
    ANSWERED_EPOCH,
    SOMEWHERE,
    Entry,
    Lineage,
    Record,
    Turn,
)
from smsd.conversation.trimming import compacted

LEASE_MS = 3_000
"""A running dialogue's process must renew its lease within this time."""

CLOCK_SKEW_MS = 1_000
"""How far the clocks of two replicas may be apart."""

BLOCK_MS = 20_000
"""A message holds up later ones at most this long after its last sign of life."""

PLACE_MS = BLOCK_MS
"""A waiting message keeps its place this long after its last request arrived."""

JUST_MS = 50
"""A dialogue that was announced less than this ago may still answer at once."""

MOST_WAITING = 32
"""Messages of one conversation that may wait; the next one gets the apology."""

MOST_LOST_RUNS = 3
"""A message whose dialogue took its process down this many times gets the apology."""


def registered(record: Record, digest: bytes, *, now_ms: int) -> Record:
    """The record with one more message, which waits for its turn."""
    return _appended(record, digest, Turn(0, now_ms + PLACE_MS), now_ms)


def announced(record: Record, digest: bytes, holder: int, *, now_ms: int) -> Record:
    """The record with one more message, whose dialogue starts in the process `holder`."""
    return _appended(record, digest, Turn(1, now_ms + LEASE_MS, holder), now_ms)


def _appended(record: Record, digest: bytes, turn: Turn, now_ms: int) -> Record:
    entry = Entry(digest, record.count + 1, now_ms // 1000, turn=turn)
    grown = msgspec.structs.replace(
        record, last_ms=max(record.last_ms, now_ms), lineages=grow(record, entry)
    )
    return grown if is_small(grown) else compacted(grown, now_ms)


# --- who may run


def open_messages(record: Record) -> list[Found]:
    """Messages without an answer, in the order of their turns.

    A message that was counted twice, during an outage, may be answered in one lineage
    and still open in the other. It is answered.
    """
    found = [
        Found(line.id, line.top - len(line.tail) + 1 + place, entry)
        for line in record.lineages
        if line.id > record.floor
        for place, entry in enumerate(line.tail)
        if entry.turn is not None and entry.is_open
    ]
    if found and len(record.lineages) > 1:
        entries = [entry for line in record.lineages for entry in line.tail]
        answered = {entry.digest for entry in entries if is_answered(entry)}
        found = [each for each in found if each.entry.digest not in answered]
    if len(found) > 1:
        found.sort(key=_order)
    return found


def _order(found: Found) -> tuple[int, int, int]:
    return found.entry.number, found.lineage, found.ordinal


def is_running(entry: Entry, now_ms: int) -> bool:
    """Whether its dialogue runs somewhere, as far as its lease tells."""
    turn = entry.turn
    return turn is not None and shows_running(entry) and now_ms <= turn.until_ms + CLOCK_SKEW_MS


def ran_somewhere(entry: Entry) -> bool:
    """Whether its dialogue ran when a cookie was made, and nothing else is known."""
    turn = entry.turn
    return turn is not None and entry.is_open and (turn.epoch, turn.holder) == (0, SOMEWHERE)


def running_until_ms(record: Record) -> int:
    """The end of the latest lease of a dialogue that runs; 0 if none does."""
    return max(
        [
            entry.turn.until_ms
            for line in record.lineages
            for entry in line.tail
            if entry.turn is not None and (shows_running(entry) or ran_somewhere(entry))
        ],
        default=0,
    )


def holds_up(entry: Entry, now_ms: int) -> bool:
    """Whether others have to wait for it: it gave a sign of life within BLOCK_MS."""
    turn = entry.turn
    if turn is None or not entry.is_open:
        return False
    lasts_ms = LEASE_MS if turn.epoch % 2 or ran_somewhere(entry) else PLACE_MS
    return now_ms < turn.until_ms - lasts_ms + BLOCK_MS


def is_held_up(
    record: Record,
    found: Found | None,
    *,
    now_ms: int,
    only: Collection[bytes] | None = None,
) -> bool:
    """Whether a message has to wait for another one: an earlier one is open, or any
    runs.

    found  where the message stands; None if it is new, and later than all others
    only   during an outage: the messages of this process, the only ones that count then
    """
    for other in open_messages(record):
        digest = other.entry.digest
        if (only is not None and digest not in only) or (found and digest == found.entry.digest):
            continue
        comes_first = found is None or _order(other) < _order(found) or shows_running(other.entry)
        if comes_first and holds_up(other.entry, now_ms):
            return True
    return False


def may_run(
    record: Record,
    found: Found,
    holder: int,
    *,
    now_ms: int,
    only: Collection[bytes] | None = None,
) -> bool:
    """Whether the process `holder`, which does not run the dialogue of this message,
    may start it now: it has no answer, nobody runs it, and no other message holds it
    up.

    During an outage (`only`, as in `is_held_up`) a message that runs elsewhere is not
    taken over. A turn that shows `holder` itself is left of a write whose outcome was
    not known. If only a cookie tells that the message ran somewhere, its process has
    BLOCK_MS more than its lease to come back.
    """
    if is_answered(found.entry):
        return False
    turn = found.entry.turn
    runs_elsewhere = turn is not None and shows_running(found.entry) and turn.holder != holder
    if runs_elsewhere and (only is not None or is_running(found.entry, now_ms)):
        return False
    if turn is not None and ran_somewhere(found.entry) and now_ms < turn.until_ms + BLOCK_MS:
        return False
    return not is_held_up(record, found, now_ms=now_ms, only=only)


def has_just_begun(record: Record, *, now_ms: int) -> bool:
    """Whether the messages that hold others up were all announced within JUST_MS."""
    return all(
        shows_running(found.entry)
        and found.entry.turn is not None
        and now_ms < found.entry.turn.until_ms - LEASE_MS + JUST_MS
        for found in open_messages(record)
    )


def is_answered(entry: Entry) -> bool:
    """Whether its reply was sent or is ready to be sent, known or not."""
    if entry.reply is not None:
        return True
    return entry.turn is not None and entry.turn.epoch >= ANSWERED_EPOCH


def shows_running(entry: Entry) -> bool:
    """Whether its dialogue was started and has not answered, however old its lease is."""
    return entry.turn is not None and entry.is_open and entry.turn.epoch % 2 == 1


def stages(record: Record) -> tuple[int, ...]:
    """The epochs of all open turns. They change when a message arrives, is claimed,
    given back or answered, and not when a lease or a place is renewed.
    """
    return tuple(
        [
            entry.turn.epoch
            for line in record.lineages
            for entry in line.tail
            if entry.turn is not None and entry.is_open
        ]
    )


def waiting(record: Record) -> int:
    """How many messages wait for their turn."""
    return sum(not shows_running(found.entry) for found in open_messages(record))


def is_takeover(found: Found, holder: int) -> bool:
    """Whether a claim by `holder` means that another process ran the dialogue and gave
    no sign of life. A turn that was given back is none: it waits.
    """
    turn = found.entry.turn
    if turn is None or turn.holder == holder:
        return False
    return shows_running(found.entry) or ran_somewhere(found.entry)


def is_poison(found: Found, holder: int) -> bool:
    """Whether one more run is one too many: it took its process down each time."""
    turn = found.entry.turn
    lost_runs = turn.lost_runs if turn is not None else 0
    return is_takeover(found, holder) and lost_runs + 1 >= MOST_LOST_RUNS


# --- what may happen to a turn


def claimed(record: Record, found: Found, holder: int, *, now_ms: int) -> Record:
    """The message's dialogue starts in the process `holder`. A lease that ran out
    counts as a lost run; a message that only a cookie remembers begins at epoch 1.
    """
    before = found.entry.turn or Turn(0, 0)
    epoch = before.epoch + (2 if before.epoch % 2 else 1)
    lost_runs = before.lost_runs + is_takeover(found, holder)
    turn = Turn(epoch, now_ms + LEASE_MS, holder, lost_runs)
    return _replaced(record, found, turn=turn)


def renewed(record: Record, found: Found, *, now_ms: int) -> Record:
    """A sign of life: the lease or the place lasts from now on. A message that only a
    cookie remembers gets a place.
    """
    turn = found.entry.turn or Turn(0, 0)
    lasts_ms = LEASE_MS if turn.epoch % 2 else PLACE_MS
    return _replaced(record, found, turn=msgspec.structs.replace(turn, until_ms=now_ms + lasts_ms))


def given_back(record: Record, found: Found, *, now_ms: int) -> Record:
    """The process stops: the message waits again, and another replica may claim it."""
    before = found.entry.turn or Turn(1, 0)
    turn = Turn(before.epoch + 1, now_ms + PLACE_MS, 0, before.lost_runs)
    return _replaced(record, found, turn=turn)


def told_one_moment(record: Record, found: Found) -> Record:
    """SMSD_ONE_MOMENT goes out for it."""
    return _replaced(record, found, one_moment=True)


def answered(
    record: Record,
    found: Found,
    reply: bytes,
    *,
    now_ms: int,
    data: bytes | None = None,
    text: str | None = None,
) -> Record:
    """The record with the message's reply (TwiML verbs); `data` and `text` as in
    `counting.added`; `data` is None if the dialogue failed and data stays as it was.
    """
    last_ms = max(record.last_ms, now_ms)
    done = Turn(ANSWERED_EPOCH, now_ms + PLACE_MS)
    written = _replaced(record, found, reply=reply, turn=done, at_s=now_ms // 1000, text=text)
    if data is None:
        return compacted(msgspec.structs.replace(written, last_ms=last_ms), now_ms)
    stamp = next_stamp(record, record.count, last_ms, data)
    return compacted(
        msgspec.structs.replace(written, last_ms=last_ms, data=data, stamp=stamp), now_ms
    )


def _replaced(record: Record, found: Found, **changes: object) -> Record:
    lineages = tuple(
        [
            _with_entry(line, found.ordinal, changes) if line.id == found.lineage else line
            for line in record.lineages
        ]
    )
    return msgspec.structs.replace(record, lineages=lineages)


def _with_entry(line: Lineage, ordinal: int, changes: dict[str, object]) -> Lineage:
    place = ordinal - (line.top - len(line.tail)) - 1
    entry = msgspec.structs.replace(line.tail[place], **changes)
    return msgspec.structs.replace(line, tail=(*line.tail[:place], entry, *line.tail[place + 1 :]))
