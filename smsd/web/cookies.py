"""Finds smsd's cookie in what a client sends. Knows no HTTP message and no conversation
store.

Clients and proxies change cookies on the way: they send several Cookie headers (RFC
9113, 8.2.3), join them with a comma, percent-encode or quote the value, or send a
cookie twice. None of that may lose a count, so every value that may be ours is found
here.
"""

from urllib.parse import unquote

from smsd.conversation.copy import NAME, CookieCodec, unpack
from smsd.errors import CookieForged


def values(header: str) -> list[str]:
    """Every value of a cookie of ours, each once.

    >>> values("a=1; smsd=2%7C1:1, smsd=2|1:1")
    ['2|1:1']
    """
    found = []
    for cookie in header.replace(",", ";").split(";"):
        name, _, value = cookie.partition("=")
        if name.strip() == NAME:
            value = value.strip().strip('"')
            found.append(unquote(value) if "%" in value else value)
    return found if len(found) < 2 else list(dict.fromkeys(found))


def choose(header: str, codec: CookieCodec, conversation: bytes) -> str | None:
    """The most useful value: of this conversation if there is one, and the latest of
    those."""
    found = values(header)
    if len(found) < 2:
        return found[0] if found else None
    return max(found, key=lambda value: _usefulness(value, codec, conversation))


def _usefulness(value: str, codec: CookieCodec, conversation: bytes) -> tuple[bool, int]:
    try:
        copy = unpack(codec.payload(value.encode("ascii", "replace")))
    except CookieForged:
        return False, -1
    return copy.conversation == conversation, copy.last_ms
