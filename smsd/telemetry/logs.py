"""One line an event on stderr: format, redaction. No phone number, body, cookie, signature or secret passes.

smsd's own events go through `event`, whose fields are chosen by the caller and stand as they are. Whatever
else is logged (Tornado, asyncio, libraries, warnings) comes from outside: of it only words and short numbers
are kept, of an exception only its type and where it was. Never blocks: a line that stderr has no room for is
counted as lost.
"""

import errno
import json
import logging
import os
import re
import select
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from types import TracebackType
from typing import Any

import msgspec

from smsd.errors import SmsdError

MAX_LINE_BYTES = 4096  # PIPE_BUF: a pipe that polls writable takes so much at once and in one piece
MAX_TEXT = 500
MAX_FRAMES = 8
MAX_CHAIN = 4
HIDDEN = "***"

Fields = Mapping[str, object]

log = logging.getLogger("smsd.telemetry.logs")


# Read by other handlers than smsd's, such as those of a test runner.
_NOWHERE = {
    **dict.fromkeys(("pathname", "filename", "module", "funcName", "processName"), ""),
    **dict.fromkeys(("lineno", "process", "msecs", "relativeCreated"), 0),
    **dict.fromkeys(("thread", "threadName", "taskName", "exc_text", "stack_info")),
    "args": (),
}


class _Event(logging.LogRecord):
    """A record made by `event`. Where it was made is not looked up: that alone would take microseconds."""

    fields: Fields

    def __init__(
        self, logger: str, level: int, name: str, fields: Fields, error: BaseException | None
    ) -> None:
        self.__dict__ = {
            **_NOWHERE,
            "name": logger,
            "levelno": level,
            "levelname": logging.getLevelName(level),
            "msg": name,
            "fields": fields,
            "exc_info": None if error is None else (type(error), error, error.__traceback__),
            "created": time.time(),
        }


def event(
    logger: logging.Logger,
    level: int,
    name: str,
    /,
    *,
    error: BaseException | None = None,
    **fields: object,
) -> None:
    """Log what happened: a constant `name`, and fields of text, number, truth or a list of them.

    Of `error` the type and the place are logged; its text only if smsd raised it.
    """
    if logger.isEnabledFor(level):
        logger.handle(_Event(logger.name, level, name, fields, error))


def setup(log_format: str, level: str, *, fd: int = 2) -> None:
    """Send all logging, warnings and uncaught exceptions of this process to `fd`, as "json" or "text".

    `level` is that of smsd's own loggers; of others nothing below a warning is logged.
    """
    root = logging.getLogger()
    for handler in [found for found in root.handlers if isinstance(found, _Lines)]:
        root.removeHandler(handler)
    root.addHandler(_Lines(fd, _json_line if log_format == "json" else _text_line))
    own = logging.getLevelNamesMapping()[level.upper()]
    root.setLevel(max(own, logging.WARNING))
    logging.getLogger("smsd").setLevel(own)
    logging.raiseExceptions = False  # logging's own complaints quote the record
    warnings.showwarning = _warning
    sys.excepthook = _uncaught
    threading.excepthook = lambda args: _uncaught(args.exc_type, args.exc_value, args.exc_traceback)
    sys.unraisablehook = lambda args: _uncaught(args.exc_type, args.exc_value, args.exc_traceback)


class _Lines(logging.Handler):
    """Writes each record as one line in one write, or not at all."""

    def __init__(self, fd: int, line: Callable[[logging.LogRecord, Fields], bytes]) -> None:
        super().__init__()
        self._fd = fd
        self._line = line
        self._lost = 0
        self._room = select.poll()
        self._room.register(fd, select.POLLOUT)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if self._lost and self._write(
                self._line(record, {"event": "log lines lost", "count": self._lost})
            ):
                self._lost = 0
            written = self._write(self._line(record, _fields(record)))
        except Exception:  # noqa: BLE001 - a line that cannot be made must not fail what it tells of
            written = False
        self._lost += not written

    def _write(self, line: bytes) -> bool:
        try:
            return bool(self._room.poll(0)) and os.write(self._fd, line) == len(line)
        except OSError:  # closed, or its reader is gone
            return False


def _fields(record: logging.LogRecord) -> dict[str, object]:
    if isinstance(record, _Event):
        fields = {"event": record.msg, **record.fields}
    else:
        fields = {"event": _foreign(record), "logger": record.name}
    error = record.exc_info[1] if record.exc_info else None
    if error is not None:
        fields["error"] = describe(error)
    return fields


# ---- lines


def _type_name(value: object) -> str:
    return type(value).__name__


_encode = msgspec.json.Encoder(enc_hook=_type_name).encode


