"""A TCP proxy between smsd and one memcached that misbehaves when told to, for all
replicas or for one.

Replicas must name a node alike, or they would look for a record on different nodes. So
all of them connect to one address, and the proxy tells them apart by the process at the
other end of the connection.
"""

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Coroutine, Iterator
from enum import Enum, auto
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.processes import Smsd, free_port

WRITES = (b"ms ", b"cas ", b"add ", b"set ")
RESET_EVERY = 20


class Fault(Enum):
    """What the proxy does to commands and answers."""

    PASS = auto()
    SLOW = auto()  # each answer comes `delay_s` late
    FAR = auto()  # as SLOW, and answers under way do not wait for each other
    RESET = auto()  # a write now and then is carried out, and its connection ends unanswered
    DRIP = auto()  # answers come byte by byte, each `delay_s` after the one before
    CUT = auto()  # half an answer, then the connection ends
    GARBAGE = auto()  # something else is answered
    HOLD_WRITES = auto()  # memcached stores, and its word of it waits until the fault is over
    SILENT = (
        auto()
    )  # commands wait until the fault is over, and arrive then: so does a network partition
    REFUSE = auto()  # connections end, new ones are refused


class Proxy:
    """Runs on an event loop in a thread of its own, for the length of a `with` block."""

    def __init__(self, target_port: int, *, delay_s: float = 0.1) -> None:
        self.port = free_port()
        self.node = f"127.0.0.1:{self.port}"
        self.delay_s = delay_s
        self.held = 0
        """Answers to writes held back since HOLD_WRITES began."""
        self._due_s: dict[asyncio.StreamWriter, float] = {}
        """When the last answer from far away is written: none may overtake it."""
        self.writes = 0
        """Commands that wrote since it began to reset connections."""
        self._target_port = target_port
        self._faults: dict[int | None, Fault] = {None: Fault.PASS}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._ending = False

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._listen())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def set(self, fault: Fault, *, only: Smsd | None = None) -> None:
        """From now on do this, also to open connections; `only` between one replica and
        the node."""
        pid = only.pid if only else None
        if fault is Fault.HOLD_WRITES:
            self.held = 0
        if pid is None:
            self._faults = {None: fault}
        else:
            self._faults[pid] = fault
        if pid is None:
            self._run(self._refuse() if fault is Fault.REFUSE else self._listen())

    def _run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    async def _refuse(self) -> None:
        if self._server:
            self._server.close()
            self._server = None
        for writer in self._writers:
            writer.transport.abort()

    async def _end(self) -> None:
        self._ending = True
        await self._refuse()
        for _ in range(10):  # who was accepted just now begins to be served, and so to be closed
            await asyncio.sleep(0.001)
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._serving.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):  # the latter: the proxy ends
                await self._serve(reader, writer)
        finally:
            self._serving.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        fault = self._fault_of(writer.get_extra_info("peername")[1])
        with self._kept(writer):
            from_node, to_node = await asyncio.open_connection("127.0.0.1", self._target_port)
            with self._kept(to_node):
                answers = asyncio.create_task(self._answers(from_node, writer, fault))
                try:
                    await self._commands(reader, to_node, writer, fault)
                    await answers
                finally:
                    answers.cancel()

    @contextlib.contextmanager
    def _kept(self, writer: asyncio.StreamWriter) -> Iterator[None]:
        self._writers.add(writer)
        try:
            yield
        finally:
            self._writers.discard(writer)
            writer.transport.abort() if self._ending else writer.close()

    def _fault_of(self, client_port: int) -> Callable[[], Fault]:
        """What is to be done now to the connection from that port. Whose it is is
        looked up once, if it matters."""
        known: dict[int, bool] = {}

        def now() -> Fault:
            for pid, fault in list(self._faults.items()):
                if pid is None:
                    continue
                if pid not in known:
                    known[pid] = owns(pid, client_port, self.port)
                if known[pid]:
                    return fault
            return self._faults[None]

        return now

    async def _commands(
        self,
        reader: asyncio.StreamReader,
        to_node: asyncio.StreamWriter,
        writer: asyncio.StreamWriter,
        fault: Callable[[], Fault],
    ) -> None:
        while chunk := await reader.read(65536):
            await self._until(lambda: fault() is not Fault.SILENT)
            to_node.write(chunk)
            await to_node.drain()
            if fault() is Fault.RESET and chunk.startswith(WRITES):
                self.writes += 1
                if self.writes % RESET_EVERY == 0:
                    writer.transport.abort()
                    await asyncio.sleep(0.005)  # memcached carries it out
                    return
        await self._until(lambda: fault() is not Fault.SILENT)
        to_node.write_eof()

    async def _answers(
        self,
        from_node: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        fault: Callable[[], Fault],
    ) -> None:
        with contextlib.suppress(OSError):
            while chunk := await from_node.read(65536):
                await self._answer(chunk, writer, fault)
        writer.close()

    async def _answer(
        self, chunk: bytes, writer: asyncio.StreamWriter, now: Callable[[], Fault]
    ) -> None:
        fault = now()
        due_s = self._due_s.pop(writer, 0.0)
        if fault is Fault.FAR:
            self._due_s[writer] = due_s = max(due_s + 1e-6, self._loop.time() + self.delay_s)
            self._loop.call_at(due_s, writer.write, chunk)
            return
        await asyncio.sleep(max(0.0, due_s - self._loop.time()))
        if fault is Fault.HOLD_WRITES and chunk.startswith((b"STORED", b"HD")):
            self.held += 1
            await self._until(lambda: now() is not Fault.HOLD_WRITES)
        elif fault is Fault.SLOW:
            await asyncio.sleep(self.delay_s)
        elif fault is Fault.DRIP:
            for byte in chunk[:-1]:
                if writer.is_closing():
                    return
                writer.write(bytes((byte,)))
                await asyncio.sleep(self.delay_s)
            chunk = chunk[-1:]
        elif fault is Fault.CUT:
            writer.write(chunk[: len(chunk) // 2])
            writer.close()
            return
        elif fault is Fault.GARBAGE:
            chunk = b"\x80\xff VALUE nonsense\r\n" * 3
        writer.write(chunk)
        await writer.drain()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await asyncio.sleep(0.005)


def owns(pid: int, client_port: int, server_port: int) -> bool:
    """Whether the connection from `client_port` to `server_port` on 127.0.0.1 is that
    process's."""
    connections = Path("/proc/net/tcp").read_text()
    begin = connections.find(f" 0100007F:{client_port:04X} 0100007F:{server_port:04X} ")
    if begin < 0:
        return False
    inode = connections[begin:].split(maxsplit=9)[8]
    with contextlib.suppress(OSError):  # the process has ended, or has closed a file meanwhile
        return any(
            os.readlink(file) == f"socket:[{inode}]" for file in Path(f"/proc/{pid}/fd").iterdir()
        )
    return False
