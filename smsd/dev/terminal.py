"""`smsd phone`: a phone in the terminal that acts as Twilio does.

Reads lines, texts the service, shows what came back. It holds no rule of Twilio's:
those are the simulator's.
"""

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from types import ModuleType
from typing import TextIO
from urllib.parse import parse_qsl

from smsd.dev.terminal_target import Target, explain, explain_403, find_target
from smsd.simulator.blocking import BlockingClient
from smsd.simulator.twilio import JAR, LOST, STALE, Clock, Twilio
from smsd.simulator.values import Attempt, Failure, Headers, Outbound, Outcome

EXIT_NO_REPLY = 1
EXIT_USAGE = 2
WRONG_TOKEN = "a-wrong-token"  # noqa: S105 - to be refused
ONLY_DEV = "only `smsd serve --dev` can do that"
UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


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
    try:
        target = find_target(url, environ.get("TWILIO_AUTH_TOKEN"), account, public_url)
    except ValueError as error:
        sys.stderr.write(f"smsd phone: {error}\n")
        return EXIT_USAGE
    display = Display(
        sys.stdout,
        is_colored=sys.stdout.isatty() and "NO_COLOR" not in environ,
        has_progress=send is None,
    )
    phone = Terminal(target, from_, to, display)
    if send is not None:
        phone.text(send)
    else:
        phone.run(prompt_lines(phone), interactive=sys.stdin.isatty())
    return 0 if phone.answered else EXIT_NO_REPLY


class Display:
    """What the phone shows.

    is_colored    with colors, and with a progress line that vanishes when the answer arrives;
                  elsewhere progress is a line for each time that Twilio is asked to come again
    has_progress  False for no progress at all
    """

    def __init__(self, out: TextIO, *, is_colored: bool = False, has_progress: bool = True) -> None:
        self.is_colored = is_colored
        self._out = out
        self._has_progress = has_progress

    def say(self, text: str) -> None:
        """Show what the sender of the messages sees."""
        self._write(f"{text}\n")

    def note(self, text: str) -> None:
        """Show what is only said about it."""
        self.say(self._colored("2", text))

    def warn(self, text: str) -> None:
        """Show what went wrong."""
        self.say(self._colored("31", text))

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Show within the `with` block that a reply is on its way."""
        self.show_waiting(0)
        try:
            yield
        finally:
            self.hide_waiting()

    def show_waiting(self, hops: int) -> None:
        """Show how often Twilio was asked to come again."""
        text = f"… a reply is on its way; asked to come again ({hops})" if hops else "…"
        self.hide_waiting()
        if self._has_progress and self.is_colored:
            self._write(self._colored("2", text))
        elif self._has_progress and hops:
            self.say(text)

    def hide_waiting(self) -> None:
        """Take the progress line away."""
        if self._has_progress and self.is_colored:
            self._write("\r\x1b[K")

    def _colored(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.is_colored else text

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()


class Terminal:
    """The phone: its settings, what is armed for the next message, and its commands."""

    def __init__(self, target: Target, from_: str, to: str, display: Display) -> None:
        self.target = target
        self.from_ = self._number(from_)
        self.to = to
        self.display = display
        self.clock = Clock()
        self.client = BlockingClient(
            account=target.account, connect_to=target.connect_to, twilio=Twilio(self.clock)
        )
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
                self.display.note("stopped waiting for the reply")
            if self.stopped:
                return

    def line(self, line: str) -> None:
        """Take a command or a message."""
        word, _, rest = line.partition(" ")
        if word in self.commands:
            self.commands[word](rest.strip())
        elif word.startswith("/"):
            self.display.warn(f"{word} is not a command; /help lists them")
        elif line.strip():
            self.text(line)

    def text(self, body: str) -> None:
        """Text the service, as often and with the cookie and token that are armed."""
        message = self.client.compose(body, from_=self.from_, to=self.to)
        deliveries, cookies, self.client.account = self._deliveries, self._cookies, self._account
        self._deliveries, self._cookies, self._account = 1, JAR, self.target.account
        for _ in range(deliveries):
            with self.display.waiting():
                self.last = self.client.deliver(
                    message,
                    cookies=cookies,
                    on_reply=self._show_reply,
                    on_hop=self.display.show_waiting,
                )
            self.answered = bool(self.last.replies)
            self._show_outcome(self.last)

    def _show_reply(self, reply: Outbound) -> None:
        self.display.hide_waiting()
        self.display.say(reply.body)
        for link in reply.media:
            self.display.note(f"media: {link}")

    def _show_outcome(self, outcome: Outcome) -> None:
        if outcome.automatic:
            self.display.note(f"Twilio itself answers: {outcome.automatic}")
        for line in self._explain(outcome):
            self.display.warn(line)
        if not outcome.replies and not outcome.errors:
            self.display.note("no reply")
        if self.display.is_colored:
            self.display.note(_facts(outcome))

    def _explain(self, outcome: Outcome) -> list[str]:
        sender = self.client.sender
        if outcome.status != 403:
            return explain(outcome)
        if sender.token == WRONG_TOKEN:
            return ["403: refused, as it should be, because the token was wrong"]
        refused = outcome.attempts[-1].request
        return explain_403(sender, refused, self.client.perform)

    def set_from(self, given: str) -> None:
        """NUMBER or NAME: who texts."""
        self.from_ = self._number(given) if given else self.from_
        known = self.name != self.from_
        self.display.note(f"from {self.name} {self.from_}" if known else f"from {self.from_}")

    def set_to(self, given: str) -> None:
        """NUMBER: which number is texted."""
        self.to = given or self.to
        self.display.note(f"to {self.to}")

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
            self.display.note(f"the next message is {how}")

    def wait(self, given: str) -> None:
        """[4h]: let time pass; s, m, h or d."""
        seconds = duration_s(given or "4h")
        if seconds is None:
            self.display.warn("/wait takes a time such as 90s, 30m or 4h")
            return
        self.clock.advance(seconds)
        if self.target.order is None:
            self.display.note(f"the phone's cookies are older now; the service's clock: {ONLY_DEV}")
        else:
            self._order(
                "clock", {"seconds": seconds}, f"{given or '4h'} later, also in the service"
            )

    def set_store(self, given: str) -> None:
        """down or up: take the service's store away, or bring it back."""
        if given in ("down", "up"):
            self._order("store", {"action": given}, f"the store is {given}")
        else:
            self.display.warn("/store takes down or up")

    def flush(self, _: str) -> None:
        """Empty the service's store, as a restart of memcached does."""
        self._order("store", {"action": "flush"}, "the store is empty")

    def _order(self, path: str, body: Mapping[str, object], done: str) -> None:
        """Have the development server do something, and say so."""
        if self.target.order is None:
            self.display.warn(ONLY_DEV)
            return
        if problem := self.target.order(path, body):
            self.display.warn(f"the service did not do it: {problem}")
        else:
            self.display.note(done)

    def raw(self, _: str) -> None:
        """Show the last request and its answer as they were."""
        if self.last:
            self.display.say("\n\n".join(map(_raw, self.last.attempts)))
        else:
            self.display.note("nothing was sent yet")

    def help(self, _: str) -> None:
        """Show this list."""
        self.display.say("Every line is a text message. Commands:")
        for name, command in self.commands.items():
            self.display.say(f"  {name:<14}{command.__doc__}")

    def quit(self, _: str) -> None:
        """Leave, as Ctrl-D does, and Ctrl-C on an empty line."""
        self.stopped = True

    def _number(self, given: str) -> str:
        """The number of a person who is named; anything else stays."""
        people = self.target.people.items()
        named = (number for number, name in people if name.casefold() == given.casefold())
        return next(named, given)

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


