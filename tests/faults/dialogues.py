"""Dialogues for tests of the promises. Their replies hold a number where the recorder looks for it."""

import asyncio

from smsd import Message, Session


async def slow(message: Message, session: Session) -> str:
    """Takes longer than a store is waited for."""
    await asyncio.sleep(0.6)
    return f"{session.count} times"


async def remembering(message: Message, session: Session) -> str:
    """Counts by itself, in `data`."""
    session.data["mine"] = session.data.get("mine", 0) + 1
    return f"{session.count} and {session.data['mine']} times"
