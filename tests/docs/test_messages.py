"""The messages for people are found, and written in the words that the house uses."""

import re

import pytest

from tests.docs.messages import messages
from tests.docs.pages import pages

AVOIDED = {
    r"\banew\b": "again",
    r"\bheeds?\b": "notice, follow",
    r"\bfor ever\b": "forever, or how long",
    r"\bat a desk\b": "for local development",
    r"\bbelongs? into\b": "goes into",
    r"(?<![Tt]here )\bis no (?!such\b|longer\b|more\b)\w+": "is not a",
    r"\bof one's own\b": "your own",
}
"""Words that make readers stop, and what to write instead."""

TEXTS = {f"{path}:{line}": text for path, line, text in messages()} | {
    each.path: each.prose for each in pages()
}


def test_the_list_holds_messages_of_every_kind() -> None:
    texts = [text for _, _, text in messages()]
    for part in ("SMSD_ADMIN_PORT: must differ", "Twilio calls another host", "text a running"):
        assert any(part.lower() in text.lower() for text in texts), part


@pytest.mark.parametrize("pattern", AVOIDED)
def test_messages_and_pages_avoid_words_that_make_readers_stop(pattern: str) -> None:
    found = [
        f"{place}: {match[0]}"
        for place, text in TEXTS.items()
        for match in re.finditer(pattern, text)
    ]
    assert not found, f"write {AVOIDED[pattern]!r}: {found}"
