"""The parts of a router: its handlers, its routes of words and patterns, and the lines
of its table.

In which order the kinds of routes are asked is for `smsd.router` to decide.
"""

import inspect
import re
from collections.abc import Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from smsd.conversation.session import Session
from smsd.dialogues.loading import LoadedDialogue, make, takes
from smsd.dialogues.matching import NO_GROUPS, Groups, TextFilter
from smsd.errors import RouteError
from smsd.twilio.message import OPT_OUT_WORDS, Message

KINDS = ("number", "anywhere", "form", "words", "otherwise")
"""Every `Route.kind`, in the order in which a router asks its routes."""

_NUMBER = re.compile(r"\+[1-9][0-9]{6,14}|[0-9]{3,8}")


@dataclass(frozen=True, slots=True)
class Route:
    """One line of a router's table, for listings. Added in 0.2.

    kind      one of KINDS
    takes     the words and patterns, the number, or the form's name
    handler   name of the handler
    place     "FILE:LINE" of the registration
    nested    the routes of the handler, if it is a router itself
    note      what the author should know about it, or ""
    """

    kind: str
    takes: str
    handler: str
    place: str
    nested: tuple["Route", ...] = ()
    note: str = ""

    def __str__(self) -> str:
        kind = "" if self.kind == "words" else self.kind
        return " ".join(filter(None, [kind, self.takes, "->", self.handler]))


class Handler:
    """What a route leads to, and where the route was registered.

    `key` names the route in `session.data`, so it must be the same in the next version.
    """

    def __init__(self, target: Any, place: str, name: str = "", key: str = "") -> None:
        self.target = target
        self.place = place
        self.key = key
        self.name = name or getattr(target, "__qualname__", None) or type(target).__qualname__

    def __str__(self) -> str:
        return f"{self.name} ({self.place})"

    def check_arguments(self, count: int, *names: str) -> None:
        """Raise RouteError if it does not take `count` arguments and these named ones."""
        if not inspect.isclass(self.target) and not takes(self.target, count, *names):
            further = [f"argument {n}" for n in range(3, count + 1)] + [*names]
            raise RouteError(f"{self} must take ({', '.join(['message', 'session', *further])})")


class TextRoutes:
    """The routes of words and patterns: those asked anywhere, then the others, in
    order.
    """

    def __init__(self) -> None:
        self._anywhere: list[tuple[TextFilter, Handler]] = []
        self._words: list[tuple[TextFilter, Handler]] = []

    def find(self, text: str, *, anywhere: bool) -> tuple[Handler, Groups] | None:
        """The first handler that takes `text`, with the groups of its pattern."""
        for candidate, handler in self._anywhere if anywhere else self._words:
            groups = candidate.find(text)
            if groups is not None:
                return handler, groups
        return None

    def add(
        self, text: TextFilter, handler: Handler, otherwise: Handler | None, *, anywhere: bool
    ) -> None:
        """Add a route. RouteError if it is in another's way, or another in its way."""
        before = [*self._anywhere, *([] if anywhere else self._words)]
        after = self._words if anywhere else []
        for other, taken_by in [*before, *after]:
            if text.is_same_as(other):
                raise RouteError(f"{text} of {handler} is taken by {taken_by}; remove one of them")
        for other, hidden_by in before:
            if other.hides(text):
                raise RouteError(f"{text} of {handler} is unreachable: {hidden_by} takes it")
        for other, hidden in after:
            if text.hides(other):
                raise RouteError(f"{other} of {hidden} is unreachable: {handler} takes it")
        (self._anywhere if anywhere else self._words).append((text, handler))
        if otherwise:
            self.check_reachable(otherwise)

    def check_reachable(self, otherwise: Handler) -> None:
        """RouteError if a pattern takes every message, so that none is left for
        `otherwise`.
        """
        for text, handler in [*self._anywhere, *self._words]:
            if text.takes_everything:
                raise RouteError(f"{otherwise} is unreachable: {handler} takes every message")


