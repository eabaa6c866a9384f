"""Writes an event as a line: JSON for machines, text for `grep`, pretty for a terminal.

A line never holds a character that a terminal or a reader of lines would take for more
than text, and never exceeds MAX_LINE_BYTES. What is private has been removed before, by
`smsd.telemetry.redaction`.
"""

import json
import logging
import re
import time
from collections.abc import Callable, Mapping
from functools import lru_cache

import msgspec

MAX_LINE_BYTES = 4096  # PIPE_BUF: a pipe that polls writable takes so much, in one piece
MAX_EVENT = 250

Fields = Mapping[str, object]
Format = Callable[[logging.LogRecord, Fields], bytes]


def _type_name(value: object) -> str:
    return type(value).__name__


_encode = msgspec.json.Encoder(enc_hook=_type_name).encode


@lru_cache(maxsize=2)
def _second(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def _time(created: float) -> str:
    second = int(created)
    return f"{_second(second)}.{int((created - second) * 1000):03d}Z"


def _ascii_json(value: object) -> bytes:
    """JSON in printable ASCII."""
    try:
        line: bytes = _encode(value)
        if line.isascii() and b"\x7f" not in line:
            return line
    except (UnicodeEncodeError, OverflowError):  # a lone surrogate; more than 64 bits
        pass
    return (
        json.dumps(value, allow_nan=False, default=_type_name).replace("\x7f", "\\u007f").encode()
    )


def _word(value: object, plain: str = r"[!#-~]+") -> str:
    if isinstance(value, str) and re.fullmatch(plain, value):
        return value
    return _ascii_json(value).decode()


def json_line(record: logging.LogRecord, fields: Fields) -> bytes:
    """One JSON object."""
    line = (
        _ascii_json({"time": _time(record.created), "level": record.levelname.lower(), **fields})
        + b"\n"
    )
    if len(line) <= MAX_LINE_BYTES:
        return line
    return json_line(record, {"event": str(fields["event"])[:MAX_EVENT], "cut": True})


def text_line(record: logging.LogRecord, fields: Fields) -> bytes:
    """The same in words: time, level, event, name=value."""
    words = [
        f"{_time(record.created)} {record.levelname.lower():<8} {_word(fields['event'], r'[ -~]+')}"
    ]
    words += [f"{name}={_word(value)}" for name, value in fields.items() if name != "event"]
    return _cut(" ".join(words)) + b"\n"


def pretty_line(*, color: bool) -> Format:
    """Aligned columns for people: local time, level, event, fields.

    An error and a list of problems continue on lines of their own, indented. Ids of
    conversations are shortened.
    """

    def paint(code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if color else text

    def line(record: logging.LogRecord, fields: Fields) -> bytes:
        level = record.levelname.lower()
        event = _word(fields["event"], r"[ -~]+")
        words, below = [], []
        for name, value in fields.items():
            if isinstance(value, list) and value:
                below += [_word(each, r"[ -~]+") for each in value]
            elif name == "conversation" and isinstance(value, str):
                words.append(paint("2", f"{name}=") + _word(value[:8]))
            elif name != "event" and value not in (None, ""):
                words.append(paint("2", f"{name}=") + _word(value, r"[ -~]+"))
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        head = f"{paint('2', clock)}  {paint(_COLORS.get(level, '0'), f'{level:<8}')}"
        text = f"{head}  {paint('1', f'{event:<16}')}  {' '.join(words)}".rstrip()
        return _cut("\n".join([text, *(f"{'':20}{each}" for each in below)])) + b"\n"

    return line


_COLORS = {"debug": "2", "info": "32", "warning": "33", "error": "31", "critical": "1;31"}


def _cut(line: str) -> bytes:
    encoded = line.encode()
    return encoded if len(encoded) < MAX_LINE_BYTES else encoded[: MAX_LINE_BYTES - 5] + b" cut"
