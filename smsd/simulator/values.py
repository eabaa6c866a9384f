"""The values the engine speaks: what is sent, what came back, what the handset got. No behaviour, no IO."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Literal

Params = Sequence[tuple[str, str]]  # in the order they are sent; a name may stand twice
Headers = Sequence[tuple[str, str]]
FailureKind = Literal[
    "connect_timeout", "refused", "read_timeout", "closed", "protocol", "host", "tls"
]


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request to perform. `url` is the signed one; an edge may connect to another address."""

    method: str
    url: str
    headers: Headers
    body: bytes
    connect_timeout_s: float
    read_timeout_s: float
    total_timeout_s: float  # what is left for everything, from now

    def header(self, name: str) -> str | None:
        """The first header of that name, or None."""
        return _first(self.headers, name)


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole HTTP response."""

    status: int
    headers: Headers
    body: bytes

    def header(self, name: str) -> str | None:
        """The first header of that name, or None."""
        return _first(self.headers, name)

    def all(self, name: str) -> list[str]:
        """Every header of that name."""
        return [value for key, value in self.headers if key.lower() == name.lower()]


@dataclass(frozen=True, slots=True)
class Failure:
    """No whole response. `begun`: some of it had arrived, and Twilio never retries that."""

    kind: FailureKind
    detail: str = ""
    begun: bool = False


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request and what became of it. Times are the engine's clock, in seconds."""

    request: Request
    result: Answer | Failure
    began_s: float
    ended_s: float


@dataclass(frozen=True, slots=True)
class Notice:
    """An entry of Twilio's debugger: `code` as in Twilio's error dictionary. A warning discards nothing."""

    code: int
    text: str
    warning: bool = False


@dataclass(frozen=True, slots=True)
class Reply:
    """One message that the handset receives, `after_s` seconds after the sender's text."""

    sid: str
    from_: str
    to: str
    body: str
    media: tuple[str, ...] = ()
    status_callback: str | None = None
    after_s: float = field(default=0.0, compare=False)


@dataclass(frozen=True, slots=True)
class Inbound:
    """A message on its way to the service: whose account, and the form Twilio posts."""

    account_sid: str
    from_: str
    to: str
    body: str
    sid: str
    params: Params

    @property
    def pair(self) -> tuple[str, str, str]:
        """What the cookie jar is kept by: (AccountSid, To, From)."""
        return self.account_sid, self.to, self.from_


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one delivery.

    message     what was delivered
    replies     the messages that the handset shows
    errors      the entries of Twilio's debugger
    attempts    every HTTP request, with its response or failure
    automatic   Twilio's own answer to STOP, START or HELP
    hops        how many `<Redirect>` verbs Twilio followed
    waited_s    seconds until the last reply arrived; without a reply, until the end
    elapsed_s   seconds until the end of the last request

    Times are the engine's clock, which may be virtual. `hops` and `waited_s` were added
    in 0.2.
    """

    message: Inbound
    replies: tuple[Reply, ...] = ()
    errors: tuple[Notice, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    automatic: str | None = None
    hops: int = 0
    waited_s: float = field(default=0.0, compare=False)
    elapsed_s: float = field(default=0.0, compare=False)

    @property
    def text(self) -> str | None:
        """The bodies of the replies, one to a line; None if none came."""
        return "\n".join(reply.body for reply in self.replies) if self.replies else None

    @property
    def codes(self) -> tuple[int, ...]:
        """Twilio's error codes, in the order they were noticed."""
        return tuple(notice.code for notice in self.errors)

    @property
    def answer(self) -> Answer | None:
        """The last response, if the last attempt got one."""
        result = self.attempts[-1].result if self.attempts else None
        return result if isinstance(result, Answer) else None

    @property
    def status(self) -> int | None:
        """The status of the last response; None after a failed attempt."""
        return self.answer.status if self.answer else None

    @property
    def twiml(self) -> bytes:
        """The body of the last response."""
        return self.answer.body if self.answer else b""

    @property
    def cookie_sent(self) -> str | None:
        """The Cookie header of the first request."""
        return self.attempts[0].request.header("Cookie") if self.attempts else None

    @property
    def cookie(self) -> str | None:
        """The Set-Cookie header of the last response."""
        return self.answer.header("Set-Cookie") if self.answer else None


Flow = Generator[
    Request, Answer | Failure, Outcome
]  # yields what to perform, is sent what came of it


def _first(headers: Headers, name: str) -> str | None:
    return next((value for key, value in headers if key.lower() == name.lower()), None)
