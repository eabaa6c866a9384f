"""Reads single fields of a form that Twilio posted.

It must not put a value into an error: the value may be a phone number.
"""

import math
import re

from smsd.errors import Malformed
from smsd.twilio.signature import Params

MESSAGE_SID = re.compile(r"(?:SM|MM)[0-9a-fA-F]{32}", re.ASCII)
ACCOUNT_SID = re.compile(r"AC[0-9a-fA-F]{32}", re.ASCII)

_ERROR_CODE = re.compile(r"[0-9]{5}", re.ASCII)


def required(params: Params, name: str, form: re.Pattern[str]) -> str:
    """The one value of a field that every message has. Raises Malformed without it."""
    values = params.get(name, ())
    if len(values) == 1:
        try:
            value = values[0].decode()
        except UnicodeDecodeError:
            value = ""
        if form.fullmatch(value):
            return value
    raise Malformed(f"{name}: missing, repeated, or not in Twilio's format")


def text(params: Params, name: str) -> str:
    """The first value of a field, or ""; bytes that are not UTF-8 as U+FFFD."""
    values = params.get(name)
    return values[0].decode("utf-8", "replace") if values else ""


def degrees(params: Params, name: str) -> float | None:
    """A latitude or longitude, or None."""
    try:
        degrees = float(text(params, name))
    except ValueError:
        return None
    return degrees if math.isfinite(degrees) else None


def error_code(params: Params) -> str:
    """Twilio's error code: five digits, "other", or "" if there is none."""
    code = text(params, "ErrorCode")
    return code if not code or _ERROR_CODE.fullmatch(code) else "other"
