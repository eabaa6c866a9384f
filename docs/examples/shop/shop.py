"""A dialogue that knows a WhatsApp user under two addresses."""

from smsd import Message, Session


class Shop:
    def conversation_key(self, message: Message) -> str | None:
        if message.external_user_id:
            return f"{message.to} {message.external_user_id}"
        return None

    async def __call__(self, message: Message, session: Session) -> str:
        return f"Message {session.count}"
