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

import math
from typing import Any, Protocol

import msgspec

from smsd.conversation.record import Record


class View(msgspec.Struct, frozen=True):
    """A conversation as it was read. `Store.save` succeeds if nobody wrote since."""

    stored: Record | None
    """What the store holds; None if nothing, or if what it held was lost."""
    versions: tuple[Record, ...] = ()
    """Others that this process knows: the overlay's, and one read before the store
    failed."""
    token: Any = None
    """Proves that nobody wrote since. Only for `save`."""
    is_degraded: bool = False
    """The store could not be reached in time, and this is the overlay's view."""
    up_since_s: float = -math.inf
    """When the store was reached again after an outage, on the event loop's clock."""


class Store(Protocol):
    """Every operation ends in time and none raises: a store that cannot be reached
    answers with the overlay's view.
    """

    data_limit: int
    """Bytes of `session.data` as JSON."""

    patience_s: float
    """A message that meets conflicts tries again for so long, all in all."""

    keeps_records: bool
    """False if the cookie's copy is all there is: then the conversation goes on from
    it."""

    @property
    def nodes(self) -> dict[str, bool]:
        """Each node's name, and whether it answers."""
        ...

    @property
    def pending(self) -> int:
        """Conversations on the overlay that wait to be merged."""
        ...

    async def load(self, key: bytes, before: View | None = None) -> View:
        """Read the record under `key`.

        before  the view whose `save` failed. If the store cannot be reached any more, what
                it held is among `versions`.
        """
        ...

    def load_here(self, key: bytes, before: View | None = None) -> View:
        """What stands in for the store when there is no time to ask it."""
        ...

    async def save(self, key: bytes, record: Record, token: Any, *, again: bool = False) -> Any:
        """Write `record` if nobody wrote since `token` was given.

        Returns the token for the next write, or None if somebody wrote, or perhaps did:
        load again.

        again  the caller will soon write again. Without it, the token returned only
               says that the record is written.
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

    def up_since_s(self, key: bytes) -> float:
        """When the record's node answered again after its last outage, on the event
        loop's clock.
        """
        ...

    def is_ready(self, key: bytes) -> bool:
        """Whether a read and a write of `key` can be expected to succeed now."""
        ...

    async def load(self, key: bytes) -> tuple[Record | None, Any]:
        """Read the record, None if there is none, and the token to replace it with."""
        ...

    async def save(self, key: bytes, record: Record, token: Any, *, again: bool = False) -> Any:
        """Do what `Store.save` says, or raise SaveUnsettled."""
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
