"""The record: what is kept of a conversation, and its bytes in the store. What it means is told in `conversation`.

No network, no clock, no environment, no randomness.
"""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from smsd.errors import RecordError

WINDOW = 32
"""Messages whose ids and replies are remembered one by one."""

MAX_RECORD_BYTES = 512 * 1024
"""Of one encoded record; memcached takes 1 MiB. The oldest replies go first, ids stay."""

_FORMAT = b"\x01"


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One slot: the message counted there and the answer it got."""

    digest: bytes
    """Of the MessageSid; empty where only the ordinal matters any more."""
    number: int = 0
    """Of the message in the conversation, as it was told."""
    at_s: int = 0
    """Seconds since 1970 when it was counted; from a cookie, when the last of its messages was."""
    reply: bytes | None = None
    """The TwiML verbs sent; None when not known any more."""


NOTHING = Entry(b"")


class Lineage(msgspec.Struct, frozen=True, array_like=True):
    """A run of messages counted by one hand."""

    id: int
    """Milliseconds of its birth, then 22 random bits."""
    top: int
    """Its last ordinal."""
    redundant: tuple[int, ...] = ()
    """Ordinals of messages that a lower slot counts already, ascending."""
    tail: tuple[Entry, ...] = ()
    """Its last slots; the last entry stands at `top`."""

    @property
    def size(self) -> int:
        return self.top - len(self.redundant)


UNWRITTEN = (0, 0, 0)
"""The stamp of data that no dialogue has written, or that is not known here."""


class Record(msgspec.Struct, frozen=True, array_like=True):
    """A conversation as one hand knows it."""

    last_ms: int
    """Time of the last message, milliseconds since 1970."""
    floor: int = 0
    """Lineages up to this id are closed."""
    base: int = 0
    """Messages that closed lineages stand for."""
    lineages: tuple[Lineage, ...] = ()
    """By id, ascending. Closed ones stay while their tails hold ids, so that a late retry is known."""
    data: bytes = b""
    """The dialogue's JSON object; empty for {}."""
    stamp: tuple[int, int, int] = UNWRITTEN
    """(floor, count, last_ms) when `data` was written; in a join the larger one wins."""
    own: int = 0
    """The lineage that this very copy may add to; 0: to none, as every cookie's copy and every join."""

    def record(self) -> "Record":
        """Itself: a `Copy` that is wholly read."""
        return self

    @property
    def count(self) -> int:
        """Messages counted."""
        count = self.base
        for lineage in (
            self.lineages
        ):  # a loop takes half as long as a generator, and every message asks thrice
            if lineage.id > self.floor:
                count += lineage.size
        return count

    @property
    def newest(self) -> int:
        """The id of the newest lineage, or the floor when all are closed."""
        return max(self.lineages[-1].id, self.floor) if self.lineages else self.floor


class Run(Protocol):
    """What `covers` asks of a lineage."""

    @property
    def id(self) -> int: ...
    @property
    def top(self) -> int: ...
    @property
    def redundant(self) -> Sequence[int]: ...


class Copy(Protocol):
    """A version of a conversation that is perhaps not wholly read yet, such as a cookie's: most know nothing new."""

    @property
    def last_ms(self) -> int: ...
    @property
    def floor(self) -> int: ...
    @property
    def base(self) -> int: ...
    @property
    def stamp(self) -> tuple[int, int, int]: ...
    @property
    def lineages(self) -> Sequence[Run]: ...

    def record(self) -> "Record":
        """All of it."""
        ...


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Record)


def encode(record: Record) -> bytes:
    """The record's bytes in the store: a version byte, then MessagePack."""
    packed = _FORMAT + _encoder.encode(record)
    return (
        packed if len(packed) <= MAX_RECORD_BYTES else _FORMAT + _encoder.encode(_lightened(record))
    )


def decode(packed: bytes) -> Record:
    """The record of `encode`. RecordError for anything else."""
    if packed[:1] != _FORMAT:
        raise RecordError("a record of another version")
    try:
        return _decoder.decode(memoryview(packed)[1:])
    except msgspec.MsgspecError as error:
        raise RecordError("not a record") from error


def _lightened(record: Record) -> Record:
    """The record with the newest replies that fit; the older ones are forgotten, their ids stay."""
    room = MAX_RECORD_BYTES - len(_encoder.encode(record.data)) - WINDOW * 64
    kept: set[tuple[int, int]] = set()
    slots = [
        (entry, line.id, place) for line in record.lineages for place, entry in enumerate(line.tail)
    ]
    for entry, id_, place in sorted(
        slots, key=lambda slot: (slot[0].at_s, *slot[1:]), reverse=True
    ):
        room -= len(entry.reply or b"")
        if room < 0:
            break
        kept.add((id_, place))
    lineages = tuple(
        msgspec.structs.replace(
            line,
            tail=tuple(
                entry if (line.id, place) in kept else Entry(entry.digest, entry.number, entry.at_s)
                for place, entry in enumerate(line.tail)
            ),
        )
        for line in record.lineages
    )
    return msgspec.structs.replace(record, lineages=lineages)
