"""`smsd phone`: a phone in the terminal that acts as Twilio does.

Reads lines, texts the service, shows what came back. It holds no rule of Twilio's:
those are the simulator's.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

from smsd.dev.console import Ink, Progress, duration_s, explain, prompt_lines, shown_raw
from smsd.dev.probe import explain_403
from smsd.dev.terminal_target import Target, find_target
from smsd.simulator.blocking import BlockingClient
from smsd.simulator.twilio import JAR, LOST, STALE, Clock, Twilio
from smsd.simulator.values import Failure, Outbound, Outcome, Request, Response
from smsd.simulator.webhook import WebhookUrl

EXIT_NO_REPLY = 1
EXIT_USAGE = 2
WRONG_TOKEN = "a-wrong-token"  # noqa: S105 - to be refused
ONLY_DEV = "only `smsd serve --dev` can do that"


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
    """Text the service at `url`.

    The exit code is 0 if the last message got a reply, 1 if not, 2 if the phone cannot
    start.
    """
    ink = Ink(sys.stdout.isatty() and "NO_COLOR" not in environ)
    try:
        target = find_target(url, environ.get("TWILIO_AUTH_TOKEN"), account, public_url)
    except ValueError as error:
        sys.stderr.write(f"smsd phone: {error}\n")
        return EXIT_USAGE
    progress = Progress(ink, sys.stdout if send is None else None)
    phone = Terminal(target, from_, to, say=_say, ink=ink, progress=progress)
    if send is not None:
        phone.text(send)
    else:
        phone.run(prompt_lines(phone, phone.commands, ink), interactive=sys.stdin.isatty())
    return 0 if phone.answered else EXIT_NO_REPLY


def _say(text: str) -> None:
    print(text, flush=True)


class _Client(BlockingClient):
    """Tells the progress line what is being waited for."""

    progress: Progress

    def perform(self, request: Request, *, connect_to: str | None = None) -> Response | Failure:
        """Perform one request; every URL but the webhook's own is one hop further."""
        hop = request.url != WebhookUrl.parse(self.sender.url).url
        with self.progress.waiting(hop=hop):
            return super().perform(request, connect_to=connect_to)


