"""One webhook from message to answer: find the conversation, count once, run the
dialogue in its turn, write by compare-and-swap.

No sockets, no metrics, no logs, no HTTP: it awaits the store and the dialogue and
nothing else. What happened is told to the `Observer`.

What happens to a message:

1. `Exchange.answer` finds the conversation, chooses among the cookies, and lets messages
   of one conversation in one by one.
2. `_arrive` reads the record. A message that it knows (`_known`) gets the reply that it got
   before; if it has none yet, the request waits.
3. For a new message `planning.Planner` says what to write. Opt-out words and loops are
   answered at once. If an earlier message is still open, the new one is written as waiting.
4. Otherwise its dialogue starts. If it answers before its first wait, message and reply
   are written together: two operations of memcached, no turn. If it waits, the message is
   written as running, and `keeper.Keeper` stays with it.
5. `_wait` holds the request until there is a reply, or until SMSD_ANSWER_WITHIN: then
   Twilio is asked to come again, and the next request, a *hop*, waits in the same way.
"""

import asyncio
from collections.abc import Callable, Sequence

from smsd.conversation import counting, turns
from smsd.conversation.copy import PackedCopy, open_copy, pack
from smsd.conversation.counting import Found
from smsd.conversation.identity import (
    conversation_id,
    hashing_key,
    message_digest,
    storage_key,
)
from smsd.conversation.record import Record
from smsd.errors import CookieError, DialogueKilledProcess, TooManyHops
from smsd.exchange.arrival import Arrival
from smsd.exchange.conversations import Conversation, Conversations
from smsd.exchange.events import Answer, CookieState, Observer, Outcome
from smsd.exchange.keeper import Keeper
from smsd.exchange.ledger import Ledger, Page
from smsd.exchange.planning import Planner, Policy
from smsd.exchange.queue import LocalQueue
from smsd.exchange.running import Result, Run
from smsd.exchange.waiting import WaitingRoom
from smsd.store import Store
from smsd.twilio.limits import MAX_REDIRECTS
from smsd.twilio.markup import document
from smsd.twilio.message import Message

LOOP_WINDOW_S = 30

_USEFULNESS: tuple[CookieState, ...] = ("absent", "forged", "foreign", "expired", "valid")


