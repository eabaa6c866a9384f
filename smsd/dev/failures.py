"""Shows in full what an author's code raised: message and traceback. For development
only.

Production must never import this: the text of an exception may quote what a person
wrote.

It writes to stderr directly, so that errors are seen whatever a dialogue does to
`logging`. Only what the author's code logs itself is read from the log.
"""

import asyncio
import logging
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

_SMSD = Path(__file__).parents[1]


def show(text: str) -> None:
    """Print a paragraph to stderr. Never raises, even if nobody reads stderr any more."""
    with suppress(OSError, ValueError):
        sys.stderr.write(f"\n{text}\n")
        sys.stderr.flush()


def show_error(what: str, error: BaseException) -> None:
    """Print what happened, and the error with its traceback."""
    show(f"{what}:\n{traceback_text(error)}")


def show_author_errors() -> None:
    """Show from now on what the author's code logs with an exception, and what its tasks
    raise that nobody awaits. Call it in the running event loop."""
    logging.getLogger().addHandler(_LoggedErrors(logging.ERROR))
    asyncio.get_running_loop().set_exception_handler(_show_unawaited)


def _show_unawaited(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """An exception handler of the event loop."""
    if error := context.get("exception"):
        show_error(context["message"], error)
    loop.default_exception_handler(context)


class _LoggedErrors(logging.Handler):
    """Shows every exception that is logged, except by smsd's own parts and by the event
    loop. The message is shown as it was written, without its arguments."""

    def emit(self, record: logging.LogRecord) -> None:
        """Take a log record; only exceptions of the author's code matter."""
        is_smsd = record.name.startswith("smsd.")
        is_dialogue = record.name.startswith("smsd.dialogues")
        if (is_smsd and not is_dialogue) or record.name == "asyncio":
            return
        if record.exc_info and record.exc_info[1]:
            show_error(str(record.msg).partition("\n")[0], record.exc_info[1])


def problem_json(error: BaseException) -> dict[str, str]:
    """An error as the phone page shows it: one line, and the traceback."""
    text = traceback_text(error)
    return {"text": text.strip().rpartition("\n")[2], "traceback": text}


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
