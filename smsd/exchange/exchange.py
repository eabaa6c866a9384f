"""One webhook from message to answer: find the conversation, count once, ask the dialogue, write by
compare-and-swap.

It awaits the store and the dialogue and nothing else: no sockets, no metrics, no logs, no HTTP. What happened
is told in the `Answer`.
"""

import asyncio
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from types import coroutine
from typing import Any

import msgspec

from smsd.conversation import merging as conversation
from smsd.conversation.cookie import CookieCodec
from smsd.conversation.merging import Counted, Opened
from smsd.conversation.record import Copy, Record
from smsd.conversation.session import Session
from smsd.errors import CookieError, DialogueTimeout
from smsd.exchange.turns import Turns
from smsd.store import Store, View
from smsd.twilio import reply
from smsd.twilio.message import Message
from smsd.twilio.reply import Reply

Dialogue = Callable[[Message, Session], Coroutine[Any, Any, Reply | str | None]]

OUTCOMES = ("counted", "duplicate", "degraded", "opted_out", "looped", "failed")
"""Every `outcome` of smsd_messages_total."""

LOOP_WINDOW_S = 30


class Answer(msgspec.Struct, frozen=True):
    """What to send, and what happened."""

    twiml: bytes
    set_cookie: str
    outcome: str
    number: int
    conversation: bytes
    """18 bytes that stand for AccountSid, To and From."""
    cookie_state: str
    """absent, valid, expired, foreign or forged."""
    started: bool = False
    restored: bool = False
    """The store had lost the conversation, and the cookie alone brought it back."""
    error: Exception | None = None
    """Why the dialogue failed."""
    dialogue_s: float | None = None
    """How long it took, if it ran."""
    texts: tuple[str, ...] = ()
    """What is sent as SMS, for the first time."""


class _Said(msgspec.Struct, frozen=True):
    """What the dialogue answered, and to which question: number and data."""

    number: int
    data_before: bytes
    reply: Reply
    data: bytes
    ended: bool
    outcome: str
    error: Exception | None
    took_s: float | None


