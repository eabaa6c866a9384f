"""A new message: what to write to the record for it, and what follows when it is
written.

No sockets, no metrics, no logs, no HTTP, no store: `exchange.Exchange` writes the plan,
and asks for another one if somebody else has written first.
"""

from collections.abc import Callable
from functools import lru_cache, partial

import msgspec

from smsd.conversation import counting, turns
from smsd.conversation.history import entries
from smsd.conversation.record import Record
from smsd.conversation.session import Session
from smsd.errors import TooManyWaiting
from smsd.exchange.arrival import Arrival
from smsd.exchange.conversations import Conversation, Conversations
from smsd.exchange.events import Answer, Observer, Outcome
from smsd.exchange.keeper import Keeper
from smsd.exchange.ledger import Ledger, Page
from smsd.exchange.running import NOT_ASKED, Dialogue, Result, Run
from smsd.twilio.markup import texts_of
from smsd.twilio.message import Message
from smsd.twilio.reply import Reply, to_reply

LOOP_WINDOW_S = 30


class Policy(msgspec.Struct):
    """How messages are answered. All of it may be replaced at any time; a message that
    is being answered keeps what it began with.

    apology             sent when the dialogue fails or is late; empty for silence
    one_moment          sent when Twilio is asked to come again for the first time, if any
    dialogue_timeout_s  seconds for one run of the dialogue
    loop_limit          replies within LOOP_WINDOW_S, beyond which there are none; 0 for any
    opt_out             leave STOP, HELP and their like to Twilio
    history             how many messages `session.history` holds
    """

    dialogue: Dialogue
    apology: str
    one_moment: str
    dialogue_timeout_s: float
    loop_limit: int
    opt_out: bool
    history: int = 0


class Plan(msgspec.Struct, frozen=True):
    """A record to write, what follows when it is written, and the run that is stopped
    if it is not.
    """

    record: Record
    then: Callable[[], Answer | Conversation]
    run: Run | None = None
    is_open: bool = False
    """The message has no answer yet, so the record will be written again soon."""


class Planner:
    """`answered` makes the answer to a request whose message was written with its
    reply: from the arrival, the record that was written, the page before, the result,
    and the outcome for smsd_messages_total.
    """

    def __init__(
        self,
        policy: Policy,
        ledger: Ledger,
        conversations: Conversations,
        keeper: Keeper,
        observer: Observer,
        answered: Callable[[Arrival, Record, Page, Result, Outcome], Answer],
    ) -> None:
        self.policy = policy
        self._ledger = ledger
        self._conversations = conversations
        self._keeper = keeper
        self._observer = observer
        self._answered = answered

    async def plan(self, arrival: Arrival, page: Page, conversation: Conversation | None) -> Plan:
        """What to write for a new message, and what follows when it is written."""
        record, digest = page.record, arrival.digest
        outcome = self._outcome_without_dialogue(arrival.message, page)
        if outcome:
            return self._plan_reply(arrival, page, NOT_ASKED, outcome)
        only = None
        if page.is_degraded:
            only = conversation.local if conversation else ()
        if turns.is_held_up(record, None, now_ms=page.now_ms, only=only):
            if turns.waiting(record) >= turns.MOST_WAITING:
                too_many = self.apologize(TooManyWaiting("too many messages wait"))
                return self._plan_reply(arrival, page, too_many, "failed")
            waiting = turns.registered(record, digest, now_ms=page.now_ms)
            return Plan(waiting, lambda: self.enter(arrival, waiting, page), is_open=True)
        run = None
        if not arrival.begun_in_vain:
            asking = page.number, record.data
            if arrival.asked_for != asking:
                run = self.run(arrival, page, page.number, is_announced=False)
                arrival.result, arrival.asked_for = await run.first_step(), asking
            if arrival.result is not None:
                outcome = "failed" if arrival.result.error else "counted"
                return self._plan_reply(arrival, page, arrival.result, outcome)
            arrival.asked_for = None
        running = turns.announced(record, digest, self._keeper.holder, now_ms=page.now_ms)
        then = partial(self._start, arrival, running, page, run)
        return Plan(running, then, run, is_open=True)

    def _plan_reply(self, arrival: Arrival, page: Page, result: Result, outcome: Outcome) -> Plan:
        written = self._ledger.added(page, arrival.digest, result)
        return Plan(written, lambda: self._answered(arrival, written, page, result, outcome))

    def _outcome_without_dialogue(self, message: Message, page: Page) -> Outcome | None:
        """Why the dialogue is not run for a message, if it is not."""
        if self.policy.opt_out and message.is_opt_out:
            return "opted_out"
        if self.policy.loop_limit:
            sent = counting.replies_within(page.record, page.now_ms // 1000, LOOP_WINDOW_S)
            if sent >= self.policy.loop_limit:
                return "looped"
        return None

    def enter(self, arrival: Arrival, record: Record, page: Page) -> Conversation:
        """The conversation, known to this process from now on."""
        conversation = self._conversations.of(arrival.key, arrival.conversation)
        conversation.saw(record, is_degraded=page.is_degraded)
        return conversation

    def _start(self, arrival: Arrival, record: Record, page: Page, run: Run | None) -> Conversation:
        """The message is announced: its dialogue goes on, or starts."""
        conversation = self.enter(arrival, record, page)
        if run is None:
            run = self.run(arrival, page, page.number, is_announced=True)
        self._keeper.keep(conversation, arrival, run, epoch=1)
        return conversation

    def run(self, arrival: Arrival, page: Page, number: int, *, is_announced: bool) -> Run:
        record = page.record
        session = Session(
            number,
            restored=page.opened.restored,
            packed_data=record.data,
            history=partial(entries, record, self.policy.history, number, texts_of)
            if self.policy.history
            else (),
        )
        run = Run(
            self.policy.dialogue,
            arrival.message,
            session,
            data_limit=self._ledger.store.data_limit,
            apology=_apology(self.policy.apology),
            timeout_s=self.policy.dialogue_timeout_s,
            is_announced=is_announced,
        )
        self._observer.dialogue_started(run.task)
        return run

    def apologize(self, error: Exception) -> Result:
        return Result(_apology(self.policy.apology), None, error=error)


@lru_cache(maxsize=4)
def _apology(text: str) -> Reply:
    """The reply that is sent instead; making one for each message would be wasteful."""
    return to_reply(text or None)
