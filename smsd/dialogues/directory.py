"""A directory by text message: send part of a name, and get the person, or a numbered
list.

An example of a dialogue that remembers. It must not keep more than fits into the
cookie, so it keeps the text that was searched for and how far the list was read, but
not the list.

Numbers count the hits in the order of the file. If the file changes, they would mean
other people; so the version of the file is kept too, and a stale list is shown again.
"""

import unicodedata
import zlib
from collections.abc import Sequence
from typing import Protocol

from smsd import Message, Reply, Session

PAGE = 10
LONGEST_SEARCH = 60
LONGEST_NAME_LISTED = 60  # a list of ten stays below 1,600 characters
LONGEST_LINE = 200
_LETTERS = str.maketrans(
    {"\u0131": "i", "ø": "o", "ł": "l", "đ": "d", "ð": "d", "æ": "ae", "œ": "oe", "þ": "th"}
)


class Person(Protocol):
    """One entry. Everything but the name may be empty."""

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
    """Replies with a person, with a list, or with how to go on."""

    def __init__(self, settings: Settings) -> None:
        self.reload(settings)

    def reload(self, settings: Settings) -> None:
        people = settings.directory
        self._entries = [(folded(person.name), person) for person in people]
        self._version = zlib.crc32(
            "\n".join(f"{p.name}\t{p.phone}\t{p.email}" for p in people).encode()
        )

    async def __call__(self, message: Message, session: Session) -> Reply | str:
        text = folded(message.body)
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
        """Ten hits, beginning with `start`, and how to choose one."""
        listed = hits[start : start + PAGE]
        if not listed:
            return f"That was all. Send a number from 1 to {len(hits)}, or another name."
        session.data["shown"] = start + len(listed)
        more = ", or more" if start + PAGE < len(hits) else ""
        lines = [
            f"{place}. {_shortened(hit.name, LONGEST_NAME_LISTED)}"
            for place, hit in enumerate(listed, start + 1)
        ]
        return "\n".join([f"I found {len(hits)}. Send a number{more}:", *lines])


def folded(text: str) -> str:
    """The form in which texts are compared: without accents and case, with single
    blanks.
    """
    letters = unicodedata.normalize("NFKD", text).casefold()
    without_accents = "".join(letter for letter in letters if not unicodedata.combining(letter))
    return " ".join(without_accents.translate(_LETTERS).split())


def _number(text: str) -> int:
    """The number that was chosen from a list, or 0."""
    digits = text.removeprefix("#").removesuffix(".")
    return int(digits) if digits.isdecimal() and len(digits) <= 6 else 0


def _card(person: Person) -> Reply:
    lines = [
        _shortened(line, LONGEST_LINE) for line in (person.name, person.phone, person.email) if line
    ]
    return Reply("\n".join(lines), media=[person.picture] if person.picture else [])


def _shortened(text: str, length: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= length else f"{text[: length - 1]}…"


reply = Directory
