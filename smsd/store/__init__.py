"""Where records stand. This file holds the one Protocol that `exchange` knows; no store is imported here."""

from typing import Any, Protocol

import msgspec

from smsd.conversation.record import Copy, Record


class View(msgspec.Struct, frozen=True):
    """A conversation as it was read, to be written back on the condition that nobody wrote in between."""

    stored: Record | None
    """What the store holds; None if nothing, or if what it held was lost."""
    copies: tuple[Copy, ...]
    """What other hands know: the cookie, the overlay, a record read before the store went away."""
    token: Any = None
    """Compare-and-swap token; the store's own affair."""
    degraded: bool = False
    """The store could not be reached in time: this is the overlay."""
    waited_s: float = 0.0
    """So long this message has waited for the store, over all its reads and writes."""


class Store(Protocol):
    """All operations are bounded in time and none raises: a store that fails answers with an overlay's view."""

    data_limit: int
    """Bytes of `session.data` as JSON."""

    @property
    def nodes(self) -> dict[str, bool]:
        """Each node's name and whether it answers."""
        ...

    @property
    def pending(self) -> int:
        """Conversations that wait to be merged."""
        ...

    async def load(self, key: bytes, copy: Copy | None) -> View:
        """The record under `key`, joined by the cookie's copy."""
        ...

    async def commit(self, key: bytes, record: Record, view: View) -> View | None:
        """Write `record` if nobody wrote since `view`: None when done, else the view to start again from."""
        ...

    async def close(self, *, within_s: float) -> None:
        """Merge what can be merged within so many seconds, then let go of everything."""
        ...


class Remote(Protocol):
    """What an overlay stands in for. `load` and `save` raise StoreUnavailable, in time."""

    @property
    def nodes(self) -> dict[str, bool]:
        """Each node's name and whether it answers."""
        ...

    def is_up(self, key: bytes) -> bool:
        """Whether `key` can be expected to be readable."""
        ...

    async def load(self, key: bytes) -> tuple[Record | None, Any]:
        """The record, None where there is none, and the token to replace it with."""
        ...

    async def save(self, key: bytes, record: Record, token: Any) -> bool:
        """True when written; False when another write came first, or perhaps: read again."""
        ...

    async def flush(self) -> None:
        """Forget everything. For the development server's switch; nothing else calls it."""
        ...

    async def close(self) -> None: ...


class Observer(Protocol):
    """Told what happens in a store, so that the stores know no metrics and no logs."""

    def store_error(self, node: str, kind: str) -> None: ...

    def store_up(self, node: str, *, up: bool) -> None: ...

    def store_took(self, operation: str, seconds: float) -> None: ...

    def store_conflict(self) -> None: ...

    def store_pending(self, conversations: int) -> None: ...

    def overlay_merged(self) -> None: ...

    def overlay_dropped(self) -> None: ...
