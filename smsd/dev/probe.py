"""Finds out why a service answers 403, by trying other signed URLs.

It must not have anything counted: the form it sends is not a message. smsd answers such
a form with 400 if the signature is good, and with 403 if it is not.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from urllib.parse import urlencode, urlsplit

from smsd.simulator.values import Failure, Request, Response
from smsd.simulator.webhook import Account, signature_headers

UNKNOWN = (
    "403: the service refused the signature. Likely causes:",
    "  - another token: TWILIO_AUTH_TOKEN here must be the service's own",
    "  - another URL: {url} was signed; give the service's SMSD_PUBLIC_URL as --public-url",
    "The service's log line `signature mismatch` names the cause.",
)


def explain_403(
    account: Account, refused: Request, perform: Callable[[Request], Response | Failure]
) -> list[str]:
    """Say what to change, in one or more lines."""
    for url in _candidates(refused.url):
        if _accepted(account, url, refused, perform):
            return [_cause(account, url, refused.url)]
    return [line.format(url=refused.url) for line in UNKNOWN]


def _cause(account: Account, accepted: str, asked: str) -> str:
    if accepted == asked:
        return (
            f"403: the signature is good, but the service does not serve the account {account.sid}. "
            "Its TWILIO_ACCOUNT_SID says which it serves: give that as --account"
        )
    base = accepted.removesuffix("/sms")
    return (
        f"403: {asked} was signed, but the service's SMSD_PUBLIC_URL is {base}. "
        f"Use --public-url {base}"
    )


def _accepted(
    account: Account, url: str, refused: Request, perform: Callable[[Request], Response | Failure]
) -> bool:
    form = [("AccountSid", account.sid)]
    headers = [
        ("Content-Type", "application/x-www-form-urlencoded"),
        *signature_headers(account, url, form),
    ]
    result = perform(replace(refused, headers=headers, body=urlencode(form).encode()))
    return isinstance(result, Response) and result.status == 400


def _candidates(url: str) -> Iterator[str]:
    """The URL, and its usual variants: another scheme, another name of this machine, no
    port."""
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    here = ("127.0.0.1", "localhost")
    hosts = here if parts.hostname in here else (parts.hostname or "",)
    yield url
    for scheme in ("http", "https"):
        for host in hosts:
            for netloc in dict.fromkeys((f"{host}{port}", host)):
                yield parts._replace(scheme=scheme, netloc=netloc).geturl()
