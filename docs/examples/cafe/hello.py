"""A dialogue that asks for a name and remembers it."""

from smsd import Message, Session


async def reply(message: Message, session: Session) -> str:
    if session.is_new:
        return "Hello! What is your name?"
    name = session.data.setdefault("name", message.body.strip())
    return f"{name}, this is message {session.count}."
