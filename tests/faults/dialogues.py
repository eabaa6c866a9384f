"""Dialogues for tests of the promises. Their replies hold a number where the recorder
looks for it."""

import asyncio
import json
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager

from smsd import Message, Reply, Router, Session


async def slow(message: Message, session: Session) -> str:
    """Takes longer than a store is waited for."""
    await asyncio.sleep(0.6)
    return f"{session.count} times"


async def slower(message: Message, session: Session) -> str:
    """Takes longer than connections without a request are waited for when smsd ends."""
    await asyncio.sleep(1.6)
    return f"{session.count} times"


DIARY = "SMSD_TEST_DIARY"
"""Environment variable: the file in which `diary` notes each start and each end."""


diary = Router()
"""Takes as many seconds as the message says, and notes its start and its end. What takes
none is a handler of its own: it answers at once, is soon trusted to, and may begin in
vain, so it notes nothing. The other one always waits: it must never run in vain.
"""


@diary.on(re.compile("take 0( bye)?"))
async def instant(message: Message, session: Session, _bye: str | None) -> str:
    return _heard(message, session)


@diary.otherwise
async def waits(message: Message, session: Session) -> str:
    with _noted(message, session):
        await asyncio.sleep(_seconds(message))
    return _heard(message, session)


def _heard(message: Message, session: Session) -> str:
    heard = session.data.setdefault("heard", [])
    heard.append(session.count)
    if "bye" in message.body:
        session.end()
    return f"{session.count} times, heard {heard}"


async def sometimes_slow(message: Message, session: Session) -> str:
    """As many seconds as the message says, if it says any; replies as the greeting
    does."""
    if _seconds(message):
        await asyncio.sleep(_seconds(message))
    return f"{session.count} times"


def plain_diary(message: Message, session: Session) -> str:
    """The same as a plain function, in a thread."""
    heard = [*session.data.get("heard", []), session.count]
    with _noted(message, session):
        time.sleep(_seconds(message))
    session.data["heard"] = heard
    return f"{session.count} times, heard {heard}"


_pool: asyncio.Task[None] | None = None


async def first_waits(message: Message, session: Session) -> str:
    """Its first act is what the message says. Work is noted from its very first line."""
    global _pool
    if message.body == "child task":
        await asyncio.wait_for(_noted_work(message, session), 5)
    elif message.body == "thread":
        await asyncio.to_thread(_blocking_work, message, session)
    else:
        _pool = _pool or asyncio.create_task(asyncio.sleep(0.3))
        with _noted(message, session):
            await _pool
    return f"{session.count} times"


async def _noted_work(message: Message, session: Session) -> None:
    with _noted(message, session):
        await asyncio.sleep(0.002)
        await asyncio.sleep(0.002)


def _blocking_work(message: Message, session: Session) -> None:
    with _noted(message, session):
        time.sleep(0.003)


async def hoards(_message: Message, session: Session) -> Reply:
    """Much data, and a long reply that is another one in each run."""
    session.data["seen"] = "x" * 99_000
    return Reply(f"{session.count} times", *[os.urandom(800).hex()] * 9)


async def kills(message: Message, _session: Session) -> str:
    """Takes its process down, if the message says so."""
    await asyncio.sleep(0.01)
    if "kill" in message.body:
        os.kill(os.getpid(), signal.SIGKILL)
    return "1 times"


@contextmanager
def _noted(message: Message, session: Session) -> Iterator[None]:
    """A line when the dialogue starts, and one when it ends, however it ends."""
    _note(message, session, "start")
    how = "canceled"
    try:
        yield
        how = "end"
    finally:
        _note(message, session, how)


def _note(message: Message, session: Session, what: str) -> None:
    line = json.dumps(
        {
            "what": what,
            "conversation": message.from_,
            "sid": message.sid,
            "count": session.count,
            "process": os.getpid(),
            "at_s": time.monotonic(),
        }
    )
    with open(os.environ[DIARY], "a", encoding="utf-8") as file:
        file.write(line + "\n")


def _seconds(message: Message) -> float:
    found = re.search(r"[0-9.]+", message.body)
    return float(found[0]) if found else 0.0


async def misbehaves(message: Message, session: Session) -> object:
    """Does what the message says, which no dialogue should. "count" is fine."""
    session.data["seen"] = session.count
    return await _MISDEEDS.get(message.body, _counts)(session)


def plain_misbehaves(message: Message, session: Session) -> object:
    """The same as a plain function."""
    if message.body == "block":
        time.sleep(3600)
    elif message.body == "exit":
        sys.exit(3)
    elif message.body == "cancelled":
        raise CancelledError("zQ7jXw")
    elif message.body == "stop iteration":
        raise StopIteration("zQ7jXw")
    elif message.body == "interrupt":
        raise KeyboardInterrupt
    return f"{session.count} times"


async def _counts(session: Session) -> str:
    return f"{session.count} times"


async def _awaits_cancelled_task(_session: Session) -> object:
    task = asyncio.ensure_future(asyncio.sleep(3600, "never"))
    asyncio.get_running_loop().call_later(0.05, task.cancel)
    return await task


async def _exits(_session: Session) -> object:
    sys.exit(3)


async def _exits_later(_session: Session) -> object:
    await asyncio.sleep(0.05)
    sys.exit(3)


async def _task_exits(_session: Session) -> object:
    await asyncio.gather(_exits_later(_session), asyncio.sleep(0.1))
    return "never"


async def _forgotten_task_exits(session: Session) -> object:
    task = asyncio.ensure_future(_exits_later(session))
    task.add_done_callback(lambda done: done.exception())
    return await _counts(session)


async def _interrupts(_session: Session) -> object:
    await asyncio.sleep(0)
    raise KeyboardInterrupt


async def _leaves_generator(_session: Session) -> object:
    raise GeneratorExit


async def _raises_its_own(_session: Session) -> object:
    class Odd(BaseException):
        pass

    await asyncio.sleep(0.01)
    raise Odd("zQ7jXw")


async def _cancels_itself(_session: Session) -> object:
    task = asyncio.current_task()
    assert task
    task.cancel()
    await asyncio.sleep(3600)
    return "never"


async def _swallows_cancellation(_session: Session) -> object:
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            continue


async def _swallows_while_yielding(_session: Session) -> object:
    while True:
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            continue


async def _blocks_for_a_while(session: Session) -> object:
    time.sleep(1.5)
    return await _counts(session)


async def _returns_nonsense(_session: Session) -> object:
    return object()


async def _recurses(session: Session) -> str:
    return await _recurses(session)


_MISDEEDS = {
    "cancelled": _awaits_cancelled_task,
    "exit": _exits,
    "exit later": _exits_later,
    "task exits": _task_exits,
    "forgotten task exits": _forgotten_task_exits,
    "interrupt": _interrupts,
    "generator": _leaves_generator,
    "its own": _raises_its_own,
    "cancels itself": _cancels_itself,
    "swallows": _swallows_cancellation,
    "swallows yielding": _swallows_while_yielding,
    "blocks": _blocks_for_a_while,
    "nonsense": _returns_nonsense,
    "recurses": _recurses,
}
