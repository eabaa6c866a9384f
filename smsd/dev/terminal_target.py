"""What the terminal phone texts: which URL is signed, with which token, and where to
connect.

A development server (`smsd serve --dev`) tells all of that to a phone on its own
machine, and takes orders: let time pass, take the store down. Any other service tells
nothing; its token comes from TWILIO_AUTH_TOKEN or from a prompt, never from the command
line.
"""

import http.client
import json
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from getpass import getpass
from urllib.parse import urlsplit

from smsd.simulator.edge import DEFAULT_SID
from smsd.simulator.webhook import Account

TIMEOUT_S = 5.0
LOOPBACK = ("127.0.0.1", "localhost", "::1")
SendOrder = Callable[[str, Mapping[str, object]], None]
"""Sends an order of the phone page's API, such as ("clock", {"seconds": 60}). OSError
if it fails."""


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

    def order(path: str, body: Mapping[str, object]) -> None:
        headers = {"Content-Type": "application/json"}
        _request(url, f"/phone/api/{path}", headers, json.dumps(body).encode())

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
    try:
        facts = json.loads(_request(url, "/phone/dev.json", {"X-Smsd-Phone": "1"}))
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 403 and not token:  # published by a container, so we are not loopback
            raise ValueError(
                "this development server tells its token only on its own machine. In a container, "
                "run the phone there: docker exec -it CONTAINER smsd phone http://127.0.0.1:8080"
            ) from None
        return {}
    except (OSError, http.client.HTTPException, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _request(url: str, path: str, headers: Mapping[str, str], body: bytes | None = None) -> bytes:
    parts = urlsplit(url)
    request = urllib.request.Request(f"{parts.scheme}://{parts.netloc}{path}", body, dict(headers))  # noqa: S310 - http(s)
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({})
    )  # this machine is asked directly
    with opener.open(request, timeout=TIMEOUT_S) as response:
        answer: bytes = response.read()
    return answer


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
