"""The record: what smsd keeps of a conversation, and its bytes in the store.

`merging` explains what the fields mean when two versions of a record meet; `turns`
explains what a turn is.

The bytes are a format byte and MessagePack arrays. New fields go to the end of an
array: an older replica ignores them, and an older record reads as if they had their
defaults. So both versions can run side by side during an upgrade.
"""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from smsd.errors import RecordError

WINDOW = 32
"""Messages whose ids and replies are remembered one by one."""

MAX_RECORD_BYTES = 960 * 1024
"""Of one encoded record; memcached takes 1 MiB with the key. So 32 replies of 25 kB fit
beside 100 kB of data. Beyond it the oldest replies are forgotten first, ids stay. A
duplicate of a message whose reply was forgotten runs the dialogue again and changes
nothing."""

_FORMAT = b"\x01"


class Turn(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where the dialogue of a message that has no answer yet stands. See `turns`."""

    epoch: int
    """Only grows. Even: waiting. Odd: running. ANSWERED_EPOCH: done."""
    until_ms: int
    """Running: end of the lease. Waiting: how long the message keeps its place."""
    holder: int = 0
    """Running: the random number of the process that runs the dialogue. Waiting: 0, or
    SOMEWHERE."""
    lost_runs: int = 0
    """Runs whose lease ran out, which means that their process died or froze."""


SOMEWHERE = 1
"""The holder of a message whose dialogue ran when a cookie was made, and of which
nothing else is known. Its epoch is 0, so that anything better known wins a join;
`until_ms` is the end of its lease, as the cookie tells it."""

ANSWERED_EPOCH = 1 << 62
"""The epoch of a message that has its answer. `until_ms` is then how long the answer is
kept at least, so that a request which waits for it elsewhere finds it."""

ANSWERED = Turn(ANSWERED_EPOCH, 0)
"""The turn of a message whose reply was forgotten for lack of room."""


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One slot: the message counted there and the answer it got."""

    digest: bytes
    """Of the MessageSid; empty where only the ordinal matters any more."""
    number: int = 0
    """The message's number in the conversation, as the dialogue saw it."""
    at_s: int = 0
    """Seconds since 1970 when it was counted or answered, whichever came last; in a
    cookie's copy, when the last of its messages was."""
    reply: bytes | None = None
    """The TwiML verbs sent; None while there is no answer, or when it is not known."""
    turn: Turn | None = None
    """None if it was answered at once, and where only a cookie remembers the message."""
    one_moment: bool = False
    """SMSD_ONE_MOMENT was sent for it, which counts as a reply for the loop limit."""
    text: str | None = None
    """What the sender wrote, for `session.history`; None if it is not kept."""

    @property
    def is_open(self) -> bool:
        """Whether its dialogue waits or runs: no answer yet."""
        return self.turn is not None and self.reply is None and self.turn.epoch < ANSWERED_EPOCH


NOTHING = Entry(b"")


class Lineage(msgspec.Struct, frozen=True, array_like=True):
    """The messages counted by one writer: slots 1 to `top`."""

    id: int
    """Milliseconds since 1970 when it was created, then 22 random bits."""
    top: int
    """Its last ordinal."""
    redundant: tuple[int, ...] = ()
    """Ordinals of messages that a lower lineage counts already, ascending."""
    tail: tuple[Entry, ...] = ()
    """Its last slots; the last entry stands at `top`."""
    moved: int = 0
    """Its first slots that hold messages which waited when `session.end()` closed the
    conversation before. They are never redundant."""

    @property
    def size(self) -> int:
        """Messages that it adds to the count."""
        return self.top - len(self.redundant)


UNWRITTEN = (0, 0, 0)
"""The stamp of data that no dialogue has written, or that is not known here."""


class Record(msgspec.Struct, frozen=True, array_like=True):
    """One replica's view of a conversation."""

    last_ms: int
    """Time of the last message or reply, milliseconds since 1970."""
    floor: int = 0
    """Lineages up to this id are closed."""
    base: int = 0
    """Messages that closed lineages stand for."""
    lineages: tuple[Lineage, ...] = ()
    """By id, ascending. Closed ones stay while their tails hold ids, so that a late
    retry is recognized."""
    data: bytes = b""
    """The dialogue's JSON object; empty for {}."""
    stamp: tuple[int, int, int] = UNWRITTEN
    """(floor, count, milliseconds) when `data` was written; in a join the larger wins."""
    own: int = 0
    """The lineage that this very copy may add to; 0 for none, as in every cookie's copy
    and after every join."""

    def record(self) -> "Record":
        """Itself: a `Copy` that needs no further decoding."""
        return self

    @property
    def count(self) -> int:
        """Messages counted."""
        count = self.base
        for lineage in self.lineages:  # not a generator: this is hot
            if lineage.id > self.floor:
                count += lineage.size
        return count

    @property
    def newest(self) -> int:
        """The id of the newest lineage, or the floor when all are closed."""
        return max(self.lineages[-1].id, self.floor) if self.lineages else self.floor

    @property
    def open_until_ms(self) -> int:
        """How long a message of this conversation keeps its place or its lease; 0 if
        all are answered."""
        until_ms = 0
        for lineage in self.lineages:
            for entry in lineage.tail if lineage.id > self.floor else ():
                if entry.turn is not None and entry.is_open:
                    until_ms = max(until_ms, entry.turn.until_ms)
        return until_ms


class CopiedLineage(Protocol):
    """What `merging.covers` asks of a lineage."""

    @property
    def id(self) -> int: ...
    @property
    def top(self) -> int: ...
    @property
    def redundant(self) -> Sequence[int]: ...
    @property
    def moved(self) -> int: ...


class Copy(Protocol):
    """A version of a conversation that may not be fully decoded yet, such as a
    cookie's: most of them bring nothing new.
    """

    @property
    def last_ms(self) -> int: ...
    @property
    def floor(self) -> int: ...
    @property
    def base(self) -> int: ...
    @property
    def stamp(self) -> tuple[int, int, int]: ...
    @property
    def lineages(self) -> Sequence[CopiedLineage]: ...

    def record(self) -> "Record":
        """All of it, decoded."""
        ...


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Record)


