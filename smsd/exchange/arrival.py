"""One request with a message, from its arrival to its answer. A value: no network, no
store."""

import msgspec

from smsd.conversation.record import Copy
from smsd.exchange.events import CookieState, Counted, Outcome
from smsd.exchange.ledger import Page
from smsd.exchange.running import Result
from smsd.twilio.message import Message


class Arrival(msgspec.Struct):
    """A request that is being answered.

    hop            how often Twilio was asked to come again for this message
    cookie_state   what came of the cookies
    copy           what a valid cookie tells of the conversation
    started_s      when it arrived, on the event loop's clock
    is_duplicate   the message was known, and Twilio was not asked to send it again
    begun_in_vain  its dialogue was started, and another message came first
    result         what its dialogue answered when it was `asked_for` this number and data
    """

    message: Message
    digest: bytes
    conversation: bytes
    key: bytes
    hop: int
    cookie_state: CookieState
    copy: Copy | None
    started_s: float
    is_duplicate: bool = False
    begun_in_vain: bool = False
    result: Result | None = None
    asked_for: tuple[int, bytes] | None = None

    def counted(
        self, page: Page, number: int, outcome: Outcome, result: Result, *, now_s: float
    ) -> Counted:
        """The event: this message has its reply."""
        by_cookie_alone = self.cookie_state == "valid" and len(page.view.copies) == 1
        return Counted(
            self.message,
            self.conversation,
            "degraded" if page.is_degraded and outcome == "counted" else outcome,
            number,
            self.cookie_state,
            now_s - self.started_s,
            is_first=number == 1,
            is_restored=page.opened.restored and not page.is_degraded and by_cookie_alone,
            error=result.error,
            dialogue_s=result.took_s,
            texts=result.reply.texts,
        )

    def duplicate(self, number: int, *, now_s: float) -> Counted:
        """The event: this message was delivered again."""
        took_s = now_s - self.started_s
        return Counted(
            self.message, self.conversation, "duplicate", number, self.cookie_state, took_s
        )
