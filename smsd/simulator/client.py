"""The offline Twilio on sockets and an event loop."""

import asyncio
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from tornado.httpclient import HTTPRequest, HTTPResponse
from tornado.simple_httpclient import SimpleAsyncHTTPClient

from smsd.simulator.edge import Edge, OnHop, OnReply, failure_of, merged
from smsd.simulator.twilio import JAR, Cookies, ignore
from smsd.simulator.values import Failure, Flow, Inbound, Outcome, Request, Response


class Client(Edge):
    """The offline Twilio on an event loop. Close it when done, or use `async with`."""

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
        """Compose a message and deliver it once.

        body                the text
        from_, to           sender and number; the client's own by default
        cookies             which cookie it carries
        connect_to          "host:port" for this message alone
        on_reply, on_hop    called for each reply and each redirect as it happens
        more                arguments of `Twilio.compose`, such as `media` or `extra`

        Returns the `Outcome`; failures are in it and are not raised.
        """
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
        """Deliver a composed message, perhaps not for the first time. Arguments as for
        `text`."""
        flow = self.twilio.deliver(self.sender, message, cookies, on_reply, on_hop)
        return await self._drive(flow, connect_to)

    async def everywhere(
        self, message: Inbound, addresses: Sequence[str | None], *, cookies: Cookies = JAR
    ) -> list[Outcome]:
        """Deliver one message to several addresses at the same time; addresses may
        repeat."""
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
        """Post a status callback for the first reply.

        It goes to `url`, or else to the reply's `statusCallback`, its `action`, or the
        account's `status_url`. Raises ValueError if there is none of them.
        """
        reply_sid = outcome.replies[0].sid if outcome.replies else outcome.message.sid
        if url is None and outcome.replies:
            url = outcome.replies[0].status_callback or outcome.replies[0].action
        flow = self.twilio.status(
            self.sender, outcome.message, reply_sid, status, error_code, url=url
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

    async def perform(
        self, request: Request, *, connect_to: str | None = None
    ) -> Response | Failure:
        """Perform one request exactly as it is, even if the caller has changed it."""
        if self._http is None:
            self._http = SimpleAsyncHTTPClient(force_instance=True, max_clients=2000)
        url, host = self.address(request.url, connect_to)
        begun: list[str] = []
        given = HTTPRequest(
            url,
            method=request.method,
            headers=merged([("Host", host), *request.headers, *self.headers]),
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
            return failure_of(error, bool(begun))
        return Response(response.code, tuple(response.headers.get_all()), response.body)

    async def raw(
        self, data: bytes, *, address: str | None = None, timeout_s: float = 5.0
    ) -> bytes:
        """Send any bytes; return what came back until the server closed or `timeout_s`
        passed."""
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
