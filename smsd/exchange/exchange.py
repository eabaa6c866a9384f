"""One webhook from message to answer: find the conversation, count the message once,
run the dialogue in its turn, write by compare-and-swap.

It knows neither HTTP nor metrics nor logs: what happened is told to the `Observer`.

What happens to a message:

1. `Exchange.answer` finds the conversation and its cookie. Messages of one conversation
   are counted one by one.
2. `_counted` reads the record. If the message is there it was counted before: a
   duplicate, or a hop. Otherwise `_count` writes it:
   - with its reply, if the dialogue is not asked, or is known to answer at once: two
     operations of memcached;
   - as running, and then the dialogue starts: three operations;
   - as waiting, if an earlier message has no reply yet.
3. `_reply` delivers the reply that the message has in the record. If it has none,
   `keeper.Keeper` waits for it, at most SMSD_ANSWER_WITHIN. Then Twilio is asked to come
   again, and the next request, a *hop*, waits in the same way.
"""

import asyncio
from collections.abc import Callable, Sequence

from smsd.conversation import turns
from smsd.conversation.copy import open_copy, pack
from smsd.conversation.counting import Found
from smsd.conversation.identity import conversation_id, hashing_key, message_digest
from smsd.conversation.record import Copy, Record
from smsd.errors import CookieError, TooManyHops, TooManyWaiting
from smsd.exchange.events import Answer, CookieState, Observer, Outcome
from smsd.exchange.keeper import Keeper
from smsd.exchange.ledger import Arrival, Ledger, Page, Tries
from smsd.exchange.runner import NOT_ASKED, Policy, Result, Run, Runner
from smsd.store import Store, View
from smsd.twilio.limits import MAX_REDIRECTS
from smsd.twilio.markup import document
from smsd.twilio.message import Message

PATIENCE_S = 0.05
LOOK_AGAIN_S = 0.01
"""If the dialogue of an earlier message has just begun, it may answer at once. Then a
message need not be registered as waiting, which would cost two writes: it looks again
after so long, and again, and is registered when its patience is over."""

_CLOSENESS: tuple[CookieState, ...] = ("absent", "forged", "foreign", "expired")
"""How close a useless cookie came to being of use."""


