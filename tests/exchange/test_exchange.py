"""One webhook from message to answer, on a store in memory, with a clock and a dialogue
of the test's own."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import pytest

from smsd import Message, Reply, Session
from smsd.conversation.record import Record
from smsd.dialogues.loading import LoadedDialogue
from smsd.errors import DataError, DialogueTimeout, ReplyError, StoreUnavailable
from smsd.exchange.events import Answer, Counted, Observer
from smsd.exchange.exchange import Exchange
from smsd.exchange.ledger import MOST_TRIES
from smsd.exchange.runner import AT_ONCE_TIMES, Policy
from smsd.store import View
from smsd.store.memory import CookieOnly, Memory
from smsd.store.overlay import OverlayStore
from tests.conversation.test_merging import START_MS
from tests.observer import Told

pytestmark = pytest.mark.asyncio

ACCOUNT = "AC" + "1" * 32
TTL_S = 14_400
KEPT = b"kept"


async def counting(message: Message, session: Session) -> str:
    return f"{message.body} is number {session.count}"


class Events(Observer):
    """An observer that remembers."""

    def __init__(self) -> None:
        self.counted_events: list[Counted] = []
        self.waiting: list[int] = []
        self.takeovers = 0
        self.abandoned = 0

    def counted(self, event: Counted) -> None:
        self.counted_events.append(event)

    def turns_waiting(self, requests: int) -> None:
        self.waiting.append(requests)

    def taken_over(self) -> None:
        self.takeovers += 1

    def dialogues_abandoned(self, dialogues: int) -> None:
        self.abandoned = dialogues


class Texted(NamedTuple):
    """What one delivery led to: the answer, and the last event."""

    answer: Answer
    event: Counted

    @property
    def twiml(self) -> bytes:
        return self.answer.twiml

    @property
    def number(self) -> int:
        return self.event.number

    @property
    def outcome(self) -> str:
        return self.event.outcome

    @property
    def error(self) -> BaseException | None:
        return self.event.error

    @property
    def cookie_state(self) -> str:
        return self.event.cookie_state

    @property
    def started(self) -> bool:
        return self.event.is_first

    @property
    def restored(self) -> bool:
        return self.event.is_restored


class Desk:
    """An exchange, its clock, and the cookie that Twilio would hold."""

    def __init__(self, dialogue: Any = counting, *, store: Any = None, **settings: Any) -> None:
        self.now_ms = START_MS
        self.told = Told()
        self.bits = 0
        self.memory = Memory(TTL_S, lambda: self.now_ms)
        self.store = store or OverlayStore(
            self.memory,
            timeout_s=0.25,
            ttl_s=TTL_S,
            now_ms=lambda: self.now_ms,
            random_bits=self._random_bits,
            observer=self.told,
        )
        self.events = Events()
        policy = {
            "one_moment": "",
            "dialogue_timeout_s": 5.0,
            "apology": "Sorry",
            "loop_limit": 20,
            "opt_out": True,
            **settings,
        }
        self.exchange = Exchange(
            store=self.store,
            policy=Policy(LoadedDialogue(dialogue), **policy),
            hash_key=b"h" * 40,
            ttl_s=TTL_S,
            answer_within_s=12.0,
            now_ms=lambda: self.now_ms,
            random_bits=self._random_bits,
            observer=self.events,
        )
        self.cookie: bytes | None = None
        self.sent = 0

    def _random_bits(self) -> int:
        self.bits += 1
        return self.bits

    def message(self, body: str = "hi", sid: int | None = None, **params: str) -> Message:
        if sid is None:
            self.sent += 1
            sid = self.sent
        form = {
            "MessageSid": f"SM{sid:032x}",
            "AccountSid": ACCOUNT,
            "From": "+14158675309",
            "To": "+14158141829",
            "Body": body,
            **params,
        }
        return Message.from_params({name: [value.encode()] for name, value in form.items()})

    async def answer(self, message: Message, cookie: bytes | None = None) -> Answer:
        copies = [] if cookie is None else [cookie]
        return await self.exchange.answer(message, copies, "forged" if copies else "absent")

    async def text(
        self,
        body: str = "hi",
        *,
        cookie: bytes | None = KEPT,
        sid: int | None = None,
        **params: str,
    ) -> Texted:
        """Deliver; `cookie`: KEPT for the one that Twilio holds."""
        self.now_ms += 1000
        sent = self.cookie if cookie is KEPT else cookie
        answer = await self.answer(self.message(body, sid, **params), sent)
        self.cookie = answer.copy
        return Texted(answer, self.events.counted_events[-1])


def said(answer: Answer | Texted) -> str:
    text = answer.twiml.decode()
    return text.partition("<Message>")[2].partition("</Message>")[0]


async def test_each_message_is_counted_and_answered() -> None:
    desk = Desk()
    first, second = await desk.text("one"), await desk.text("two")
    assert (said(first), said(second)) == ("one is number 1", "two is number 2")
    assert [first.outcome, second.outcome] == ["counted"] * 2
    assert (first.cookie_state, second.cookie_state) == ("absent", "valid")
    assert (first.started, second.started) == (True, False)


async def test_a_repeated_message_gets_the_same_bytes_and_the_dialogue_is_not_asked() -> None:
    asked = []

    async def dialogue(message: Message, session: Session) -> str:
        asked.append(message.sid)
        return f"{session.count} & <{len(asked)}>"

    desk = Desk(dialogue)
    first = await desk.text(sid=1)
    await desk.text(sid=2)
    again = await desk.text(sid=1, cookie=None)
    assert (again.twiml, again.outcome, again.number) == (first.twiml, "duplicate", 1)
    assert len(asked) == 2


async def test_the_same_message_twice_at_the_same_time_asks_the_dialogue_once() -> None:
    asked = []

    async def slow(message: Message, session: Session) -> str:
        asked.append(session.count)
        await asyncio.sleep(0)
        return str(session.count)

    desk = Desk(slow)
    message = desk.message()
    answers = await asyncio.gather(*(desk.answer(message) for _ in range(5)))
    assert {answer.twiml for answer in answers} == {answers[0].twiml}
    outcomes = [event.outcome for event in desk.events.counted_events]
    assert sorted(outcomes) == ["counted", *["duplicate"] * 4]
    assert asked == [1]


async def test_a_duplicate_that_only_the_cookie_knows_asks_again_and_changes_nothing() -> None:
    async def dialogue(message: Message, session: Session) -> str:
        session.data["asked"] = session.data.get("asked", 0) + 1
        return f"number {session.count}"

    desk = Desk(dialogue)
    first = await desk.text(sid=1)
    await desk.text(sid=2)
    await desk.memory.flush()
    again = await desk.text(sid=1)
    assert (again.twiml, again.outcome) == (first.twiml, "duplicate")
    after = await desk.text(sid=3)
    assert after.number == 3
    stored, _ = await desk.memory.load(next(iter(desk.memory._records)))
    assert stored
    assert stored.data == b'{"asked":3}'


async def test_data_is_kept_from_message_to_message() -> None:
    async def dialogue(message: Message, session: Session) -> str:
        seen = session.data.setdefault("seen", [])
        seen.append(message.body)
        return ",".join(seen)

    desk = Desk(dialogue)
    for word in "abc":
        answer = await desk.text(word)
    assert said(answer) == "a,b,c"


async def test_end_begins_a_new_conversation_with_the_next_message() -> None:
    async def dialogue(message: Message, session: Session) -> str:
        session.data["n"] = session.count
        if message.body == "bye":
            session.end()
        return f"{session.count} {session.is_new}"

    desk = Desk(dialogue)
    await desk.text("hi")
    old = desk.cookie
    bye = await desk.text("bye", sid=77)
    assert said(bye) == "2 False"
    assert said(await desk.text("bye", sid=77)) == "2 False"
    assert said(await desk.text("hi", cookie=old)) == "1 True"


async def test_after_four_hours_a_new_conversation_begins() -> None:
    desk = Desk()
    await desk.text()
    desk.now_ms += TTL_S * 1000 - 1001
    assert (await desk.text()).number == 2
    desk.now_ms += TTL_S * 1000
    answer = await desk.text()
    assert (answer.number, answer.cookie_state, answer.started) == (1, "expired", True)


async def test_the_store_loses_everything_and_the_cookie_brings_it_back() -> None:
    restored = []

    async def dialogue(message: Message, session: Session) -> str:
        restored.append(session.restored)
        return str(session.count)

    desk = Desk(dialogue)
    await desk.text()
    await desk.text()
    await desk.memory.flush()
    answer = await desk.text()
    assert (answer.number, answer.restored) == (3, True)
    assert not (await desk.text()).restored
    assert restored == [False, False, True, False]


class Boom(Exception):
    pass


async def raises(message: Message, session: Session) -> str:
    session.data["lost"] = True
    session.end()
    raise Boom


async def no_reply(message: Message, session: Session) -> Any:
    return 7


async def too_much(message: Message, session: Session) -> Reply:
    return Reply(*["x"] * 11)


async def no_json(message: Message, session: Session) -> str:
    session.data["x"] = object()
    return "never sent"


async def late(message: Message, session: Session) -> str:
    await asyncio.Event().wait()
    return "never"


async def times_out_itself(message: Message, session: Session) -> str:
    raise TimeoutError


@pytest.mark.parametrize(
    ("dialogue", "error"),
    [
        (raises, Boom),
        (no_reply, ReplyError),
        (too_much, ReplyError),
        (no_json, DataError),
        (late, DialogueTimeout),
        (times_out_itself, TimeoutError),
    ],
)
@pytest.mark.parametrize("apology", ["Sorry", ""])
async def test_a_dialogue_that_fails_is_apologised_for_and_the_message_counts(
    dialogue: Any, error: type[Exception], apology: str
) -> None:
    desk = Desk(dialogue, apology=apology, dialogue_timeout_s=0.01)
    answer = await desk.text(sid=1)
    assert (said(answer), answer.outcome, answer.number) == (apology, "failed", 1)
    assert type(answer.error) is error
    assert (await desk.text(sid=1)).twiml == answer.twiml
    desk.exchange.policy.dialogue = LoadedDialogue(counting)
    second = await desk.text(sid=2)
    assert (second.number, second.outcome) == (2, "counted")


async def test_a_dialogue_that_waits_sees_what_it_waits_for_what_fails_and_that_it_is_late() -> (
    None
):
    seen: list[object] = []

    async def fails() -> None:
        await asyncio.sleep(0)
        raise Boom

    async def waits(message: Message, session: Session) -> str:
        seen.append(await asyncio.sleep(0.001, "slept"))
        try:
            await fails()
        except Boom:
            seen.append("failed")
        seen.append(await asyncio.gather(asyncio.sleep(0, 1), asyncio.sleep(0.001, 2)))
        try:
            await asyncio.Event().wait() if message.body == "late" else None
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise
        return "done"

    assert said(await Desk(waits).text()) == "done"
    assert seen == ["slept", "failed", [1, 2]]
    answer = await Desk(waits, dialogue_timeout_s=0.05).text("late")
    assert type(answer.error) is DialogueTimeout
    assert seen[-1] == "cancelled"


async def test_no_reply_is_an_empty_response() -> None:
    async def nothing(message: Message, session: Session) -> None:
        return None

    answer = await Desk(nothing).text()
    assert answer.twiml.endswith(b"<Response/>")
    assert answer.outcome == "counted"


@pytest.mark.parametrize("body", ["STOP", " stop\n", "Help", "unstop"])
async def test_opt_out_words_are_counted_and_left_to_twilio(body: str) -> None:
    desk = Desk()
    answer = await desk.text(body)
    assert (answer.outcome, answer.number, said(answer)) == ("opted_out", 1, "")
    assert (await desk.text("hi")).number == 2
    open_desk = Desk(opt_out=False)
    assert (await open_desk.text(body)).outcome == "counted"


async def test_beyond_the_loop_limit_it_stays_silent_until_half_a_minute_has_passed() -> None:
    desk = Desk(loop_limit=3)
    outcomes = [(await desk.text()).outcome for _ in range(5)]
    assert outcomes == ["counted"] * 3 + ["looped"] * 2
    desk.now_ms += 30_000
    answer = await desk.text()
    assert (answer.outcome, answer.number) == ("counted", 6)


async def test_loop_limit_zero_turns_it_off() -> None:
    desk = Desk(loop_limit=0)
    assert {(await desk.text()).outcome for _ in range(40)} == {"counted"}


@pytest.mark.parametrize("cookie", [b"garbage", b"\0\x98", b"", b"\xff" * 700])
async def test_a_useless_cookie_harms_nothing(cookie: bytes) -> None:
    desk = Desk()
    await desk.text()
    answer = await desk.text(cookie=cookie)
    assert (answer.number, answer.cookie_state) == (2, "forged")


async def test_the_cookie_of_another_conversation_joins_nothing() -> None:
    desk = Desk()
    await desk.text(From="+15005550006")
    await desk.text(From="+15005550006")
    answer = await desk.text()
    assert (answer.number, answer.cookie_state) == (1, "foreign")


async def test_without_a_store_the_cookie_alone_counts() -> None:
    desk = Desk(store=CookieOnly())
    assert [(await desk.text()).number for _ in range(20)] == list(range(1, 21))
    assert (await desk.text(sid=3)).number == 3
    assert (await desk.text()).number == 21
    big = Desk(store=CookieOnly())

    async def fill(message: Message, session: Session) -> str:
        session.data = {"a": "x" * 400}
        return "too much"

    big.exchange.policy.dialogue = LoadedDialogue(fill)
    answer = await big.text()
    assert type(answer.error) is DataError


async def test_a_conversation_that_the_overlay_knows_too_is_not_restored_by_its_cookie() -> None:
    desk = Desk()
    await desk.text()
    load = desk.memory.load

    async def fail(key: bytes) -> tuple[Record | None, Any]:
        raise StoreUnavailable("node", "down")

    desk.memory.load = fail  # type: ignore[method-assign]
    assert (await desk.text()).outcome == "degraded"
    desk.memory.load = load  # type: ignore[method-assign]
    await desk.memory.flush()
    answer = await desk.text()
    assert (answer.number, answer.restored) == (3, False)


class Contended:
    """A store on which another replica is always faster, until `rounds` are over."""

    data_limit = 100_000
    patience_s = 0.95
    keeps_records = True

    def __init__(self, inner: Any, rounds: int, other: Callable[[], Awaitable[Any]]) -> None:
        self._inner = inner
        self._rounds = rounds
        self._other = other

    async def load(self, key: bytes, before: View | None = None) -> View:
        view: View = await self._inner.load(key, before)
        return view

    async def save(self, key: bytes, record: Record, token: Any, *, again: bool = False) -> Any:
        if self._rounds:
            self._rounds -= 1
            await self._other()
        return await self._inner.save(key, record, token, again=again)


async def test_a_conflict_asks_the_dialogue_again_with_the_new_number() -> None:
    desk = Desk()
    for _ in range(AT_ONCE_TIMES):
        await desk.text(From="+14155550111")  # somebody else: the handler is trusted now
    other = Desk(store=desk.store)
    desk.exchange._ledger.store = Contended(desk.store, 3, other.text)  # type: ignore[assignment]
    answer = await desk.text("mine", sid=999)
    assert said(answer) == "mine is number 4"
    assert desk.told.conflicts == 3


@pytest.mark.parametrize("latency_s", [0.0, 0.02])
async def test_a_store_that_never_lets_anybody_win_is_given_up_in_time(latency_s: float) -> None:
    desk = Desk()
    await desk.text()
    save, tries = desk.memory.save, 0

    async def conflict(*_: object, **__: object) -> None:
        nonlocal tries
        tries += 1
        await asyncio.sleep(latency_s)

    desk.memory.save = conflict  # type: ignore[method-assign]
    began_s = asyncio.get_running_loop().time()
    assert (await desk.text()).number == 2
    assert asyncio.get_running_loop().time() - began_s < desk.store.patience_s * 1.5
    assert 1 < tries <= 3 * MOST_TRIES
    assert desk.store.pending == 1
    desk.memory.save = save  # type: ignore[method-assign]
    await desk.store.reconcile()
    assert (await desk.text()).number == 3


async def test_a_store_that_fails_between_read_and_write_costs_no_second_question() -> None:
    asked = []

    async def dialogue(message: Message, session: Session) -> str:
        asked.append(session.count)
        return str(session.count)

    desk = Desk(dialogue)
    for _ in range(AT_ONCE_TIMES - 1):
        await desk.text(From="+14155550111")  # somebody else: the handler is trusted then
    asked.clear()
    await desk.text()
    save = desk.memory.save

    async def fail(*_: object, **__: object) -> None:
        raise StoreUnavailable("node", "timeout")

    desk.memory.save = fail  # type: ignore[method-assign]
    answer = await desk.text(cookie=None)
    assert (answer.outcome, answer.number) == ("degraded", 2)
    assert asked == [1, 2]
    desk.memory.save = save  # type: ignore[method-assign]
    await desk.store.reconcile()
    assert (await desk.text(cookie=None)).number == 3


async def test_messages_at_the_same_time_are_counted_in_the_order_of_their_arrival() -> None:
    desk = Desk()
    answers = await asyncio.gather(*(desk.answer(desk.message(str(n))) for n in range(1, 11)))
    assert [said(answer) for answer in answers] == [f"{n} is number {n}" for n in range(1, 11)]
    assert desk.told.conflicts == 0
    assert not [*desk.exchange._ledger]


async def test_a_client_that_goes_away_while_it_waits_to_be_counted_holds_nobody_up() -> None:
    desk = Desk()
    load = desk.memory.load

    async def yielding_load(key: bytes) -> tuple[Record | None, Record | None]:
        await asyncio.sleep(0.001)
        return await load(key)

    desk.memory.load = yielding_load  # type: ignore[method-assign]
    tasks = [asyncio.ensure_future(desk.answer(desk.message())) for _ in range(3)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    first, gone, last = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(gone, asyncio.CancelledError)
    answers = [answer for answer in (first, last) if isinstance(answer, Answer)]
    assert [*map(said, answers)] == ["hi is number 1", "hi is number 2"]
    assert not [*desk.exchange._ledger]
