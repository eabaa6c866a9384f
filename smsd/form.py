"""Asks several questions, one message after the other: answers are checked, taken back,
or given up.

A form keeps nothing outside of `session.data`: the next message may come to another
replica, after a restart, to a new version of the program, or be the last one once more.

That is why a form is no coroutine that awaits the next message; such a coroutine would
live in the memory of one process. A form writes the texts of the answers into
`session.data` and reads them again at each message. So values need no JSON form, and if
a new version of the program refuses an old answer, it asks that question again.

Twilio itself answers STOP, CANCEL, END and QUIT where it handles opt-outs (see
`Message.is_opt_out`), so people leave a form with "never mind".
"""

import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from string import Formatter
from typing import Any

from smsd.conversation.session import Session

LONGEST_ANSWER = 200
"""Characters. A few short answers fit into the cookie, which outlives the store."""

_REFUSALS = (ValueError, LookupError, ArithmeticError)  # of int and date, of a dict, of Decimal


def text(answer: str) -> str:
    """A reader for `Ask`: takes any answer but an empty one, which raises ValueError."""
    if not answer:
        raise ValueError("empty")
    return answer


def yes(answer: str) -> bool:
    """A reader for `Ask` that confirms: True for a yes in English, else ValueError.

    >>> yes("OK!")
    True
    """
    if comparable(answer) not in ("yes", "y", "yes please", "yep", "yeah", "ok", "okay", "sure"):
        raise ValueError("not a yes")
    return True


@dataclass(frozen=True, slots=True)
class Ask:
    """One question of a form.

    name      names the answer
    question  the text that is sent. It may quote earlier answers, as `str.format` does
    read      turns an answer, without blanks around it, into a value. It refuses the
              answer by raising ValueError, LookupError or ArithmeticError; the question
              is then asked again. Whatever else it raises fails the message. smsd calls
              it again at later messages, so it must be quick and have no side effects
    hint      sent after an answer that was refused; by default the question

    >>> from decimal import Decimal
    >>> Ask("price", "How much?", read=Decimal, hint="Send a number, such as 7.50.").name
    'price'
    """

    name: str
    question: str
    read: Callable[[str], Any] = text
    hint: str = ""


class Form:
    """Questions in order, each asked until its answer can be read.

    asks   the questions
    name   the key in `session.data`. Forms of one dialogue need different names
    back   what people write to answer the last question again, in any case
    leave  what they write to give up
    again  what they write to start over
    left   the text that is sent when they gave up

    Raises ValueError if there is no question, if two have the same name, or if one
    quotes an answer that is asked for later.

    >>> from datetime import date
    >>> from smsd import Session
    >>> booking = Form(
    ...     Ask("name", "Under what name?"),
    ...     Ask("day", "Hello {name}! Which day?", read=date.fromisoformat, hint="Like 2026-12-24."),
    ...     Ask("sure", "A table for {name} on {day:%d %B}? Write yes, or back.", read=yes),
    ... )
    >>> session = Session(1)
    >>> for words in ["hi", "Ada", "tomorrow", "2026-12-24", "back", "2026-12-25", "Yes!"]:
    ...     print(booking.hear(words, session))
    Under what name?
    Hello Ada! Which day?
    Like 2026-12-24.
    A table for Ada on 24 December? Write yes, or back.
    Hello Ada! Which day?
    A table for Ada on 25 December? Write yes, or back.
    {'name': 'Ada', 'day': datetime.date(2026, 12, 25), 'sure': True}
    """

    def __init__(
        self,
        *asks: Ask,
        name: str = "form",
        back: Iterable[str] = ("back",),
        leave: Iterable[str] = ("never mind", "nevermind", "forget it"),
        again: Iterable[str] = ("start over",),
        left: str = "All right, forgotten.",
    ) -> None:
        _check(asks)
        self.name = name
        self._asks = asks
        self._back, self._leave, self._again = (
            {*map(comparable, words)} for words in (back, leave, again)
        )
        self._left = left

    def is_open(self, session: Session) -> bool:
        """Whether a question waits for its answer."""
        return isinstance(session.data.get(self.name), dict)

    def hear(self, message: str, session: Session) -> str | dict[str, Any]:
        """Take a message's text; return the text to send, or all answers after the last
        one.

        The message that opens the form is not an answer: the first question is
        returned. The last answer closes the form, and the values are returned by their
        names.
        """
        heard = self._hear(message, session)
        session.waiting_form = self.name if self.is_open(session) else None
        return heard

    def _hear(self, message: str, session: Session) -> str | dict[str, Any]:
        if not self.is_open(session):
            session.data[self.name] = {}
        elif (word := comparable(message)) in self._leave:
            del session.data[self.name]
            return self._left
        elif word in self._again:
            session.data[self.name] = {}
        elif word in self._back:
            for name in [*self._values(session)][-1:]:
                del session.data[self.name][name]
        else:
            return self._take_answer(message.strip(), session)
        return self._question(session)

    def _take_answer(self, answer: str, session: Session) -> str | dict[str, Any]:
        values = self._values(session)
        ask = self._asks[len(values)]
        try:
            values[ask.name] = _read(ask, answer)
        except _REFUSALS:
            return ask.hint or self._question(session)
        session.data[self.name][ask.name] = answer
        if ask is not self._asks[-1]:
            return self._question(session)
        del session.data[self.name]
        return values

    def _question(self, session: Session) -> str:
        values = self._values(session)
        return self._asks[len(values)].question.format(**values)

    def _values(self, session: Session) -> dict[str, Any]:
        """The answers up to the first that is missing or refused, without the last
        question's.
        """
        values: dict[str, Any] = {}
        for ask in self._asks[:-1]:
            try:
                values[ask.name] = _read(ask, session.data[self.name][ask.name])
            except _REFUSALS:
                break
        return values


def comparable(words: str) -> str:
    """The form in which words are compared: without case, blanks or stops around them."""
    folded = unicodedata.normalize("NFC", words).casefold()
    return " ".join(folded.split()).strip(" .!")


def _read(ask: Ask, answer: object) -> Any:
    if not isinstance(answer, str) or len(answer) > LONGEST_ANSWER:
        raise ValueError("not a text, or too long")
    return ask.read(answer)


def _check(asks: Iterable[Ask]) -> None:
    """Show the author's mistakes when the form is made, not when somebody answers it."""
    known: set[str] = set()
    for ask in asks:
        fields = [field for _, field, _, _ in Formatter().parse(ask.question) if field is not None]
        for field in fields:
            if re.split(r"[.\[]", field)[0] not in known:
                raise ValueError(
                    f"the question {ask.name!r} quotes {{{field}}}, which no earlier question asks"
                )
        if ask.name in known:
            raise ValueError(f"two questions are named {ask.name!r}")
        known.add(ask.name)
    if not known:
        raise ValueError("a form needs a question")
