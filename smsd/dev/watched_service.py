"""The service as development and tests run it: its store can be taken down, and what
becomes of a message can be followed.

What happens arrives as events of the exchange (`smsd.exchange.events`). It must not be
read from log lines: a dialogue may configure `logging` as it likes.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from smsd.app import Service
from smsd.dev.switch import Switch
from smsd.dialogues.loading import LoadedDialogue
from smsd.exchange.events import Counted, Observer
from smsd.settings.table import Settings
from smsd.store import Remote
from smsd.twilio.message import FetchMedia


class WatchedService(Observer):
    """A `Service` and what is observed of it. Arguments as for `Service`."""

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