class Exchange:
    """What one process does with messages: it finds their conversations, counts them,
    has dialogues run in turn, and answers. What `policy` holds may be replaced at any
    time.

    hash_key         keys the ids of conversations
    ttl_s            a conversation is over so long after its last message
    answer_within_s  how long a request waits before Twilio is asked to come again
    now_ms           the time in milliseconds since 1970
    random_bits      draws the ids of lineages and of this process
    """

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
        self._clock_s = asyncio.get_running_loop().time
        self._ledger = Ledger(
            store, ttl_s=ttl_s, now_ms=now_ms, random_bits=random_bits, history=policy.history
        )
        self._runner = Runner(policy, store.data_limit, observer)
        self._keeper = Keeper(
            self._ledger,
            self._runner,
            observer,
            holder=random_bits(),
            answer_within_s=answer_within_s,
        )

    @property
    def is_busy(self) -> bool:
        """Whether a dialogue runs here."""
        return self._keeper.is_busy

    def stop_waiting(self) -> None:
        """The process is about to stop: requests that wait for another message's turn
        are asked to come again, and no turn is claimed any more.
        """
        self._keeper.stop_claiming()

    async def give_back(self) -> None:
        """Let other replicas run the dialogues that have not finished here."""
        await self._keeper.give_back()

    # --- which conversation

    def conversation_of(self, account_sid: str, to: str, from_: str) -> bytes:
        """The id of the conversation between two numbers."""
        return conversation_id(self._hash_key, account_sid, to, from_)

    def identify(self, message: Message) -> bytes:
        """The id of the message's conversation: that of its two numbers, unless the
        dialogue names conversations itself (`Dialogue.conversation_key`).
        """
        name = self.policy.dialogue.conversation_key(message)
        if name:
            return conversation_id(self._hash_key, message.account_sid, "key", name)
        return self.conversation_of(message.account_sid, message.to, message.from_)

    def _choose(
        self, copies: Sequence[bytes], state: CookieState, conversation: bytes
    ) -> tuple[CookieState, Copy | None]:
        """The latest copy of this conversation, and of two from one millisecond the one
        with more messages. If there is none, what is wrong with the one that came closest.
        """
        now_ms, valid = self._ledger.now_ms(), []
        for payload in copies:
            try:
                valid.append(open_copy(payload, conversation, now_ms=now_ms, ttl_ms=self._ttl_ms))
            except CookieError as error:
                state = max(state, error.state, key=_CLOSENESS.index)
        if len(valid) > 1:
            valid.sort(key=lambda found: (found.last_ms, found.record().count))
        return ("valid", valid[-1]) if valid else (state, None)

    # --- one request

    async def answer(
        self, message: Message, copies: Sequence[bytes], cookie_state: CookieState, hop: int = 0
    ) -> Answer:
        """The answer to a message whose signature was checked.

        copies        what the cookies hold whose signature is good
        cookie_state  what to report if none of them is of use: "absent" or "forged"
        hop           how often Twilio was asked to come again for this message
        """
        started_s, id_ = self._clock_s(), self.identify(message)
        state, best = self._choose(copies, cookie_state, id_) if copies else (cookie_state, None)
        self._observer.arrived(message)
        digest = message_digest(message.sid)
        conversation = self._ledger.enter(id_, digest)
        arrival = Arrival(message, digest, conversation, hop, state, best, started_s)
        try:
            found = await self._counted_in_turn(arrival)
            return await self._reply(arrival, found)
        finally:
            self._ledger.leave(conversation, digest)
            self._observer.answered(message)

    # --- counting

    async def _counted_in_turn(self, arrival: Arrival) -> Found | None:
        """Let messages of one conversation be counted one by one. One that has waited
        too long, because memcached is slow, is counted on the overlay, next to them. If
        memcached answers soon, it may wait for nearly all of its time.
        """
        conversation, patience_s = arrival.conversation, self._ledger.store.patience_s
        if not await self._comes_next(arrival, patience_s * 2 / 3):
            # the rest is for a read, a write, and the write of the reply
            late_s = patience_s - 3 * conversation.read_took_s
            if not await self._comes_next(arrival, late_s):
                # alone, and without the lock: whoever holds it still waits for the store
                return await self._counted(arrival, here=True)
        try:
            return await self._counted(arrival, here=False)
        finally:
            conversation.arriving.release()

    async def _comes_next(self, arrival: Arrival, within_s: float) -> bool:
        """Whether it is the message's turn to be counted so soon after its arrival."""
        lock = arrival.conversation.arriving
        if not lock.locked():
            return await lock.acquire()
        try:
            async with asyncio.timeout_at(arrival.started_s + within_s):
                return await lock.acquire()
        except TimeoutError:
            return False

    async def _counted(self, arrival: Arrival, *, here: bool) -> Found | None:
        """Where the message stands in the record, once it does.

        here  there is no time to ask the store
        """
        conversation, store = arrival.conversation, self._ledger.store
        attempt = _Attempt(arrival.started_s, store.patience_s)
        view: View | None = None
        while True:
            began_s = self._clock_s()
            here = here or not attempt.has_time(began_s, 3 if attempt.is_in_vain else 2)
            page = await self._ledger.read(conversation, arrival.copy, view, here=here)
            if not here:
                conversation.read_took_s = self._clock_s() - began_s
            found = arrival.find(page)
            if found is not None:
                arrival.is_duplicate = not arrival.hop
                conversation.saw(page.record, is_degraded=page.is_degraded)
                return found
            if page.is_degraded:
                conversation.here_until_s = self._clock_s() + store.patience_s
            arrival.is_restored = page.is_restored and page.by_cookie_alone
            if await self._count(arrival, page, attempt):
                return conversation.find(arrival.digest)
            # another write came first: what it wrote may already hold this message
            view = page.view

    async def _count(self, arrival: Arrival, page: Page, attempt: "_Attempt") -> bool:
        """Write a message that is new. False if another write came first."""
        outcome = self._runner.outcome_without_dialogue(arrival.message, page)
        if outcome:
            return await self._write_reply(arrival, page, NOT_ASKED, outcome)
        conversation = arrival.conversation
        only = conversation.messages_here if page.is_degraded else None
        if turns.is_held_up(page.record, None, now_ms=page.now_ms, only=only):
            if attempt.may_look_again(self._clock_s()) and turns.has_just_begun(
                page.record, now_ms=page.now_ms
            ):
                await conversation.changed(LOOK_AGAIN_S)
                return False
            if turns.waiting(page.record) < turns.MOST_WAITING:  # bounds the record
                waits = turns.registered(page.record, arrival.digest, now_ms=page.now_ms)
                return await self._ledger.write(conversation, waits, page, again=True)
            too_many = self._runner.apologize(TooManyWaiting("too many messages wait"))
            return await self._write_reply(arrival, page, too_many)
        # The dialogue was asked already, and would be asked for the same again.
        if attempt.result and attempt.asked_for == (page.number, page.record.data):
            return await self._write_reply(arrival, page, attempt.result)
        run = self._runner.run_for(arrival.message, page, page.number)
        if attempt.is_in_vain or not self._runner.answers_at_once(run):
            return await self._announce(arrival, page, run)
        self._runner.start(run)
        attempt.is_in_vain = True  # if what follows is not written
        attempt.result = await self._runner.first_step(run)
        attempt.asked_for = page.number, page.record.data
        if attempt.result:
            return await self._write_reply(arrival, page, attempt.result)
        if await self._announce(arrival, page, run):
            return True
        run.stop()  # another message came first: this run was in vain
        return False

    async def _write_reply(
        self,
        arrival: Arrival,
        page: Page,
        result: Result,
        outcome: Outcome | None = None,
    ) -> bool:
        """Write the message with its reply. `outcome` as in `Arrival.answered`. False
        if another write came first.
        """
        record = self._ledger.added(page, arrival.digest, result)
        if not await self._ledger.write(arrival.conversation, record, page, again=False):
            return False
        event = arrival.answered(page, page.number, result, self._clock_s(), outcome)
        self._observer.counted(event)
        return True

    async def _announce(self, arrival: Arrival, page: Page, run: Run) -> bool:
        """Write that the message's dialogue runs here, then start it unless it runs
        already. False if another write came first.
        """
        holder = self._keeper.holder
        running = turns.announced(page.record, arrival.digest, holder, now_ms=page.now_ms)
        if not await self._ledger.write(arrival.conversation, running, page, again=True):
            return False
        if run.has_waited is None:
            self._runner.start(run)
        self._keeper.keep(arrival, run, epoch=1)
        return True

    # --- replying

    async def _reply(self, arrival: Arrival, found: Found | None) -> Answer:
        """The reply that the message has, once it has one, or the request to come
        again."""
        # A hop was told to come again, so its message had no reply then, even if the only
        # cookie that knows it does not tell that it is open (one of the version before).
        if found and (found.entry.is_open or (arrival.hop and not turns.is_answered(found.entry))):
            found = await self._wait(arrival)
        if found is None:
            return await self._come_again(arrival)
        if found.reply is None:
            return await self._ask_again(arrival, found)
        self._tell_duplicate(arrival, found)
        return self._answer(arrival, document(found.reply))

    async def _wait(self, arrival: Arrival) -> Found | None:
        if arrival.hop >= MAX_REDIRECTS:
            error = TooManyHops("no reply after the last hop")
            await self._keeper.apologize(arrival, error)
        return await self._keeper.wait(arrival)

    async def _ask_again(self, arrival: Arrival, found: Found) -> Answer:
        """The message is counted and its reply is not known any more: run the dialogue
        again for this request, and change nothing.
        """
        page = await self._ledger.read(arrival.conversation, arrival.copy)
        run = self._runner.run_for(
            arrival.message, page, found.number, at_most_s=self._answer_within_s
        )
        self._runner.start(run)
        await asyncio.wait([run.task], timeout=run.deadline_s - self._clock_s())
        result = run.result() if run.task.done() else run.late()
        self._tell_duplicate(arrival, found, result.error)
        return self._answer(arrival, result.reply.twiml)

    async def _come_again(self, arrival: Arrival) -> Answer:
        """Ask Twilio to send the message again; the first time with SMSD_ONE_MOMENT."""
        say, conversation = "", arrival.conversation
        if self.policy.one_moment and not (arrival.hop or arrival.is_duplicate):
            say = self.policy.one_moment
            await self._ledger.change(conversation, lambda page: _with_one_moment(page, arrival))
        found = conversation.find(arrival.digest)
        if found is not None:
            self._tell_duplicate(arrival, found)
            if found.reply is not None:  # it came while that was written
                return self._answer(arrival, document(found.reply))
        return self._answer(arrival, b"", come_again=True, say=say)

    def _tell_duplicate(
        self, arrival: Arrival, found: Found, error: BaseException | None = None
    ) -> None:
        if arrival.is_duplicate:
            now_s = self._clock_s()
            self._observer.counted(arrival.event("duplicate", found.number, now_s, error=error))

    def _answer(
        self, arrival: Arrival, twiml: bytes, *, come_again: bool = False, say: str = ""
    ) -> Answer:
        conversation = arrival.conversation
        record = conversation.record or Record(0)
        return Answer(twiml, pack(record, conversation.id), come_again, say)


class _Attempt(Tries):
    """What was tried for a message before another write came first.

    is_in_vain  its dialogue was started unannounced: not once more
    result      what it answered, and the number and data that it was asked for
    """

    is_in_vain = False
    result: Result | None = None
    asked_for: tuple[int, bytes] | None = None
    _patient_until_s = 0.0

    def may_look_again(self, now_s: float) -> bool:
        """Whether a message that is held up may wait a moment before it is registered."""
        self._patient_until_s = self._patient_until_s or now_s + PATIENCE_S
        return now_s < self._patient_until_s


def _with_one_moment(page: Page, arrival: Arrival) -> Record | None:
    """The record in which SMSD_ONE_MOMENT was sent for a message that is still open."""
    found = arrival.find(page)
    if found is None or not found.entry.is_open:
        return None
    return turns.told_one_moment(page.record, found)
