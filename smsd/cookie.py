"""The cookie: the record's second copy, kept by Twilio, signed by us and bound to one conversation.

No network, no clock, no environment.

The value is Tornado's signed value, version 2, with the number of its key; numbers stand before what they are the
length of:

    2|1:KEY|10:TIME|4:smsd|N:BASE64|SIGNATURE

SIGNATURE is the HMAC-SHA256 in hexadecimal of all that stands before it. It is made and checked here and not by
Tornado's functions, which take three times as long; a test holds them against each other.

BASE64 holds a byte that says how many bytes of padding end the payload, the payload (MessagePack: format,
conversation id, time of the last message, floor, base, the stamp, the data or nil, the lineages), and the
padding, which makes the length divisible by three: BASE64 never ends in '=', so no library puts the value in
quotes.
"""

import hmac
from binascii import a2b_base64, b2a_base64
from collections.abc import Mapping

import msgspec

from smsd.conversation import (
    DIGEST_BYTES,
    MAX_LINEAGES,
    UNKNOWN,
    UNWRITTEN,
    Entry,
    Lineage,
    Record,
    folded_to,
)
from smsd.errors import CookieExpired, CookieForeign, CookieForged

NAME = "smsd"
MAX_BYTES = 999
"""Of the whole Set-Cookie line's value: the cookie and its attributes."""

MAX_DATA_BYTES = 400
"""Of the dialogue's data as JSON; larger data lives in the record only."""

DIGESTS = (24, 16)
"""Ids carried: the first number if there is room, else the second. Fewer only where the conversation was lost so often
within its last 16 messages that their lineages, next to large data, leave no room.
"""

_MAX_PAYLOAD = 636
_FORMAT = 1
_SIZES = [
    *((digests, MAX_LINEAGES) for digests in DIGESTS),
    *((digests, lineages) for digests in (16, 8, 4, 0) for lineages in (6, 3, 1)),
]
_NO_DIGEST = bytes(DIGEST_BYTES)


class _Lineage(msgspec.Struct, frozen=True, array_like=True, gc=False):
    id: int
    offset: int
    top: int
    redundant: tuple[int, ...]
    digests: bytes  # DIGEST_BYTES each; the last one stands at `top`


class _Copy(msgspec.Struct, frozen=True, array_like=True):
    format: int
    conversation: bytes
    last_ms: int
    floor: int
    base: int
    stamp: tuple[int, int, int]
    data: bytes | None
    lineages: tuple[_Lineage, ...]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Copy)


class CookieCodec:
    """Makes and reads the cookie. `keys`: version -> secret, the first signs, all verify."""

    def __init__(self, keys: Mapping[int, bytes], ttl_s: int) -> None:
        self._secrets = {_field(b"%d" % version): secret for version, secret in keys.items()}
        self._signing = next(iter(self._secrets))
        self._ttl_ms = ttl_s * 1000
        self._attributes = f"; Path=/; HttpOnly; Secure; Max-Age={ttl_s}"

    def set_cookie(self, record: Record, conversation: bytes, now_ms: int) -> str:
        """The value of the Set-Cookie header: under 1,000 bytes, ASCII, no quotes."""
        value = self.signed(pack(record, conversation), now_ms // 1000)
        return f"{NAME}={value.decode('ascii')}{self._attributes}"

    def open(self, value: str, conversation: bytes, now_ms: int) -> Record:
        """The copy in a received cookie. CookieForged, CookieForeign or CookieExpired if it is of no use."""
        whose, record = unpack(self.payload(value.encode("ascii", "replace")))
        if whose != conversation:
            raise CookieForeign
        if now_ms - record.last_ms >= self._ttl_ms:
            raise CookieExpired
        return record

    def signed(self, payload: bytes, now_s: int) -> bytes:
        """A payload as a signed value."""
        encoded = b2a_base64(payload, newline=False)
        value = b"2|%b|%b|%b|%b|" % (self._signing, _field(b"%d" % now_s), _NAME_FIELD, _field(encoded))
        return value + _mac(self._secrets[self._signing], value)

    def payload(self, value: bytes) -> bytes:
        """What a signed value holds, however old: the payload has a time of its own. CookieForged if it is none."""
        head, _, signature = value.rpartition(b"|")
        fields = head.split(b"|")
        if (
            len(fields) != 5
            or (fields[0], fields[3]) != (b"2", _NAME_FIELD)
            or fields[1] not in self._secrets
        ):
            raise CookieForged
        if not hmac.compare_digest(_mac(self._secrets[fields[1]], head + b"|"), signature):
            raise CookieForged
        return a2b_base64(fields[4].partition(b":")[2])


def _field(text: bytes) -> bytes:
    return b"%d:%b" % (len(text), text)


_NAME_FIELD = _field(NAME.encode())


def _mac(secret: bytes, signed: bytes) -> bytes:
    return hmac.digest(secret, signed, "sha256").hex().encode()


def pack(record: Record, conversation: bytes) -> bytes:
    """The payload of a record's copy, at most 636 bytes: with fewer ids and lineages where it does not fit."""
    for digests, lineages in _SIZES:
        payload = _encoder.encode(_copy(_with_at_most(record, lineages), conversation, digests))
        if len(payload) < _MAX_PAYLOAD:
            break
    padding = -(len(payload) + 1) % 3
    return bytes((padding,)) + payload + bytes(padding)


def unpack(payload: bytes) -> tuple[bytes, Record]:
    """Conversation id and record of a payload that `pack` made. CookieForged for anything else."""
    padding = payload[0] if payload else 0
    try:
        copy = _decoder.decode(memoryview(payload)[1 : len(payload) - padding])
    except msgspec.MsgspecError as error:
        raise CookieForged from error
    if copy.format != _FORMAT:
        raise CookieForged
    known = copy.data is not None
    lineages = tuple(
        Lineage(line.id, line.offset, line.top, line.redundant, _tail(line.digests)) for line in copy.lineages
    )
    record = Record(
        copy.last_ms, copy.floor, copy.base, lineages, copy.data or b"", copy.stamp if known else UNWRITTEN
    )
    return copy.conversation, record


def _with_at_most(record: Record, lineages: int) -> Record:
    return folded_to(record, lineages) if len(record.lineages) > lineages else record


def _copy(record: Record, conversation: bytes, digests: int) -> _Copy:
    lineages = []
    room = digests
    for line in reversed(record.lineages):
        tail = line.tail[max(0, len(line.tail) - room) :]
        room -= len(tail)
        if tail or line.id > record.floor:
            ids = b"".join([entry.digest or _NO_DIGEST for entry in tail])
            lineages.append(_Lineage(line.id, line.offset, line.top, line.redundant, ids))
    data = record.data if len(record.data) <= MAX_DATA_BYTES else None
    return _Copy(
        _FORMAT,
        conversation,
        record.last_ms,
        record.floor,
        record.base,
        record.stamp,
        data,
        tuple(reversed(lineages)),
    )


def _tail(digests: bytes) -> tuple[Entry, ...]:
    chunks = [digests[i : i + DIGEST_BYTES] for i in range(0, len(digests), DIGEST_BYTES)]
    return tuple([UNKNOWN if chunk == _NO_DIGEST else Entry(chunk) for chunk in chunks])
