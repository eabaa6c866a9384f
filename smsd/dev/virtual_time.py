"""An event loop that skips the time in which dialogues only sleep: slow dialogues,
quick tests.

It must not skip time in which something real is under way: a socket, a subprocess or a
thread would then seem to take minutes, and time-outs would fire for no reason.

The idea: an event loop that has nothing to do waits in its selector until the next
timer is due. If every dialogue that runs is suspended in `asyncio.sleep` and a request
waits for one of them, nothing else can happen before that timer, so the loop's clock
jumps to it. Python shows where a coroutine is suspended (`cr_await`). Whatever it
awaits instead of `asyncio.sleep` is not recognized, and then time is real.
"""

import asyncio
import inspect
import selectors
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

from smsd.exchange.events import Observer
from smsd.twilio.message import Message

GRACE_S = 0.001  # real seconds for what is on its way, such as a second text, before each jump
NOTICEABLE_S = 0.5  # what a request takes beyond this moves the clock; less leaves tests exact


class VirtualTimeLoop(asyncio.SelectorEventLoop, Observer):
    """The loop, which observes the requests and dialogues of the service that runs on it.

    advance  puts the clock of the service forward by so many seconds; called on the loop's
             own thread
    """

    def __init__(self, advance: Callable[[float], None]) -> None:
        self.skipped_s = 0.0
        self._advance = advance
        self._dialogues: WeakSet[asyncio.Task[Any]] = WeakSet()
        self._requests = 0
        self._real_s = 0.0
        """When requests began or ceased to wait, without what was skipped."""
        self._virtual_s = 0.0
        """The same on the loop's clock."""
        super().__init__(_Selector(self))

    def time(self) -> float:
        """Seconds on the loop's clock: real time and what was skipped."""
        return super().time() + self.skipped_s

    def dialogue_started(self, task: asyncio.Task[Any]) -> None:
        """Skip no time while this task runs, unless it sleeps."""
        self._dialogues.add(task)

    def arrived(self, message: Message) -> None:  # noqa: ARG002 - the observer's signature
        """A request waits from now on.

        Between the requests of one message, which are a `<Redirect>` apart, the
        dialogue goes on, and so does the clock.
        """
        if not self._requests:
            idle_s, _ = self._lap()
            if self._running():
                self._advance(idle_s)
        self._requests += 1

    def answered(self, message: Message) -> None:  # noqa: ARG002 - the observer's signature
        """A request does not wait any more. The clock goes on with what it took, if that
        is noticeable."""
        self._requests -= 1
        if not self._requests:
            real_s, virtual_s = self._lap()
            if virtual_s > NOTICEABLE_S:
                self._advance(real_s)

    def may_skip(self) -> bool:
        """Whether a request waits and every dialogue that runs sleeps."""
        running = self._running() if self._requests else []
        return bool(running) and all(map(is_asleep, running))

    def skip(self, seconds: float) -> None:
        """Put the loop's clock forward, and the service's."""
        self.skipped_s += seconds
        self._advance(seconds)

    def _running(self) -> list[asyncio.Task[Any]]:
        return [task for task in self._dialogues if not task.done()]

    def _lap(self) -> tuple[float, float]:
        """Real and virtual seconds since the last call."""
        real_before_s, virtual_before_s = self._real_s, self._virtual_s
        self._real_s, self._virtual_s = super().time(), self.time()
        return self._real_s - real_before_s, self._virtual_s - virtual_before_s


def is_asleep(task: asyncio.Task[Any]) -> bool:
    """Whether the innermost coroutine that a task awaits is `asyncio.sleep`."""
    inner: Any = task.get_coro()
    while inspect.iscoroutine(inner.cr_await):
        inner = inner.cr_await
    return inner.cr_code is asyncio.sleep.__code__


class _Selector(selectors.DefaultSelector):
    """Waits as any selector does, or has the loop skip the wait."""

    def __init__(self, loop: VirtualTimeLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= GRACE_S or not self._loop.may_skip():
            return super().select(timeout)
        ready = super().select(GRACE_S)
        if not ready:
            self._loop.skip(timeout)
        return ready
