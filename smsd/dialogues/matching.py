"""Which texts a route takes: a word in any case, or a pattern; and which of two routes
hides the other.

Whether one pattern hides another cannot be decided in general. So the usual mistake, a
general route before a special one, is found by trial: texts are made that the second
pattern takes, with many characters and lengths in place of its wildcards. If the first
one takes them all, it hides the second. Patterns with other than the usual elements are
not tried.
"""

import re
from collections.abc import Mapping
from functools import cached_property
from itertools import product
from types import MappingProxyType
from typing import Any, NamedTuple

from smsd.form import comparable

_PROBES = ("a", "7", "B 2!", "x" * 200, "\N{GRINNING FACE} \N{GREEK SMALL LETTER BETA}")
"""Unlike each other: a pattern that takes all of them takes every text of one line."""

_PROBES_OF_OTHERS = ("", "a\nb")  # a message may be a picture alone, and have several lines
_FILLERS = [*map(chr, range(32, 127)), "a\nb", "\u00e9", "\u0436", "\u0663", "\u4e16", "\U0001f600"]
"""ASCII, two lines, a letter with an accent, a Cyrillic one, an Arabic digit, a Chinese
sign, an emoji."""
_TRIALS = [
    *((filler, 1) for filler in _FILLERS),
    *product(("a", "7", " ", "\u0436"), (2, 3, 6)),
]
"""What stands for a wildcard, and how often for one that may be repeated: not very
often, since some patterns take exponential time for long texts."""
_UNUSUAL = re.compile(r"\(\?(?!:|P<)|\\[1-9bBAZ]|\||\{")
_EXCEPTIONS = re.compile(r"\(\?<?[=!]|\\[1-9bB]|\{")
_GROUP = re.compile(r"\(\?P<\w+>|\(\?:|(?<!\\)[()^$]")
_WILDCARD = re.compile(r"\[\^?\]?[^\]]*\]|\\[dDwWsS]|(?<!\\)\.")
_REPEATED = re.compile(r"(\\?.)[+*]\??", re.DOTALL)
_SPECIAL = re.compile(r"[\\.^$*+?{}\[\]|()]")


class Groups(NamedTuple):
    """What a pattern found in a text: its groups, as further arguments of a handler."""

    positional: tuple[Any, ...] = ()
    named: Mapping[str, Any] = MappingProxyType({})


NO_GROUPS = Groups()


class TextFilter:
    """The texts that a word or a compiled pattern stands for."""

    def __init__(self, given: str | re.Pattern[str]) -> None:
        self.pattern = given if isinstance(given, re.Pattern) else None
        self.literal = _literal(given)
        """The text that it stands for, or None for a true pattern."""
        self.word = comparable(given) if isinstance(given, str) else None
        self._shown = repr(given) if isinstance(given, str) else f"/{given.pattern}/"

    def __str__(self) -> str:
        return self._shown

    @property
    def is_empty(self) -> bool:
        """Whether it is a word of nothing but blanks and full stops."""
        return self.word == ""

    @property
    def takes_every_line(self) -> bool:
        """Whether it takes every text of one line, but perhaps the empty one."""
        return self.pattern is not None and all(map(self.pattern.fullmatch, _PROBES))

    @property
    def takes_everything(self) -> bool:
        """Whether it takes every message."""
        return self.takes_every_line and all(map(self.pattern.fullmatch, _PROBES_OF_OTHERS))  # type: ignore[union-attr]

    def find(self, text: str) -> Groups | None:
        """The groups if it takes `text`, else None."""
        if self.pattern is None:
            return Groups() if comparable(text) == self.word else None
        match = self.pattern.fullmatch(text.strip())
        if match is None:
            return None
        named = match.groupdict()
        return Groups((), named) if named else Groups(match.groups())

    def takes(self, text: str) -> bool:
        """Whether a message with this text belongs to it."""
        return self.find(text) is not None

    @property
    def arguments(self) -> tuple[int, tuple[str, ...]]:
        """How many positional arguments it adds to a handler's, and the names of the
        others.
        """
        names = tuple(self.pattern.groupindex) if self.pattern else ()
        return (0, names) if names or not self.pattern else (self.pattern.groups, ())

    @property
    def no_groups(self) -> Groups:
        """The further arguments of a handler that is called for another reason: all
        None.
        """
        count, names = self.arguments
        return Groups((None,) * count, dict.fromkeys(names))

    @cached_property
    def samples(self) -> tuple[str, ...]:
        """Texts that a pattern of usual elements takes, with many fillers for its
        wildcards.
        """
        if self.pattern is None or _UNUSUAL.search(self.pattern.pattern):
            return ()
        if self.pattern.flags & re.VERBOSE:
            return ()
        without_groups = _GROUP.sub("", self.pattern.pattern)
        texts = {_filled(without_groups, filler, length) for filler, length in _TRIALS}
        if self.pattern.flags & re.IGNORECASE:
            texts |= {text.upper() for text in texts} | {text.lower() for text in texts}
        return tuple(filter(self.takes, texts))

    def is_same_as(self, other: "TextFilter") -> bool:
        """Whether both stand for the same texts, as far as one can see."""
        if self.word is not None:
            return self.word == other.word
        return self.pattern == other.pattern

    def hides(self, other: "TextFilter") -> bool:
        """Whether `other`, asked after this one, would miss texts that are meant for
        it.
        """
        literal = other.literal
        if literal is None:
            if any(not self.takes(text) and other.takes(text) for text in _PROBES_OF_OTHERS):
                return False
            is_tried = bool(other.samples) or self.takes_every_line
            if self.pattern and _EXCEPTIONS.search(self.pattern.pattern):
                return False  # what it leaves out may be just what the trial does not try
            return is_tried and all(map(self.takes, other.samples))
        spellings = {literal, literal.lower(), literal.upper(), literal.capitalize()}
        return any(map(self.takes, spellings))


def _filled(pattern: str, filler: str, length: int) -> str:
    """A pattern without groups as a text: its wildcards filled, its repetitions carried
    out.
    """
    escaped = re.sub(r"(\W)", r"\\\1", filler)
    filled = _WILDCARD.sub(lambda _: escaped, pattern)
    repeated = _REPEATED.sub(lambda found: found[1] * length, filled)
    return re.sub(r"\\(.)", r"\1", repeated, flags=re.DOTALL)


def _literal(given: str | re.Pattern[str]) -> str | None:
    if isinstance(given, str):
        return given
    bare = given.pattern.removeprefix("^").removesuffix("$")
    return None if _SPECIAL.search(bare) else bare
