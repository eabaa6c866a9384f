"""`smsd doctor`: are the settings good, do the memcached nodes answer, what belongs into Twilio's console.

Prints what it finds, never a secret. It writes and deletes one key of its own on each node, nothing else.
"""

import os
import secrets
import time
from collections.abc import Iterator, Mapping
from typing import TextIO

from pymemcache.client.base import Client
from pymemcache.exceptions import MemcacheError
from twilio.request_validator import RequestValidator

from smsd.commands import checks
from smsd.dialogues import loading as dialogue
from smsd.errors import SettingsError
from smsd.settings.table import Settings, load
from smsd.store.lookup import split_name
from smsd.twilio.signature import Key, sign

RETRIES = "#rc=2&rp=ct,5xx&ct=2000"
"""Twilio asks again after a failed connection or a 5xx; smsd counts once all the same."""

Finding = tuple[bool, str]
"""Whether it is well, and what it is."""


def main(environ: Mapping[str, str], out: TextIO) -> int:
    """Check everything and print it; the number of things that are wrong."""
    try:
        settings = load(environ)
    except SettingsError as error:
        problems = *error.problems, *checks.dialogue_problems(environ)
        return _tell(((False, problem) for problem in problems), out)
    wrong = _tell(_findings(settings), out)
    out.write(console(settings))
    return wrong


def console(settings: Settings) -> str:
    """What to paste into Twilio's console."""
    base = settings.public_url
    return (
        "\nFor Twilio's console:\n"
        f"  A message comes in   {base}/sms{RETRIES}   HTTP POST\n"
        f"  Primary handler fails  {base}/sms   HTTP POST\n"
        f"  Status callback      {base}/sms/status\n"
    )


def _tell(findings: Iterator[Finding], out: TextIO) -> int:
    wrong = 0
    for well, text in findings:
        out.write(f"{'ok   ' if well else 'WRONG'} {text}\n")
        out.flush()
        wrong += not well
    return wrong


def _findings(settings: Settings) -> Iterator[Finding]:
    yield True, "settings"
    for warning in settings.warnings:
        yield True, f"note: {warning}"
    yield _signature(settings)
    yield _dialogue(settings)
    yield (
        True,
        f"cookie keys: {len(settings.cookie_keys)}, version {next(iter(settings.cookie_keys))} signs",
    )
    for node in settings.store.nodes:
        yield _node(node, settings.store_timeout_s)


def _signature(settings: Settings) -> Finding:
    """Ours against Twilio's own."""
    token, url, form = settings.auth_token.reveal(), f"{settings.public_url}/sms", {"Body": "hello"}
    ours = sign(Key(token, "primary"), url, {"Body": [b"hello"]})
    same = RequestValidator(token.decode()).validate(url, form, ours)
    return (
        same,
        "signature: agrees with Twilio's SDK" if same else "signature: differs from Twilio's SDK",
    )


def _dialogue(settings: Settings) -> Finding:
    try:
        dialogue.load(settings.dialogue, settings)
    except SettingsError as error:
        return False, "; ".join(error.problems)
    return True, f"dialogue: {settings.dialogue}"


def _node(name: str, timeout_s: float) -> Finding:
    """Version, a write, a read, a delete, and how long it took."""
    client = Client(split_name(name), connect_timeout=timeout_s, timeout=timeout_s)
    key, value = f"smsd:doctor:{os.getpid()}", secrets.token_hex(8).encode()
    started_s = time.perf_counter()
    try:
        version = client.version().decode("ascii", "replace")
        client.set(key, value, expire=10, noreply=False)
        read = client.get(key)
        client.delete(key, noreply=False)
    except TimeoutError:
        return False, f"memcached {name}: no answer within {timeout_s} s"
    except (OSError, MemcacheError) as error:
        return (
            False,
            f"memcached {name}: {getattr(error, 'strerror', None) or type(error).__name__}",
        )
    finally:
        client.close()
    if read != value:
        return False, f"memcached {name}: did not give back what was written"
    took_ms = (time.perf_counter() - started_s) * 1000
    return True, f"memcached {name}: version {version}, written and read back in {took_ms:.1f} ms"
