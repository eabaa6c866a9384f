"""Where records are kept: the Protocols between the exchange, the stores and telemetry.

No store is imported here, and this file must not import one: it is all that `exchange`
knows.

A message goes down through two of them. The exchange asks a `Store`, which always
answers in time. For `memory://` and `memcached://` that is `overlay.OverlayStore`,
around a `Remote`, which may fail. Stores report to an `Observer`.

Terms used in this package:

    token       what compare-and-swap replaces a value with: it proves that nobody wrote
                since the value was read
    overlay     records in this process that stand in for memcached while it is away
    pending     said of a conversation on the overlay that is not merged into memcached yet
    breaker     what lets operations fail at once while a node is known to be down
    rendezvous  how a key finds its node: every node's name is hashed with the key, and the
                largest hash wins, so that a change of the nodes moves few keys
    former      nodes that were in the list before it changed; they are still read
"""

from typing import Any, Protocol

import msgspec

from smsd.conversation.record import Copy, Record


class Condition(msgspec.Struct, frozen=True):
    """What must still hold when a view is committed. Only the overlay looks inside."""

    token: Any
    """The remote store's token."""
    pending: Record | None
    """The overlay's version, which is part of the view: once written it is merged."""


class View(msgspec.Struct, frozen=True):
    """A conversation as it was read. A commit succeeds if nobody wrote in between."""

    stored: Record | None
    """What the store holds; None if nothing, or if what it held was lost."""
    copies: tuple[Copy, ...]
    """Other versions: the cookie's, the overlay's, and one read before the store
    failed."""
    condition: Condition | None = None
    """None if the store needs none."""
    degraded: bool = False
    """The store could not be reached in time, and this is the overlay's view."""
    waited_s: float = 0.0
    """How long this message has waited for the store, over all its reads and writes."""


class Store(Protocol):
    """Every operation ends in time and none raises: a store that cannot be reached
    answers with the overlay's view.
    """

    data_limit: int
    """Bytes of `session.data` as JSON."""

    @property
    def nodes(self) -> dict[str, bool]:
        """Each node's name, and whether it answers."""
        ...

    @property
    def pending(self) -> int:
        """Conversations on the overlay that wait to be merged."""
        ...

    async def load(self, key: bytes, copy: Copy | None) -> View:
        """Read the record under `key`; `copy` is the cookie's version, if there is one."""
        ...

    async def commit(self, key: bytes, record: Record, view: View) -> View | None:
        """Write `record` if nobody wrote since `view` was read.

        Returns None when it is written. Otherwise returns the view to start again from.
        """
        ...

    async def checkpoint(self, key: bytes, record: Record, view: View) -> tuple[bool, View]:
        """Write `record`, as `commit` does, for a caller who will soon write again.

        Returns True and a view from which the next write needs no read, or False and
        the view to start again from.
        """
        ...

    async def close(self, *, within_s: float) -> None:
        """Merge what can be merged within `within_s` seconds, then release everything."""
        ...


class Remote(Protocol):
    """What the overlay stands in for. Operations raise StoreUnavailable, in time."""

    @property
    def nodes(self) -> dict[str, bool]:
        """Each node's name, and whether it answers."""
        ...

    def is_ready(self, key: bytes) -> bool:
        """Whether a read and a write of `key` can be expected to succeed now."""
        ...

    async def load(self, key: bytes) -> tuple[Record | None, Any]:
        """Read the record, None if there is none, and the token to replace it with."""
        ...

    async def save(self, key: bytes, record: Record, token: Any) -> bool:
        """Write if nobody wrote since the token was read. False if somebody did, or
        perhaps did: read again.
        """
        ...

    async def save_again(self, key: bytes, record: Record, token: Any) -> Any:
        """Do the same as `save`; return the token for the next write, or None for
        False.
        """
        ...

    async def flush(self) -> None:
        """Delete all records. Only the development server's switch calls it."""
        ...

    async def close(self) -> None:
        """Release everything."""
        ...


KINDS = (
    "timeout",
    "lookup",
    "refused",
    "closed",
    "network",
    "tls",
    "protocol",
    "server",
    "corrupt",
)
"""Every kind of failure that stores report."""


class Observer(Protocol):
    """Stores report events through this interface, so that they depend on neither
    metrics nor logging.
    """

    def store_error(self, node: str, kind: str) -> None:
        """An operation, an attempt to connect, or a probe failed."""
        ...

    def store_node_down(self, node: str, kind: str) -> None:
        """A node that was up failed; `kind` says how. Reported once for each outage."""
        ...

    def store_node_up(self, node: str, kind: str, down_s: float) -> None:
        """A node answers again, after an outage of that kind and length."""
        ...

    def store_took(self, operation: str, seconds: float) -> None:
        """A "read" or a "write" succeeded in this time."""
        ...

    def store_conflict(self) -> None:
        """Another replica wrote between a read and a write."""
        ...

    def store_pending(self, conversations: int) -> None:
        """So many conversations on the overlay wait to be merged now."""
        ...

    def overlay_merged(self) -> None:
        """One of them was merged."""
        ...

    def overlay_dropped(self) -> None:
        """One of them was dropped for lack of memory."""
        ...

    def overlay_lost(self, conversations: int) -> None:
        """The store closes, and so many of them could not be merged."""
        ...
