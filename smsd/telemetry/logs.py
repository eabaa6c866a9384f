"""Logging: one line an event on stderr, for smsd and for every library in the process.

`setup` directs all logging, warnings and uncaught exceptions of the process to one
descriptor; `event` logs one event of smsd. Nothing private may pass: smsd's own events
contain what their caller chose, and all else goes through `smsd.telemetry.redaction`.
Logging never blocks: a line for which stderr has no room is dropped and counted, and
the next line that fits says how many were lost.
"""

import contextlib
import logging
import os
import select
import sys
import threading
import warnings
from types import TracebackType

from smsd.telemetry.lines import Format, json_line, pretty_line, text_line
from smsd.telemetry.redaction import describe, foreign_text, place, scrub

log = logging.getLogger("smsd.telemetry.logs")


def event(
    logger: logging.Logger,
    level: int,
    name: str,
    /,
    *,
    error: BaseException | None = None,
    **fields: object,
) -> None:
    """Log what happened.

    name    a constant
    error   its type and place are logged; its text only if smsd raised it
    fields  text, numbers, booleans, or lists of them; nothing private
    """
    if logger.isEnabledFor(level):
        trace = None if error is None else (type(error), error, error.__traceback__)
        extra = {"fields": _OwnFields(fields)}
        # Logger.log would search the stack for the caller, which costs more than the line.
        record = logger.makeRecord(logger.name, level, "", 0, name, (), trace, None, extra)
        with contextlib.suppress(Exception):  # of a handler that somebody else has added
            logger.handle(record)


class _OwnFields(dict[str, object]):
    """Fields of smsd's own event. A library's record may have `fields` too."""


def setup(log_format: str, level: str, *, fd: int = 2) -> None:
    """Send all logging, warnings and uncaught exceptions of this process to `fd`.

    log_format  "json", "text" or "pretty"
    level       of smsd's own loggers; libraries log warnings and worse at least
    """
    root = logging.getLogger()
    for handler in [each for each in root.handlers if isinstance(each, _Lines)]:
        root.removeHandler(handler)
    root.addHandler(_Lines(fd, _format(log_format, fd)))
    own = logging.getLevelNamesMapping()[level.upper()]
    root.setLevel(max(own, logging.WARNING))
    logging.getLogger("smsd").setLevel(own)
    logging.raiseExceptions = False  # logging's own complaints quote the record
    # What a record need not know, since no format shows it.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    warnings.showwarning = _on_warning
    sys.excepthook = _on_uncaught
    threading.excepthook = lambda args: _on_uncaught(
        args.exc_type, args.exc_value, args.exc_traceback
    )
    sys.unraisablehook = lambda args: _on_uncaught(
        args.exc_type, args.exc_value, args.exc_traceback
    )


def _format(name: str, fd: int) -> Format:
    if name == "pretty":
        return pretty_line(color=os.isatty(fd) and not os.environ.get("NO_COLOR"))
    return json_line if name == "json" else text_line


class _Lines(logging.Handler):
    """Writes each record as one line in one write, or drops it."""

    def __init__(self, fd: int, line: Format) -> None:
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
            is_written = self._write(self._line(record, _fields(record)))
        except Exception:  # noqa: BLE001 - a line that cannot be made must not fail its caller
            is_written = False
        self._lost += not is_written

    def _write(self, line: bytes) -> bool:
        try:
            return bool(self._room.poll(0)) and os.write(self._fd, line) == len(line)
        except OSError:  # closed, or its reader is gone
            return False


def _fields(record: logging.LogRecord) -> dict[str, object]:
    own = getattr(record, "fields", None)
    if isinstance(own, _OwnFields):
        fields = {"event": record.msg, **own}
    else:
        fields = {"event": foreign_text(record), "logger": record.name}
    error = record.exc_info[1] if record.exc_info else None
    if error is not None:
        fields["error"] = describe(error)
    return fields


def _on_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: object = None,  # noqa: ARG001 - it always goes to the log
    line: str | None = None,  # noqa: ARG001 - source text
) -> None:
    event(
        log,
        logging.WARNING,
        "warning",
        kind=category.__name__,
        text=scrub(str(message)),
        place=place(filename, lineno),
    )


def _on_uncaught(
    kind: type[BaseException],
    error: BaseException | None,
    trace: TracebackType | None,  # noqa: ARG001 - the error has it
) -> None:
    event(log, logging.CRITICAL, "uncaught exception", error=error, kind=kind.__name__)
