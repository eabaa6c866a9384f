"""Dialogues of the bench. Their replies hold the number where load.lua looks for it."""

import asyncio

from smsd import Message, Session

HELD_S = 180
"""Longer than everything that is measured while dialogues are held up."""


def _reply(message: Message, session: Session) -> str:
    return f"Rey has messaged {message.to} {session.count} times"


async def at_once(message: Message, session: Session) -> str:
    """Waits for nothing."""
    return _reply(message, session)


async def after_20_ms(message: Message, session: Session) -> str:
    """As long as a query of a database."""
    await asyncio.sleep(0.02)
    return _reply(message, session)


async def after_1_s(message: Message, session: Session) -> str:
    """As long as a quick model."""
    await asyncio.sleep(1)
    return _reply(message, session)


async def held_up(message: Message, session: Session) -> str:
    """Answers at once, except messages that say "slow"."""
    if message.body == "slow":
        await asyncio.sleep(HELD_S)
    return _reply(message, session)
