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
from collections.abc import Callable, Coroutine
from typing import Any
from weakref import WeakSet

GRACE_S = 0.001  # real seconds for what is on its way, such as a second text, before each jump


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """The loop. `on_skip` is told how many seconds were skipped, on the loop's own
    thread."""

    def __init__(self, on_skip: Callable[[float], None]) -> None:
        self.skipped_s = 0.0
        self.requests_waiting = 0
        self._on_skip = on_skip
        self._dialogues: WeakSet[Coroutine[Any, Any, Any]] = WeakSet()
        super().__init__(_Selector(self.may_skip, self.skip))

    def time(self) -> float:
        """Seconds on the loop's clock: real time and what was skipped."""
        return super().time() + self.skipped_s

    def watch(self, dialogue: Coroutine[Any, Any, Any]) -> None:
        """Skip no time while this coroutine runs, unless it sleeps."""
        self._dialogues.add(dialogue)

    def begun(self) -> list[Coroutine[Any, Any, Any]]:
        """The watched dialogues that have begun and not ended."""
        return [c for c in self._dialogues if inspect.getcoroutinestate(c) in _BEGUN]

    def may_skip(self) -> bool:
        """Whether a request waits and every dialogue that has begun sleeps."""
        begun = self.begun() if self.requests_waiting else []
        return bool(begun) and all(map(is_asleep, begun))

    def skip(self, seconds: float) -> None:
        """Put the clock forward."""
        self.skipped_s += seconds
        self._on_skip(seconds)


_BEGUN = {inspect.CORO_RUNNING, inspect.CORO_SUSPENDED}


def is_asleep(coroutine: Coroutine[Any, Any, Any]) -> bool:
    """Whether a coroutine, or the innermost one that it awaits, is `asyncio.sleep`."""
    inner: Any = coroutine
    while inspect.iscoroutine(inner.cr_await):
        inner = inner.cr_await
    return inner.cr_code is asyncio.sleep.__code__


class _Selector(selectors.DefaultSelector):
    """Waits as any selector does, or skips the wait."""

    def __init__(self, may_skip: Callable[[], bool], skip: Callable[[float], None]) -> None:
        super().__init__()
        self._may_skip = may_skip
        self._skip = skip

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= GRACE_S or not self._may_skip():
            return super().select(timeout)
        ready = super().select(GRACE_S)
        if not ready:
            self._skip(timeout)
        return ready
