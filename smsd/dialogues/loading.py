"""Finds the dialogue that `SMSD_DIALOGUE=module:callable` names, and gives every form of it one face.

The callable is one of

- a function, `async` or plain, that takes (message, session);
- a class, or a function that takes nothing or the settings: called once at start, with the settings if it requires
  an argument. What it returns takes (message, session). It may have `open()` and `close()`, called in the event loop
  before the first and after the last message, and `reload(settings)`, called when settings have changed;
- an object that takes (message, session), with the same methods.

Coroutines run on the event loop, plain functions in a thread pool. Holds no rule about messages, and no time-out:
`exchange` has both.
"""

import asyncio
import importlib
import inspect
import logging
import os
import sys
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Semaphore, Thread
from types import TracebackType
from typing import Any

from smsd.conversation.session import Session
from smsd.errors import SettingsError
from smsd.twilio.message import Message
from smsd.twilio.reply import Reply

MOST_THREADS = 32
"""Plain functions that run at the same time; more wait for their turn, and their time-out runs."""

_TELLING = (
    ImportError,
    SyntaxError,
    NameError,
    AttributeError,
    TypeError,
)  # their texts name code, not data

log = logging.getLogger("smsd.dialogues.loading")


class LoadedDialogue:
    """A dialogue, ready to be asked. `open` before the first message, `close` after the last, in one event loop."""

    def __init__(self, dialogue: Callable[[Message, Session], Any]) -> None:
        self._dialogue = dialogue
        self._is_async = _is_async(dialogue)
        self._threads = _Threads()

    async def __call__(self, message: Message, session: Session) -> Reply | str | None:
        """What the dialogue answers, or whatever it raises."""
        if self._is_async:
            answer = await self._dialogue(message, session)
        else:
            answer = await asyncio.wrap_future(
                self._threads.run(lambda: self._ask(message, session))
            )
            if inspect.isawaitable(answer):
                answer = await answer
        return answer  # type: ignore[no-any-return]  # `to_reply` refuses what is no reply

    async def open(self) -> None:
        """Let the dialogue open what it needs. SettingsError if it cannot."""
        await self._run("open")

    async def reload(self, settings: object) -> None:
        """Hand over settings that have changed. SettingsError if the dialogue does not take them."""
        await self._run("reload", settings)

    async def close(self) -> None:
        """Let the dialogue close what it opened. Plain functions that still run are not waited for."""
        try:
            await self._run("close")
        except SettingsError as error:
            log.exception("dialogue not closed", exc_info=error.__cause__)

    def _ask(self, message: Message, session: Session) -> Any:
        try:
            return self._dialogue(message, session)
        except (
            StopIteration
        ) as error:  # a future would take it for the end of a coroutine, and never be done
            raise RuntimeError("the dialogue raised StopIteration") from error

    async def _run(self, name: str, *args: object) -> None:
        method = getattr(self._dialogue, name, None)
        if not callable(method):
            return
        try:
            result = method(*args)
            if inspect.isawaitable(result):
                await result
        except Exception as error:
            problem = f"SMSD_DIALOGUE: {name}() failed: {_said(error)}"
            raise SettingsError(problem) from error


class _Threads:
    """A pool of at most MOST_THREADS.

    One that hangs does not hold up the end of the process: ThreadPoolExecutor would join it.
    """

    def __init__(self) -> None:
        self._jobs: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        self._idle = Semaphore(0)
        self._started = 0

    def run(self, function: Callable[[], Any]) -> Future[Any]:
        """What `function` will have returned. Called from one thread only."""
        future: Future[Any] = Future()
        self._jobs.put((future, function))
        if not self._idle.acquire(blocking=False) and self._started < MOST_THREADS:
            self._started += 1
            Thread(target=self._work, name=f"dialogue-{self._started}", daemon=True).start()
        return future

    def _work(self) -> None:
        while True:
            future, function = self._jobs.get()
            if future.set_running_or_notify_cancel():  # False: its time-out came first
                try:
                    future.set_result(function())
                except BaseException as error:  # noqa: BLE001 - it is raised where the future is awaited
                    future.set_exception(error)
            del future, function  # a message is not kept until the next one comes
            self._idle.release()


def load(spec: str, settings: object) -> LoadedDialogue:
    """The dialogue that `spec` ("module:callable") names. SettingsError, with file and line, if it is none.

    Modules are looked for as Python does, and in the working directory.
    """
    found = _find(spec)
    place = _place(found)
    if inspect.isclass(found) or not (_takes(found, 2) or _is_async(found)):
        found = _made(spec, found, settings)
    if not _takes(found, 2):
        raise SettingsError(f"SMSD_DIALOGUE: {spec} {place}does not take (message, session)")
    return LoadedDialogue(found)


def import_problems(spec: str) -> tuple[str, ...]:
    """Why the dialogue cannot be imported; nothing if it can. Makes and opens nothing."""
    try:
        _find(spec)
    except SettingsError as error:
        return error.problems
    return ()


def _find(spec: str) -> Any:
    module_name, _, name = spec.partition(":")
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        return getattr(importlib.import_module(module_name), name)
    except Exception as error:
        raise SettingsError(f"SMSD_DIALOGUE: {spec} cannot be imported: {_said(error)}") from error


def _made(spec: str, factory: Any, settings: object) -> Any:
    """What a class or a factory makes."""
    if _takes(factory, 0):
        args: tuple[object, ...] = ()
    elif _takes(factory, 1):
        args = (settings,)
    else:
        takes = "nothing, the settings, or (message, session)"
        raise SettingsError(f"SMSD_DIALOGUE: {spec} {_place(factory)}must take {takes}")
    try:
        return factory(*args)
    except Exception as error:
        raise SettingsError(f"SMSD_DIALOGUE: {spec} cannot be made: {_said(error)}") from error


def _takes(found: Any, count: int) -> bool:
    """Whether it can be called with so many arguments."""
    try:
        inspect.signature(found).bind(*[None] * count)
    except (TypeError, ValueError):  # ValueError: a built-in without a signature
        return False
    return True


def _is_async(found: Any) -> bool:
    return inspect.iscoroutinefunction(found) or inspect.iscoroutinefunction(type(found).__call__)


def _place(found: Any) -> str:
    """ "(FILE:LINE) " of a function, or of a class or an object's class, as far as it is known."""
    written = inspect.unwrap(found) if callable(found) else found
    if not (inspect.isroutine(written) or inspect.isclass(written)):
        written = type(written)
    try:
        return f"({inspect.getsourcefile(written)}:{inspect.getsourcelines(written)[1]}) "
    except (TypeError, OSError):  # built-in, or no source
        return ""


def _said(error: Exception) -> str:
    """Type, place, and the text where it is sure to hold no secret."""
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__} at {error.filename}:{error.lineno}: {error.msg}"
    where = _where(error.__traceback__)
    what = f": {error}" if isinstance(error, _TELLING) else ""
    return f"{type(error).__name__}{where}{what}"


def _where(trace: TracebackType | None) -> str:
    """The last line that ran outside of this file and of the import system."""
    frames = [
        f" at {frame.filename}:{frame.lineno}"
        for frame in traceback.extract_tb(trace)
        if frame.filename not in (__file__, importlib.__file__)
        and not frame.filename.startswith("<frozen")
    ]
    return frames[-1] if frames else ""
