"""What the terminal phone texts: which URL is signed, with which token, and where to
connect; and why a text did not get through.

A development server (`smsd serve --dev`) tells all of that to a phone on its own
machine, and takes orders: let time pass, take the store down. Any other service tells
nothing; its token comes from TWILIO_AUTH_TOKEN or from a prompt, never from the command
line.
"""

import json
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from getpass import getpass
from urllib.parse import urlencode, urlsplit

from smsd.simulator.blocking import BlockingClient
from smsd.simulator.edge import DEFAULT_SID
from smsd.simulator.values import Failure, Headers, Notice, Outcome, Request, Response
from smsd.simulator.webhook import Account, signature_headers

TIMEOUT_S = 5.0
LOOPBACK = ("127.0.0.1", "localhost", "::1")
SendOrder = Callable[[str, Mapping[str, object]], str]
"""Sends an order of the phone page's API, such as ("clock", {"seconds": 60}). Returns why
it failed, "" if it did not."""
Perform = Callable[[Request], Response | Failure]
"""Performs one request."""


@dataclass
class Target:
    """What the phone must know.

    account     signs the messages
    connect_to  host:port, if it is not the signed URL's
    people      number to name
    order       for a development server: sends it an order
    """

    account: Account
    connect_to: str | None = None
    people: Mapping[str, str] = field(default_factory=dict)
    order: SendOrder | None = None


def find_target(url: str, token: str | None, account: str | None, public_url: str | None) -> Target:
    """Put together what is given and what a development server tells.

    Raises ValueError, which says what is missing or wrong, and what to do.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url} is not a URL such as http://127.0.0.1:8080")
    _check_listening(url)
    facts = _ask_development_server(url, token) if parts.hostname in LOOPBACK else {}
    webhook = _webhook(public_url) if public_url else str(facts.get("webhook") or _webhook(url))
    elsewhere = urlsplit(webhook).netloc != parts.netloc
    if elsewhere and parts.scheme == "https":
        raise ValueError("with another public URL, the service itself must be reached with http://")
    token = str(facts.get("token") or token or _ask_for_token())
    sid = account or str(facts.get("account") or DEFAULT_SID)
    people = facts.get("people")

    def order(path: str, body: Mapping[str, object]) -> str:
        headers = [("Content-Type", "application/json")]
        answer = _request(url, f"/phone/api/{path}", headers, json.dumps(body).encode())
        if isinstance(answer, Failure):
            return answer.detail
        return "" if answer.status == 200 else f"status {answer.status}"

    return Target(
        Account(sid, token, webhook),
        parts.netloc if elsewhere else None,
        people if isinstance(people, dict) else {},
        order if facts else None,
    )


def _check_listening(url: str) -> None:
    """ValueError if nobody accepts a connection there: the first thing to know."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname or "", port), timeout=TIMEOUT_S).close()
    except ConnectionRefusedError:
        raise ValueError(
            f"nothing listens at {url}. Start the service (`smsd serve --dev`), or check the port"
        ) from None
    except socket.gaierror:
        raise ValueError(f"there is no host named {parts.hostname}") from None
    except OSError as error:
        reason = error.strerror or f"no answer within {TIMEOUT_S:g} s"
        raise ValueError(f"{url} cannot be reached: {reason}") from None


def _webhook(url: str) -> str:
    """The webhook of a base URL; a URL that has it already stays."""
    base = url.rstrip("/")
    return base if urlsplit(base).path.endswith("/sms") else f"{base}/sms"


def _ask_development_server(url: str, token: str | None) -> dict[str, object]:
    """Token, account and people of `serve --dev`; nothing from any other server."""
    answer = _request(url, "/phone/dev.json", [("X-Smsd-Phone", "1")])
    if isinstance(answer, Failure):
        return {}
    if answer.status == 403 and not token:  # published by a container, so we are not loopback
        raise ValueError(
            "this development server tells its token only on its own machine. In a container, "
            "run the phone there: docker exec -it CONTAINER smsd phone http://127.0.0.1:8080"
        )
    try:
        facts = json.loads(answer.body) if answer.status == 200 else None
    except ValueError:
        return {}
    return facts if isinstance(facts, dict) else {}


def _request(url: str, path: str, headers: Headers, body: bytes = b"") -> Response | Failure:
    """One request to the service itself; a POST if it has a body."""
    parts = urlsplit(url)
    request = Request(
        "POST" if body else "GET",
        f"{parts.scheme}://{parts.netloc}{path}",
        headers,
        body,
        connect_timeout_s=TIMEOUT_S,
        read_timeout_s=TIMEOUT_S,
        total_timeout_s=TIMEOUT_S,
    )
    return BlockingClient().perform(request)


def _ask_for_token() -> str:
    if not sys.stdin.isatty():
        raise ValueError(
            "TWILIO_AUTH_TOKEN is not set. It signs the messages, and must be the service's own"
        )
    try:
        token = getpass("Auth token of the service (TWILIO_AUTH_TOKEN, not shown): ").strip()
    except EOFError:  # Ctrl-D
        token = ""
    if not token:
        raise ValueError("without the service's auth token no message can be signed")
    return token


CAUSES: Mapping[int, str] = {
    11202: "nothing listens there. Is the service running, and is the port right?",
    11203: "the service accepted the request but did not answer in time.",
    11205: "the connection failed, or broke before the answer arrived.",
    11210: "there is no host of that name.",
    11216: "Twilio does not follow this redirect (308). Enter the final https URL in its console.",
    11220: "the TLS connection failed: a bad certificate, or no TLS on that port.",
    12100: "the answer is not well-formed XML, so Twilio would send nothing.",
    12200: "the TwiML has a part that Twilio does not know.",
    12300: "the answer's content type is not TwiML (text/xml).",
}


def explain(outcome: Outcome) -> list[str]:
    """A line for each thing that went wrong."""
    return [_explanation(notice, outcome) for notice in outcome.errors]


def _explanation(notice: Notice, outcome: Outcome) -> str:
    cause = CAUSES.get(notice.code, notice.text)
    detail = f" ({notice.text})" if notice.code in (12100, 12200, 12300) else ""
    where = f" [{outcome.attempts[-1].request.url}]" if outcome.status is None else ""
    return f"{notice.code}: {cause}{detail}{where}"


UNKNOWN = (
    "403: the service refused the signature. Likely causes:",
    "  - another token: TWILIO_AUTH_TOKEN here must be the service's own",
    "  - another URL: {url} was signed; give the service's SMSD_PUBLIC_URL as --public-url",
    "The service's log line `signature mismatch` names the cause.",
)


def explain_403(account: Account, refused: Request, perform: Perform) -> list[str]:
    """Why a service answers 403, and what to change, in one or more lines.

    Tries other signed URLs, and has nothing counted: the form that it sends is not a
    message. smsd answers such a form with 400 if the signature is good.
    """
    for url in _candidates(refused.url):
        if _accepted(account, url, refused, perform):
            return [_cause_of_403(account, url, refused.url)]
    return [line.format(url=refused.url) for line in UNKNOWN]


def _cause_of_403(account: Account, accepted: str, asked: str) -> str:
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


def _accepted(account: Account, url: str, refused: Request, perform: Perform) -> bool:
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
