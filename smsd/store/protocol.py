"""memcached's text protocol, as far as smsd speaks it: makes commands, reads answers.

It must know no socket and no clock. Answers arrive in pieces of any size, so each
reader either takes one whole answer from what has arrived or raises Incomplete and
takes nothing.

The reader is our own because pymemcache's public client blocks on a socket, and its
readers are private. `node` explains why smsd does not hand each operation to a thread.
"""

import re

import msgspec

MAX_LINE_BYTES = 2048
"""Of a line of an answer. memcached's longest is a VALUE line with a key of 250
bytes."""


VERSION = b"version\r\n"
"""The command that asks for memcached's version."""

META_SINCE = (1, 6, 18)
"""The first version known to understand `save` with `again`: earlier ones want
another syntax."""

UNKNOWN_CAS = b"0"
"""A token that fits no value: memcached counts from 1."""


class Value(msgspec.Struct, frozen=True):
    """What `gets` found."""

    value: bytes
    cas: bytes
    """The compare-and-swap token, a decimal number."""


class Refused(msgspec.Struct, frozen=True):
    """memcached's SERVER_ERROR or CLIENT_ERROR to one command. The connection is sound."""

    is_full: bool
    """memcached has no memory left; otherwise it refuses this very command or value."""


class Incomplete(Exception):
    """The rest of the answer has not arrived yet. Raised by `Answers`, caught by
    `node`.
    """


class ProtocolError(Exception):
    """What arrived is no answer. Raised by `Answers`, caught by `node`."""


def gets(key: bytes) -> bytes:
    """Make the command that reads a value and its token."""
    return b"gets %b\r\n" % key


def save(
    key: bytes, value: bytes, expire_s: int, cas: bytes | None, *, again: bool = False
) -> bytes:
    """Make the command that writes on a condition: that there is no value, or that the
    token is still good.

    `again` makes a meta command, whose answer holds the new token; since META_SINCE. A
    full memcached that refuses `cas` keeps the old value, but one that refuses `ms`
    deletes it (seen with 1.6.18): so `add` and `cas` are the usual commands.
    """
    if again:
        condition = b"ME" if cas is None else b"C" + cas
        return b"ms %b %d c T%d %b\r\n%b\r\n" % (key, len(value), expire_s, condition, value)
    if cas is None:
        return b"add %b 0 %d %d\r\n%b\r\n" % (key, expire_s, len(value), value)
    return b"cas %b 0 %d %d %b\r\n%b\r\n" % (key, expire_s, len(value), cas, value)


class Answers:
    """The answers of one connection, in the order of the commands.

    The readers raise Incomplete, and ProtocolError for what is no answer.
    """

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> None:
        """Add what arrived."""
        self._buffer += data

    def read_value(self) -> Value | Refused | None:
        """Take the answer to `gets`; None if there is no such key."""
        line, begin = self._line(0)
        if line == b"END":
            self._buffer = self._buffer[begin:]
            return None
        if line.startswith(b"SERVER_ERROR"):
            self._buffer = self._buffer[begin:]
            return Refused(is_full=False)
        fields = line.split()
        if len(fields) != 5 or fields[0] != b"VALUE" or not fields[3].isdigit():
            raise ProtocolError("no answer to gets")
        end = begin + int(fields[3])
        if len(self._buffer) < end + len(_END):
            raise Incomplete
        if not self._buffer.startswith(_END, end):
            raise ProtocolError("a value of another length than announced")
        value = Value(self._buffer[begin:end], fields[4])
        self._buffer = self._buffer[end + len(_END) :]
        return value

    def read_saved(self) -> bytes | Refused | None:
        """Take the answer to a write: the new token, UNKNOWN_CAS if it is not told,
        None if the condition did not hold.
        """
        line, begin = self._line(0)
        self._buffer = self._buffer[begin:]
        if line == b"STORED":
            return UNKNOWN_CAS
        word, _, rest = line.partition(b" ")
        if word in _CONDITION_FAILED:
            return None
        if word == b"HD":
            return rest[1:] if rest.startswith(b"c") else UNKNOWN_CAS
        if word in (b"SERVER_ERROR", b"CLIENT_ERROR"):
            return Refused(is_full=rest.startswith(b"out of memory"))
        raise ProtocolError("no answer to a write")

    def read_version(self) -> tuple[int, ...]:
        """Take the answer to VERSION; empty if it holds no version."""
        line, begin = self._line(0)
        self._buffer = self._buffer[begin:]
        found = re.fullmatch(rb"VERSION (\d{1,5}(?:\.\d{1,5})*).*", line)
        return tuple(map(int, found[1].split(b"."))) if found else ()

    def _line(self, begin: int) -> tuple[bytes, int]:
        """The line that begins there, and where the next one does."""
        end = self._buffer.find(b"\r\n", begin)
        if end < 0 and len(self._buffer) - begin <= MAX_LINE_BYTES:
            raise Incomplete
        if end < 0:
            raise ProtocolError("a line without end")
        return self._buffer[begin:end], end + 2


_END = b"\r\nEND\r\n"
_CONDITION_FAILED = {b"EXISTS", b"NOT_FOUND", b"NOT_STORED", b"EX", b"NF", b"NS"}
