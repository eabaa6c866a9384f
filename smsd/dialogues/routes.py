"""The parts of a router's table: a line for listings, a handler, a number, a place.

Must not decide which route takes a message: `smsd.router` does.
"""

import inspect
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from smsd.dialogues.loading import takes
from smsd.dialogues.matching import TextFilter
from smsd.errors import RouteError

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
    """

    kind: str
    takes: str
    handler: str
    place: str
    nested: tuple["Route", ...] = ()

    def __str__(self) -> str:
        kind = "" if self.kind == "words" else self.kind
        return " ".join(filter(None, [kind, self.takes, "->", self.handler]))


class Handler:
    """What a route leads to, and where the route was registered."""

    def __init__(self, target: Any, place: str, name: str = "") -> None:
        self.target = target
        self.place = place
        self.name = name or getattr(target, "__qualname__", None) or type(target).__qualname__

    def __str__(self) -> str:
        return f"{self.name} ({self.place})"

    def check_arguments(self, count: int, *names: str) -> None:
        """Raise RouteError if it does not take `count` arguments and these named ones."""
        if not inspect.isclass(self.target) and not takes(self.target, count, *names):
            further = [f"argument {n}" for n in range(3, count + 1)] + [*names]
            raise RouteError(f"{self} must take ({', '.join(['message', 'session', *further])})")


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
            raise RouteError(f"{place}: {text} consists of blanks and stops alone")
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
    raise RouteError(f'{place}: {number!r} is no number; write it like "+14155550100" or "12345"')


def joined(shown: Iterable[object]) -> str:
    """Alternatives, for a listing."""
    return " | ".join(map(str, shown))


def place_of_caller() -> str:
    """ "FILE:LINE" of the code that called the function that calls this one."""
    frame = inspect.currentframe()
    for _ in range(2):
        frame = frame.f_back if frame else None
    return f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame else "?"
