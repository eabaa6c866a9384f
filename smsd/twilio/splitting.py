"""Cuts a text into messages that Twilio sends, and drops characters that XML cannot
carry.

It must not change a text that fits into one message, except for the characters that no
XML parser accepts.
"""

import re
import unicodedata
from collections.abc import Iterator

from smsd.errors import ReplyError

MOST_CHARACTERS = 1600
"""Of one message, in UTF-16 units. Who counts code points counts fewer, so this is
safe.
"""

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ZWJ = "\u200d"
_LONGEST_CLUSTER = 64


def clean(text: str) -> str:
    """`text` without the characters that XML cannot carry. Raises ReplyError if it is
    no str.
    """
    if not isinstance(text, str):
        raise ReplyError(f"a text must be a str, not {type(text).__name__}")
    if text.isprintable():  # then it is XML, and most texts are
        return text
    return _NOT_XML.sub("", text)


def split_text(text: str, *, may_split: bool = True) -> Iterator[str]:
    """The messages that `text` becomes: none if it is blank, several if it is too long.

    Raises ReplyError if it is too long and must not be split.
    """
    text = clean(text)
    if _fits(text):
        if text.strip():
            yield text
        return
    if not may_split:
        raise ReplyError(
            f"a text has more than {MOST_CHARACTERS} characters; shorten it, or leave out split=False"
        )
    rest = text.strip()
    while not _fits(rest):
        end = _end_of_first(rest)
        yield rest[:end].rstrip()
        rest = rest[end:].lstrip()
    if rest:
        yield rest


def _fits(text: str) -> bool:
    if len(text) > MOST_CHARACTERS or text.isascii():
        return len(text) <= MOST_CHARACTERS
    return len(text.encode("utf-16-le")) <= 2 * MOST_CHARACTERS


def _end_of_first(text: str) -> int:
    """Where the first message of a long text ends: at its last blank, else between
    graphemes.
    """
    units = text[:MOST_CHARACTERS].encode("utf-16-le")[: 2 * MOST_CHARACTERS]
    head = units.decode("utf-16-le", "ignore")  # drops half a surrogate pair at the end
    if head[-1].isspace() or text[len(head)].isspace():
        return len(head)
    last_word = head.split()[-1]
    if len(last_word) < len(head):
        return head.rindex(last_word)
    for end in range(len(head), len(head) - _LONGEST_CLUSTER, -1):
        if not _is_joined(text, end):
            return end
    return len(head)


def _is_joined(text: str, place: int) -> bool:
    """Whether the characters around `place` are one to the eye: accents, emoji
    sequences, flags.
    """
    before, after = text[place - 1], text[place]
    if _ZWJ in (before, after) or unicodedata.category(after)[0] == "M":
        return True
    if "\U0001f3fb" <= after <= "\U0001f3ff" or "\U000e0020" <= after <= "\U000e007f":
        return True  # a skin tone or a tag
    flags = re.search("[\U0001f1e6-\U0001f1ff]*$", text[max(0, place - _LONGEST_CLUSTER) : place])
    return "\U0001f1e6" <= after <= "\U0001f1ff" and flags is not None and len(flags[0]) % 2 == 1
