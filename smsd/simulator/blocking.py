"""The offline Twilio on sockets, without an event loop."""

import http.client
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from smsd.simulator.edge import Edge, OnHop, OnReply, connect_failure, failure_of, merged
from smsd.simulator.twilio import JAR, Cookies, ignore, perform_all
from smsd.simulator.values import Failure, Inbound, Outcome, Request, Response


class BlockingClient(Edge):
    """The offline Twilio for threads and scripts. Opens one connection for each
    request."""

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
        """Compose a message and deliver it once. Arguments as for `Client.text`."""
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
        """Deliver a composed message, perhaps not for the first time. Arguments as for
        `text`."""
        flow = self.twilio.deliver(self.sender, message, cookies, on_reply, on_hop)
        return perform_all(flow, lambda request: self.perform(request, connect_to=connect_to))

    def perform(self, request: Request, *, connect_to: str | None = None) -> Response | Failure:
        """Perform one request exactly as it is."""
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
            return connect_failure(error)
        begun = False
        try:
            connection.sock.settimeout(min(request.read_timeout_s, request.total_timeout_s))
            headers = merged([("Host", host), *request.headers, *self.headers])
            target = urlunsplit(("", "", parts.path or "/", parts.query, ""))
            connection.request(request.method, target, request.body, headers)
            response = connection.getresponse()
            begun = True
            return Response(response.status, tuple(response.getheaders()), response.read())
        except (OSError, http.client.HTTPException) as error:
            return failure_of(error, begun)
        finally:
            connection.close()
