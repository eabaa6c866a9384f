"""The service of `smsd serve --dev`, opened up so that the phone page can look inside.

Production must never import this module.
"""

import time

import msgspec

from smsd.clock import now_ms
from smsd.conversation.identity import storage_key
from smsd.conversation.record import Record
from smsd.conversation.turns import shows_running
from smsd.dev.failures import show, traceback_text
from smsd.dev.live_reload import LiveReload
from smsd.dev.watched_service import WatchedService
from smsd.dialogues.loading import LoadedDialogue
from smsd.errors import CookieError, StoreUnavailable
from smsd.exchange.events import Counted
from smsd.settings.table import Settings
from smsd.web import cookies

Pair = tuple[str, str, str]
"""AccountSid, To and From."""


class DevService(WatchedService):
    """A service that shows in full why its dialogue failed, loads it again when its
    source changes, and has a clock that can be moved."""

    def __init__(self, settings: Settings, loaded: LoadedDialogue) -> None:
        self._ahead_ms = 0
        super().__init__(settings, loaded, now_ms=self._now_ms, clock_s=time.monotonic)
        self.live_reload = LiveReload(self.service)

    @property
    def settings(self) -> Settings:
        """The settings that are in force now."""
        return self.service.settings

    def counted(self, event: Counted) -> None:
        """Show the error of the dialogue, if it failed."""
        super().counted(event)
        if event.error:
            text = traceback_text(event.error)
            show(f"The dialogue failed, and the sender got the apology:\n{text}")

    def advance(self, seconds: float) -> None:
        """Put the clock forward, or back if `seconds` is negative."""
        self._ahead_ms += round(seconds * 1000)

    def _now_ms(self) -> int:
        return now_ms() + self._ahead_ms

    def open_cookie(self, value: str, pair: Pair) -> object:
        """What a cookie's value holds, as JSON can say it, or why it cannot be opened."""
        whose = self.service.exchange.conversation_of(*pair)
        try:
            return record_json(
                cookies.open_cookie(value, self.service.settings, whose, self._now_ms())
            )
        except CookieError as error:
            return {"refused": error.state}

    async def record(self, pair: Pair) -> object | None:
        """The record in the store, as JSON can say it; None if there is none or the
        store is down."""
        if self._switch is None:
            return None
        try:
            record, _ = await self._switch.load(
                storage_key(self.service.exchange.conversation_of(*pair))
            )
        except StoreUnavailable:
            return None
        return record_json(record) if record else None


def record_json(record: Record) -> object:
    """A record as values that JSON can express."""
    unanswered = [entry for line in record.lineages for entry in line.tail if entry.is_open]
    return {
        "count": record.count,
        "last": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.last_ms / 1000)),
        "data": msgspec.json.decode(record.data or b"{}"),
        "running": [entry.number for entry in unanswered if shows_running(entry)],
        "waiting": [entry.number for entry in unanswered if not shows_running(entry)],
        "lineages": [
            {
                "id": f"{line.id:016x}",
                "open": line.id > record.floor,
                "own": line.id == record.own,
                "messages": line.top,
                "counted elsewhere": list(line.redundant),
                "ids": [entry.digest.hex() for entry in line.tail],
            }
            for line in record.lineages
        ],
    }
