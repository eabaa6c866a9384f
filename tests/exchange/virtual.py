"""An event loop in virtual time: its clock jumps to the next timer when nothing else is
left to do. Minutes of waiting take milliseconds, and each run is the same.

Only for code that waits for timers and for other coroutines: a socket or a thread would
never be heard.
"""

import asyncio
import selectors
from collections.abc import Coroutine
from contextvars import ContextVar
from typing import Any, TypeVar

T = TypeVar("T")

process: ContextVar[str] = ContextVar("process", default="")
"""The name of the simulated process in which a task runs; tasks inherit it."""


class Stuck(Exception):
    """Somebody waits, and nothing will ever happen any more."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """Use it as any event loop, and `close` it."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.errors: list[dict[str, Any]] = []
        """What ended a task that nobody awaits."""
        self._tasks: dict[str, set[asyncio.Task[Any]]] = {}
        super().__init__(_Jumping(self))
        self.set_exception_handler(lambda _loop, context: self.errors.append(context))

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self.now_s

    def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:
        task = super().create_task(coro, **options)
        self.belongs_to(process.get(), task)
        return task

    def belongs_to(self, name: str, task: "asyncio.Task[Any]") -> None:
        """A task of a simulated process."""
        tasks = self._tasks.setdefault(name, set())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    def kill(self, name: str) -> None:
        """Cancel all tasks of a simulated process."""
        for task in [*self._tasks.get(name, ())]:
            task.cancel()

    def run(self, coro: Coroutine[Any, Any, T]) -> T:
        """Run to the end of `coro`, and no further."""
        return self.run_until_complete(coro)

    def close(self) -> None:
        for task in asyncio.all_tasks(self):
            task.cancel()
        self.run_until_complete(asyncio.sleep(0))
        super().close()


class _Jumping(selectors.SelectSelector):
    """Does not wait: puts the clock forward instead."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Stuck
        self._loop.now_s += max(0.0, timeout)
        return super().select(0)
