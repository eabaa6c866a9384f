"""The cookie: a second copy of the record, which Twilio keeps. smsd signs it and binds
it to one conversation.

The value has the form of Tornado's signed values, version 2. Each field is preceded by
its length:

    2|1:KEY|10:TIME|4:smsd|N:BASE64|SIGNATURE

KEY is the version of the cookie key. SIGNATURE is the HMAC-SHA256, in hexadecimal, of
everything before it. smsd makes and checks it here: Tornado's functions take three
times as long, which is about 8 % of a message's CPU (`docs/architecture.md`). A test
compares the two.

BASE64 holds one byte with the length of the padding, the payload, and the padding. The
payload is MessagePack: format, conversation id, time of the last message, floor, base,
stamp, data or nil, lineages. The padding makes the length divisible by three. So BASE64
never ends in "=", and no library puts the value in quotes.
"""

import binascii
import hmac
from collections.abc import Mapping

import msgspec

from smsd.conversation.identity import DIGEST_BYTES
from smsd.conversation.record import NOTHING, UNWRITTEN, Entry, Lineage, Record
from smsd.conversation.trimming import MAX_LINEAGES, folded_to, trimmed
from smsd.errors import CookieExpired, CookieForeign, CookieForged

NAME = "smsd"
MAX_BYTES = 999
"""Of the value of the Set-Cookie header: the cookie and its attributes."""

MAX_AGE_S = 14400
"""Twilio drops a cookie after four hours, whatever its Max-Age says."""

MAX_DATA_BYTES = 400
"""Of the dialogue's data as JSON. Larger data is kept in the record only."""

DIGESTS = (24, 16)
"""How many ids it carries: the first number if there is room, else the second. It
carries fewer only if the record was lost so often within the last 16 messages that
their lineages, beside large data, leave no room."""

_MAX_PAYLOAD = 636
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

    def record(self) -> Record:
        """The copy, fully decoded."""
        at_s = self.last_ms // 1000
        lineages = [
            Lineage(line.id, line.top, line.redundant, _tail(line, at_s)) for line in self.lineages
        ]
        return Record(
            self.last_ms, self.floor, self.base, tuple(lineages), self.data or b"", self.stamp
        )


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(PackedCopy)


class CookieCodec:
    """Makes and reads cookies.

    keys   version to secret; the first signs, all verify
    ttl_s  seconds from the last message until the conversation is over
    """

    def __init__(self, keys: Mapping[int, bytes], ttl_s: int) -> None:
        self._begun = {
            _field(b"%d" % version): hmac.new(secret, digestmod="sha256")
            for version, secret in keys.items()
        }
        self._signing = next(iter(self._begun))
        self._ttl_ms = ttl_s * 1000
        self._attributes = f"; Path=/; HttpOnly; Secure; Max-Age={min(ttl_s, MAX_AGE_S)}"

    def set_cookie(self, record: Record, conversation: bytes, now_ms: int) -> str:
        """The value of the Set-Cookie header: under 1,000 bytes, ASCII, no quotes."""
        value = self.signed(pack(record, conversation), now_ms // 1000)
        return f"{NAME}={value.decode('ascii')}{self._attributes}"

    def open(self, value: str, conversation: bytes, now_ms: int) -> PackedCopy:
        """The copy in a received cookie.

        Raises CookieForged, CookieForeign or CookieExpired if it is of no use. A time
        in the future is no error: another replica's clock may be ahead, or this one was
        set back.
        """
        copy = unpack(self.payload(value.encode("ascii", "replace")))
        if copy.conversation != conversation:
            raise CookieForeign
        if now_ms - copy.last_ms >= self._ttl_ms:
            raise CookieExpired
        return copy

    def signed(self, payload: bytes, now_s: int) -> bytes:
        """A payload as a signed value."""
        encoded = binascii.b2a_base64(payload, newline=False)
        value = b"2|%b|%b|%b|%b|" % (
            self._signing,
            _field(b"%d" % now_s),
            _NAME_FIELD,
            _field(encoded),
        )
        return value + self._mac(self._signing, value)

    def payload(self, value: bytes) -> bytes:
        """The payload of a signed value, however old: the payload has a time of its
        own.

        Raises CookieForged if the signature does not fit.
        """
        head, _, signature = value.rpartition(b"|")
        fields = head.split(b"|")
        if len(fields) != 5 or (fields[0], fields[3]) != (b"2", _NAME_FIELD):
            raise CookieForged
        if fields[1] not in self._begun or not (_has_length(fields[2]) and _has_length(fields[4])):
            raise CookieForged
        if not hmac.compare_digest(self._mac(fields[1], head + b"|"), signature):
            raise CookieForged
        try:
            return binascii.a2b_base64(fields[4].partition(b":")[2])
        except binascii.Error as error:
            raise CookieForged from error

    def _mac(self, key: bytes, signed: bytes) -> bytes:
        made = self._begun[key].copy()  # two thirds of the cost of setting the key up anew
        made.update(signed)
        return made.hexdigest().encode()


def _field(text: bytes) -> bytes:
    return b"%d:%b" % (len(text), text)


def _has_length(field: bytes) -> bool:
    """Whether it begins with its length, as `_field` makes it."""
    return field == _field(field.partition(b":")[2])


_NAME_FIELD = _field(NAME.encode())


def pack(record: Record, conversation: bytes) -> bytes:
    """The payload with a copy of the record: at most 636 bytes, with fewer ids and
    lineages if it does not fit.
    """
    for digests, lineages in _SIZES:
        payload = _encoder.encode(_copy(record, conversation, digests, lineages))
        if len(payload) < _MAX_PAYLOAD:
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
    )


def _line(line: Lineage) -> PackedLineage:
    digests = b"".join([entry.digest or _NO_DIGEST for entry in line.tail])
    numbers = tuple([entry.number for entry in line.tail])
    last = numbers[-1] if numbers else 0
    consecutive = numbers == tuple(range(last - len(numbers) + 1, last + 1))
    return PackedLineage(
        line.id, line.top, line.redundant, digests, last, () if consecutive else numbers
    )


def _tail(line: PackedLineage, at_s: int) -> tuple[Entry, ...]:
    chunks = [line.digests[i : i + DIGEST_BYTES] for i in range(0, len(line.digests), DIGEST_BYTES)]
    numbers = line.numbers or range(line.number - len(chunks) + 1, line.number + 1)
    return tuple(
        [
            NOTHING if chunk == _NO_DIGEST else Entry(chunk, number, at_s)
            for chunk, number in zip(chunks, numbers, strict=False)  # of equal length: we signed it
        ]
    )