class Handlers:
    """The handlers of a router as dialogues. One that has several routes is one
    dialogue.
    """

    def __init__(self) -> None:
        self._by_target: dict[int, Handler] = {}
        self._dialogues: dict[int, LoadedDialogue] = {}

    def add(self, handler: Handler) -> None:
        """Take in a handler. The object of a class is made once the settings are known."""
        key = id(handler.target)
        self._by_target[key] = handler
        if not inspect.isclass(handler.target):
            self._dialogues[key] = LoadedDialogue(handler.target)

    def dialogue(self, handler: Handler) -> LoadedDialogue:
        """The dialogue of a handler. RouteError for a class that was not made yet."""
        try:
            return self._dialogues[id(handler.target)]
        except KeyError:
            problem = f"{handler} is a class; smsd makes its object at startup"
            raise RouteError(problem) from None

    async def call(
        self, handler: Handler, message: Message, session: Session, more: Groups = NO_GROUPS
    ) -> Any:
        """What a handler returns."""
        dialogue = self.dialogue(handler)
        return await dialogue(message, session, *more.positional, **more.named)

    def bind_settings(self, settings: object) -> None:
        """Make the objects of classes, and pass the settings on to routers."""
        for key, handler in self._by_target.items():
            if inspect.isclass(handler.target) or hasattr(handler.target, "bind_settings"):
                self._dialogues[key] = make(handler.target, settings, str(handler))

    async def open(self) -> None:
        """Open all. If one fails, those opened before are closed again."""
        async with AsyncExitStack() as opened:
            for dialogue in self._dialogues.values():
                await dialogue.open()
                opened.push_async_callback(dialogue.close)
            opened.pop_all()

    async def reload(self, settings: object) -> None:
        """Pass changed settings on to all."""
        for dialogue in self._dialogues.values():
            await dialogue.reload(settings)

    async def close(self) -> None:
        """Close all."""
        for dialogue in self._dialogues.values():
            await dialogue.close()


def text_filters(
    words: Iterable[str | re.Pattern[str]], place: str, usage: str
) -> tuple[TextFilter, ...]:
    """A filter for each word or pattern. RouteError for anything else, and for blanks."""
    filters = []
    for word in words:
        pattern = word.pattern if isinstance(word, re.Pattern) else word
        if not isinstance(pattern, str):
            raise RouteError(f"{place}: write {usage}")
        text = TextFilter(word)
        if text.is_empty:
            raise RouteError(f"{place}: {text} has nothing but blanks and full stops")
        filters.append(text)
    return tuple(filters)


def number_address(number: str, place: str) -> str:
    """A number as Twilio writes it. RouteError if it cannot be one."""
    channel, colon, rest = str(number).strip().rpartition(":")
    digits = re.sub(r"[ ().-]", "", rest)
    if _NUMBER.fullmatch(digits):
        return channel + colon + digits
    if any(letter.isalpha() for letter in rest):  # a sender's name, an RCS agent
        return channel + colon + rest
    raise RouteError(
        f'{place}: {number!r} is not a number; write it like "+14155550100" or "12345"'
    )


def note_of(filters: Iterable[TextFilter]) -> str:
    """A warning if Twilio keeps one of these words to itself."""
    words = [str(text) for text in filters if text.word and text.word.upper() in OPT_OUT_WORDS]
    if not words:
        return ""
    return f"{', '.join(words)}: by SMS and RCS, Twilio answers this itself (SMSD_OPT_OUT)"


def joined(shown: Iterable[object]) -> str:
    """Alternatives, for a listing."""
    return " | ".join(map(str, shown))


def place_of_caller() -> str:
    """ "FILE:LINE" of the code that called the function that calls this one."""
    frame = inspect.currentframe()
    for _ in range(2):
        frame = frame.f_back if frame else None
    return f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame else "?"
