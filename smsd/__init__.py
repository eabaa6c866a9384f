"""smsd turns text messages into conversations.

It answers Twilio's messaging webhook and counts every message of a conversation exactly
once, over retries, replicas and the loss of its cache. What to reply is up to a
*dialogue*, the part that you write:

>>> from smsd import Message, Reply, Session
>>> async def reply(message: Message, session: Session) -> Reply | str | None:
...     return f"This is message {session.count}"

`SMSD_DIALOGUE=module:reply` names it, and smsd calls it for every message:

>>> import asyncio
>>> hello = Message("SM" + "0" * 32, "AC" + "0" * 32, "+14158675309", "+14158141829", "Hello")
>>> asyncio.run(reply(hello, Session(1)))
'This is message 1'

Beside this front door, authors import `smsd.form` (several questions in a row),
`smsd.testing` (a phone for tests) and `smsd.errors`.
"""

from typing import TYPE_CHECKING, Any

from smsd.conversation.history import HistoryEntry
from smsd.conversation.session import Session
from smsd.twilio.media import Media
from smsd.twilio.message import Button, Geography, Location, Message
from smsd.twilio.reply import Reply
from smsd.version import VERSION as __version__

if TYPE_CHECKING:
    from smsd.router import Router

__all__ = [
    "Button",
    "Geography",
    "HistoryEntry",
    "Location",
    "Media",
    "Message",
    "Reply",
    "Router",
    "Session",
    "__version__",
]


def __getattr__(name: str) -> Any:
    """Import `Router` when it is first used: it needs asyncio, and `smsd --help` does
    not.
    """
    if name != "Router":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from smsd.router import Router  # noqa: PLC0415 - see above

    return Router