class Terminal:
    """The phone: its settings, what is armed for the next message, and its commands."""

    def __init__(
        self,
        target: Target,
        from_: str,
        to: str,
        *,
        say: Callable[[str], None],
        ink: Ink,
        progress: Progress | None = None,
    ) -> None:
        self.target = target
        self.from_ = self._number(from_)
        self.to = to
        self.say = say
        self.ink = ink
        self.clock = Clock()
        self.client = _Client(
            account=target.account, connect_to=target.connect_to, twilio=Twilio(self.clock)
        )
        self.client.progress = progress or Progress(ink, None)
        self.last: Outcome | None = None
        self.answered = True
        self.stopped = False
        self._deliveries = 1
        self._cookies = JAR
        self._account = target.account
        self.commands: dict[str, Callable[[str], None]] = {
            "/from": self.set_from,
            "/to": self.set_to,
            "/twice": self.twice,
            "/lose-cookie": self.lose_cookie,
            "/old-cookie": self.old_cookie,
            "/wrong-token": self.wrong_token,
            "/wait": self.wait,
            "/store": self.set_store,
            "/flush": self.flush,
            "/raw": self.raw,
            "/help": self.help,
            "/quit": self.quit,
        }

    @property
    def name(self) -> str:
        """Who texts, by name if it is known."""
        return self.target.people.get(self.from_, self.from_)

    def run(self, lines: Iterable[str], *, interactive: bool = False) -> None:
        """Take lines until they end or /quit. `interactive`: Ctrl-C ends only the wait
        for a reply."""
        for line in lines:
            try:
                self.line(line)
            except KeyboardInterrupt:
                if not interactive:
                    raise
                self.say(self.ink.dim("stopped waiting for the reply"))
            if self.stopped:
                return

    def line(self, line: str) -> None:
        """Take a command or a message."""
        word, _, rest = line.partition(" ")
        if word in self.commands:
            self.commands[word](rest.strip())
        elif word.startswith("/"):
            self.say(self.ink.bad(f"{word} is not a command; /help lists them"))
        elif line.strip():
            self.text(line)

    def text(self, body: str) -> None:
        """Text the service, as often and with the cookie and token that are armed."""
        message = self.client.compose(body, from_=self.from_, to=self.to)
        deliveries, cookies, self.client.account = self._deliveries, self._cookies, self._account
        self._deliveries, self._cookies, self._account = 1, JAR, self.target.account
        for _ in range(deliveries):
            self.last = self.client.deliver(message, cookies=cookies, on_reply=self._show_reply)
            self.answered = bool(self.last.replies)
            self._show_outcome(self.last)

    def _show_reply(self, reply: Outbound) -> None:
        self.say(reply.body)
        for link in reply.media:
            self.say(self.ink.dim(f"media: {link}"))

    def _show_outcome(self, outcome: Outcome) -> None:
        if outcome.automatic:
            self.say(self.ink.dim(f"Twilio itself answers: {outcome.automatic}"))
        for line in self._explain(outcome):
            self.say(self.ink.bad(line))
        if not outcome.replies and not outcome.errors:
            self.say(self.ink.dim("no reply"))
        if self.ink.on:
            self.say(self.ink.dim(_facts(outcome)))

    def _explain(self, outcome: Outcome) -> list[str]:
        sender = self.client.sender
        if outcome.status != 403:
            return explain(outcome)
        if sender.token == WRONG_TOKEN:
            return ["403: refused, as it should be, because the token was wrong"]
        refused = outcome.attempts[-1].request
        return explain_403(
            sender, refused, lambda probe: BlockingClient.perform(self.client, probe)
        )

    def set_from(self, given: str) -> None:
        """NUMBER or NAME: who texts."""
        self.from_ = self._number(given) if given else self.from_
        known = self.name != self.from_
        self.say(self.ink.dim(f"from {self.name} {self.from_}" if known else f"from {self.from_}"))

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

    def old_cookie(self, given: str) -> None:
        """[TEXT]: send this message, or the next one, with the cookie before the last."""
        self._cookies = STALE
        self._armed("sent with an old cookie", given)

    def wrong_token(self, given: str) -> None:
        """[TEXT]: sign this message, or the next one, with a wrong token."""
        self._account = replace(self.target.account, token=WRONG_TOKEN)
        self._armed("signed with a wrong token", given)

    def _armed(self, how: str, body: str) -> None:
        if body:
            self.text(body)
        else:
            self.say(self.ink.dim(f"the next message is {how}"))

    def wait(self, given: str) -> None:
        """[4h]: let time pass; s, m, h or d."""
        seconds = duration_s(given or "4h")
        if seconds is None:
            self.say(self.ink.bad("/wait takes a time such as 90s, 30m or 4h"))
            return
        self.clock.advance(seconds)
        if self.target.order is None:
            self.say(
                self.ink.dim(f"the phone's cookies are older now; the service's clock: {ONLY_DEV}")
            )
        else:
            self._order(
                "clock", {"seconds": seconds}, f"{given or '4h'} later, also in the service"
            )

    def set_store(self, given: str) -> None:
        """down or up: take the service's store away, or bring it back."""
        if given in ("down", "up"):
            self._order("store", {"action": given}, f"the store is {given}")
        else:
            self.say(self.ink.bad("/store takes down or up"))

    def flush(self, _: str) -> None:
        """Empty the service's store, as a restart of memcached does."""
        self._order("store", {"action": "flush"}, "the store is empty")

    def _order(self, path: str, body: Mapping[str, object], done: str) -> None:
        """Have the development server do something, and say so."""
        if self.target.order is None:
            self.say(self.ink.bad(ONLY_DEV))
            return
        try:
            self.target.order(path, body)
        except OSError as error:
            self.say(self.ink.bad(f"the service did not do it: {error}"))
        else:
            self.say(self.ink.dim(done))

    def raw(self, _: str) -> None:
        """Show the last request and its answer as they were."""
        self.say(shown_raw(self.last) if self.last else self.ink.dim("nothing was sent yet"))

    def help(self, _: str) -> None:
        """Show this list."""
        self.say("Every line is a text message. Commands:")
        for name, command in self.commands.items():
            self.say(f"  {name:<14}{command.__doc__}")

    def quit(self, _: str) -> None:
        """Leave, as Ctrl-D does, and Ctrl-C on an empty line."""
        self.stopped = True

    def _number(self, given: str) -> str:
        """The number of a person who is named; anything else stays."""
        found: Iterator[str] = (
            number
            for number, name in self.target.people.items()
            if name.casefold() == given.casefold()
        )
        return next(found, given)

    def choices(self, command: str) -> list[str]:
        """The words that may follow a command."""
        people = [*self.target.people.values(), *self.target.people]
        words = {"/from": people, "/wait": ["30s", "30m", "4h"], "/store": ["down", "up"]}
        return words.get(command, [])


def _facts(outcome: Outcome) -> str:
    """Status, time, and how often Twilio was asked to come again."""
    took_s = outcome.elapsed_s
    facts = [
        str(outcome.status or "-"),
        f"{took_s * 1000:.1f} ms" if took_s < 1 else f"{took_s:.1f} s",
    ]
    if outcome.hops:
        times = "once" if outcome.hops == 1 else f"{outcome.hops} times"
        facts.append(f"Twilio was asked to come again {times}")
    return " · ".join(facts)
