"""Keeps private things out of the log: what libraries log, and what exceptions say.

Nothing here may let a phone number, a body, a cookie, a signature or a secret through.
smsd's own events need none of it: their fields are chosen where they are logged. All
else comes from outside, from Tornado, asyncio, libraries and warnings. Of that, only
words and short numbers are kept, and of an exception only its type and where it
happened.
"""

import errno
import logging
import re
import traceback
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any

from smsd.errors import SmsdError

MAX_TEXT = 500
MAX_FRAMES = 8
MAX_CHAIN = 4
HIDDEN = "***"

_HEADERS = "cookie|authorization|signature|token|secret|password|body|from|to"
_SCRUB = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"""\?[^\s'"]+""", f"?{HIDDEN}"),
        (rf"(?i)\b({_HEADERS})\b\s*[:=].*", rf"\1: {HIDDEN}"),
        (r"""(?s)b?"(?:[^"\\]|\\.)*"?|(?<!\w)b?'(?:[^'\\]|\\.)*'?""", f"'{HIDDEN}'"),
        (r"://[^\s/]*@", f"://{HIDDEN}@"),
        (r"[\w+/=|~%-]{20,}", HIDDEN),
        (r"\+?\d[\d\s().-]{5,}\d", HIDDEN),
    )
)


def scrub(text: str) -> str:
    """Hide quoted text, long numbers, long words and the values of headers; keep one
    line.

    >>> scrub("cannot call +1 415 867 5309 for 'Rey'")
    "cannot call *** for '***'"
    """
    text = text[: 4 * MAX_TEXT]
    for pattern, replacement in _SCRUB:
        text = pattern.sub(replacement, text)
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + HIDDEN


def foreign_text(record: logging.LogRecord) -> str:
    """The words of a library's message, and its short numbers.

    Values that the library left for `logging` to format are hidden: one may be a body
    or a cookie. Values that it formatted itself have to be found by `scrub`.
    """
    if not isinstance(record.msg, str):
        return type(record.msg).__name__
    args: Any = record.args or ()
    try:
        if isinstance(args, Mapping):
            return scrub(record.msg % {name: _hide(value) for name, value in args.items()})
        return scrub(record.msg % tuple(_hide(value) for value in args) if args else record.msg)
    except (TypeError, ValueError, KeyError):  # the values do not fit the message
        return scrub(record.msg)


def _hide(value: object) -> object:
    return value if isinstance(value, int | float) else _Hidden()


class _Hidden:
    """Hides a value, also where a message asks for its repr."""

    def __repr__(self) -> str:
        return HIDDEN


def describe(error: BaseException) -> list[str]:
    """The chain of an exception: for each its type, smsd's own text, and the frames.

    The innermost frame comes first.
    """
    return [
        line for link in _chain(error) for line in (_headline(link), *_frames(link.__traceback__))
    ]


def place(file: str, line: int) -> str:
    """A place in the source: the last two parts of the path, and the line."""
    return f"{'/'.join(file.split('/')[-2:])}:{line}"


def _chain(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    for _ in range(MAX_CHAIN):
        if link is None:
            return
        yield link
        link = link.__cause__ if link.__suppress_context__ else link.__context__


def _headline(error: BaseException) -> str:
    kind = type(error)
    name = (
        kind.__qualname__
        if kind.__module__ == "builtins"
        else f"{kind.__module__}.{kind.__qualname__}"
    )
    if isinstance(error, SmsdError):
        return f"{name}: {scrub(str(error))}"
    if isinstance(error, OSError) and error.errno:
        return f"{name}: {errno.errorcode.get(error.errno, 'errno unknown')}"
    if isinstance(error, BaseExceptionGroup):
        return f"{name}: {', '.join(type(inner).__qualname__ for inner in error.exceptions[:MAX_CHAIN])}"
    return name


def _frames(trace: TracebackType | None) -> list[str]:
    frames = [(frame.f_code, line) for frame, line in traceback.walk_tb(trace)][-MAX_FRAMES:]
    return [f"{place(code.co_filename, line)} {code.co_name}" for code, line in reversed(frames)]
