"""What one setting cannot say alone: contradictions between settings, and likely
mistakes.

Reads no file. Like the casts, it never quotes the value of a setting.
"""

import difflib
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from smsd.twilio.limits import MAX_REDIRECTS

COOKIE_LIFETIME_S = 14400
"""Twilio drops a cookie four hours after it was set."""

_LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
_AUTH_TOKEN = re.compile(rb"[0-9a-fA-F]{32}")
_SERVICE_LINKS = re.compile(
    r"SMSD_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)


def contradictions(values: Mapping[str, Any], *, dev: bool) -> Iterator[str]:
    """What stops smsd from starting. `values` lacks the settings that are invalid."""
    url = urlsplit(values.get("public_url") or "")
    if url.scheme == "http" and not dev and url.hostname not in _LOCAL_HOSTS:
        yield "SMSD_PUBLIC_URL: must begin with https://"
    if values.get("port") and values.get("port") == values.get("admin_port"):
        yield "SMSD_ADMIN_PORT: must differ from SMSD_PORT"
    if {"api_key", "api_secret"} <= values.keys():
        if values["api_key"] and not values["api_secret"]:
            yield "TWILIO_API_KEY: needs TWILIO_API_SECRET too"
        if values["api_secret"] and not values["api_key"]:
            yield "TWILIO_API_SECRET: needs TWILIO_API_KEY too"
    if {"store", "session_ttl_s"} <= values.keys() and (
        values["session_ttl_s"] > COOKIE_LIFETIME_S and values["store"].kind != "memcached"
    ):
        yield f"SMSD_SESSION_TTL: more than {COOKIE_LIFETIME_S} needs memcached as SMSD_STORE"
    if {"answer_within_s", "dialogue_timeout_s"} <= values.keys() and (
        values["answer_within_s"] * MAX_REDIRECTS <= values["dialogue_timeout_s"]
    ):
        yield f"SMSD_DIALOGUE_TIMEOUT: must be less than {MAX_REDIRECTS} times SMSD_ANSWER_WITHIN"


def warnings(
    values: Mapping[str, Any],
    given: Collection[str],
    environ: Mapping[str, str],
    *,
    known: Collection[str],
    dev: bool,
) -> Iterator[str]:
    """What looks like a mistake but may be meant. `known` are all names of settings."""
    if values["store"].kind == "memory" and not dev:
        yield (
            "SMSD_STORE: memory:// serves one process only and forgets when it stops; "
            "memcached://host:port does not"
        )
    if values["store_ca"] and not values["store"].tls:
        yield "SMSD_STORE_CA: has no effect without memcacheds:// in SMSD_STORE"
    if values["store_former"] and values["store"].kind != "memcached":
        yield "SMSD_STORE_FORMER: has no effect without memcached in SMSD_STORE"
    if values["public_url"].endswith("/sms"):
        yield (
            "SMSD_PUBLIC_URL: ends in /sms, so the webhook is /sms/sms; "
            "remove it unless that is intended"
        )
    if not dev:
        for name, field in (
            ("TWILIO_AUTH_TOKEN", "auth_token"),
            ("TWILIO_AUTH_TOKEN_SECONDARY", "auth_token_secondary"),
        ):
            token = values[field]
            if name in given and token and not _AUTH_TOKEN.fullmatch(token.reveal()):
                yield (
                    f"{name}: is not 32 hexadecimal digits, as Twilio's auth tokens are; "
                    "copy it again from Twilio's console"
                )
    yield from _unknown_names(environ, known)


def _unknown_names(environ: Mapping[str, str], known: Collection[str]) -> Iterator[str]:
    for name in sorted(set(environ) - set(known)):
        if not name.startswith("SMSD_") or _SERVICE_LINKS.fullmatch(name):
            continue
        if "://" in environ[name][:7]:  # Kubernetes' SMSD_…_PORT=tcp://…
            continue
        close = difflib.get_close_matches(name, known, 1)
        yield f"{name}: no such setting" + (f"; is {close[0]} meant?" if close else "")
