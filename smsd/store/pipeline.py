"""Operations on their way to one memcached node and back.

Commands of one turn of the event loop leave in one write, and answers come back in
their order, without a thread: handing each operation to a thread and back would cost
several times the round trip, about a third of a message's CPU (tests/bench).

A pipeline outlives its connections: what has no answer yet is sent again over the next
one. It must not decide what a failure means; it tells `on_failure` and is told to give
up.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from smsd.store import protocol
from smsd.store.connection import Connection

MAX_EXCUSES = 4
"""How often in a row a late answer is excused, if the event loop itself was held up."""

ReadAnswer = Callable[[protocol.Answers], Any]
"""Takes one answer; raises Incomplete or ProtocolError."""


class _Operation(msgspec.Struct, frozen=True):
    command: bytes
    deadline_s: float
    future: "asyncio.Future[Any]"
    read_answer: ReadAnswer
    is_bound: bool
    """To the connection that its token came over."""


class Pipeline:
    """Belongs to the event loop in which it was made.

    timeout_s    the budget of one operation
    on_failure   called with "timeout" or "protocol" when the answers cannot be trusted to
                 come any more
    """

    def __init__(self, timeout_s: float, on_failure: Callable[[str], None]) -> None:
        self.generation = 0
        """Number of the connection in use, or of the next one."""
        self.connection: Connection | None = None
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

    def received(self, connection: Connection) -> None:
        """Settle every operation whose answer is complete."""
        try:
            while self._waiting:
                operation = self._waiting[0]
                result = operation.read_answer(connection.answers)
                self._waiting.popleft()
                self._excuses = 0
                connection.has_answered = True
                _settle(operation.future, result)
        except protocol.Incomplete:
            return
        except protocol.ProtocolError:
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
