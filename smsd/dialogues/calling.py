"""Calls functions that authors wrote: coroutine functions on the event loop, plain ones
in a thread.

Must not know messages or sessions. Time limits are the callers': of `smsd.exchange` for
a reply, of `smsd.dialogues.loading` for `open` and its like.

A plain function may block, so it never runs on the event loop. Whatever it raises
arrives as an `Exception` where its result is awaited. Python gives some exceptions a
meaning of their own there: `SystemExit` would end the process, `CancelledError` would
look like a cancellation by smsd, and a future with a `StopIteration` would never be
done. They arrive as a `UserCodeError` whose `__cause__` is the original.
"""

import asyncio
import inspect
import logging
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial
from queue import SimpleQueue
from threading import Lock, Thread, current_thread, main_thread
from typing import Any

from smsd.errors import UserCodeError

log = logging.getLogger("smsd.dialogues.calling")

MOST_THREADS = 32
"""Plain functions that run at the same time in a process. Others wait in a queue, and
their time limit runs meanwhile."""


def is_async(function: Any) -> bool:
    """Whether calling `function` gives a coroutine; objects with `async __call__`
    count.
    """
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        type(function).__call__
    )


async def call_in_thread(function: Callable[..., Any], *args: Any, **named: Any) -> Any:
    """The result of a plain function, which sees a copy of the caller's context
    variables. An awaitable result is awaited on the event loop.
    """
    call = partial(copy_context().run, partial(function, *args, **named))
    result = await asyncio.wrap_future(_threads.run(call))
    return await result if inspect.isawaitable(result) else result


class DaemonThreads:
    """A thread pool that does not hold up the end of the process.

    `concurrent.futures.ThreadPoolExecutor` joins its threads at exit, so that one plain
    function that hangs would keep a replica from stopping. That is why smsd has its
    own.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._jobs: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        self._lock = Lock()
        self._idle = 0
        self._started = 0
        self._is_full = False
        """Some function waits for a thread: told once, until none waits any more."""

    def run(self, function: Callable[[], Any]) -> Future[Any]:
        """Queue `function`. Its result, or what it raises, arrives in the future."""
        future: Future[Any] = Future()
        self._jobs.put((future, function))
        with self._lock:
            if self._idle:
                self._idle -= 1
            elif self._started < self._most:
                self._started += 1
                Thread(target=self._work, name=f"dialogue-{self._started}", daemon=True).start()
            elif not self._is_full:
                self._is_full = True
                log.warning("all %d threads for plain functions are busy, others wait", self._most)
        return future

    def _work(self) -> None:
        while True:
            future, function = self._jobs.get()
            if future.set_running_or_notify_cancel():  # False: canceled while it was queued
                _settle(future, function)
            del future, function  # do not keep a message alive until the next one comes
            with self._lock:
                self._idle += 1
                self._is_full = self._is_full and not self._jobs.empty()


def _settle(future: Future[Any], function: Callable[[], Any]) -> None:
    try:
        future.set_result(function())
    except BaseException as error:  # noqa: BLE001 - raised again where the future is awaited
        future.set_exception(as_exception(error))


class TooLate(BaseException):
    """Raised in a plain function whose time is up. No Exception, so that few catch it."""


@contextmanager
def interrupted_after(limit_s: float) -> Iterator[None]:
    """Raise TooLate in the block if it takes longer, also while it sleeps or waits for
    a socket or a lock.

    Works by a signal, so only on the main thread, where `smsd serve` has its event
    loop. On other threads, such as that of a test's phone, the block may take as long
    as it likes.
    """
    if current_thread() is not main_thread():
        yield
        return

    def interrupt(_signal: int, _frame: object) -> None:
        raise TooLate

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, limit_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before or signal.SIG_DFL)  # None: set by other than Python


def as_exception(error: BaseException) -> Exception:
    """`error`, or a `UserCodeError` in its place if asyncio would misunderstand it."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration | CancelledError):
        return error
    stand_in = UserCodeError(f"{type(error).__name__} raised by a dialogue")
    stand_in.__cause__ = error
    return stand_in


_threads = DaemonThreads(MOST_THREADS)
