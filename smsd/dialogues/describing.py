"""Says where user code stands in its source, and what went wrong in it, in one line.

Must not show what user code was working on: an exception's text is quoted only where it
names code (a module, an attribute, a signature), never where it may quote data.
"""

import importlib
import inspect
import os
import traceback
from typing import Any

from smsd.errors import RouteError

_NAMES_CODE = (ImportError, SyntaxError, NameError, AttributeError, TypeError)
_OWN_FOLDER = os.path.dirname(__file__)


def describe_error(error: BaseException) -> str:
    """Type and place of an error, and its text where that cannot hold a secret."""
    name = type(error).__name__
    if isinstance(error, SyntaxError):
        return f"{name} at {error.filename}:{error.lineno}: {error.msg}"
    if isinstance(error, RouteError):
        return str(error)  # names both places
    text = f": {error}" if isinstance(error, _NAMES_CODE) else ""
    return f"{name}{_last_line(error)}{text}"


def place_of(function: Any) -> str:
    """ "FILE:LINE" of a function, a class, or an object's class; "" if it is not known."""
    try:
        source = inspect.unwrap(function) if callable(function) else function
        if not (inspect.isroutine(source) or inspect.isclass(source)):
            source = type(source)
        return f"{inspect.getsourcefile(source)}:{inspect.getsourcelines(source)[1]}"
    except Exception:  # noqa: BLE001 - a built-in, no source, or an object that answers oddly
        return ""


def in_brackets(place: str) -> str:
    """ "(FILE:LINE) ", or "" for an unknown place."""
    return f"({place}) " if place else ""


def _last_line(error: BaseException) -> str:
    """ " at FILE:LINE" of the last line that ran outside of smsd and of the import
    system.

    Where only smsd's lines are on record, those of the error's cause are: Python puts a
    RuntimeError in place of a StopIteration.
    """
    frames = [
        f" at {frame.filename}:{frame.lineno}"
        for frame in traceback.extract_tb(error.__traceback__)
        if os.path.dirname(frame.filename) != _OWN_FOLDER
        and frame.filename != importlib.__file__
        and not frame.filename.startswith("<frozen")
    ]
    if frames or error.__cause__ is None:
        return frames[-1] if frames else ""
    return _last_line(error.__cause__)
