"""One memcached node as the event loop sees it: operations that end in time, a breaker, and a thread that
does the IO.

The event loop decides what is late; the thread may hang until its own deadline meanwhile, which costs nobody
anything. What arrives while a batch is under way forms the next batch.
"""

import asyncio
import contextlib
import socket
import threading
from collections import deque
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from pymemcache.client.base import Client
from pymemcache.exceptions import MemcacheError, MemcacheUnexpectedCloseError

from smsd.errors import StoreUnavailable
from smsd.store import Observer
from smsd.store.wire import Connection, ServerRefused, Value, Write

MAX_BATCH = 64
PROBE_EVERY_S = 0.5
_PROBE_KEY = b"smsd:probe"
KINDS = ("timeout", "refused", "closed", "network", "protocol", "server", "corrupt")
"""Every `kind` of smsd_store_errors_total."""


class Token(NamedTuple):
    """A compare-and-swap token is good for the connection it came over: a restarted memcached counts from 1
    again.
    """

    connection: int
    cas: bytes


class Read(NamedTuple):
    """A value and its token; both None where there is none."""

    value: bytes | None
    token: Token | None


class _Operation(NamedTuple):
    key: bytes
    deadline_s: float
    future: "asyncio.Future[Any]"
    value: bytes | None = None  # None: a read
    token: Token | None = None  # None: an `add`
    expire_s: int = 0


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
        self._queue: SimpleQueue[_Operation | None] = SimpleQueue()
        self._waiting: deque[_Operation] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._io = _NodeIO(name, self._queue, self._deliver_soon)
        self._prober = self._loop.create_task(self._probe())

    async def read(self, key: bytes) -> Read:
        result: Read = await self._submit(key)
        return result

    async def write(self, key: bytes, value: bytes, token: Token | None, expire_s: int) -> bool:
        """True when stored; False when another write came between, or when nobody knows: read again."""
        result: bool = await self._submit(key, value, token, expire_s)
        return result

    async def flush(self) -> None:
        """Empty the node: its own short connection, since nobody waits for it."""
        await asyncio.to_thread(flush, self.name, self._timeout_s)

    async def close(self) -> None:
        """The thread ends with the operation it is in."""
        self._prober.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._prober
        if self._timer:
            self._timer.cancel()
        self._queue.put(None)

    def _submit(self, key: bytes, *rest: Any, probe: bool = False) -> "asyncio.Future[Any]":
        if not (self.up or probe):
            raise StoreUnavailable(self.name, "down")
        deadline_s = self._loop.time() + self._timeout_s
        operation = _Operation(key, deadline_s, self._loop.create_future(), *rest)
        self._waiting.append(operation)
        if self._timer is None:
            self._timer = self._loop.call_at(deadline_s, self._look_for_late)
        self._queue.put(operation)
        return operation.future

    def _look_for_late(self) -> None:
        """One timer for all: it fires at the deadline of the oldest operation that was waiting when it was
        set.
        """
        self._timer = None
        while self._waiting and self._waiting[0].future.done():
            self._waiting.popleft()
        if not self._waiting:
            return
        if self._waiting[0].deadline_s <= self._loop.time():
            self._fail("timeout")
        else:
            self._timer = self._loop.call_at(self._waiting[0].deadline_s, self._look_for_late)

    def _fail(self, kind: str) -> None:
        """Everything under way is given up and the breaker opens: whoever waits goes on with the overlay now."""
        self._observer.store_error(self.name, kind)
        self._set_up(up=False)
        for operation in self._waiting:
            if not operation.future.done():
                operation.future.set_exception(StoreUnavailable(self.name, kind))
        self._waiting.clear()

    def _set_up(self, *, up: bool) -> None:
        if up != self.up:
            self.up = up
            self._observer.store_up(self.name, up=up)

    async def _probe(self) -> None:
        """Reads while the node is down, so that its return is seen without a message having to wait for it."""
        while True:
            if not self.up:
                with contextlib.suppress(StoreUnavailable):
                    await self._submit(_PROBE_KEY, probe=True)
                    self._set_up(up=True)
            await asyncio.sleep(PROBE_EVERY_S)

    def _deliver_soon(self, batch: "list[_Operation]", outcome: "_Outcome") -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process is ending, nobody waits
            self._loop.call_soon_threadsafe(self._deliver, batch, outcome)

    def _deliver(self, batch: "list[_Operation]", outcome: "_Outcome") -> None:
        if isinstance(outcome, str):
            if any(not operation.future.done() for operation in batch):
                self._fail(outcome)
            return
        for operation, result in zip(batch, outcome, strict=True):
            if operation.future.done():
                continue
            if isinstance(result, ServerRefused):
                self._observer.store_error(self.name, "server")
                operation.future.set_exception(StoreUnavailable(self.name, "server"))
            else:
                operation.future.set_result(result)


_Outcome = list[Read | bool | ServerRefused] | str
"""A batch's results in its order, or the kind of error that ended it."""


class _NodeIO:
    """The thread: takes what is waiting, one round trip, hands the outcome back."""

    def __init__(self, name: str, queue: "SimpleQueue[_Operation | None]", deliver: Any) -> None:
        self._connection = Connection(address(name), no_delay=True)
        self._generation = 0
        self._queue = queue
        self._deliver = deliver
        threading.Thread(target=self._run, name=f"memcached {name}", daemon=True).start()

    def _run(self) -> None:
        while (batch := self._next_batch()) is not None:
            self._deliver(batch, self._perform(batch))
        self._connection.close()

    def _next_batch(self) -> list[_Operation] | None:
        operation = self._queue.get()
        batch = []
        with contextlib.suppress(Empty):
            while operation is not None:
                batch.append(operation)
                if len(batch) == MAX_BATCH:
                    break
                operation = self._queue.get_nowait()
        if operation is None:
            self._queue.put(None)  # whatever came before the end is still done
        return batch or None

    def _perform(self, batch: list[_Operation]) -> _Outcome:
        """The batch, once more on a new connection if a kept one turns out to be closed (memcached was
        restarted).
        """
        deadline_s = max(operation.deadline_s for operation in batch)
        kept = self._connection.sock is not None
        try:
            try:
                return self._exchange(batch, deadline_s)
            except (MemcacheUnexpectedCloseError, ConnectionError):
                self._connection.close()
                if not kept:
                    raise
                return self._exchange(batch, deadline_s)
        except (OSError, MemcacheError) as error:
            self._connection.close()
            return _kind(error)

    def _exchange(self, batch: list[_Operation], deadline_s: float) -> _Outcome:
        if self._connection.sock is None:
            self._generation += 1
        writes = [
            Write(op.key, op.value, op.expire_s, op.token.cas if op.token else None)
            for op in batch
            if op.value is not None and self._may_send(op)
        ]
        reads = list(dict.fromkeys(op.key for op in batch if op.value is None))
        if not writes and not reads:
            return [False] * len(batch)
        stored, values = self._connection.exchange(writes, reads, deadline_s)
        answers = iter(stored)
        return [
            self._found(values.get(op.key)) if op.value is None else self._may_send(op) and next(answers)
            for op in batch
        ]

    def _may_send(self, operation: _Operation) -> bool:
        """A `cas` only over the connection its token came over; after any other its fate is: read again."""
        return operation.token is None or operation.token.connection == self._generation

    def _found(self, value: Value | None) -> Read:
        return Read(value.value, Token(self._generation, value.cas)) if value else Read(None, None)


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
    if isinstance(error, MemcacheUnexpectedCloseError | ConnectionError):
        return "closed"
    return "network" if isinstance(error, OSError | socket.gaierror) else "protocol"
