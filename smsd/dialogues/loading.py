"""Finds the dialogue that `SMSD_DIALOGUE=module:callable` names, and runs every form of
dialogue in the same way.

Must not decide anything about messages, and sets no time limit for a reply: that is the
business of `smsd.exchange.runner`.

The callable is one of

- a function, `async` or plain, that takes (message, session);
- a class, or a function that takes nothing or the settings. smsd calls it once at
  startup, with the settings if it requires an argument, and uses what it returns;
- an object that takes (message, session), such as a `smsd.Router`.

An object may also have these methods, each of them plain or a coroutine function:

- `open()`, called before the first message, and `close()`, called after the last;
- `reload(settings)`, called when settings have changed;
- `conversation_key(message)`, a plain function: see `LoadedDialogue.conversation_key`.

All of this is user code. Whatever it raises, `SystemExit` and `CancelledError`
included, is caught here and reported with its type and place.
"""

import asyncio
import importlib
import inspect
import logging
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from smsd.conversation.session import Session
from smsd.dialogues.calling import (
    TooLate,
    as_exception,
    call_in_thread,
    interrupted_after,
    is_async,
)
from smsd.dialogues.describing import describe_error, in_brackets, place_of
from smsd.errors import SettingsError
from smsd.twilio.message import Message

OPEN_LIMIT_S = 30.0
"""For `open` and `reload`. Plain ones run on the event loop, since what they open may
be bound to its thread."""

CLOSE_LIMIT_S = 5.0
"""For `close`: the process is about to end, and Kubernetes does not wait for long."""

LONGEST_KEY = 256
"""Characters that `conversation_key` may return."""

log = logging.getLogger("smsd.dialogues.loading")


class LoadedDialogue:
    """A dialogue that is ready for messages.

    `open` it before the first message and `close` it after the last, in one event loop.
    """

    def __init__(self, dialogue: Callable[..., Any]) -> None:
        self._dialogue = dialogue
        self._part_of = getattr(type(dialogue), "handler_of", None)
        self._has_key_hook = inspect.getattr_static(dialogue, "conversation_key", None) is not None
        self.is_async = is_async(dialogue)
        """Whether it runs on the event loop. A plain function runs in a thread, and
        cannot be stopped there."""

    async def __call__(self, message: Message, session: Session, *args: Any, **named: Any) -> Any:
        """What the dialogue returns; `smsd.twilio.reply.to_reply` refuses what is no
        reply.

        Raises whatever the dialogue raises. What a plain function raises is always an
        `Exception`; a coroutine function may raise any `BaseException`.
        """
        if self.is_async:
            return await self._dialogue(message, session, *args, **named)
        return await call_in_thread(self._dialogue, message, session, *args, **named)

    def conversation_key(self, message: Message) -> str | None:
        """The name that the dialogue gives to a message's conversation, or None if it
        gives none: the conversation is then the pair (To, From).

        Used where From and To do not tell who writes. WhatsApp, for example, may send
        one person's messages from a number or from a business-scoped user id:

            class Shop:
                def conversation_key(self, message):
                    return message.external_user_id and f"{message.to} {message.external_user_id}"

        Two messages of one account with the same key belong to one conversation, so a
        key names To too, unless several numbers share their conversations. A hook that
        raises or returns anything but a text of 1 to 256 characters, None or "" is
        logged, and counts as None.
        """
        if not self._has_key_hook:
            return None
        try:
            hook = getattr(self._dialogue, "conversation_key", None)
            key = hook(message) if callable(hook) else None
            if inspect.iscoroutine(key):
                key.close()
            if not key:
                return None
            if not isinstance(key, str) or len(key) > LONGEST_KEY:
                raise TypeError(f"conversation_key() returned {type(key).__name__}")  # noqa: TRY301
        except BaseException as error:  # user code, and the message must be counted
            log.exception("conversation_key() failed", exc_info=as_exception(error))
            return None
        return key

    def handler_of(self, message: Message, session: Session) -> object:
        """What will reply to a message: a router's handler, or else the dialogue."""
        if self._part_of is None:
            return self
        try:
            return self._part_of(self._dialogue, message, session)
        except BaseException:  # noqa: BLE001 - user code: what is wrong shows when it runs
            return self

    async def open(self) -> None:
        """Let the dialogue open what it needs. Raises SettingsError if it cannot."""
        await self._run("open", OPEN_LIMIT_S)

    async def reload(self, settings: object) -> None:
        """Pass changed settings on. Raises SettingsError if the dialogue refuses them."""
        await self._run("reload", OPEN_LIMIT_S, settings)

    async def close(self) -> None:
        """Let the dialogue close what it opened. Never raises; a failure is logged.

        Does not wait for plain functions that still run.
        """
        try:
            await self._run("close", CLOSE_LIMIT_S)
        except SettingsError as error:
            log.exception("dialogue not closed", exc_info=error.__cause__ or error)

    async def _run(self, name: str, limit_s: float, *args: object) -> None:
        """Call a method of the dialogue, if it has one of that name."""
        try:
            with interrupted_after(limit_s):
                method = getattr(self._dialogue, name, None)
                result = method(*args) if callable(method) else None
        except TooLate:
            raise _too_late(name, limit_s) from None
        except BaseException as error:  # noqa: BLE001 - user code may raise anything
            raise _failed(name, error) from as_exception(error)
        if not inspect.isawaitable(result):
            return
        task = asyncio.ensure_future(_contained(name, result))
        try:
            done, _ = await asyncio.wait({task}, timeout=limit_s)
        finally:
            task.cancel()  # a no-op for one that is done; left behind if it does not comply
        if not done:
            raise _too_late(name, limit_s)
        task.result()


