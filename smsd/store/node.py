"""One memcached node as the event loop sees it: operations that end in time, a breaker, one connection.

Commands of one turn of the loop leave in one write, and answers come back in their order, without a thread: to
hand an operation to one and back costs several times the round trip (145 of 460 microseconds for a message).
"""

import asyncio
import contextlib
from collections import deque
from typing import Any

import msgspec
from pymemcache.client.base import Client
from pymemcache.exceptions import MemcacheError

from smsd.errors import StoreUnavailable
from smsd.store import Observer, wire

PROBE_EVERY_S = 0.5
MOST_EXCUSES = 4
"""So often in a row a node that seems late is given more time, if the event loop itself was held up."""
_PROBE_KEY = b"smsd:probe"
KINDS = ("timeout", "refused", "closed", "network", "protocol", "server", "corrupt")
"""Every `kind` of smsd_store_errors_total."""


class Token(msgspec.Struct, frozen=True):
    """A compare-and-swap token is good for the connection it came over: a restarted memcached counts from 1
    again.
    """

    connection: int
    cas: bytes


class Read(msgspec.Struct, frozen=True):
    """A value and its token; both None where there is none."""

    value: bytes | None
    token: Token | None


class _Operation(msgspec.Struct, frozen=True):
    command: bytes
    deadline_s: float
    future: "asyncio.Future[Any]"
    reads: bool
    bound: bool = False
    """To the connection its token came over."""


