"""One connection to one memcached node: many commands, one round trip, one deadline. Blocking; runs in a
node's thread.

Writes go first and one `gets` for all reads last: while memcached sends values it reads nothing more, so
values must not be asked for while there is something left to send.
"""

import socket
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from pymemcache.client.base import Client, _readline, _readvalue
from pymemcache.exceptions import MemcacheUnknownError

_RECEIVE_BYTES = 65_536


class Write(NamedTuple):
    """An `add` (no token) or a `cas`."""

    key: bytes
    value: bytes
    expire_s: int
    cas: bytes | None


class Value(NamedTuple):
    """What `gets` found."""

    value: bytes
    cas: bytes


class ServerRefused(NamedTuple):
    """memcached's SERVER_ERROR or CLIENT_ERROR to one write: no memory, or too large. The connection is
    sound.
    """

    answer: str


class _DeadlineSocket:
    """A socket whose reads and writes together end at `deadline_s`, however slowly the bytes drip."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.deadline_s = 0.0

    def _arm(self) -> None:
        left_s = self.deadline_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        self._sock.settimeout(left_s)

    def recv(self, _size: int) -> bytes:
        self._arm()
        return self._sock.recv(_RECEIVE_BYTES)

    def sendall(self, data: bytes) -> None:
        self._arm()
        self._sock.sendall(data)

    def close(self) -> None:
        self._sock.close()


class Connection(Client):  # type: ignore[misc]  # pymemcache has no types
    """pymemcache's client with one more verb."""

    sock: Any

    def _connect(self) -> None:
        super()._connect()
        self.sock = _DeadlineSocket(self.sock)

    def exchange(
        self, writes: Sequence[Write], reads: Sequence[bytes], deadline_s: float
    ) -> tuple[list[bool | ServerRefused], dict[bytes, Value]]:
        """All commands in one round trip.

        For each write whether it was stored, or why memcached refused it; and the values found by key.
        Raises OSError (TimeoutError at the deadline) and pymemcache's MemcacheError.
        """
        sock = self._connected(deadline_s)
        parts = [_write_command(write) for write in writes]
        if reads:
            parts.append(b"gets " + b" ".join(reads) + b"\r\n")
        sock.sendall(b"".join(parts))
        buffer = b""
        stored: list[bool | ServerRefused] = []
        for _ in writes:
            buffer, line = _readline(sock, buffer)
            stored.append(_write_answer(line))
        return stored, _read_values(sock, buffer) if reads else {}

    def _connected(self, deadline_s: float) -> _DeadlineSocket:
        if self.sock is None:
            self.connect_timeout = max(0.001, deadline_s - time.monotonic())
            self._connect()
        sock: _DeadlineSocket = self.sock
        sock.deadline_s = deadline_s
        return sock


def _read_values(sock: _DeadlineSocket, buffer: bytes) -> dict[bytes, Value]:
    values: dict[bytes, Value] = {}
    while True:
        buffer, line = _readline(sock, buffer)
        if line == b"END":
            return values
        try:
            verb, key, _flags, size, cas = line.split()
            length = int(size)
        except ValueError:
            raise MemcacheUnknownError("no answer to gets") from None
        if verb != b"VALUE":
            raise MemcacheUnknownError("no answer to gets")
        buffer, value = _readvalue(sock, buffer, length)
        values[key] = Value(value, cas)


def _write_command(write: Write) -> bytes:
    size = len(write.value)
    if write.cas is None:
        return b"add %b 0 %d %d\r\n%b\r\n" % (write.key, write.expire_s, size, write.value)
    return b"cas %b 0 %d %d %b\r\n%b\r\n" % (write.key, write.expire_s, size, write.cas, write.value)


def _write_answer(line: bytes) -> bool | ServerRefused:
    if line == b"STORED":
        return True
    if line in {b"EXISTS", b"NOT_FOUND", b"NOT_STORED"}:
        return False
    if line.startswith((b"SERVER_ERROR", b"CLIENT_ERROR")):
        return ServerRefused(line.decode("ascii", "replace"))
    raise MemcacheUnknownError("no answer to a write")
