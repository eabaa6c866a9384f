"""Greets known senders by name, and says how many messages they have sent in this
conversation.

Shows a dialogue with settings: smsd makes it once, with the settings, and tells it when
they change.
"""

from collections.abc import Mapping
from typing import Protocol

from twilio.twiml.messaging_response import MessagingResponse

from smsd import Message, Session


class Settings(Protocol):
    """The settings that this dialogue reads."""

    @property
    def people(self) -> Mapping[str, str]: ...  # number -> name
    @property
    def greeting(self) -> str: ...
    @property
    def greeting_first(self) -> str: ...


class Greeting:
    """Answers every message by a template with the fields name, from, to, count and
    times.
    """

    def __init__(self, settings: Settings) -> None:
        self.reload(settings)

    def reload(self, settings: Settings) -> None:
        self._people = settings.people
        self._greeting = settings.greeting
        self._greeting_first = settings.greeting_first

    async def __call__(self, message: Message, session: Session) -> MessagingResponse:
        number = message.from_.rpartition(":")[2]  # without a channel such as `whatsapp:`
        template = self._greeting_first if session.is_new else self._greeting
        text = template.format_map(
            {
                "name": self._people.get(number, "Friend"),
                "from": message.from_,
                "to": message.to,
                "count": session.count,
                "times": times(session.count),
            }
        )
        response = MessagingResponse()
        response.message(text)
        return response


def times(count: int) -> str:
    """How often, in words: "once", "twice", "3 times"."""
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


reply = Greeting
