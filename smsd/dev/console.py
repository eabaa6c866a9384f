"""How the terminal phone looks: prompt, history, completion, colors, progress,
explanations.

It sends nothing.
"""

import contextlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Protocol, TextIO
from urllib.parse import parse_qsl

from smsd.simulator.values import Attempt, Failure, Notice, Outcome, Response

UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True)
class Ink:
    """Colors, if the terminal wants them."""

    on: bool

    def dim(self, text: str) -> str:
        """Make text recede."""
        return f"\x1b[2m{text}\x1b[0m" if self.on else text

    def bad(self, text: str) -> str:
        """Mark text as a failure."""
        return f"\x1b[31m{text}\x1b[0m" if self.on else text


class Progress:
    """Shows that a reply is on its way, and how often Twilio was asked to come again.

    In a terminal it is one line that vanishes when the answer arrives; elsewhere a line
    for each time that Twilio is asked to come again. `out` is None for no progress at
    all.
    """

    def __init__(self, ink: Ink, out: TextIO | None) -> None:
        self._ink = ink
        self._out = out
        self._hops = 0

    @contextlib.contextmanager
    def waiting(self, *, hop: bool) -> Iterator[None]:
        """Show it within the `with` block. `hop`: the request is one that Twilio was
        asked for."""
        self._hops = self._hops + 1 if hop else 0
        text = f"… a reply is on its way; asked to come again ({self._hops})" if hop else "…"
        if self._out and self._ink.on:
            self._write(self._ink.dim(text))
        elif self._out and hop:
            self._write(f"{text}\n")
        try:
            yield
        finally:
            if self._out and self._ink.on:
                self._write("\r\x1b[K")

    def _write(self, text: str) -> None:
        if self._out:
            self._out.write(text)
            self._out.flush()


class PromptState(Protocol):
    """What the prompt shows and completes."""

    @property
    def name(self) -> str:
        """Who texts."""

    to: str

    def choices(self, command: str) -> list[str]:
        """The words that may follow a command."""


def prompt_lines(phone: PromptState, commands: Iterable[str], ink: Ink) -> Iterator[str]:
    """Lines from the terminal, with history and completion; from a pipe just the lines.

    Ends at Ctrl-D, and at Ctrl-C on an empty line. Ctrl-C elsewhere discards the line.
    """
    if not sys.stdin.isatty():
        for line in sys.stdin:
            yield line.rstrip("\n")
        return
    print(
        ink.dim(
            "Every line is a text message. /help lists commands, Tab completes them; "
            "/quit, Ctrl-D or Ctrl-C leaves."
        )
    )
    readline = _complete(phone, commands)
    with contextlib.suppress(EOFError):
        while True:
            try:
                yield input(f"{phone.name} > {phone.to}: ")
            except KeyboardInterrupt:
                if not (readline and readline.get_line_buffer()):
                    break
                print()
    print()


def _complete(phone: PromptState, commands: Iterable[str]) -> ModuleType | None:
    """Turn on history and completion; the module that does it, if the system has one."""
    try:
        import readline  # noqa: PLC0415 - not on every system
    except ImportError:
        return None
    readline.set_completer_delims(" ")
    readline.set_completer(
        lambda text, state: completion(phone, commands, readline.get_line_buffer(), text, state)
    )
    readline.parse_and_bind("tab: complete")
    return readline


def completion(
    phone: PromptState, commands: Iterable[str], line: str, text: str, state: int
) -> str | None:
    """The word number `state` that completes `text` at the end of the line."""
    command, blank, _ = line.partition(" ")
    words = phone.choices(command) if blank else [f"{name} " for name in commands]
    fitting = [word for word in words if word.casefold().startswith(text.casefold())]
    return fitting[state] if state < len(fitting) else None


def duration_s(given: str) -> float | None:
    """Seconds of 90s, 30m, 4h, 1d; None if it is none of these."""
    number, unit = given[:-1], given[-1:]
    return int(number) * UNITS_S[unit] if number.isdecimal() and unit in UNITS_S else None


CAUSES: Mapping[int, str] = {
    11202: "nothing listens there. Is the service running, and is the port right?",
    11203: "the service accepted the request but did not answer in time.",
    11205: "the connection failed, or broke before the answer arrived.",
    11210: "there is no host of that name.",
    11216: "Twilio does not follow this redirect (308). Enter the final https URL in its console.",
    11220: "the TLS connection failed: a bad certificate, or no TLS on that port.",
    12100: "the answer is not well-formed XML, so Twilio would send nothing.",
    12200: "the TwiML has a part that Twilio does not know.",
    12300: "the answer's content type is not TwiML (text/xml).",
}


def explain(outcome: Outcome) -> list[str]:
    """A line for each thing that went wrong."""
    return [_line(notice, outcome) for notice in outcome.errors]


def _line(notice: Notice, outcome: Outcome) -> str:
    cause = CAUSES.get(notice.code, notice.text)
    detail = f" ({notice.text})" if notice.code in (12100, 12200, 12300) else ""
    where = f" [{outcome.attempts[-1].request.url}]" if outcome.status is None else ""
    return f"{notice.code}: {cause}{detail}{where}"


def shown_raw(outcome: Outcome) -> str:
    """Every attempt as it went over the wire; the form one field a line."""
    return "\n\n".join(_attempt(attempt) for attempt in outcome.attempts)


def _attempt(attempt: Attempt) -> str:
    request = attempt.request
    form = parse_qsl(request.body.decode(), keep_blank_values=True)
    asked = [
        f"{request.method} {request.url}",
        *(f"{name}: {value}" for name, value in request.headers),
        "",
    ]
    asked += [f"  {name} = {value!r}" for name, value in form]
    return "\n".join([*asked, "", *_result(attempt.result)])


def _result(result: Response | Failure) -> list[str]:
    if isinstance(result, Failure):
        return [f"failed: {result.kind} ({result.detail})"]
    headers = [f"{name}: {value}" for name, value in result.headers]
    return [str(result.status), *headers, "", result.body.decode("utf-8", "replace")]