def encode(record: Record) -> bytes:
    """The record's bytes in the store: a format byte, then MessagePack."""
    packed = _FORMAT + _encoder.encode(record)
    if len(packed) <= MAX_RECORD_BYTES:
        return packed
    return _FORMAT + _encoder.encode(_without_old_replies(record))


def decode(packed: bytes) -> Record:
    """The record of `encode`. RecordError for anything else."""
    if packed[:1] != _FORMAT:
        raise RecordError("a record in another format")
    try:
        return _decoder.decode(memoryview(packed)[1:])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:  # the latter: of a text's bytes
        raise RecordError("not a record") from error


def _without_old_replies(record: Record) -> Record:
    """The record with the newest replies that fit. The older ones are forgotten; that
    their messages were answered is not.
    """
    room = MAX_RECORD_BYTES - len(_encoder.encode(record.data)) - WINDOW * 64
    slots = [
        (entry.at_s, line.id, place, len(entry.reply or b""))
        for line in record.lineages
        for place, entry in enumerate(line.tail)
    ]
    kept: set[tuple[int, int]] = set()
    for _, id_, place, size in sorted(slots, reverse=True):
        room -= size
        if room < 0:
            break
        kept.add((id_, place))
    lineages = tuple(
        msgspec.structs.replace(
            line,
            tail=tuple(
                entry
                if entry.reply is None or (line.id, place) in kept
                else msgspec.structs.replace(entry, reply=None, turn=ANSWERED, text=None)
                for place, entry in enumerate(line.tail)
            ),
        )
        for line in record.lineages
    )
    return msgspec.structs.replace(record, lineages=lineages)
