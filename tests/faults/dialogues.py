"""Dialogues for tests of the promises. Their replies hold a number where the recorder looks for it."""

import asyncio

from smsd import Message, Session


async def slow(message: Message, session: Session) -> str:
    """Takes longer than a store is waited for."""
    await asyncio.sleep(0.6)
    return f"{session.count} times"


async def slower(message: Message, session: Session) -> str:
    """Takes longer than connections without a request are waited for when smsd ends."""
    await asyncio.sleep(1.6)
    return f"{session.count} times"
