"""A form by text message: whoever writes whatever, it goes on, and keeps what was
answered."""

import asyncio
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smsd.conversation.session import Session
from smsd.form import LONGEST_ANSWER, Ask, Form, yes
from smsd.twilio.message import Message
from tests.exchange.test_exchange import Desk, said

pytestmark = pytest.mark.asyncio

ASKS = (
    Ask("name", "Name?"),
    Ask("day", "{name}, which day?", read=date.fromisoformat, hint="Like 2026-12-24."),
    Ask("seats", "{day:%d.%m.}: how many?", read=int),
    Ask("sure", "{seats} for {name}? Yes or back.", read=yes),
)
GOOD = {"name": "Ada", "day": "2026-12-24", "seats": " 4 ", "sure": "Yes!"}
VALUES = {"name": "Ada", "day": date(2026, 12, 24), "seats": 4, "sure": True}
QUESTIONS = ("Name?", "Ada, which day?", "24.12.: how many?", "4 for Ada? Yes or back.")


class Thread:
    """One conversation. Between messages nothing is kept but the data, packed as in the
    cookie."""

    def __init__(self, *asks: Ask, packed: bytes = b"") -> None:
        self.form = Form(*asks or ASKS)
        self.packed = packed

    def say(self, *messages: str) -> str | dict[str, Any]:
        """What is answered to the last one."""
        heard: str | dict[str, Any] = ""
        for message in messages:
            session = Session(1, packed_data=self.packed)
            heard = self.form.hear(message, session)
            self.packed = session.packed_data()
        return heard


def test_questions_come_in_order_and_quote_earlier_answers() -> None:
    thread = Thread()
    assert tuple(thread.say(word) for word in ("hi", *list(GOOD.values())[:-1])) == QUESTIONS
    assert thread.say("yes") == VALUES
    assert thread.packed == b""
    assert thread.say("yes") == "Name?", "the form is closed, and can be opened again"


@pytest.mark.parametrize("back", ["back", "Back.", "  BACK! "])
def test_back_takes_the_last_answer_back_repeatedly(back: str) -> None:
    thread = Thread()
    assert thread.say("hi", "Ada", "2026-12-24", "4", back) == "24.12.: how many?"
    assert thread.say(back) == "Ada, which day?"
    assert thread.say(back, back, back) == "Name?"
    assert thread.say("Bob") == "Bob, which day?"


def test_never_mind_forgets_all_and_start_over_begins_anew() -> None:
    thread = Thread()
    assert thread.say("hi", "Ada", "Start over") == "Name?"
    assert thread.say("Ada", "Never mind!") == "All right, forgotten."
    assert thread.packed == b""


@pytest.mark.parametrize(
    ("ask", "answer", "reply"),
    [
        (Ask("a", "A?"), "", "A?"),
        (Ask("a", "A?"), " \n", "A?"),
        (Ask("a", "A?", hint="Some text."), "x" * (LONGEST_ANSWER + 1), "Some text."),
        (Ask("a", "A?", read=int), "four", "A?"),
        (Ask("a", "A?", read=Decimal), "four", "A?"),
        (Ask("a", "A?", read={"red": 1}.__getitem__, hint="Or red."), "blue", "Or red."),
        (Ask("a", "A?", read=yes), "no", "A?"),
    ],
)
def test_refused_answer_is_asked_for_again(ask: Ask, answer: str, reply: str) -> None:
    assert Thread(ask).say("hi", answer) == reply


def test_two_forms_with_their_own_words_share_a_conversation() -> None:
    first = Form(
        Ask("a", "A?"),
        Ask("b", "B?"),
        name="first",
        back=["zurück"],
        left="Gut.",
        leave=["vergiss es"],
    )
    second = Form(Ask("c", "C?"), name="second")
    session = Session(1)
    assert [first.hear("hi", session), second.hear("hi", session)] == ["A?", "C?"]
    assert first.hear("back", session) == "B?"
    assert first.hear("ZURÜCK", session) == "A?"
    assert second.hear("1", session) == {"c": "1"}
    assert first.is_open(session)
    assert first.hear("Vergiss es", session) == "Gut."
    assert not first.is_open(session)