class Exchange:
    """`cookies`, `dialogue` and `apology` may be replaced at any time; a message under way keeps what it
    began with.
    """

    def __init__(
        self,
        *,
        store: Store,
        cookies: CookieCodec,
        dialogue: Dialogue,
        hash_key: bytes,
        ttl_s: int,
        dialogue_timeout_s: float,
        apology: str,
        loop_limit: int,
        opt_out: bool,
        now_ms: Callable[[], int],
        random_bits: Callable[[], int],
    ) -> None:
        self.store = store
        self.cookies = cookies
        self.dialogue = dialogue
        self.apology = apology
        self._hash_key = conversation.hashing_key(hash_key)
        self._ttl_ms = ttl_s * 1000
        self._dialogue_timeout_s = dialogue_timeout_s
        self._loop_limit = loop_limit
        self._opt_out = opt_out
        self._now_ms = now_ms
        self._random_bits = random_bits
        self._turns = Turns()

    def conversation_of(self, account_sid: str, to: str, from_: str) -> bytes:
        """The id of the conversation between two numbers."""
        return conversation.conversation_id(self._hash_key, account_sid, to, from_)

    async def answer(self, message: Message, cookie: str | None) -> Answer:
        """The answer to a message whose signature was checked; `cookie` is the value received, if any."""
        whose = self.conversation_of(message.account_sid, message.to, message.from_)
        now_ms = self._now_ms()
        state, copy = self._open_cookie(cookie, whose, now_ms)
        mine = await self._turns.take(whose)
        try:
            return await self._count(_Arrival(message, whose, now_ms, state), copy)
        finally:
            if mine:
                self._turns.give(whose)

    def _open_cookie(
        self, cookie: str | None, whose: bytes, now_ms: int
    ) -> tuple[str, Copy | None]:
        if cookie is None:
            return "absent", None
        try:
            return "valid", self.cookies.open(cookie, whose, now_ms)
        except CookieError as error:
            return error.state, None

    async def _count(self, arrival: "_Arrival", copy: Copy | None) -> Answer:
        """Until it is written: open, look whether the message is known, ask, add, write."""
        digest = conversation.message_digest(arrival.message.sid)
        key = storage_key(arrival.conversation)
        deadline_s: float | None = None
        said: _Said | None = None
        view = await self.store.load(key, copy)
        while True:
            found = self._opened(view, arrival.now_ms)
            known = conversation.find(found.record, digest)
            if known:
                return await self._repeat(arrival, found, known)
            if said is None or (said.number, said.data_before) != (
                found.record.count + 1,
                found.record.data,
            ):
                deadline_s = deadline_s or _clock_s() + self._dialogue_timeout_s
                said = await self._ask(arrival, found, deadline_s)
            record = self._with_message(found.record, digest, said, arrival.now_ms)
            again = await self.store.commit(key, record, view)
            if again is None:
                return self._answer(arrival, found, record, said, view)
            view = again

    def _opened(self, view: View, now_ms: int) -> Opened:
        return conversation.opened(
            view.stored,
            view.copies,
            now_ms=now_ms,
            ttl_ms=self._ttl_ms,
            random_bits=self._random_bits(),
        )

    def _with_message(self, record: Record, digest: bytes, said: _Said, now_ms: int) -> Record:
        verbs = reply.verbs(said.reply.twiml)
        grown = conversation.added(record, digest, verbs, now_ms=now_ms, data=said.data)
        if said.ended:
            return conversation.ended(grown, now_ms=now_ms, random_bits=self._random_bits())
        return grown

    def _answer(
        self, arrival: "_Arrival", found: Opened, record: Record, said: _Said, view: View
    ) -> Answer:
        outcome = "degraded" if view.degraded and said.outcome == "counted" else said.outcome
        return Answer(
            said.reply.twiml,
            self.cookies.set_cookie(record, arrival.conversation, arrival.now_ms),
            outcome,
            said.number,
            arrival.conversation,
            arrival.cookie_state,
            started=said.number == 1,
            restored=found.restored and not view.degraded and _by_cookie_alone(view, arrival),
            error=said.error,
            dialogue_s=said.took_s,
            texts=said.reply.texts,
        )

    async def _repeat(self, arrival: "_Arrival", found: Opened, known: Counted) -> Answer:
        """What was answered before. Where only the id is known, the dialogue is asked again and changes
        nothing.
        """
        error = None
        if known.reply is None:
            said = await self._ask(
                arrival, found, _clock_s() + self._dialogue_timeout_s, known.number
            )
            twiml, error = said.reply.twiml, said.error
        else:
            twiml = reply.document(known.reply)
        return Answer(
            twiml,
            self.cookies.set_cookie(found.record, arrival.conversation, arrival.now_ms),
            "duplicate",
            known.number,
            arrival.conversation,
            arrival.cookie_state,
            error=error,
        )

    async def _ask(
        self, arrival: "_Arrival", found: Opened, deadline_s: float, number: int | None = None
    ) -> _Said:
        """What the dialogue says to message `number`, or why it is not asked."""
        record = found.record
        number = number or record.count + 1
        silent = _Said(number, record.data, reply.SILENCE, record.data, False, "", None, None)
        if self._opt_out and arrival.message.is_opt_out:
            return msgspec.structs.replace(silent, outcome="opted_out")
        if self._loops(record, arrival.now_ms):
            return msgspec.structs.replace(silent, outcome="looped")
        session = Session(number, restored=found.restored, packed_data=record.data)
        started_s = _clock_s()
        try:
            said = reply.to_reply(await self._within(deadline_s, arrival.message, session))
            data = session.packed_data(self.store.data_limit)
        except Exception as error:  # noqa: BLE001 - a dialogue is the user's code and may raise anything
            sorry, took_s = reply.to_reply(self.apology or None), _clock_s() - started_s
            return msgspec.structs.replace(
                silent, reply=sorry, outcome="failed", error=error, took_s=took_s
            )
        took_s = _clock_s() - started_s
        return _Said(number, record.data, said, data, session.ended, "counted", None, took_s)

    async def _within(
        self, deadline_s: float, message: Message, session: Session
    ) -> Reply | str | None:
        asked = self.dialogue(message, session)
        try:
            waits_for = asked.send(None)
        except (
            StopIteration
        ) as answered:  # at once, as most do: a time-out costs 12 of 508 microseconds
            return answered.value  # type: ignore[no-any-return]
        late = asyncio.timeout_at(deadline_s)
        try:
            async with late:
                return await _rest(asked, waits_for)
        except TimeoutError as error:
            if late.expired():
                raise DialogueTimeout("the dialogue did not return in time") from error
            raise

    def _loops(self, record: Record, now_ms: int) -> bool:
        if not self._loop_limit:
            return False
        return (
            conversation.replies_since(record, now_ms // 1000 - LOOP_WINDOW_S) >= self._loop_limit
        )


@coroutine
def _rest(
    begun: Coroutine[Any, Any, Reply | str | None], waits_for: Any
) -> Generator[Any, Any, Reply | str | None]:
    """What a coroutine returns that has run to its first wait."""
    while True:
        try:
            sent = yield waits_for
        except BaseException as thrown:  # noqa: BLE001 - a cancellation, above all: the coroutine's to handle
            go_on = partial(begun.throw, thrown)
        else:
            go_on = partial(begun.send, sent)
        try:
            waits_for = go_on()
        except StopIteration as answered:
            return answered.value  # type: ignore[no-any-return]


class _Arrival(msgspec.Struct, frozen=True):
    message: Message
    conversation: bytes
    now_ms: int
    cookie_state: str


def storage_key(conversation_id: bytes) -> bytes:
    """The record's key in memcached: 41 bytes, no blanks, no number readable in it."""
    return b"smsd:" + conversation_id.hex().encode()


def _by_cookie_alone(view: View, arrival: _Arrival) -> bool:
    return arrival.cookie_state == "valid" and len(view.copies) == 1


def _clock_s() -> float:
    return asyncio.get_running_loop().time()
