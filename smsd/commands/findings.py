"""What a check of `smsd doctor` found, and how it is printed. Holds no check."""

from collections.abc import Iterable
from typing import NamedTuple, TextIO

OK, WARNING, WRONG = "ok", "warning", "WRONG"


class Finding(NamedTuple):
    """One line of the report. `mark` is OK, WARNING or WRONG."""

    mark: str
    text: str


def ok(text: str) -> Finding:
    """All is well."""
    return Finding(OK, text)


def warning(text: str) -> Finding:
    """It works, but it may not be what was meant."""
    return Finding(WARNING, text)


def wrong(text: str) -> Finding:
    """`smsd serve` or Twilio will fail."""
    return Finding(WRONG, text)


def report(findings: Iterable[Finding], out: TextIO) -> int:
    """Print each finding as soon as it is made; the number of those that are wrong."""
    failures = 0
    for finding in findings:
        out.write(f"{finding.mark:<8}{finding.text}\n")
        out.flush()
        failures += finding.mark == WRONG
    return failures
