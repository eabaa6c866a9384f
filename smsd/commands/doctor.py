"""`smsd doctor`: check what `serve` needs, and print what to enter at Twilio.

It must never print a secret. On each memcached node it writes and deletes one key of
its own; it changes nothing else.
"""

import json
from collections.abc import Iterator, Mapping
from typing import TextIO

from twilio.request_validator import RequestValidator

from smsd.commands import checks
from smsd.commands.call import check_public_url
from smsd.commands.findings import Finding, ok, report, warning, wrong
from smsd.commands.nodes import check_node
from smsd.dialogues import loading
from smsd.errors import SettingsError
from smsd.settings.table import Settings, load
from smsd.store.connection import client_context
from smsd.twilio.signature import Key, sign

RETRIES = "#rc=2&rp=ct,5xx&ct=2000"
"""Twilio retries a failed connection or a 5xx twice, and waits 2 s for a connection.

Retries are safe because smsd counts a message once. See `RETRY_SETTING` for the other
form.
"""

RETRY_SETTING = {
    "connectTimeoutMs": 2000,
    "retryPolicy": {"retryCount": 2, "retryOn": ["CONNECTION_TIMEOUT", "HTTP_5XX"]},
}
"""The same for Twilio's webhook configuration API (public beta since 2026)."""


def main(environ: Mapping[str, str], out: TextIO, *, call: bool = False) -> int:
    """Check everything and print it; the number of things that are wrong.

    call  also request SMSD_PUBLIC_URL
    """
    try:
        settings = load(environ)
    except SettingsError as error:
        problems = *error.problems, *checks.dialogue_problems(environ)
        failures = report(map(wrong, problems), out)
        if error.hint:
            out.write(f"\n{error.hint}\n")
        return failures
    failures = report(_findings(settings, call=call), out)
    out.write(console(settings))
    out.write(webhook_rule(settings))
    return failures


def console(settings: Settings) -> str:
    """What to enter in Twilio's console."""
    rows = (
        ("A message comes in", f"{settings.public_url}/sms{RETRIES}", "HTTP POST"),
        ("Primary handler fails", f"{settings.public_url}/sms", "HTTP POST"),
        ("Status callback", f"{settings.public_url}/sms/status", ""),
    )
    label_width = max(len(label) for label, _, _ in rows)
    url_width = max(len(url) for _, url, _ in rows)
    lines = (
        f"  {label:<{label_width}}  {url:<{url_width}}  {method}" for label, url, method in rows
    )
    return "\nFor Twilio's console:\n" + "".join(f"{line.rstrip()}\n" for line in lines)


def webhook_rule(settings: Settings) -> str:
    """The same retries for Twilio's webhook configuration API."""
    rule = {"matchType": "PREFIX_MATCH", "prefix": f"{settings.public_url}/sms"}
    return (
        "\nIf your account has rules of Twilio's webhook configuration API, a rule that matches\n"
        "overrides what stands after # in the URL. The same retries as a Setting, and a Rule:\n"
        f'  Setting  "connection": {json.dumps(RETRY_SETTING)}\n'
        f"  Rule     {json.dumps(rule)}\n"
    )


def _findings(settings: Settings, *, call: bool) -> Iterator[Finding]:
    yield ok("settings")
    yield from map(warning, settings.warnings)
    yield _signature(settings)
    yield _dialogue(settings)
    signing = next(iter(settings.cookie_keys))
    yield ok(f"cookie keys: {len(settings.cookie_keys)}, version {signing} signs")
    tls = client_context(settings.store_ca) if settings.store.tls else None
    for node in dict.fromkeys((*settings.store.nodes, *(settings.store_former or ()))):
        yield from check_node(node, settings.store_timeout_s, tls)
    if call:
        yield from check_public_url(settings)


def _signature(settings: Settings) -> Finding:
    """Compare smsd's signature with the SDK's."""
    token, url, form = settings.auth_token.reveal(), f"{settings.public_url}/sms", {"Body": "hello"}
    signature = sign(Key(token, "primary"), url, {"Body": [b"hello"]})
    if RequestValidator(token.decode()).validate(url, form, signature):
        return ok("signature: agrees with Twilio's SDK")
    return wrong("signature: differs from Twilio's SDK; please report this")


def _dialogue(settings: Settings) -> Finding:
    try:
        loading.load(settings.dialogue, settings)
    except SettingsError as error:
        return wrong("; ".join(error.problems))
    return ok(f"dialogue: {settings.dialogue}")
