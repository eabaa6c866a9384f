"""`smsd phone`: a phone in the terminal, acting as Twilio does. Reads lines, texts the service, shows what came back.

It holds no rule of Twilio's: those are the engine's. The token is never taken from the command line.
"""

import json
import sys
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from getpass import getpass
from urllib.parse import urlsplit

from smsd.dev.console import Ink, duration_s, explain, prompt_lines, shown_raw
from smsd.dev.probe import explain_403
from smsd.simulator.client import DEFAULT_SID, BlockingClient
from smsd.simulator.twilio import JAR, LOST, STALE, Clock, Twilio
from smsd.simulator.values import Outcome
from smsd.simulator.webhook import Account

EXIT_NO_REPLY = 1
EXIT_USAGE = 2


def main(
    url: str,
    *,
    send: str | None,
    from_: str,
    to: str,
    account: str | None,
    public_url: str | None,
    environ: Mapping[str, str],
) -> int:
    """Text the service at `url`. The exit code: 0, 1 if (the last) message got no reply, 2 if it cannot start."""
    ink = Ink(sys.stdout.isatty() and "NO_COLOR" not in environ)
    try:
        service = find(url, environ.get("TWILIO_AUTH_TOKEN"), account, public_url)
    except ValueError as error:
        sys.stderr.write(f"smsd phone: {error}\n")
        return EXIT_USAGE
    phone = Terminal(service, from_, to, say=lambda text: print(text, flush=True), ink=ink)
    if send is not None:
        phone.text(send)
    else:
        phone.run(prompt_lines(phone, phone.commands, ink))
    return 0 if phone.answered else EXIT_NO_REPLY


@dataclass
class Service:
    """What the phone must know: what is signed and with what, and where to connect."""

    account: Account
    connect_to: str | None = None
    people: Mapping[str, str] = field(default_factory=dict)
    advance: Callable[[float], None] | None = (
        None  # moves the service's own clock: a development server's
    )


