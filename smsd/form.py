"""Questions one after the other, by text message: asked, checked, taken back, given up.

>>> from datetime import date
>>> from smsd import Session
>>> booking = Form(
...     Ask("name", "Under what name?"),
...     Ask("day", "Hello {name}! Which day?", read=date.fromisoformat, hint="Write it like 2026-12-24."),
...     Ask("sure", "A table for {name} on {day:%d %B}? Write yes, or back.", read=yes),
... )
>>> session = Session(1)
>>> for words in ["hi", "Ada", "tomorrow", "2026-12-24", "back", "2026-12-25", "Yes!"]:
...     print(booking.hear(words, session))
Under what name?
Hello Ada! Which day?
Write it like 2026-12-24.
A table for Ada on 24 December? Write yes, or back.
Hello Ada! Which day?
A table for Ada on 25 December? Write yes, or back.
{'name': 'Ada', 'day': datetime.date(2026, 12, 25), 'sure': True}

Why not a coroutine that awaits the next message? It lives in the memory of one process, but the next message may
come to another replica, after a restart, to a new version of the program, or be the last one once more. Only what is
written down survives that: here the texts of the answers so far, in `session.data`. They are read anew at each
message, so values need no form in JSON, and an answer that a new version would refuse is asked for again.

STOP, CANCEL, END and QUIT alone are answered by Twilio and reach no dialogue (but with SMSD_OPT_OUT=off): hence "never
mind". No network, no clock, no environment.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from string import Formatter
from typing import Any

from smsd.conversation.session import Session

LONGEST_ANSWER = 200
"""Characters. A few short answers fit into the cookie, which outlives the store."""

_REFUSED = (ValueError, LookupError, ArithmeticError)  # of int and date, of a dict, of Decimal


def text(answer: str) -> str:
    """Any answer but an empty one."""
    if not answer:
        raise ValueError("empty")
    return answer


def yes(answer: str) -> bool:
    """Only a yes: for the question that confirms."""
    if plain(answer) not in ("yes", "y", "yes please", "yep", "yeah", "ok", "okay", "sure"):
        raise ValueError("not a yes")
    return True


@dataclass(frozen=True, slots=True)
class Ask:
    """One question.

    name      of the answer
    question  as sent; may hold answers to earlier questions, as `str.format` does
    read      makes a value of an answer, which comes without blanks around it. Refuses it by ValueError, LookupError
              or ArithmeticError. Called again at later messages: it must change nothing
    hint      sent after an answer that was refused; the question by default
    """

    name: str
    question: str
    read: Callable[[str], Any] = text
    hint: str = ""


class Form:
    """Questions in order, each asked until its answer is read.

    name               the key in `session.data`; forms of one dialogue need names of their own
    back, leave, again what people write to answer the last question anew, to give up, to begin anew; in any case
    left               sent when they gave up
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
        self._asks = asks
        self._name = name
        self._back, self._leave, self._again = (
            {*map(plain, words)} for words in (back, leave, again)
        )
        self._left = left

    def is_open(self, session: Session) -> bool:
        """Whether a question waits for its answer."""
        return isinstance(session.data.get(self._name), dict)

    def hear(self, message: str, session: Session) -> str | dict[str, Any]:
        """What to send next, or, after the last answer, all of them by name; the form is then closed.

        The message that opens the form is no answer: the first question is sent.
        """
        if not self.is_open(session):
            session.data[self._name] = {}
        elif (word := plain(message)) in self._leave:
            del session.data[self._name]
            return self._left
        elif word in self._again:
            session.data[self._name] = {}
        elif word in self._back:
            for name in [*self._values(session)][-1:]:
                del session.data[self._name][name]
        else:
            return self._answered(message.strip(), session)
        return self._question(session)

    def _answered(self, answer: str, session: Session) -> str | dict[str, Any]:
        values = self._values(session)
        ask = self._asks[len(values)]
        try:
            values[ask.name] = _value(ask, answer)
        except _REFUSED:
            return ask.hint or self._question(session)
        session.data[self._name][ask.name] = answer
        if ask is not self._asks[-1]:
            return self._question(session)
        del session.data[self._name]
        return values

    def _question(self, session: Session) -> str:
        values = self._values(session)
        return self._asks[len(values)].question.format(**values)

    def _values(self, session: Session) -> dict[str, Any]:
        """The answers up to the first that is missing or refused; never that of the last question."""
        values: dict[str, Any] = {}
        for ask in self._asks[:-1]:
            try:
                values[ask.name] = _value(ask, session.data[self._name][ask.name])
            except _REFUSED:
                break
        return values


def plain(words: str) -> str:
    """As words are compared: no case, no blanks or stops around."""
    return " ".join(words.casefold().split()).strip(" .!")


def _value(ask: Ask, answer: object) -> Any:
    if not isinstance(answer, str) or len(answer) > LONGEST_ANSWER:
        raise ValueError("no text, or too long a one")
    return ask.read(answer)


def _check(asks: Iterable[Ask]) -> None:
    """Mistakes of the author show when the form is made, not when somebody gets there."""
    known: set[str] = set()
    for ask in asks:
        fields = [field for _, field, _, _ in Formatter().parse(ask.question) if field is not None]
        for field in fields:
            if re.split(r"[.\[]", field)[0] not in known:
                raise ValueError(
                    f"the question {ask.name!r} holds {{{field}}}, which is not asked before"
                )
        if ask.name in known:
            raise ValueError(f"two questions are named {ask.name!r}")
        known.add(ask.name)
    if not known:
        raise ValueError("a form needs a question")
