"""The edges: the offline Twilio on sockets, on an event loop (`Client`) or in threads (`BlockingClient`).

They perform what the engine asks for and hold no rule of their own. `connect_to="127.0.0.1:8080"` stands for
an ingress: requests are signed for the public URL and carry its Host, but go to that address in plain HTTP.
"""

import asyncio
import http.client
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from tornado.httpclient import HTTPRequest, HTTPResponse
from tornado.simple_httpclient import HTTPStreamClosedError, HTTPTimeoutError, SimpleAsyncHTTPClient

from smsd.simulator.twilio import JAR, Cookies, Twilio, perform_all
from smsd.simulator.values import (
    Answer,
    Failure,
    FailureKind,
    Flow,
    Headers,
    Inbound,
    Outcome,
    Reply,
    Request,
)
from smsd.simulator.webhook import Account

DEFAULT_SID = "AC" + "0" * 31 + "1"
DEFAULT_TOKEN = "offline-twilio-token"  # noqa: S105 - the simulator's own, known to everybody
DEFAULT_FROM = "+14158675309"
DEFAULT_TO = "+14158141829"
OnReply = Callable[[Reply], None]
OnHop = Callable[[int], None]


def ignore(_: object) -> None:
    """The callback of somebody who waits for the `Outcome`."""


@dataclass
class _Edge:
    """What both clients are: who texts, through which account, and where to connect."""

    url: str = "https://sms.example.com/sms"
    token: str = DEFAULT_TOKEN
    sid: str = DEFAULT_SID
    connect_to: str | None = None
    account: Account | None = None  # instead of url, token, sid
    twilio: Twilio = field(default_factory=Twilio)
    headers: Headers = ()  # more headers on every request, as a proxy adds them
    from_: str = DEFAULT_FROM
    to: str = DEFAULT_TO

    @property
    def sender(self) -> Account:
        """The account in use."""
        return self.account or Account(self.sid, self.token, self.url)

    def compose(
        self, body: str = "", *, from_: str | None = None, to: str | None = None, **more: Any
    ) -> Inbound:
        """A message to deliver later; `more` as in `Twilio.compose` (sid, media, segments, extra)."""
        return self.twilio.compose(self.sender, body, from_ or self.from_, to or self.to, **more)

    def address(self, url: str, connect_to: str | None) -> tuple[str, str]:
        """The URL to connect to, and the Host header."""
        parts = urlsplit(url)
        target = connect_to or self.connect_to
        if not target:
            return url, parts.netloc
        return urlunsplit(("http", target, parts.path, parts.query, "")), parts.netloc


class Client(_Edge):
    """For tests and servers on an event loop. Close it when done, or use `async with`."""

    _http: SimpleAsyncHTTPClient | None = None  # made on the running loop

    async def text(
        self,
        body: str = "",
        *,
        from_: str | None = None,
        to: str | None = None,
        cookies: Cookies = JAR,
        connect_to: str | None = None,
        on_reply: OnReply = ignore,
        on_hop: OnHop = ignore,
        **more: Any,
    ) -> Outcome:
        """Write a message and deliver it once."""
        message = self.compose(body, from_=from_, to=to, **more)
        return await self.deliver(
            message, cookies=cookies, connect_to=connect_to, on_reply=on_reply, on_hop=on_hop
        )

    async def deliver(
        self,
        message: Inbound,
        *,
        cookies: Cookies = JAR,
        connect_to: str | None = None,
        on_reply: OnReply = ignore,
        on_hop: OnHop = ignore,
    ) -> Outcome:
        """Deliver a composed message, perhaps again. Callbacks as in `Twilio.deliver`."""
        flow = self.twilio.deliver(self.sender, message, cookies, on_reply, on_hop)
        return await self._drive(flow, connect_to)

    async def everywhere(
        self, message: Inbound, addresses: Sequence[str | None], *, cookies: Cookies = JAR
    ) -> list[Outcome]:
        """Deliver one message to several addresses at the same time; an address may stand more than once."""
        return list(
            await asyncio.gather(
                *(self.deliver(message, cookies=cookies, connect_to=a) for a in addresses)
            )
        )

    async def status(
        self,
        outcome: Outcome,
        status: str,
        error_code: int | None = None,
        *,
        url: str | None = None,
        connect_to: str | None = None,
    ) -> Outcome:
        """Post a status callback for the first reply, to `url`, its statusCallback, or the account's URL."""
        reply_sid = outcome.replies[0].sid if outcome.replies else outcome.message.sid
        target = url or (outcome.replies[0].status_callback if outcome.replies else None)
        flow = self.twilio.status(
            self.sender, outcome.message, reply_sid, status, error_code, url=target
        )
        return await self._drive(flow, connect_to)

    async def _drive(self, flow: Flow, connect_to: str | None) -> Outcome:
        try:
            request = next(flow)
            while True:
                request = flow.send(await self.perform(request, connect_to=connect_to))
        except StopIteration as stop:
            outcome: Outcome = stop.value
            return outcome

    async def perform(self, request: Request, *, connect_to: str | None = None) -> Answer | Failure:
        """Perform one request as it is: also for a request that the caller has tampered with."""
        if self._http is None:
            self._http = SimpleAsyncHTTPClient(force_instance=True, max_clients=2000)
        url, host = self.address(request.url, connect_to)
        begun: list[str] = []
        given = HTTPRequest(
            url,
            method=request.method,
            headers=_joined([("Host", host), *request.headers, *self.headers]),
            body=request.body if request.method == "POST" else None,
            connect_timeout=min(request.connect_timeout_s, request.total_timeout_s),
            request_timeout=min(request.read_timeout_s, request.total_timeout_s),
            follow_redirects=False,
            decompress_response=True,
            header_callback=begun.append,
        )
        try:
            response: HTTPResponse = await self._http.fetch(given, raise_error=False)
        except Exception as error:  # noqa: BLE001 - every kind of failure is a result here
            return _failure(error, bool(begun))
        return Answer(response.code, tuple(response.headers.get_all()), response.body)

    async def raw(
        self, data: bytes, *, address: str | None = None, timeout_s: float = 5.0
    ) -> bytes:
        """Write any bytes, return what came back until the server closed or `timeout_s` was over."""
        target = urlsplit("//" + (address or self.connect_to or urlsplit(self.url).netloc))
        reader, writer = await asyncio.open_connection(target.hostname, target.port or 80)
        received = bytearray()
        try:
            async with asyncio.timeout(timeout_s):
                writer.write(data)
                await writer.drain()
                while chunk := await reader.read(65536):
                    received += chunk
        except (TimeoutError, ConnectionError):
            pass  # what came so far is the answer
        finally:
            writer.close()
        return bytes(received)

    def close(self) -> None:
        """Close the HTTP client."""
        if self._http is not None:
            self._http.close()
            self._http = None

    async def __aenter__(self) -> "Client":
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