class Exchange:
    """What `policy` holds may be replaced at any time."""

    def __init__(
        self,
        *,
        store: Store,
        policy: Policy,
        hash_key: bytes,
        ttl_s: int,
        answer_within_s: float,
        now_ms: Callable[[], int],
        random_bits: Callable[[], int],
        observer: Observer,
    ) -> None:
        self.policy = policy
        self._hash_key = hashing_key(hash_key)
        self._ttl_ms = ttl_s * 1000
        self._answer_within_s = answer_within_s
        self._observer = observer
        self._ledger = Ledger(
            store, ttl_s=ttl_s, now_ms=now_ms, random_bits=random_bits, history=policy.history
        )
        self._clock_s = asyncio.get_running_loop().time
        self._queue = LocalQueue()
        self._conversations = Conversations()
        self._keeper = Keeper(self._ledger, self._conversations, observer, random_bits())
        self._planner = Planner(
            policy, self._ledger, self._conversations, self._keeper, observer, self._counted
        )
        self._room = WaitingRoom(
            self._ledger, self._conversations, self._keeper, observer, answer_within_s
        )

    def conversation_of(self, account_sid: str, to: str, from_: str) -> bytes:
        """The id of the conversation between two numbers."""
        return conversation_id(self._hash_key, account_sid, to, from_)

    def _identify(self, message: Message) -> bytes:
        """The id of the message's conversation: that of its two numbers, unless the
        dialogue names conversations itself (`LoadedDialogue.conversation_key`).
        """
        name_of = getattr(self.policy.dialogue, "conversation_key", None)
        name = name_of(message) if name_of else None
        if name:
            return conversation_id(self._hash_key, message.account_sid, "key", name)
        return self.conversation_of(message.account_sid, message.to, message.from_)

    @property
    def is_busy(self) -> bool:
        """Whether a dialogue runs here."""
        return self._keeper.is_busy

    def stop_waiting(self) -> None:
        """The process is about to stop: requests that wait for another message's turn
        are asked to come again, and no turn is claimed any more.
        """
        self._keeper.is_claiming = False
        for conversation in self._conversations:
            conversation.notify()

    async def give_back(self) -> None:
        """Let other replicas run the dialogues that have not finished here."""
        await self._keeper.give_back()

    async def answer(
        self,
        message: Message,
        copies: Sequence[bytes],
        cookie_state: CookieState,
        hop: int = 0,
    ) -> Answer:
        """The answer to a message whose signature was checked.

        copies        the payloads of all cookies of ours whose signature is good
        cookie_state  what is reported if none of them is a copy: absent or forged
        hop           how often Twilio was asked to come again for this message
        """
        self._observer.arrived(message)
        try:
            return await self._answer_to(self._arrival(message, copies, cookie_state, hop))
        finally:
            self._observer.answered(message)

    async def _answer_to(self, arrival: Arrival) -> Answer:
        key, queue = arrival.conversation, self._queue
        must_leave = queue.enter_at_once(key) or await queue.enter(key)
        try:
            reached = await self._arrive(arrival)
        finally:
            if must_leave:
                queue.leave(key)
        if isinstance(reached, Answer):
            return reached
        return await self._wait(arrival, reached)

    def _arrival(
        self, message: Message, copies: Sequence[bytes], state: CookieState, hop: int
    ) -> Arrival:
        """The request, with the best of the copies: the latest valid one of this
        conversation; else the state is expired, else foreign, else what was given.
        """
        whose = self._identify(message)
        copy = None
        for payload in copies:
            found, opened = self._open(payload, whose)
            if opened is not None and (copy is None or _is_later(opened, copy)):
                copy = opened
            state = max(state, found, key=_USEFULNESS.index)
        return Arrival(
            message,
            message_digest(message.sid),
            whose,
            storage_key(whose),
            hop,
            state,
            copy,
            self._clock_s(),
        )

    def _open(self, payload: bytes, whose: bytes) -> tuple[CookieState, PackedCopy | None]:
        try:
            now_ms = self._ledger.now_ms()
            return "valid", open_copy(payload, whose, now_ms=now_ms, ttl_ms=self._ttl_ms)
        except CookieError as error:
            return error.state, None

    # --- arrival

    async def _arrive(self, arrival: Arrival) -> Answer | Conversation:
        """Count the message. Its answer, or the conversation in which it has to wait.

        The loop ends: it goes around when another writer was faster, and the store
        gives up after a while and counts on the overlay, where nobody else writes.
        """
        conversation = self._conversations.get(arrival.key)
        page = await self._ledger.read(arrival.key, arrival.copy, conversation)
        while True:
            found = counting.find(page.record, arrival.digest)
            if found is not None:
                return await self._known(arrival, page, found)
            plan = await self._planner.plan(arrival, page, conversation)
            if plan.is_open:  # the message's next write is spared the read
                conversation = self._conversations.of(arrival.key, arrival.conversation)
            again = await self._ledger.write(arrival.key, plan.record, page, conversation)
            if again is None:
                return plan.then()
            if plan.is_open and conversation is not None:
                self._conversations.forget_if_idle(conversation)
                conversation = self._conversations.get(arrival.key)
            if plan.run is not None:
                plan.run.stop()
                arrival.begun_in_vain = True
            page = again

    # --- a message that is known

    async def _known(self, arrival: Arrival, page: Page, found: Found) -> Answer | Conversation:
        """A message that was counted before: a duplicate, or a hop."""
        arrival.is_duplicate = not arrival.hop
        if found.reply is not None:
            return self._deliver(arrival, page.record, found)
        if found.entry.is_open or (arrival.hop and not turns.is_answered(found.entry)):
            return self._planner.enter(arrival, page.record, page)
        return await self._ask_again(arrival, page, found)

    async def _ask_again(self, arrival: Arrival, page: Page, found: Found) -> Answer:
        """The message is counted and its reply is not known any more: run the dialogue
        again for this request, and change nothing.
        """
        run = self._planner.run(arrival, page, found.number, is_announced=True)
        await asyncio.wait(
            [run.task], timeout=min(self.policy.dialogue_timeout_s, self._answer_within_s)
        )
        result = run.task.result() if run.task.done() else run.late()
        self._tell_duplicate(arrival, found)
        return self._answer(arrival, page.record, result.reply.twiml)

    async def _wait(self, arrival: Arrival, conversation: Conversation) -> Answer:
        """The reply, once it is there, or the request to come again."""
        if arrival.hop >= MAX_REDIRECTS:
            too_late = self._planner.apologize(TooManyHops("no reply after the last hop"))
            await self._keeper.answer(conversation, arrival, too_late)

        def start(page: Page, found: Found) -> Run:
            return self._planner.run(arrival, page, found.number, is_announced=True)

        poison = self._planner.apologize(DialogueKilledProcess("its process died in each run"))
        found = await self._room.wait(arrival, conversation, start, poison)
        if found is None:
            return await self._come_again(arrival, conversation)
        if found.reply is None:
            page = await self._ledger.read(arrival.key, arrival.copy, conversation)
            return await self._ask_again(arrival, page, found)
        return self._deliver(arrival, conversation.record or Record(0), found)

    async def _come_again(self, arrival: Arrival, conversation: Conversation) -> Answer:
        """Ask Twilio to send the message again; the first time with SMSD_ONE_MOMENT."""
        say = ""
        if self.policy.one_moment and not (arrival.hop or arrival.is_duplicate):
            say = self.policy.one_moment
            await self._ledger.change(conversation, lambda page: _with_one_moment(page, arrival))
        record = conversation.record or Record(0)
        found = counting.find(record, arrival.digest)
        if found is not None and found.reply is not None:
            return self._deliver(arrival, record, found)
        if found is not None:
            self._tell_duplicate(arrival, found)
        return Answer(b"", pack(record, arrival.conversation), come_again=True, say=say)

    # --- answers

    def _counted(
        self, arrival: Arrival, record: Record, page: Page, result: Result, outcome: Outcome
    ) -> Answer:
        """The message was written with its reply: tell it, and answer."""
        event = arrival.counted(page, page.number, outcome, result, now_s=self._clock_s())
        self._observer.counted(event)
        return self._answer(arrival, record, result.reply.twiml)

    def _deliver(self, arrival: Arrival, record: Record, found: Found) -> Answer:
        """The reply that the message got."""
        self._tell_duplicate(arrival, found)
        return self._answer(arrival, record, document(found.reply or b""))

    def _tell_duplicate(self, arrival: Arrival, found: Found) -> None:
        if arrival.is_duplicate:
            self._observer.counted(arrival.duplicate(found.number, now_s=self._clock_s()))

    def _answer(self, arrival: Arrival, record: Record, twiml: bytes) -> Answer:
        return Answer(twiml, pack(record, arrival.conversation))


def _is_later(one: PackedCopy, other: PackedCopy) -> bool:
    """Two messages may arrive within a millisecond; their number tells then."""
    if one.last_ms != other.last_ms:
        return one.last_ms > other.last_ms
    return one.record().count > other.record().count


def _with_one_moment(page: Page, arrival: Arrival) -> Record | None:
    found = counting.find(page.record, arrival.digest)
    if found is None or not found.entry.is_open:
        return None
    return turns.told_one_moment(page.record, found)
