"""How the terminal phone looks: prompt, history, completion, colours, explanations. It sends nothing."""

import contextlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import parse_qsl

from smsd.simulator.values import Answer, Attempt, Failure, Notice, Outcome

UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True)
class Ink:
    """Colours, if the terminal wants them."""

    on: bool

    def dim(self, text: str) -> str:
        """What matters less."""
        return f"\x1b[2m{text}\x1b[0m" if self.on else text

    def bad(self, text: str) -> str:
        """What went wrong."""
        return f"\x1b[31m{text}\x1b[0m" if self.on else text


class Phone(Protocol):
    """What the prompt shows and completes."""

    @property
    def name(self) -> str:
        """Who texts."""

    to: str

    def choices(self, command: str) -> list[str]:
        """What may stand after a command."""


def prompt_lines(phone: Phone, commands: Iterable[str], ink: Ink) -> Iterator[str]:
    """Lines from the terminal, with history and completion; from a pipe just the lines."""
    if not sys.stdin.isatty():
        for line in sys.stdin:
            yield line.rstrip("\n")
        return
    print(ink.dim("Every line is a text message. Tab completes commands, /help explains them."))
    _complete(phone, commands)
    with contextlib.suppress(EOFError):
        while True:
            try:
                yield input(f"{phone.name} > {phone.to}: ")
            except KeyboardInterrupt:  # forget the line, as shells do
                print()
    print()


def _complete(phone: Phone, commands: Iterable[str]) -> None:
    try:
        import readline  # noqa: PLC0415 - not on every system
    except ImportError:
        return
    readline.set_completer_delims(" ")
    readline.set_completer(
        lambda text, state: completion(phone, commands, readline.get_line_buffer(), text, state)
    )
    readline.parse_and_bind("tab: complete")


def completion(
    phone: Phone, commands: Iterable[str], line: str, text: str, state: int
) -> str | None:
    """The state-th word that may stand at the end of the line and begins with `text`."""
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
    11203: "the service took the request and did not answer in time.",
    11205: "the connection failed, or broke before there was an answer.",
    11210: "there is no host of that name.",
    11216: "Twilio does not follow this redirect (308): the console must hold the final https URL.",
    11220: "the TLS connection failed: certificate, or no TLS at all on that port.",
    12100: "the answer is not well-formed XML: Twilio would send nothing at all.",
    12200: "the TwiML has a part that Twilio does not know.",
    12300: "the answer's content type is not TwiML (text/xml).",
}


def explain(outcome: Outcome) -> list[str]:
    """A line for everything that went wrong."""
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


def _result(result: Answer | Failure) -> list[str]:
    if isinstance(result, Failure):
        return [f"failed: {result.kind} ({result.detail})"]
    headers = [f"{name}: {value}" for name, value in result.headers]
    return [str(result.status), *headers, "", result.body.decode("utf-8", "replace")]