@pytest.mark.parametrize(
    "asks",
    [
        (),
        (Ask("a", "A?"), Ask("a", "B?")),
        (Ask("a", "{b}?"), Ask("b", "B?")),
        (Ask("a", "{a}?"),),
        (Ask("a", "A?"), Ask("b", "{}?")),
        (Ask("a", "A?"), Ask("b", "{c.real}?")),
    ],
)
def test_form_that_could_not_be_asked_cannot_be_made(asks: tuple[Ask, ...]) -> None:
    with pytest.raises(ValueError, match=r"form needs|named 'a'|no earlier question"):
        Form(*asks)


def test_new_version_of_a_form_asks_refused_answers_again() -> None:
    thread = Thread()
    thread.say("hi", "Ada", "2026-12-24", "40")

    def few(answer: str) -> int:
        return range(1, 9)[int(answer) - 1]

    strict = (
        ASKS[0],
        ASKS[1],
        Ask("seats", "How many, to 8?", read=few),
        Ask("sure", "{day}, {seats}?", read=yes),
    )
    new = Thread(*strict, packed=thread.packed)
    assert new.say("yes") == "How many, to 8?"
    assert new.say("8") == "2026-12-24, 8?"
    shorter = Thread(ASKS[0], ASKS[1], packed=new.packed)
    assert shorter.say("2026-12-25") == {"name": "Ada", "day": date(2026, 12, 25)}


@pytest.mark.parametrize(
    "packed", [b'{"form":7}', b'{"form":[]}', b'{"form":{"name":7}}', b'{"form":{"day":"x"}}']
)
def test_data_of_another_dialogue_does_not_break_a_form(packed: bytes) -> None:
    thread = Thread(packed=packed)
    thread.say("start over")
    if thread.form.is_open(Session(2, packed_data=thread.packed)):
        thread.say("never mind")
    assert thread.say("hi", *GOOD.values()) == VALUES


WORDS = st.sampled_from(
    [
        *GOOD.values(),
        "Bob",
        "2027-01-01",
        "7",
        "no",
        "",
        "what?",
        "x" * 300,
        "back",
        "start over",
        "never mind",
        "hi",
    ]
)


@settings(max_examples=200, deadline=None)
@given(st.lists(WORDS, max_size=30))
def test_no_sequence_of_messages_loses_an_answer(walk: list[str]) -> None:
    thread = Thread()
    given: dict[str, Any] | None = (
        None  # what was answered and not taken back; None while the form is closed
    )
    for word in walk:
        heard = thread.say(word)
        given, expected = expected_of(given, word)
        assert heard == expected
    thread.say("hi") if given is None else None
    for ask in ASKS[len(given or {}) :]:
        heard = thread.say(GOOD[ask.name])
    assert heard == {**VALUES, **(given or {})}


def expected_of(given: dict[str, Any] | None, word: str) -> tuple[dict[str, Any] | None, object]:
    """The answers after a word, and what is said: a form with a list of answers for its
    memory."""
    if given is None:
        return {}, "Name?"
    if word == "never mind":
        return None, "All right, forgotten."
    if word == "start over":
        return {}, "Name?"
    ask = ASKS[len(given)]
    if word == "back":
        given = dict(list(given.items())[:-1])
    elif 0 < len(word.strip()) <= LONGEST_ANSWER and (value := accepted(ask, word)) is not None:
        given = {**given, ask.name: value}
        if len(given) == len(ASKS):
            return None, given
    elif ask.hint:
        return given, ask.hint
    return given, ASKS[len(given)].question.format(**given)


def accepted(ask: Ask, word: str) -> Any:
    try:
        return ask.read(word.strip())
    except ValueError:
        return None


async def test_repetitions_collisions_and_a_lost_store_lose_no_answer() -> None:
    form = Form(*ASKS)

    async def dialogue(message: Message, session: Session) -> str:
        heard = form.hear(message.body, session)
        return heard if isinstance(heard, str) else f"booked {heard['name']} {heard['seats']}"

    desk = Desk(dialogue)
    for number, word in enumerate(["hi", *GOOD.values()], start=1):
        answer = await desk.text(word, sid=number)
        again = await desk.text(word, sid=number)
        assert again.twiml == answer.twiml
        await desk.memory.flush()
    assert said(answer) == "booked Ada 4"
    desk.sent = 100
    await desk.text("hi")
    both = await asyncio.gather(*(desk.answer(desk.message("Ada"), desk.cookie) for _ in range(2)))
    assert [said(answer) for answer in both] == ["Ada, which day?", "Like 2026-12-24."]
