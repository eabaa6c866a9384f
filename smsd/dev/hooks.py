"""What the phone page may see of the running service, and do to it.

`serve --dev` implements this protocol (`smsd.dev.dev_service`). The page has no other way
into the service, so that tests can put anything behind it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a dialogue failed: one line, and the traceback where there is one."""

    text: str
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class Counting:
    """How the service counted a delivery: the `outcome` label of smsd_messages_total,
    and the number."""

    outcome: str
    number: int


@dataclass(frozen=True, slots=True)
class DialogueState:
    """Which dialogue runs, since when, and why a newer version was refused."""

    name: str
    loaded_at: float  # seconds since the epoch
    refused: str | None = None


class Hooks(Protocol):
    """The service as the phone page sees it."""

    @property
    def token(self) -> str:
        """The auth token that signs."""

    @property
    def account_sid(self) -> str | None:
        """The one account that is accepted; None for any."""

    @property
    def public_url(self) -> str:
        """SMSD_PUBLIC_URL, without /sms."""

    def people(self) -> Mapping[str, str]:
        """The names, by number."""

    def dialogue(self) -> DialogueState:
        """The dialogue that answers now."""

    def counting(self, sid: str) -> Counting | None:
        """How the last delivery of this MessageSid was counted; None if none was
        accepted."""

    def problem(self, sid: str) -> Problem | None:
        """Why the dialogue failed on this message; None if it did not, or if that was
        long ago."""

    def open_cookie(self, value: str, account: str, to: str, from_: str) -> object:
        """What a cookie's value holds, as JSON can say it, or why it cannot be opened.
        Never raises."""

    async def record(self, account: str, to: str, from_: str) -> object | None:
        """The record in the store, as JSON can say it; None if there is none or the
        store is down."""

    async def flush(self) -> None:
        """Empty the store."""

    def set_store_up(self, up: bool) -> None:
        """Take the store down, or up again."""

    def store_up(self) -> bool:
        """Whether the store is up."""

    def advance(self, seconds: float) -> None:
        """Put the service's clock forward, or back if `seconds` is negative."""

    def stopping(self) -> bool:
        """Whether the process is shutting down: live updates end then."""
