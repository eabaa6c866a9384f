"""What both clients have in common: who texts, where to connect, and which failure an
exception is.

Holds none of Twilio's rules; those are the engine's. `connect_to="127.0.0.1:8080"`
stands in for an ingress: requests are signed for the public URL and carry its Host, but
go to that address over plain HTTP.
"""

import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from tornado.simple_httpclient import HTTPStreamClosedError, HTTPTimeoutError

from smsd.simulator.twilio import Twilio
from smsd.simulator.values import Failure, FailureKind, Headers, Inbound, Outbound
from smsd.simulator.webhook import Account

DEFAULT_SID = "AC" + "0" * 31 + "1"
DEFAULT_TOKEN = "offline-twilio-token"  # noqa: S105 - the simulator's own, known to everybody
DEFAULT_FROM = "+14158675309"
DEFAULT_TO = "+14158141829"
OnReply = Callable[[Outbound], None]
OnHop = Callable[[int], None]


@dataclass
class Edge:
    """A client's configuration.

    url         the webhook, with connection overrides after `#`
    token, sid  the account that signs
    connect_to  "host:port" to connect to instead of the URL's host
    account     an `Account` instead of url, token and sid
    twilio      the engine, which several clients may share
    headers     more headers for every request, as a proxy adds them
    from_, to   default numbers
    """

    url: str = "https://sms.example.com/sms"
    token: str = DEFAULT_TOKEN
    sid: str = DEFAULT_SID
    connect_to: str | None = None
    account: Account | None = None
    twilio: Twilio = field(default_factory=Twilio)
    headers: Headers = ()
    from_: str = DEFAULT_FROM
    to: str = DEFAULT_TO

    @property
    def sender(self) -> Account:
        """The account in use."""
        return self.account or Account(self.sid, self.token, self.url)

    def compose(
        self, body: str = "", *, from_: str | None = None, to: str | None = None, **more: Any
    ) -> Inbound:
        """Compose a message to deliver later. `more` are arguments of `Twilio.compose`."""
        return self.twilio.compose(self.sender, body, from_ or self.from_, to or self.to, **more)

    def address(self, url: str, connect_to: str | None) -> tuple[str, str]:
        """The URL to connect to, and the Host header."""
        parts = urlsplit(url)
        target = connect_to or self.connect_to
        if not target:
            return url, parts.netloc
        return urlunsplit(("http", target, parts.path, parts.query, "")), parts.netloc


def merged(headers: Headers) -> dict[str, str]:
    """Headers as a mapping. A later header replaces an earlier one of the same name."""
    return dict(headers)


def connect_failure(error: OSError) -> Failure:
    failure = failure_of(error)
    return Failure("connect_timeout", failure.detail) if failure.kind == "read_timeout" else failure


def failure_of(error: BaseException, begun: bool = False) -> Failure:
    """Which of Twilio's failures an exception is; `begun` if part of a response had
    arrived."""
    text = str(error) or type(error).__name__
    if isinstance(error, HTTPTimeoutError) and "during request" not in text:
        return Failure(
            "connect_timeout", text
        )  # Tornado's other texts: resolving, connecting, TLS handshake
    for classes, kind in _KINDS:
        if isinstance(error, classes):
            return Failure(kind, text, begun)
    return Failure("protocol", text, begun)


_KINDS: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], FailureKind], ...] = (
    ((HTTPTimeoutError, TimeoutError), "read_timeout"),
    (ConnectionRefusedError, "refused"),
    (ssl.SSLError, "tls"),
    (socket.gaierror, "host"),
    ((HTTPStreamClosedError, ConnectionError), "closed"),
)