async def _contained(name: str, awaitable: Awaitable[Any]) -> None:
    """Await a method's result, whatever it raises: an error of its own task ends no
    process.
    """
    try:
        await awaitable
    except SettingsError:  # of a dialogue within a router: it says enough
        raise
    except BaseException as error:  # noqa: BLE001 - user code may raise anything
        raise _failed(name, error) from as_exception(error)


def _too_late(name: str, limit_s: float) -> SettingsError:
    return SettingsError(f"SMSD_DIALOGUE: {name}() took longer than {limit_s:g} s")


def _failed(name: str, error: BaseException) -> SettingsError:
    return SettingsError(f"SMSD_DIALOGUE: {name}() failed: {describe_error(error)}")


def load(spec: str, settings: object) -> LoadedDialogue:
    """The dialogue that `spec` ("module:callable") names.

    Looks for modules as Python does, and in the working directory. Raises
    SettingsError, with file and line, if it finds no dialogue.
    """
    return make(find(spec), settings, spec)


def import_problems(spec: str) -> tuple[str, ...]:
    """Why the dialogue cannot be imported; nothing if it can. Makes and opens nothing."""
    try:
        find(spec)
    except SettingsError as error:
        return error.problems
    return ()


def find(spec: str) -> Any:
    """The object that `spec` ("module:name") names. Raises SettingsError if there is
    none.
    """
    module_name, _, name = spec.partition(":")
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        return getattr(importlib.import_module(module_name), name)
    except BaseException as error:  # noqa: BLE001 - user code may raise anything
        problem = f"SMSD_DIALOGUE: {spec} cannot be imported: {describe_error(error)}"
        raise SettingsError(problem) from as_exception(error)


def make(found: Any, settings: object, name: str) -> LoadedDialogue:
    """The dialogue that a function, an object, a class or a factory stands for.

    Raises SettingsError if it is none of them; `name` is how the text calls it.
    """
    place = in_brackets(place_of(found))
    try:
        if inspect.isclass(found) or not (takes(found, 2) or is_async(found)):
            found = _made(name, found, settings)
        if not takes(found, 2):
            raise SettingsError(f"SMSD_DIALOGUE: {name} {place}does not take (message, session)")  # noqa: TRY301 - told as it is
        bind_settings = getattr(found, "bind_settings", None)
        if callable(bind_settings):  # a router, whose routes may lead to classes
            bind_settings(settings)
    except SettingsError:
        raise
    except BaseException as error:  # noqa: BLE001 - user code may raise anything
        problem = f"SMSD_DIALOGUE: {name} cannot be made: {describe_error(error)}"
        raise SettingsError(problem) from as_exception(error)
    return LoadedDialogue(found)


def _made(name: str, factory: Any, settings: object) -> Any:
    """What a class or a factory makes."""
    if takes(factory, 0):
        return factory()
    if takes(factory, 1):
        return factory(settings)
    expected = "nothing, the settings, or (message, session)"
    place = in_brackets(place_of(factory))
    raise SettingsError(f"SMSD_DIALOGUE: {name} {place}must take {expected}")


def takes(function: Any, count: int, *names: str) -> bool:
    """Whether `function` can be called with `count` positional and these named
    arguments.
    """
    try:
        inspect.signature(function).bind(*[None] * count, **dict.fromkeys(names))
    except (TypeError, ValueError):  # ValueError: a built-in without a signature
        return False
    return True