def find(url: str, token: str | None, account: str | None, public_url: str | None) -> Service:
    """Put together what is given and what a development server tells. ValueError says what is missing."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url}: a URL such as http://127.0.0.1:8080 is expected")
    told = (
        _ask_development_server(url) if parts.hostname in ("127.0.0.1", "localhost", "::1") else {}
    )
    webhook = _webhook(public_url) if public_url else str(told.get("webhook") or _webhook(url))
    token = str(told.get("token") or token or _ask_for_token())
    sid = account or str(told.get("account") or DEFAULT_SID)
    elsewhere = urlsplit(webhook).netloc != parts.netloc
    if elsewhere and parts.scheme == "https":
        raise ValueError("with another public URL, the service itself must be reached with http://")
    people = told.get("people")

    def advance(seconds: float) -> None:
        body = json.dumps({"seconds": seconds}).encode()
        _ask(url, "/phone/api/clock", {"Content-Type": "application/json"}, body)

    return Service(
        Account(sid, token, webhook),
        parts.netloc if elsewhere else None,
        people if isinstance(people, dict) else {},
        advance if told else None,
    )


def _webhook(url: str) -> str:
    """The webhook of a base URL; a URL that has it already stays."""
    base = url.rstrip("/")
    return base if urlsplit(base).path.endswith("/sms") else f"{base}/sms"


def _ask_development_server(url: str) -> dict[str, object]:
    """Token, account, people of `serve --dev`; nothing from any other server."""
    try:
        told = json.loads(_ask(url, "/phone/dev.json", {"X-Smsd-Phone": "1"}))
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def _ask(url: str, path: str, headers: Mapping[str, str], body: bytes | None = None) -> bytes:
    parts = urlsplit(url)
    request = urllib.request.Request(f"{parts.scheme}://{parts.netloc}{path}", body, dict(headers))  # noqa: S310 - http(s)
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({})
    )  # this machine is asked directly
    with opener.open(request, timeout=5) as response:
        answer: bytes = response.read()
    return answer


def _ask_for_token() -> str:
    if not sys.stdin.isatty():
        raise ValueError(
            "TWILIO_AUTH_TOKEN is not set; it signs the messages, and must be the service's own"
        )
    token = getpass("Auth token of the service (TWILIO_AUTH_TOKEN, not shown): ").strip()
    if not token:
        raise ValueError("an auth token is needed to sign the messages")
    return token


class Terminal:
    """The phone: what is set, what is armed for the next message, and the commands."""

    def __init__(
        self, service: Service, from_: str, to: str, *, say: Callable[[str], None], ink: Ink
    ) -> None:
        self.service = service
        self.from_ = self._number(from_)
        self.to = to
        self.say = say
        self.ink = ink
        self.clock = Clock()
        self.client = BlockingClient(
            account=service.account, connect_to=service.connect_to, twilio=Twilio(self.clock)
        )
        self.last: Outcome | None = None
        self.answered = True
        self.stopped = False
        self._deliveries = 1
        self._cookies = JAR
        self.commands: dict[str, Callable[[str], None]] = {
            "/from": self.set_from,
            "/to": self.set_to,
            "/twice": self.twice,
            "/lose-cookie": self.lose_cookie,
            "/stale-cookie": self.stale_cookie,
            "/wait": self.wait,
            "/raw": self.raw,
            "/help": self.help,
            "/quit": self.quit,
        }

    @property
    def name(self) -> str:
        """Who texts, by name if known."""
        return self.service.people.get(self.from_, self.from_)

    def run(self, lines: Iterable[str]) -> None:
        """Take lines until they end or /quit."""
        for line in lines:
            self.line(line)
            if self.stopped:
                return

    def line(self, line: str) -> None:
        """A command, or a message."""
        word, _, rest = line.partition(" ")
        if word in self.commands:
            self.commands[word](rest.strip())
        elif word.startswith("/"):
            self.say(self.ink.bad(f"{word} is no command; /help lists them"))
        elif line.strip():
            self.text(line)

    def text(self, body: str) -> None:
        """Text the service, as often and with the cookie that is armed."""
        message = self.client.compose(body, from_=self.from_, to=self.to)
        deliveries, cookies = self._deliveries, self._cookies
        self._deliveries, self._cookies = 1, JAR
        for _ in range(deliveries):
            self.last = self.client.deliver(message, cookies=cookies)
            self.answered = bool(self.last.replies)
            self._show(self.last)

    def _show(self, outcome: Outcome) -> None:
        for reply in outcome.replies:
            self.say(reply.body)
            for link in reply.media:
                self.say(self.ink.dim(f"media: {link}"))
        if outcome.automatic:
            self.say(self.ink.dim(f"Twilio itself answers: {outcome.automatic}"))
        for line in self._explain(outcome):
            self.say(self.ink.bad(line))
        if not outcome.replies and not outcome.errors:
            self.say(self.ink.dim("no reply"))
        if self.ink.on:
            self.say(self.ink.dim(f"{outcome.status or '-'} · {outcome.elapsed_s * 1000:.1f} ms"))

    def _explain(self, outcome: Outcome) -> list[str]:
        if outcome.status != 403:
            return explain(outcome)
        return explain_403(self.service.account, outcome.attempts[-1].request, self.client.perform)

    def set_from(self, given: str) -> None:
        """NUMBER or NAME: who texts."""
        self.from_ = self._number(given) if given else self.from_
        self.say(
            self.ink.dim(
                f"from {self.name} {self.from_}"
                if self.name != self.from_
                else f"from {self.from_}"
            )
        )

    def set_to(self, given: str) -> None:
        """NUMBER: which number is texted."""
        self.to = given or self.to
        self.say(self.ink.dim(f"to {self.to}"))

    def twice(self, given: str) -> None:
        """[TEXT]: deliver this message, or the next one, twice."""
        self._deliveries = 2
        self._armed("delivered twice", given)

    def lose_cookie(self, given: str) -> None:
        """[TEXT]: send this message, or the next one, without its cookie."""
        self._cookies = LOST
        self._armed("sent without a cookie", given)

    def stale_cookie(self, given: str) -> None:
        """[TEXT]: send this message, or the next one, with the cookie before the last."""
        self._cookies = STALE
        self._armed("sent with an old cookie", given)

    def _armed(self, how: str, body: str) -> None:
        if body:
            self.text(body)
        else:
            self.say(self.ink.dim(f"the next message is {how}"))

    def wait(self, given: str) -> None:
        """[4h]: let time pass; s, m, h, d."""
        seconds = duration_s(given or "4h")
        if seconds is None:
            self.say(self.ink.bad("a time such as 90s, 30m, 4h is expected"))
            return
        self.clock.advance(seconds)
        if self.service.advance is None:
            self.say(
                self.ink.dim(
                    "the cookie jar is older now; the clock of that service cannot be moved"
                )
            )
            return
        try:
            self.service.advance(seconds)
        except OSError as error:
            self.say(self.ink.bad(f"the service's clock was not moved: {error}"))
        else:
            self.say(self.ink.dim(f"{given or '4h'} later, here and in the service"))

    def raw(self, _: str) -> None:
        """Show the last request and its answer as they were."""
        self.say(shown_raw(self.last) if self.last else self.ink.dim("nothing was sent yet"))

    def help(self, _: str) -> None:
        """This list."""
        self.say("Any line is a message. Commands:")
        for name, command in self.commands.items():
            self.say(f"  {name:<14}{command.__doc__}")

    def quit(self, _: str) -> None:
        """Leave; so does the end of input."""
        self.stopped = True

    def _number(self, given: str) -> str:
        """A name of the people file becomes its number."""
        found: Iterator[str] = (
            number
            for number, name in self.service.people.items()
            if name.casefold() == given.casefold()
        )
        return next(found, given)

    def choices(self, command: str) -> list[str]:
        """What may stand after a command."""
        people = [*self.service.people.values(), *self.service.people]
        return {"/from": people, "/wait": ["30s", "30m", "4h"]}.get(command, [])
