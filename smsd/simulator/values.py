"""What goes into the engine and what comes out: messages, requests, results, outcomes.

Plain values without behavior and without IO.
"""

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
    """One HTTP request to perform.

    method, url, headers, body  as Twilio sends them; the signature is for this URL, even if
                                the client connects to another address
    connect_timeout_s           for connecting and TLS
    read_timeout_s              until the answer begins, and between its packets
    total_timeout_s             what is left of the document's time, from now
    """

    method: str
    url: str
    headers: Headers
    body: bytes
    connect_timeout_s: float
    read_timeout_s: float
    total_timeout_s: float

    def header(self, name: str) -> str | None:
        """The value of the first header of that name, in any case; None without one."""
        return _first(self.headers, name)


@dataclass(frozen=True, slots=True)
class Response:
    """A whole HTTP response. Called `Answer` before 0.2."""

    status: int
    headers: Headers
    body: bytes

    def header(self, name: str) -> str | None:
        """The value of the first header of that name, in any case; None without one."""
        return _first(self.headers, name)

    def all(self, name: str) -> list[str]:
        """The values of all headers of that name."""
        return [value for key, value in self.headers if key.lower() == name.lower()]


@dataclass(frozen=True, slots=True)
class Failure:
    """A request without a complete response.

    `begun` says that part of a response had arrived; Twilio never retries then.
    """

    kind: FailureKind
    detail: str = ""
    begun: bool = False


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request and its result. The times are the engine's clock, in seconds."""

    request: Request
    result: Response | Failure
    began_s: float
    ended_s: float


@dataclass(frozen=True, slots=True)
class Notice:
    """An entry of Twilio's debugger, with a code of Twilio's error dictionary.

    A warning costs no message.
    """

    code: int
    text: str
    warning: bool = False


@dataclass(frozen=True, slots=True)
class Outbound:
    """A message that the handset receives: one `<Message>` of the service's answer.

    sid              its MessageSid
    from_, to        its numbers
    body, media      its text, and the URLs of its media
    status_callback  where Twilio reports what becomes of it, if the verb says so
    action           the same for the verb's `action`; Twilio advises giving both one URL
    after_s          seconds from the sender's text until it arrives

    Called `Reply` before 0.2.
    """

    sid: str
    from_: str
    to: str
    body: str
    media: tuple[str, ...] = ()
    status_callback: str | None = None
    action: str | None = None
    after_s: float = field(default=0.0, compare=False)


@dataclass(frozen=True, slots=True)
class Inbound:
    """A message on its way to the service. `params` is the form that Twilio posts.

    `is_machine_made` (added in 0.2): Twilio takes the text for a machine's and does not
    call the webhook (30039).
    """

    account_sid: str
    from_: str
    to: str
    body: str
    sid: str
    params: Params
    is_machine_made: bool = False

    @property
    def pair(self) -> tuple[str, str, str]:
        """The key of the cookie jar: (AccountSid, To, From)."""
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
    replies: tuple[Outbound, ...] = ()
    errors: tuple[Notice, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    automatic: str | None = None
    hops: int = 0
    waited_s: float = field(default=0.0, compare=False)
    elapsed_s: float = field(default=0.0, compare=False)

    @property
    def text(self) -> str | None:
        """The bodies of the replies, joined by newlines; None without a reply."""
        return "\n".join(reply.body for reply in self.replies) if self.replies else None

    @property
    def codes(self) -> tuple[int, ...]:
        """The codes of all `errors`, in order."""
        return tuple(notice.code for notice in self.errors)

    @property
    def answer(self) -> Response | None:
        """The last response; None if the last attempt failed."""
        result = self.attempts[-1].result if self.attempts else None
        return result if isinstance(result, Response) else None

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
    Request, Response | Failure, Outcome
]  # yields what to perform, is sent what came of it


def _first(headers: Headers, name: str) -> str | None:
    return next((value for key, value in headers if key.lower() == name.lower()), None)