def _raw(attempt: Attempt) -> str:
    """A request and its answer as they went over the wire; the form one field a line."""
    request, result = attempt.request, attempt.result
    form = parse_qsl(request.body.decode(), keep_blank_values=True)
    lines = [f"{request.method} {request.url}", *_headers(request.headers), ""]
    lines += [f"  {name} = {value!r}" for name, value in form]
    lines.append("")
    if isinstance(result, Failure):
        lines.append(f"failed: {result.kind} ({result.detail})")
    else:
        lines += [str(result.status), *_headers(result.headers), ""]
        lines.append(result.body.decode("utf-8", "replace"))
    return "\n".join(lines)


def _headers(headers: Headers) -> list[str]:
    return [f"{name}: {value}" for name, value in headers]


def duration_s(given: str) -> float | None:
    """Seconds of 90s, 30m, 4h, 1d; None if it is none of these."""
    number, unit = given[:-1], given[-1:]
    return int(number) * UNITS_S[unit] if number.isdecimal() and unit in UNITS_S else None


def prompt_lines(phone: Terminal) -> Iterator[str]:
    """Lines from the terminal, with history and completion; from a pipe just the lines.

    Ends at Ctrl-D, and at Ctrl-C on an empty line. Ctrl-C elsewhere discards the line.
    """
    if not sys.stdin.isatty():
        for line in sys.stdin:
            yield line.rstrip("\n")
        return
    phone.display.note(
        "Every line is a text message. /help lists commands, Tab completes them; "
        "/quit, Ctrl-D or Ctrl-C leaves."
    )
    readline = _complete(phone)
    with contextlib.suppress(EOFError):
        while True:
            try:
                yield input(f"{phone.name} > {phone.to}: ")
            except KeyboardInterrupt:
                if not (readline and readline.get_line_buffer()):
                    break
                print()
    print()


def _complete(phone: Terminal) -> ModuleType | None:
    """Turn on history and completion; the module that does it, if the system has one."""
    try:
        import readline  # noqa: PLC0415 - not on every system
    except ImportError:
        return None
    readline.set_completer_delims(" ")
    readline.set_completer(
        lambda text, state: completion(phone, readline.get_line_buffer(), text, state)
    )
    readline.parse_and_bind("tab: complete")
    return readline


def completion(phone: Terminal, line: str, text: str, state: int) -> str | None:
    """The word number `state` that completes `text` at the end of the line."""
    command, blank, _ = line.partition(" ")
    words = phone.choices(command) if blank else [f"{name} " for name in phone.commands]
    fitting = [word for word in words if word.casefold().startswith(text.casefold())]
    return fitting[state] if state < len(fitting) else None
