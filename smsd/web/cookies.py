"""The cookie: signed by Tornado, and found in whatever a client sends.

Its value is one of Tornado's signed values, version 2. A handler makes it with
`create_signed_value` and reads it with `get_signed_cookie`; the keys stand in the
`settings` of its Application (`signing_settings`). The first key signs, all verify, so
keys rotate. What is signed is a copy of the conversation's record
(`smsd.conversation.copy`), which has a time of its own: when a cookie has expired is
for the exchange to say.

Two things are not left to Tornado:

- `set_signed_cookie` writes through `http.cookies`, which puts every value with a "/"
  in quotes, as most Base64 has one. `set_cookie_line` never quotes.
- Clients and proxies change cookies on the way: they send several Cookie headers (RFC
  9113, 8.2.3), join them with a comma, percent-encode or quote the value, or send a
  cookie twice. None of that may lose a count, so `values` finds every value that may be
  ours.
"""

import math
from typing import Any
from urllib.parse import unquote

from tornado.web import decode_signed_value

from smsd.conversation.copy import open_copy
from smsd.conversation.record import Record
from smsd.errors import CookieForged
from smsd.settings.table import Settings

NAME = "smsd"
MAX_BYTES = 999
"""Of the value of the Set-Cookie header: the cookie and its attributes."""

MAX_AGE_S = 14400
"""Twilio drops a cookie after four hours, whatever its Max-Age says."""

READING: dict[str, Any] = {"min_version": 2, "max_age_days": math.inf}
"""How signed values are read. Version 1 knows no key versions: with several keys Tornado
raises AssertionError at a value that looks like one. The age is the exchange's affair.
"""


def signing_settings(settings: Settings) -> dict[str, Any]:
    """What a Tornado application needs in its `settings` to sign and to verify."""
    keys = {version: secret.reveal() for version, secret in settings.cookie_keys.items()}
    return {"cookie_secret": keys, "key_version": next(iter(keys))}


def set_cookie_line(signed_value: bytes, ttl_s: int) -> str:
    """The value of the Set-Cookie header: under 1,000 bytes, ASCII, no quotes."""
    max_age_s = min(ttl_s, MAX_AGE_S)
    value = signed_value.decode("ascii")
    return f"{NAME}={value}; Path=/; HttpOnly; Secure; Max-Age={max_age_s}"


def values(header: str) -> list[str]:
    """Every value of a cookie of ours in a Cookie header, each once.

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


def open_cookie(value: str, settings: Settings, conversation: bytes, now_ms: int) -> Record:
    """The copy in a cookie's value. Raises CookieError if the cookie is of no use."""
    keys = signing_settings(settings)["cookie_secret"]
    payload = decode_signed_value(keys, NAME, value.encode("utf-8", "replace"), **READING)
    if payload is None:
        raise CookieForged
    ttl_ms = settings.session_ttl_s * 1000
    return open_copy(payload, conversation, now_ms=now_ms, ttl_ms=ttl_ms).record()
