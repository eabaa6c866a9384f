"""A dialogue that downloads what came with a text."""

from smsd import Message, Session
from smsd.errors import MediaError


async def reply(message: Message, session: Session) -> str:
    try:
        sizes = [len(await media.read(limit=1_000_000)) for media in message.media]
    except MediaError:
        return "I could not open your picture."
    return f"I got {sum(sizes)} bytes."
