"""Dialogues for tests of the promises. Their replies hold a number where the recorder looks for it."""

import asyncio
import json
import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

from smsd import Message, Session


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


async def diary(message: Message, session: Session) -> str:
    """Notes its start and its end, and takes as many seconds as the message says."""
    heard = [*session.data.get("heard", []), session.count]
    with _noted(message, session):
        await asyncio.sleep(_seconds(message))
    session.data["heard"] = heard
    if "bye" in message.body:
        session.end()
    return f"{session.count} times, heard {heard}"


def plain_diary(message: Message, session: Session) -> str:
    """The same as a plain function, in a thread."""
    heard = [*session.data.get("heard", []), session.count]
    with _noted(message, session):
        time.sleep(_seconds(message))
    session.data["heard"] = heard
    return f"{session.count} times, heard {heard}"


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
