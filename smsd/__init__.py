"""smsd turns text messages into conversations.

It answers Twilio's messaging webhook, counts every message of a conversation exactly once, also over retries,
replicas and the loss of its cache, and hands message and session to a *dialogue*, the part that you write:

>>> from smsd import Message, Reply, Session
>>> async def reply(message: Message, session: Session) -> Reply | str | None:
...     return f"This is message {session.count}"

smsd calls it for every message, as SMSD_DIALOGUE=module:reply says:

>>> import asyncio
>>> hello = Message("SM" + "0" * 32, "AC" + "0" * 32, "+14158675309", "+14158141829", "Hello")
>>> asyncio.run(reply(hello, Session(1)))
'This is message 1'
"""

from smsd.conversation.session import Session
from smsd.router import Router
from smsd.twilio.message import Geography, Media, Message
from smsd.twilio.reply import Reply
from smsd.version import VERSION as __version__

__all__ = ["Geography", "Media", "Message", "Reply", "Router", "Session", "__version__"]
