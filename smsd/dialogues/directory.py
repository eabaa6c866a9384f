"""A directory by text message: send part of a name, get the person, or a numbered list to choose from.

Shows a dialogue that remembers. What it keeps is small enough for the cookie: the text searched for and how far
the list was read, not the list. Numbers count the hits in the order of the file, so a file that has changed since
would give them another meaning: `version` tells, and the list is then shown anew.
"""

import unicodedata
import zlib
from collections.abc import Sequence
from typing import Protocol

from smsd import Message, Reply, Session

PAGE = 10
LONGEST_SEARCH = 60
LONGEST_NAME_LISTED = 60  # ten of them, and what is said before, stay below 1,600 characters
LONGEST_LINE = 200
_LETTERS = str.maketrans(
    {"\u0131": "i", "ø": "o", "ł": "l", "đ": "d", "ð": "d", "æ": "ae", "œ": "oe", "þ": "th"}
)


class Person(Protocol):
    """One entry. Whatever but the name may be empty."""

    @property
    def name(self) -> str: ...
    @property
    def phone(self) -> str: ...
    @property
    def email(self) -> str: ...
    @property
    def picture(self) -> str: ...


class Settings(Protocol):
    """The settings that this dialogue reads."""

    @property
    def directory(self) -> Sequence[Person]: ...


class Directory:
    """Answers with a person, a list, or how to go on."""

    def __init__(self, settings: Settings) -> None:
        self.reload(settings)

    def reload(self, settings: Settings) -> None:
        people = settings.directory
        self._entries = [(plain(person.name), person) for person in people]
        self._version = zlib.crc32(
            "\n".join(f"{p.name}\t{p.phone}\t{p.email}" for p in people).encode()
        )

    async def __call__(self, message: Message, session: Session) -> Reply | str:
        text = plain(message.body)
        searched, shown = session.data.get("search"), session.data.get("shown")
        if isinstance(searched, str) and isinstance(shown, int):
            number = _number(text)
            if text == "more" or 0 < number <= shown:
                if session.data.get("version") != self._version:
                    return self._search(searched, session)
                hits = self._hits(searched)
                return (
                    self._page(hits, shown, session) if text == "more" else _card(hits[number - 1])
                )
        return self._search(text, session)

    def _search(self, text: str, session: Session) -> Reply | str:
        if not text:
            return "Send me part of a name, and I look it up."
        hits = self._hits(text)
        if not hits:
            return "I found nobody of that name. Send me another part of it."
        if len(hits) == 1:
            session.data = {}
            return _card(hits[0])
        session.data = {"search": text, "version": self._version}
        return self._page(hits, 0, session)

    def _hits(self, text: str) -> list[Person]:
        if len(text) > LONGEST_SEARCH:
            return []
        return [person for name, person in self._entries if text in name]

    def _page(self, hits: Sequence[Person], start: int, session: Session) -> str:
        """Ten hits from `start` on, and how to choose."""
        listed = hits[start : start + PAGE]
        if not listed:
            return f"That was all. Send a number from 1 to {len(hits)}, or another name."
        session.data["shown"] = start + len(listed)
        more = ", or more" if start + PAGE < len(hits) else ""
        lines = [
            f"{place}. {_cut(hit.name, LONGEST_NAME_LISTED)}"
            for place, hit in enumerate(listed, start + 1)
        ]
        return "\n".join([f"I found {len(hits)}. Send a number{more}:", *lines])


def plain(text: str) -> str:
    """A text as it is compared: no accents, no case, single blanks."""
    letters = unicodedata.normalize("NFKD", text).casefold()
    bare = "".join(letter for letter in letters if not unicodedata.combining(letter))
    return " ".join(bare.translate(_LETTERS).split())


def _number(text: str) -> int:
    digits = text.removeprefix("#").removesuffix(".")
    return int(digits) if digits.isdecimal() and len(digits) <= 6 else 0


def _card(person: Person) -> Reply:
    lines = [_cut(line, LONGEST_LINE) for line in (person.name, person.phone, person.email) if line]
    return Reply("\n".join(lines), media=[person.picture] if person.picture else [])


def _cut(text: str, length: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= length else f"{text[: length - 1]}…"


reply = Directory