class Node:
    """`read` and `write` raise StoreUnavailable at once while the node is down, and after `timeout_s` at the
    latest.
    """

    def __init__(self, name: str, timeout_s: float, observer: Observer) -> None:
        self.name = name
        self.up = True
        self._timeout_s = timeout_s
        self._observer = observer
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Operation] = deque()
        """For their answers, in the order in which those come."""
        self._unsent: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None
        self._look_at_s = 0.0
        self._excuses = 0
        self._connection: _Connection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._generation = 0
        """Number of the connection."""
        self._prober = self._loop.create_task(self._probe())

    async def read(self, key: bytes) -> Read:
        result: Read = await self._submit(wire.gets(key), reads=True)
        return result

    async def write(self, key: bytes, value: bytes, token: Token | None, expire_s: int) -> bool:
        """True when stored; False when another write came between, or when nobody knows: read again."""
        if token is not None and token.connection != self._generation:
            return False
        command = wire.write(key, value, expire_s, token.cas if token else None)
        result: bool = await self._submit(command, reads=False, bound=token is not None)
        return result

    async def flush(self) -> None:
        """Empty the node: its own short connection, since nobody waits for it."""
        await asyncio.to_thread(flush, self.name, self._timeout_s)

    async def close(self) -> None:
        """Give up what is under way: nobody waits for it any more."""
        self._prober.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._prober
        if self._timer:
            self._timer.cancel()
        self._disconnect()

    # --- operations

    def _submit(
        self, command: bytes, *, reads: bool, bound: bool = False, probe: bool = False
    ) -> "asyncio.Future[Any]":
        if not (self.up or probe):
            raise StoreUnavailable(self.name, "down")
        deadline_s = self._loop.time() + self._timeout_s
        operation = _Operation(command, deadline_s, self._loop.create_future(), reads, bound)
        self._waiting.append(operation)
        if self._timer is None:
            self._look_at(deadline_s)
        if not self._unsent:
            self._loop.call_soon(self._send)
        self._unsent.append(command)
        return operation.future

    def _send(self) -> None:
        """In one write what was submitted in this turn of the loop."""
        if self._connection and self._unsent:
            self._connection.send(b"".join(self._unsent))
            self._unsent.clear()
        elif self._unsent and self._connecting is None:
            self._connecting = self._loop.create_task(self._connect())

    def arrived(self, connection: "_Connection") -> None:
        """Answer whoever can be answered."""
        try:
            while self._waiting:
                operation = self._waiting[0]
                result = self._found(connection) if operation.reads else connection.answers.stored()
                self._waiting.popleft()
                self._excuses = 0
                connection.proven = True
                self._settle(operation.future, result)
        except wire.Incomplete:
            return
        except MemcacheError:
            self._fail("protocol")

    def _found(self, connection: "_Connection") -> Read:
        found = connection.answers.found()
        return Read(found.value, Token(self._generation, found.cas)) if found else Read(None, None)

    def _settle(
        self, future: "asyncio.Future[Any]", result: Read | bool | wire.ServerRefused
    ) -> None:
        if future.done():  # whoever asked has gone
            return
        if isinstance(result, wire.ServerRefused):
            self._observer.store_error(self.name, "server")
            future.set_exception(StoreUnavailable(self.name, "server"))
        else:
            future.set_result(result)

    def _look_for_late(self) -> None:
        """One timer for all: it fires at the deadline of the oldest operation that was waiting when it was
        set.
        """
        self._timer = None
        if not self._waiting:
            return
        now_s = self._loop.time()
        if self._waiting[0].deadline_s > now_s:
            self._look_at(self._waiting[0].deadline_s)
        elif now_s - self._look_at_s > self._timeout_s / 4 and self._excuses < MOST_EXCUSES:
            self._excuses += 1  # it is the loop that is late: the answer may lie there, unread
            self._look_at(now_s + self._timeout_s / 2)
        else:
            self._fail("timeout")

    def _look_at(self, when_s: float) -> None:
        self._look_at_s = when_s
        self._timer = self._loop.call_at(when_s, self._look_for_late)

    # --- the breaker

    def _fail(self, kind: str) -> None:
        """Everything under way is given up and the breaker opens: whoever waits goes on with the overlay now."""
        self._observer.store_error(self.name, kind)
        self._set_up(up=False)
        self._disconnect()
        for operation in self._waiting:
            if not operation.future.done():
                operation.future.set_exception(StoreUnavailable(self.name, kind))
        self._waiting.clear()
        self._unsent.clear()
        self._excuses = 0

    def _set_up(self, *, up: bool) -> None:
        if up != self.up:
            self.up = up
            self._observer.store_up(self.name, up=up)

    async def _probe(self) -> None:
        """Reads while the node is down, so that its return is seen without a message having to wait for it."""
        while True:
            if not self.up:
                with contextlib.suppress(StoreUnavailable):
                    await self._submit(wire.gets(_PROBE_KEY), reads=True, probe=True)
                    self._set_up(up=True)
            await asyncio.sleep(PROBE_EVERY_S)

    # --- the connection

    async def _connect(self) -> None:
        try:
            await self._loop.create_connection(lambda: _Connection(self), *address(self.name))
        except OSError as error:
            self._connecting = None
            self._fail(_kind(error))

    def connected(self, connection: "_Connection") -> None:
        """Say everything again that waits, but for what is bound to an earlier connection: its fate is
        unknown.
        """
        self._connecting = None
        self._connection = connection
        self._generation += 1
        for operation in self._waiting:
            if operation.bound:
                self._settle(operation.future, False)
        self._waiting = deque(operation for operation in self._waiting if not operation.bound)
        self._unsent = [operation.command for operation in self._waiting]
        self._send()

    def lost(self, connection: "_Connection", error: Exception | None) -> None:
        """A connection that worked and is closed: memcached was restarted, most likely, so once more on a new
        one.
        """
        if connection is not self._connection:
            return
        self._connection = None
        if self._waiting and connection.proven:
            self._unsent = [operation.command for operation in self._waiting]
            self._send()
        elif self._waiting:
            self._fail(_kind(error) if error else "closed")

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection:
            connection.transport.abort()
        if self._connecting:
            self._connecting.cancel()
            self._connecting = None


class _Connection(asyncio.Protocol):
    """Tells the node what happens to one connection."""

    transport: asyncio.Transport

    def __init__(self, node: Node) -> None:
        self.answers = wire.Answers()
        self.proven = False
        """Something was answered."""
        self._node = node

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # a stream's
        self._node.connected(self)

    def send(self, commands: bytes) -> None:
        self.transport.write(commands)

    def data_received(self, data: bytes) -> None:
        self.answers.arrived(data)
        self._node.arrived(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._node.lost(self, error)


def address(name: str) -> tuple[str, int]:
    """Host and port of "host:port", IPv6 in brackets."""
    host, _, port = name.rpartition(":")
    return host.strip("[]"), int(port)


def flush(name: str, timeout_s: float) -> None:
    """`flush_all` on one node. Blocking; raises OSError and pymemcache's MemcacheError."""
    client = Client(address(name), connect_timeout=timeout_s, timeout=timeout_s)
    client.flush_all(noreply=False)
    client.close()


def _kind(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    return "closed" if isinstance(error, ConnectionError) else "network"
