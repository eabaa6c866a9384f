"""Where records stand. This file holds the one Protocol that `exchange` knows; no store is imported here."""

from typing import NamedTuple, Protocol

from smsd.conversation import Record


class View(NamedTuple):
    """A conversation as it was read, to be written back on the condition that nobody wrote in between."""

    stored: Record | None
    """What the store holds; None if nothing, or if what it held was lost."""
    copies: tuple[Record, ...]
    """What other hands know: the cookie, the overlay, a record read before the store went away."""
    token: object = None
    """Compare-and-swap token; the store's own affair."""
    degraded: bool = False
    """The store could not be reached in time: this is the overlay."""
    since_s: float = 0.0
    """When the first read for this message began, on the monotonic clock."""


class Store(Protocol):
    """All operations are bounded in time and none raises: a store that fails answers with an overlay's view.
    """

    data_limit: int
    """Bytes of `session.data` as JSON."""

    async def load(self, key: bytes, copy: Record | None) -> View:
        """The record under `key`, joined by the cookie's copy."""
        ...

    async def commit(self, key: bytes, record: Record, view: View) -> View | None:
        """Write `record` if nobody wrote since `view`: None when done, else the view to start again from."""
        ...


class Observer(Protocol):
    """Told what happens in a store, so that the stores know no metrics and no logs."""

    def store_error(self, node: str, kind: str) -> None: ...

    def store_up(self, node: str, *, up: bool) -> None: ...

    def store_took(self, operation: str, seconds: float) -> None: ...

    def store_conflict(self) -> None: ...

    def store_pending(self, conversations: int) -> None: ...

    def overlay_merged(self) -> None: ...

    def overlay_dropped(self) -> None: ...