class BlockingClient(_Edge):
    """For threads and plain scripts: one connection for each request."""

    def text(
        self,
        body: str = "",
        *,
        from_: str | None = None,
        to: str | None = None,
        cookies: Cookies = JAR,
        connect_to: str | None = None,
        on_reply: OnReply = ignore,
        on_hop: OnHop = ignore,
        **more: Any,
    ) -> Outcome:
        """Write a message and deliver it once."""
        message = self.compose(body, from_=from_, to=to, **more)
        return self.deliver(
            message, cookies=cookies, connect_to=connect_to, on_reply=on_reply, on_hop=on_hop
        )

    def deliver(
        self,
        message: Inbound,
        *,
        cookies: Cookies = JAR,
        connect_to: str | None = None,
        on_reply: OnReply = ignore,
        on_hop: OnHop = ignore,
    ) -> Outcome:
        """Deliver a composed message, perhaps again. Callbacks as in `Twilio.deliver`."""
        flow = self.twilio.deliver(self.sender, message, cookies, on_reply, on_hop)
        return perform_all(flow, lambda request: self.perform(request, connect_to=connect_to))

    def perform(self, request: Request, *, connect_to: str | None = None) -> Answer | Failure:
        """Perform one request as it is."""
        url, host = self.address(request.url, connect_to)
        parts = urlsplit(url)
        kind = (
            http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        )
        timeout_s = min(request.connect_timeout_s, request.total_timeout_s)
        connection = kind(parts.hostname or "", parts.port, timeout=timeout_s)
        try:
            connection.connect()
        except OSError as error:
            connection.close()
            return _connecting(error)
        begun = False
        try:
            connection.sock.settimeout(min(request.read_timeout_s, request.total_timeout_s))
            headers = _joined([("Host", host), *request.headers, *self.headers])
            target = urlunsplit(("", "", parts.path or "/", parts.query, ""))
            connection.request(request.method, target, request.body, headers)
            response = connection.getresponse()
            begun = True
            return Answer(response.status, tuple(response.getheaders()), response.read())
        except (OSError, http.client.HTTPException) as error:
            return _failure(error, begun)
        finally:
            connection.close()


def _joined(headers: Headers) -> dict[str, str]:
    """Headers as a mapping; a later one replaces an earlier one of that name."""
    return dict(headers)


def _connecting(error: OSError) -> Failure:
    failure = _failure(error)
    return Failure("connect_timeout", failure.detail) if failure.kind == "read_timeout" else failure


def _failure(error: BaseException, begun: bool = False) -> Failure:
    """Which of Twilio's failures an exception is."""
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
