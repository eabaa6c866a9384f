"""Why a service answers 403: tries other signed URLs with a form that is no message, so nothing is ever counted.

A good signature over such a form is answered with 400, a bad one with 403.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from urllib.parse import urlencode, urlsplit

from smsd.simulator.values import Answer, Failure, Request
from smsd.simulator.webhook import Account, signature_headers

UNKNOWN = (
    "403: the service refused the signature. The likely causes:",
    "  - another token: TWILIO_AUTH_TOKEN here must be the service's own",
    "  - another URL: {url} was signed; SMSD_PUBLIC_URL must fit it, or give --public-url",
    "The service's log names the cause, in the line with: signature mismatch",
)


def explain_403(
    account: Account, refused: Request, perform: Callable[[Request], Answer | Failure]
) -> list[str]:
    """Lines that say what to change."""
    for url in _candidates(refused.url):
        if _accepted(account, url, refused, perform):
            return [_cause(account, url, refused.url)]
    return [line.format(url=refused.url) for line in UNKNOWN]


def _cause(account: Account, accepted: str, asked: str) -> str:
    if accepted == asked:
        return (
            f"403: the signature is good, but the service serves another account than {account.sid}: "
            "its TWILIO_ACCOUNT_SID says which (give --account)"
        )
    base = accepted.removesuffix("/sms")
    return f"403: the service's SMSD_PUBLIC_URL is {base}, and {asked} was signed (give --public-url {base})"


def _accepted(
    account: Account, url: str, refused: Request, perform: Callable[[Request], Answer | Failure]
) -> bool:
    form = [("AccountSid", account.sid)]
    headers = [
        ("Content-Type", "application/x-www-form-urlencoded"),
        *signature_headers(account, url, form),
    ]
    result = perform(replace(refused, headers=headers, body=urlencode(form).encode()))
    return isinstance(result, Answer) and result.status == 400


def _candidates(url: str) -> Iterator[str]:
    """The URL, and what it is often mistaken for: another scheme, another name of this machine, no port."""
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    here = ("127.0.0.1", "localhost")
    hosts = here if parts.hostname in here else (parts.hostname or "",)
    yield url
    for scheme in ("http", "https"):
        for host in hosts:
            for netloc in dict.fromkeys((f"{host}{port}", host)):
                yield parts._replace(scheme=scheme, netloc=netloc).geturl()
