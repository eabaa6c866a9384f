"""The copy of a record that the cookie carries: what is in it, and its bytes.

The cookie is a second copy of the record, which Twilio keeps. This module makes the
payload and reads it. It knows no key: `smsd.web.cookies` signs.

The payload is one byte with the length of the padding, MessagePack, and the padding.
The MessagePack holds format, conversation id, time of the last message, floor, base,
stamp, data or nil, and lineages.

The padding makes the length divisible by three. A signed value holds its payload as
Base64, which writes three bytes as four characters and fills up what is left over with
"=". A cookie with "=" in it is quoted by some libraries, and a quoted cookie may come
back changed. A payload of 3, 6, 9 … bytes never leads to "=":

    >>> import base64
    >>> base64.b64encode(b"1234"), base64.b64encode(b"123456")
    (b'MTIzNA==', b'MTIzNDU2')
"""

import msgspec

from smsd.conversation.identity import DIGEST_BYTES
from smsd.conversation.record import (
    NOTHING,
    SOMEWHERE,
    UNWRITTEN,
    Entry,
    Lineage,
    Record,
    Turn,
)
from smsd.conversation.trimming import MAX_LINEAGES, folded_to, trimmed
from smsd.conversation.turns import PLACE_MS, ran_somewhere, running_until_ms, shows_running
from smsd.errors import CookieExpired, CookieForeign, CookieForged

MAX_DATA_BYTES = 400
"""Of the dialogue's data as JSON. Larger data is kept in the record only."""

DIGESTS = (24, 16)
"""How many ids it carries: the first number if there is room, else the second. It
carries fewer only if the record was lost so often within the last 16 messages that
their lineages, beside large data, leave no room."""

MAX_PAYLOAD_BYTES = 636
"""As Base64, with its signature and the cookie's attributes, these are under 1,000
bytes."""

_FORMAT = 1
_SIZES = [
    *((digests, MAX_LINEAGES) for digests in DIGESTS),
    *((16, lineages) for lineages in (24, 12, 6)),
    *((8, 6), (8, 3), (4, 3), (4, 1), (0, 1)),
]
"""How many ids and lineages to try, from the most to what always fits."""

_NO_DIGEST = bytes(DIGEST_BYTES)


class PackedLineage(msgspec.Struct, frozen=True, array_like=True, gc=False):
    id: int
    top: int
    redundant: tuple[int, ...]
    digests: bytes  # DIGEST_BYTES each; the last one stands at `top`
    number: int  # of the message at `top`
    numbers: tuple[int, ...]  # of all; empty if they are consecutive
    moved: int = 0
    waiting: int = 0  # bit i: the digest at `top` - i waits for its turn
    running: int = 0  # bit i: its dialogue runs


class PackedCopy(msgspec.Struct, frozen=True, array_like=True):
    """A copy of a record, as the cookie holds it. `record` decodes the ids, which takes
    a third of the time of opening a cookie and is rarely needed.
    """

    format: int
    conversation: bytes
    last_ms: int
    floor: int
    base: int
    stamp: tuple[int, int, int]
    data: bytes | None
    """None if it is too large for the cookie; the stamp is then UNWRITTEN."""
    lineages: tuple[PackedLineage, ...]
    running_until_ms: int = 0
    """The end of the lease of the dialogue that runs."""

    def record(self) -> Record:
        """The copy, fully decoded."""
        lineages = [
            Lineage(line.id, line.top, line.redundant, _tail(line, self), line.moved)
            for line in self.lineages
        ]
        return Record(
            self.last_ms, self.floor, self.base, tuple(lineages), self.data or b"", self.stamp
        )


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(PackedCopy)


def pack(record: Record, conversation: bytes) -> bytes:
    """The payload with a copy of the record: at most 636 bytes, with fewer ids and
    lineages if it does not fit.
    """
    for digests, lineages in _SIZES:
        payload = _encoder.encode(_copy(record, conversation, digests, lineages))
        if len(payload) < MAX_PAYLOAD_BYTES:
            break
    padding = -(len(payload) + 1) % 3
    return bytes((padding,)) + payload + bytes(padding)


def unpack(payload: bytes) -> PackedCopy:
    """The copy in a payload that `pack` made. Raises CookieForged for anything else."""
    padding = payload[0] if payload else 0
    try:
        copy = _decoder.decode(memoryview(payload)[1 : len(payload) - padding])
    except msgspec.MsgspecError as error:
        raise CookieForged from error
    if copy.format != _FORMAT:
        raise CookieForged
    return copy


def open_copy(payload: bytes, conversation: bytes, *, now_ms: int, ttl_ms: int) -> PackedCopy:
    """The copy in the payload of a cookie whose signature is good.

    Raises CookieForged, CookieForeign or CookieExpired if it is of no use. A time in the
    future is no error: another replica's clock may be ahead, or this one was set back.
    """
    copy = unpack(payload)
    if copy.conversation != conversation:
        raise CookieForeign
    if now_ms - copy.last_ms >= ttl_ms:
        raise CookieExpired
    return copy


def _copy(record: Record, conversation: bytes, digests: int, lineages: int) -> PackedCopy:
    kept = trimmed(record, digests)
    if len(kept.lineages) > lineages:
        kept = folded_to(kept, lineages)
    fits = len(record.data) <= MAX_DATA_BYTES
    return PackedCopy(
        _FORMAT,
        conversation,
        kept.last_ms,
        kept.floor,
        kept.base,
        kept.stamp if fits else UNWRITTEN,
        record.data if fits else None,
        tuple([_line(line) for line in kept.lineages]),
        running_until_ms(kept),
    )


def _line(line: Lineage) -> PackedLineage:
    digests = b"".join([entry.digest or _NO_DIGEST for entry in line.tail])
    numbers = tuple([entry.number for entry in line.tail])
    last = numbers[-1] if numbers else 0
    consecutive = numbers == tuple(range(last - len(numbers) + 1, last + 1))
    waiting = running = 0
    for place, entry in enumerate(reversed(line.tail)):
        if entry.is_open:
            is_running = shows_running(entry) or ran_somewhere(entry)
            waiting |= (not is_running) << place
            running |= is_running << place
    return PackedLineage(
        line.id,
        line.top,
        line.redundant,
        digests,
        last,
        () if consecutive else numbers,
        line.moved,
        waiting,
        running,
    )


def _turn(line: PackedLineage, place: int, copy: PackedCopy) -> Turn | None:
    """What a copy tells of the turn of the digest at `top` - `place`."""
    if line.running >> place & 1:
        return Turn(0, copy.running_until_ms, SOMEWHERE)
    return Turn(0, copy.last_ms + PLACE_MS) if line.waiting >> place & 1 else None


def _tail(line: PackedLineage, copy: PackedCopy) -> tuple[Entry, ...]:
    at_s = copy.last_ms // 1000
    chunks = [line.digests[i : i + DIGEST_BYTES] for i in range(0, len(line.digests), DIGEST_BYTES)]
    numbers = line.numbers or range(line.number - len(chunks) + 1, line.number + 1)
    places = range(len(chunks) - 1, -1, -1)
    return tuple(
        [
            NOTHING
            if chunk == _NO_DIGEST
            else Entry(chunk, number, at_s, turn=_turn(line, place, copy))
            for chunk, number, place in zip(chunks, numbers, places, strict=False)  # we signed it
        ]
    )
