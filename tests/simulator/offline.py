"""A Twilio in virtual time before a service that answers by script: for the engine's
tests."""

from collections.abc import Callable
from random import Random

from smsd.simulator import (
    Account,
    Clock,
    Cookies,
    Failure,
    Inbound,
    Outbound,
    Outcome,
    Request,
    Response,
    Twilio,
    perform_all,
)

URL = "https://sms.example.com/sms"
ACCOUNT = Account("AC" + "1" * 32, "12345", URL)
Result = Response | Failure
Line = Result | Callable[[Request], Result]


class World:
    """A Twilio, its clock, and a service that answers by script; the last line repeats
    forever.

    Each answer takes `pace_s` seconds of virtual time; a time-out takes as long as its
    limit.
    """

    def __init__(self, *script: Line, account: Account = ACCOUNT, pace_s: float = 0) -> None:
        self.clock = Clock(lambda: 1_800_000_000.0)
        self.twilio = Twilio(self.clock, Random(1))
        self.account = account
        self.pace_s = pace_s
        self.script = list(script) or [xml("<Message>ok</Message>")]
        self.requests: list[Request] = []

    def perform(self, request: Request) -> Result:
        self.requests.append(request)
        line = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        result = line(request) if callable(line) else line
        if isinstance(result, Failure) and "timeout" in result.kind:
            connecting = result.kind == "connect_timeout"
            limit_s = request.connect_timeout_s if connecting else request.read_timeout_s
            self.clock.advance(min(limit_s, request.total_timeout_s))
        else:
            self.clock.advance(self.pace_s)
        return result

    def compose(
        self, body: str = "hi", from_: str = "+14158675309", to: str = "+14158141829"
    ) -> Inbound:
        return self.twilio.compose(self.account, body, from_, to)

    def text(
        self,
        body: str = "hi",
        cookies: Cookies | None = None,
        from_: str = "+14158675309",
        on_reply: Callable[[Outbound], None] = lambda _: None,
        on_hop: Callable[[int], None] = lambda _: None,
        to: str = "+14158141829",
    ) -> Outcome:
        message = self.compose(body, from_, to)
        flow = self.twilio.deliver(self.account, message, cookies or Cookies(), on_reply, on_hop)
        return perform_all(flow, self.perform)


def answer(status: int, *headers: tuple[str, str], body: bytes = b"") -> Response:
    return Response(status, headers, body)


def xml(inner: str, *cookies: str) -> Response:
    set_cookies = [("Set-Cookie", cookie) for cookie in cookies]
    return answer(
        200,
        ("Content-Type", "text/xml"),
        *set_cookies,
        body=f"<Response>{inner}</Response>".encode(),
    )


def moved(status: int, location: str = "/else") -> Response:
    return answer(status, ("Location", location))


OK = xml("<Message>ok</Message>")
CT, RT = Failure("connect_timeout"), Failure("read_timeout")
