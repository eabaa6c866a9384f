"""What comes out of the exchange: an answer to each request, and an event for whatever
happens on the way.
"""

import asyncio
from typing import Any, Literal, get_args

import msgspec

from smsd.twilio.message import Message

Outcome = Literal["counted", "duplicate", "degraded", "opted_out", "looped", "failed"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
"""Every `outcome` of smsd_messages_total."""

CookieState = Literal["absent", "valid", "expired", "foreign", "forged"]
COOKIE_STATES: tuple[CookieState, ...] = get_args(CookieState)
"""Every `state` of smsd_cookies_total."""


class Answer(msgspec.Struct, frozen=True):
    """What to send to one request."""

    twiml: bytes
    """Empty if `come_again`."""
    copy: bytes
    """The conversation for the cookie, to be signed."""
    come_again: bool = False
    """There is no reply yet: ask Twilio to send the same message again."""
    say: str = ""
    """With `come_again`: a text that is sent before (SMSD_ONE_MOMENT)."""


class Counted(msgspec.Struct, frozen=True):
    """A message has its reply in the record, or was delivered again."""

    message: Message
    conversation: bytes
    """18 bytes that stand for AccountSid, To and From."""
    outcome: Outcome
    number: int
    """The message's number in the conversation."""
    cookie_state: CookieState
    took_s: float
    """From the arrival of the request that led to the reply."""
    is_restored: bool = False
    """The store had lost the conversation, and the cookie alone brought it back."""
    error: BaseException | None = None
    """Why the dialogue failed."""
    dialogue_s: float | None = None
    """How long the dialogue took, if it ran."""
    texts: tuple[str, ...] = ()
    """What is sent as SMS, for the first time."""

    @property
    def is_first(self) -> bool:
        """Whether the message begins a conversation."""
        return self.number == 1 and self.outcome != "duplicate"


class Observer:
    """Whoever wants to know what happens in an exchange, so that the exchange depends
    on neither metrics nor logs.

    Every method does nothing here: override those that matter to you. None may raise
    or block.
    """

    def arrived(self, message: Message) -> None:
        """A request with this message is being answered."""

    def answered(self, message: Message) -> None:
        """Its answer is ready, or it failed. Follows each `arrived`."""

    def dialogue_started(self, task: "asyncio.Task[Any]") -> None:
        """A dialogue runs in this task from now on."""

    def counted(self, event: Counted) -> None:
        """Exactly once for each message, and once for each delivery that was a
        duplicate."""

    def turns_waiting(self, requests: int) -> None:
        """So many requests wait here for a turn or a reply."""

    def taken_over(self) -> None:
        """A dialogue runs again here: the record or a cookie tells that another process
        ran it, and that process gave no sign of life.
        """

    def dialogues_abandoned(self, dialogues: int) -> None:
        """So many dialogues go on although their time was up."""


class Observers(Observer):
    """Several observers as one. They are told in order."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def arrived(self, message: Message) -> None:
        for observer in self._observers:
            observer.arrived(message)

    def answered(self, message: Message) -> None:
        for observer in self._observers:
            observer.answered(message)

    def dialogue_started(self, task: "asyncio.Task[Any]") -> None:
        for observer in self._observers:
            observer.dialogue_started(task)

    def counted(self, event: Counted) -> None:
        for observer in self._observers:
            observer.counted(event)

    def turns_waiting(self, requests: int) -> None:
        for observer in self._observers:
            observer.turns_waiting(requests)

    def taken_over(self) -> None:
        for observer in self._observers:
            observer.taken_over()

    def dialogues_abandoned(self, dialogues: int) -> None:
        for observer in self._observers:
            observer.dialogues_abandoned(dialogues)
