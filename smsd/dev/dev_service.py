"""The service as development and tests run it: its store can be taken down, what becomes
of a message can be followed, and under `serve --dev` the phone page can look inside.

Production must never import this module. What happens arrives as events of the exchange
(`smsd.exchange.events`). It must not be read from log lines: a dialogue may configure
`logging` as it likes.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import msgspec

from smsd.app import Service
from smsd.clock import now_ms
from smsd.conversation.identity import storage_key
from smsd.conversation.record import Record
from smsd.conversation.turns import shows_running
from smsd.dev.failures import show_error
from smsd.dev.live_reload import LiveReload
from smsd.dev.switch import Switch
from smsd.dialogues.loading import LoadedDialogue
from smsd.errors import CookieError, StoreUnavailable
from smsd.exchange.events import Counted, Observer
from smsd.settings.table import Settings
from smsd.store import Remote
from smsd.twilio.message import FetchMedia
from smsd.web import cookies

Pair = tuple[str, str, str]
"""AccountSid, To and From."""


class WatchedService(Observer):
    """A `Service` whose store can be taken down, and whose messages can be followed.
    Arguments as for `Service`."""

    def __init__(
        self,
        settings: Settings,
        dialogue: LoadedDialogue,
        *,
        now_ms: Callable[[], int],
        clock_s: Callable[[], float],
        fetch_media: FetchMedia | None = None,
        observers: Sequence[Observer] = (),
    ) -> None:
        self._switch: Switch | None = None  # cookie:// has no store
        self._followed: dict[str, list[Counted]] = {}
        self.service = Service(
            settings,
            dialogue,
            now_ms=now_ms,
            clock_s=clock_s,
            wrap=self._wrap,
            fetch_media=fetch_media,
            observers=[self, *observers],
        )

    @contextmanager
    def following(self, sid: str) -> Iterator[list[Counted]]:
        """Within the `with` block: how each delivery of this message was counted, a list
        that grows."""
        events = self._followed[sid] = []
        try:
            yield events
        finally:
            del self._followed[sid]

    def counted(self, event: Counted) -> None:
        """Keep the event if somebody follows the message."""
        if event.message.sid in self._followed:
            self._followed[event.message.sid].append(event)

    @property
    def is_store_up(self) -> bool:
        """Whether the store can be reached."""
        return self._switch is None or self._switch.up

    def set_store_up(self, up: bool) -> None:
        """Take the store down, or up again."""
        if self._switch:
            self._switch.up = up

    async def flush(self) -> None:
        """Empty the store."""
        if self._switch:
            await self._switch.flush()

    def _wrap(self, remote: Remote) -> Switch:
        self._switch = Switch(remote)
        return self._switch


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
            show_error("The dialogue failed, and the sender got the apology", event.error)

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
            whose = self.service.exchange.conversation_of(*pair)
            record, _ = await self._switch.load(storage_key(whose))
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
