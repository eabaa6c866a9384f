"""memcached's text protocol as far as smsd speaks it, and the operations on their way to
one node and back.

Commands of one turn of the event loop leave in one write, and answers come back in
their order, without a thread. With pymemcache in threads a message costs half as much
CPU again (docs/architecture.md): its client blocks on a socket, and its readers are
private.

A pipeline outlives its connections: what has no answer yet is sent again over the next
one. It must not decide what a failure means; it tells `on_failure` and is told to give
up.
"""

import asyncio
import re
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from smsd.store.connection import Connection

MAX_LINE_BYTES = 2048
"""Of a line of an answer. memcached's longest is a VALUE line with a key of 250
bytes."""

VERSION = b"version\r\n"
"""The command that asks for memcached's version."""

META_SINCE = (1, 6, 18)
"""The first version known to understand the meta command of `save_command`:
earlier ones want another syntax."""

UNKNOWN_CAS = b"0"
"""A token that fits no value: memcached counts from 1."""

MAX_EXCUSES = 4
"""How often in a row a late answer is excused, if the event loop itself was held up."""

_END = b"\r\nEND\r\n"
_CONDITION_FAILED = {b"EXISTS", b"NOT_FOUND", b"NOT_STORED", b"EX", b"NF", b"NS"}


class Token(msgspec.Struct, frozen=True):
    """A compare-and-swap token. It is good only for the connection that it came over: a
    restarted memcached counts its tokens from 1 again, so an old one could fit by
    chance.
    """

    generation: int
    """The connection's number."""
    cas: bytes
    """A decimal number, or UNKNOWN_CAS."""


class Loaded(NamedTuple):
    """A value and its token; both None if there is no value."""

    value: bytes | None
    token: Token | None


class Refused(msgspec.Struct, frozen=True):
    """memcached's SERVER_ERROR or CLIENT_ERROR to one command. The connection is sound."""

    is_full: bool
    """memcached has no memory left; otherwise it refuses this very command or value."""


class Incomplete(Exception):
    """The rest of the answer has not arrived yet."""


class ProtocolError(Exception):
    """What arrived is no answer."""


def load_command(key: bytes) -> bytes:
    """Make the command that reads a value and its token."""
    return b"gets %b\r\n" % key


