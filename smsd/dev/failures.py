"""Shows in full why a dialogue failed: message and traceback. For development and tests
only.

Production must never import this: the text of an exception may quote what a person
wrote.

The service logs every failure of a dialogue as the event "dialogue failed", with the
exception on the record, whatever part of the service noticed it. `FailureWatch` is a
log handler that hands these exceptions on. `ErrorWatch` does the same for what the
author's other code logs, and for tasks whose exception nobody awaited.
"""

import logging
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

EVENT = "dialogue failed"
_SMSD = Path(__file__).parents[1]

OnFailure = Callable[[str, BaseException], None]
"""Called with the MessageSid ("" if unknown) and what the dialogue raised."""


class FailureWatch(logging.Handler):
    """Reports every failure of a dialogue in this process while it is installed."""

    def __init__(self, on_failure: OnFailure) -> None:
        super().__init__(logging.ERROR)
        self._on_failure = on_failure

    def install(self) -> None:
        """Begin to report."""
        logging.getLogger("smsd").addHandler(self)

    def remove(self) -> None:
        """Stop reporting."""
        logging.getLogger("smsd").removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Take a log record; only failures of dialogues matter."""
        if record.msg != EVENT or not record.exc_info or record.exc_info[1] is None:
            return
        fields: Mapping[str, object] = getattr(record, "fields", {})
        self._on_failure(str(fields.get("sid", "")), record.exc_info[1])


class ErrorWatch(logging.Handler):
    """Reports every other exception that is logged, except by smsd's own parts.

    on_error  called with the log message, as it was written and without its arguments, and
              the exception
    """

    def __init__(self, on_error: Callable[[str, BaseException], None]) -> None:
        super().__init__(logging.ERROR)
        self._on_error = on_error

    def install(self) -> None:
        """Begin to report."""
        logging.getLogger().addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Take a log record; only exceptions of the author's code matter."""
        ours = record.name.startswith("smsd.") and not record.name.startswith("smsd.dialogues")
        if not ours and record.exc_info and record.exc_info[1]:
            self._on_error(str(record.msg).partition("\n")[0], record.exc_info[1])


def traceback_text(error: BaseException) -> str:
    """The traceback as Python prints it, from the first line that is the author's own."""
    trace = error.__traceback__
    while trace and _is_machinery(trace.tb_frame.f_code.co_filename):
        trace = trace.tb_next
    return "".join(traceback.format_exception(type(error), error, trace))


def _is_machinery(filename: str) -> bool:
    """Whether a file belongs to smsd, asyncio or the import system, and not to a
    dialogue."""
    path = Path(filename)
    if filename.startswith("<frozen") or path.parent.name in ("asyncio", "importlib"):
        return True
    is_example = path.parent == _SMSD / "dialogues" and path.name != "loading.py"
    return _SMSD in path.parents and not is_example
