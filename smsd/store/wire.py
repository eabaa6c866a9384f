"""What is said to one memcached node, as bytes: commands made, answers read. No socket, no clock.

Answers are read by pymemcache's own readers, from what has arrived so far.
"""

from typing import NamedTuple, NoReturn

import msgspec
from pymemcache.client.base import _readline, _readvalue
from pymemcache.exceptions import MemcacheUnknownError


class Value(msgspec.Struct, frozen=True):
    """What `gets` found."""

    value: bytes
    cas: bytes


class ServerRefused(NamedTuple):
    """memcached's SERVER_ERROR or CLIENT_ERROR to one write: no memory, or too large. The connection is
    sound.
    """

    answer: str


class Incomplete(Exception):
    """The rest of the answer has not arrived yet. Raised by `Answers`, caught by `node`."""


def gets(key: bytes) -> bytes:
    """The command that reads."""
    return b"gets %b\r\n" % key


def write(key: bytes, value: bytes, expire_s: int, cas: bytes | None) -> bytes:
    """An `add`, or with a token a `cas`."""
    if cas is None:
        return b"add %b 0 %d %d\r\n%b\r\n" % (key, expire_s, len(value), value)
    return b"cas %b 0 %d %d %b\r\n%b\r\n" % (key, expire_s, len(value), cas, value)


class Answers:
    """The answers of one connection, in the order of the commands. MemcacheUnknownError for what is none."""

    def __init__(self) -> None:
        self._rest = b""

    def arrived(self, data: bytes) -> None:
        """More of them."""
        self._rest += data

    def found(self) -> Value | None:
        """The next answer, to `gets`."""
        rest, line = _readline(_NOTHING_MORE, self._rest)
        if line == b"END":
            self._rest = rest
            return None
        try:
            verb, _key, _flags, size, cas = line.split()
            length = int(size)
        except ValueError:
            raise MemcacheUnknownError("no answer to gets") from None
        rest, value = _readvalue(_NOTHING_MORE, rest, length)
        rest, end = _readline(_NOTHING_MORE, rest)
        if (verb, end) != (b"VALUE", b"END"):
            raise MemcacheUnknownError("no answer to gets")
        self._rest = rest
        return Value(value, cas)

    def stored(self) -> "bool | ServerRefused":
        """The next answer, to a write."""
        self._rest, line = _readline(_NOTHING_MORE, self._rest)
        if line == b"STORED":
            return True
        if line in {b"EXISTS", b"NOT_FOUND", b"NOT_STORED"}:
            return False
        if line.startswith((b"SERVER_ERROR", b"CLIENT_ERROR")):
            return ServerRefused(line.decode("ascii", "replace"))
        raise MemcacheUnknownError("no answer to a write")


class _NothingMore:
    """Takes the place of the socket that pymemcache would read on from."""

    def recv(self, _size: int) -> NoReturn:
        raise Incomplete


_NOTHING_MORE = _NothingMore()