def save_command(
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

    They arrive in pieces of any size, so each reader either takes one whole answer or
    raises Incomplete and takes nothing. ProtocolError is raised for what is no answer.
    """

    def __init__(self, generation: int) -> None:
        self._generation = generation
        self._buffer = b""

    def feed(self, data: bytes) -> None:
        """Add what arrived."""
        self._buffer += data

    def read_value(self, key: bytes | None = None) -> Loaded | Refused:
        """Take the answer to `load_command`. Given `key`, the value of another one is no
        answer: a record does not say whose it is, and conversations must not mix.
        """
        line, begin = self._line(0)
        if line == b"END":
            self._buffer = self._buffer[begin:]
            return Loaded(None, None)
        if line.startswith(b"SERVER_ERROR"):
            self._buffer = self._buffer[begin:]
            return Refused(is_full=False)
        fields = line.split()
        if len(fields) != 5 or fields[0] != b"VALUE" or not fields[3].isdigit():
            raise ProtocolError("no answer to a read")
        if key is not None and fields[1] != key:
            raise ProtocolError("the value of another key")
        end = begin + int(fields[3])
        if len(self._buffer) < end + len(_END):
            raise Incomplete
        if not self._buffer.startswith(_END, end):
            raise ProtocolError("a value of another length than announced")
        value = self._buffer[begin:end]
        self._buffer = self._buffer[end + len(_END) :]
        return Loaded(value, Token(self._generation, fields[4]))

    def read_saved(self) -> Token | Refused | None:
        """Take the answer to `save_command`: the new token, as far as it is told; None if the
        condition did not hold.
        """
        line, begin = self._line(0)
        self._buffer = self._buffer[begin:]
        if line == b"STORED":
            return Token(self._generation, UNKNOWN_CAS)
        word, _, rest = line.partition(b" ")
        if word in _CONDITION_FAILED:
            return None
        if word == b"HD":
            cas = rest[1:] if rest.startswith(b"c") else UNKNOWN_CAS
            return Token(self._generation, cas)
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


ReadAnswer = Callable[[Answers], Any]
"""Takes one answer; raises Incomplete or ProtocolError."""


class _Operation(msgspec.Struct, frozen=True):
    command: bytes
    deadline_s: float
    future: "asyncio.Future[Any]"
    read_answer: ReadAnswer
    is_bound: bool
    """To the connection that its token came over."""


class Pipeline:
    """The operations on their way to one node and back. Belongs to the event loop in
    which it was made.

    timeout_s    the budget of one operation
    on_failure   called with "timeout" or "protocol" when the answers cannot be trusted to
                 come any more
    """

    def __init__(self, timeout_s: float, on_failure: Callable[[str], None]) -> None:
        self.generation = 0
        """Number of the connection in use, or of the next one."""
        self.connection: Connection | None = None
        self._answers = Answers(self.generation)
        self._timeout_s = timeout_s
        self._on_failure = on_failure
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Operation] = deque()
        """Operations without an answer, in the order in which answers come."""
        self._unsent: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at_s = 0.0
        self._excuses = 0

    def submit(
        self, command: bytes, read_answer: ReadAnswer, *, is_bound: bool = False
    ) -> "asyncio.Future[Any]":
        """Send a command. The future gets the answer, or the error of `give_up`.

        If the connection ends, a command that is bound to it is not sent again: its
        answer is then None, since nobody knows whether it was carried out.
        """
        deadline_s = self._loop.time() + self._timeout_s
        future = self._loop.create_future()
        self._waiting.append(_Operation(command, deadline_s, future, read_answer, is_bound))
        if self._timer is None:
            self._set_timer(deadline_s)
        if self.connection:  # otherwise `use` sends it
            if not self._unsent:
                self._loop.call_soon(self._send)
            self._unsent.append(command)
        return future

    @property
    def is_busy(self) -> bool:
        """Some operation waits for its answer."""
        return bool(self._waiting)

    def use(self, connection: Connection) -> None:
        """Send whatever waits over this connection from now on."""
        self.connection = connection
        self._answers = Answers(self.generation)
        self._unsent = [operation.command for operation in self._waiting]
        self._send()

    def disconnect(self) -> None:
        """Close the connection, if there is one. What waits goes on waiting for the
        next.
        """
        connection, self.connection = self.connection, None
        self.generation += 1
        self._unsent.clear()
        if connection:
            connection.transport.abort()
        for operation in self._waiting:
            if operation.is_bound:
                _settle(operation.future, None)
        self._waiting = deque(operation for operation in self._waiting if not operation.is_bound)

    def give_up(self, error: Exception) -> None:
        """Close the connection and fail whatever waits."""
        waiting, self._waiting = self._waiting, deque()
        self.disconnect()
        for operation in waiting:
            if not operation.future.done():
                operation.future.set_exception(error)
        self._excuses = 0

    def close(self) -> None:
        """Forget whatever waits: nobody does any more."""
        if self._timer:
            self._timer.cancel()
        self.disconnect()

    def received(self, connection: Connection, data: bytes) -> None:
        """Settle every operation whose answer is complete now."""
        self._answers.feed(data)
        try:
            while self._waiting:
                operation = self._waiting[0]
                result = operation.read_answer(self._answers)
                self._waiting.popleft()
                self._excuses = 0
                connection.has_answered = True
                _settle(operation.future, result)
        except Incomplete:
            return
        except ProtocolError:
            self._on_failure("protocol")

    def _send(self) -> None:
        """Send in one write what was submitted in this turn of the event loop."""
        if self.connection and self._unsent:
            self.connection.send(b"".join(self._unsent))
        self._unsent.clear()

    def _on_timer(self) -> None:
        """One timer serves all operations. It fires at the deadline of the one that was
        the oldest when it was set.
        """
        self._timer = None
        if not self._waiting:
            return
        now_s, deadline_s = self._loop.time(), self._waiting[0].deadline_s
        if now_s < deadline_s:
            self._set_timer(deadline_s)
        elif now_s - self._timer_at_s > self._timeout_s / 2 and self._excuses < MAX_EXCUSES:
            self._excuses += 1  # the loop itself is late: the answer may lie there, unread
            self._set_timer(now_s + self._timeout_s / 2)
        else:
            self._on_failure("timeout")

    def _set_timer(self, at_s: float) -> None:
        self._timer_at_s = at_s
        self._timer = self._loop.call_at(at_s, self._on_timer)


def _settle(future: "asyncio.Future[Any]", result: object) -> None:
    if not future.done():  # otherwise whoever asked has gone
        future.set_result(result)