@lru_cache(maxsize=2)
def _second(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def _time(created: float) -> str:
    second = int(created)
    return f"{_second(second)}.{int((created - second) * 1000):03d}Z"


def _json_line(record: logging.LogRecord, fields: Fields) -> bytes:
    line = (
        _ascii_json({"time": _time(record.created), "level": record.levelname.lower(), **fields})
        + b"\n"
    )
    if len(line) <= MAX_LINE_BYTES:
        return line
    return _json_line(record, {"event": str(fields["event"])[: MAX_TEXT // 2], "cut": True})


def _ascii_json(value: object) -> bytes:
    """JSON without anything a terminal or a reader of lines could take for more than text."""
    try:
        line: bytes = _encode(value)
        if line.isascii() and b"\x7f" not in line:
            return line
    except (UnicodeEncodeError, OverflowError):  # a lone surrogate; an integer of more than 64 bits
        pass
    return (
        json.dumps(value, allow_nan=False, default=_type_name).replace("\x7f", "\\u007f").encode()
    )


def _text_line(record: logging.LogRecord, fields: Fields) -> bytes:
    words = [
        f"{_time(record.created)} {record.levelname.lower():<8} {_word(fields['event'], r'[ -~]+')}"
    ]
    words += [f"{name}={_word(value)}" for name, value in fields.items() if name != "event"]
    line = " ".join(words).encode()
    return (line if len(line) < MAX_LINE_BYTES else line[: MAX_LINE_BYTES - 5] + b" cut") + b"\n"


def _word(value: object, plain: str = r"[!#-~]+") -> str:
    if isinstance(value, str) and re.fullmatch(plain, value):
        return value
    return _ascii_json(value).decode()


# ---- what comes from outside

_HEADERS = "cookie|authorization|signature|token|secret|password|body|from|to"
_SCRUB = tuple(
    (re.compile(pattern), with_)
    for pattern, with_ in (
        (r"""\?[^\s'"]+""", f"?{HIDDEN}"),
        (rf"(?i)\b({_HEADERS})\b\s*[:=].*", rf"\1: {HIDDEN}"),
        (r"""(?s)b?"(?:[^"\\]|\\.)*"?|(?<!\w)b?'(?:[^'\\]|\\.)*'?""", f"'{HIDDEN}'"),
        (r"://[^\s/]*@", f"://{HIDDEN}@"),
        (r"[\w+/=|~%-]{20,}", HIDDEN),
        (r"\+?\d[\d\s().-]{5,}\d", HIDDEN),
    )
)


def scrub(text: str) -> str:
    """A text from outside, in one line: no quoted text, long number, long word or value of a header."""
    text = text[: 4 * MAX_TEXT]
    for pattern, with_ in _SCRUB:
        text = pattern.sub(with_, text)
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + HIDDEN


def _foreign(record: logging.LogRecord) -> str:
    """The words of a message and its short numbers. What was formatted into it may be a body or a cookie.

    Where a library formats before it logs, `scrub` alone has to find that.
    """
    if not isinstance(record.msg, str):
        return type(record.msg).__name__
    args: Any = record.args or ()
    try:
        if isinstance(args, Mapping):
            return scrub(record.msg % {name: _hide(value) for name, value in args.items()})
        return scrub(record.msg % tuple(_hide(value) for value in args) if args else record.msg)
    except (TypeError, ValueError, KeyError):  # the words and the values do not fit together
        return scrub(record.msg)


def _hide(value: object) -> object:
    return value if isinstance(value, int | float) else _Hidden()


class _Hidden:
    """Hides also where a message asks for the repr."""

    def __repr__(self) -> str:
        return HIDDEN


def describe(error: BaseException) -> list[str]:
    """The chain of an exception: of each the type, smsd's own text, and the frames, the innermost first."""
    return [
        line for link in _chain(error) for line in (_headline(link), *_frames(link.__traceback__))
    ]


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
    return [f"{_place(code.co_filename, line)} {code.co_name}" for code, line in reversed(frames)]


def _place(file: str, line: int) -> str:
    return f"{'/'.join(file.split('/')[-2:])}:{line}"


def _warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: object = None,  # noqa: ARG001 - it always goes to the log
    line: str | None = None,  # noqa: ARG001 - source text
) -> None:
    place = _place(filename, lineno)
    event(
        log,
        logging.WARNING,
        "warning",
        kind=category.__name__,
        text=scrub(str(message)),
        place=place,
    )


def _uncaught(
    kind: type[BaseException],
    error: BaseException | None,
    trace: TracebackType | None,  # noqa: ARG001 - the error has it
) -> None:
    event(log, logging.CRITICAL, "uncaught exception", error=error, kind=kind.__name__)
