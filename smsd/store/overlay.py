"""The overlay: counts messages in this process while memcached cannot be reached.

It wraps the remote store and must never raise. A conversation whose node fails goes on
here, in a lineage of its own. When the node is back, the next message of the
conversation or the reconciliation, whichever comes first, merges it into memcached.

Reconciliation must not hurry: a node that refuses writes is asked again with
exponential back-off, and so is a single record that is refused.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import msgspec

from smsd.conversation.counting import is_alive, reconciled
from smsd.conversation.merging import grew_from
from smsd.conversation.record import Record, decode, encode
from smsd.conversation.session import MAX_DATA_BYTES
from smsd.errors import SaveUnsettled, StoreUnavailable
from smsd.store import Observer, Remote, View
from smsd.store.backoff import Backoff

MAX_PENDING_BYTES = 32 * 1024 * 1024
"""Of pending records. Beyond it the oldest are dropped: their counts live on in
cookies."""

RECONCILE_EVERY_S = 0.25
MAX_RETRY_DELAY_S = 30.0
"""The longest delay before a record that was refused is tried again."""

_MERGED_AT_ONCE = 64
"""Records merged at the same time. A node that refuses one is left alone after them."""


class OverlayToken(msgspec.Struct):
    """The condition for one write through the overlay."""

    remote: Any = None
    """The remote store's token."""
    pending: Record | None = None
    """The overlay's version, which the view includes: once written, it is merged."""
    is_overlay: bool = False
    """The overlay is written, not the remote store."""


PATIENCE = 3.2
"""Times `timeout_s`: with the usual 0.25 s, conflicts may take a little less than the
second within which every message is answered."""

READ_FIRST = OverlayToken()
"""Given for a write to the overlay, and for one on top of which somebody wrote: read
before the next one."""


class OverlayStore:
    """The remote store while it answers, records in this process while it does not.

    timeout_s   the remote store's budget for one operation
    ttl_s       the session's lifetime
    now_ms      the time in milliseconds since 1970
    clock_s     a monotonic clock in seconds; the event loop's if not given
    """

    data_limit = MAX_DATA_BYTES
    keeps_records = True

    def __init__(
        self,
        remote: Remote,
        *,
        timeout_s: float,
        ttl_s: int,
        now_ms: Callable[[], int],
        random_bits: Callable[[], int],
        observer: Observer,
        clock_s: Callable[[], float] | None = None,
        max_pending_bytes: int = MAX_PENDING_BYTES,
    ) -> None:
        self.remote = remote
        self.patience_s = PATIENCE * timeout_s
        self._ttl_s = ttl_s
        self._now_ms = now_ms
        self._loop = asyncio.get_running_loop()
        self._random_bits = random_bits
        self._observer = observer
        self._pending = Pending(max_pending_bytes, observer, clock_s or self._loop.time)
        self._reconciler = self._loop.create_task(self._keep_reconciling())

    @property
    def nodes(self) -> dict[str, bool]:
        """Each node's name, and whether it answers."""
        return self.remote.nodes

    @property
    def pending(self) -> int:
        """Conversations that wait to be merged into memcached."""
        return len(self._pending)

    async def load(self, key: bytes, before: View | None = None) -> View:
        if before and before.token.is_overlay:  # the store failed a moment ago
            return self.load_here(key, before)
        try:
            stored, remote_token = await self.remote.load(key)
        except StoreUnavailable:
            return self.load_here(key, before)
        pending, known = self._pending.get(key), before.versions if before else ()
        versions = (*known, pending) if pending else known
        token = OverlayToken(remote_token, pending)
        return View(stored, versions, token, up_since_s=self.remote.up_since_s(key))

    def load_here(self, key: bytes, before: View | None = None) -> View:
        pending, known = self._pending.get(key), before.versions if before else ()
        if before and before.stored:
            known = (*known, before.stored)
        return View(pending, known, OverlayToken(None, pending, is_overlay=True), is_degraded=True)

    async def save(
        self, key: bytes, record: Record, token: OverlayToken, *, again: bool = False
    ) -> OverlayToken | None:
        if token.is_overlay:
            return self._save_here(key, record, token)
        if token is READ_FIRST:
            return None
        try:
            saved = await self._save_there(key, record, token.remote, again=again)
        except StoreUnavailable:
            token.is_overlay = True  # the message goes on there
            return None
        if saved is None:
            self._observer.store_conflict()
            return None
        if token.pending is not None:
            self._merged(key, token.pending)
        return saved

    async def _save_there(
        self, key: bytes, record: Record, token: Any, *, again: bool
    ) -> OverlayToken | None:
        """Write to the remote store. If nobody knows whether a write was carried out,
        read: otherwise a message that was written is taken for a duplicate of itself.
        """
        try:
            remote_token = await self.remote.save(key, record, token, again=again)
        except SaveUnsettled:
            stored, remote_token = await self.remote.load(key)
            if stored != record:
                return READ_FIRST if stored and grew_from(stored, record) else None
        return None if remote_token is None else OverlayToken(remote_token)

    def _save_here(self, key: bytes, record: Record, token: OverlayToken) -> OverlayToken | None:
        if self._pending.get(key) != token.pending:
            return None
        self._pending.put(key, record)
        return READ_FIRST

    def _merged(self, key: bytes, pending: Record) -> None:
        if self._pending.remove(key, pending):
            self._observer.overlay_merged()

    async def _keep_reconciling(self) -> None:
        while True:
            await asyncio.sleep(RECONCILE_EVERY_S)
            await self.reconcile()

    async def reconcile(self) -> None:
        """Merge whatever can be merged now."""
        keys = self._pending.keys()
        for start in range(0, len(keys), _MERGED_AT_ONCE):
            # looked at anew for each batch: a node may have gone down or refused meanwhile
            ready = filter(self._is_due, keys[start : start + _MERGED_AT_ONCE])
            await asyncio.gather(*map(self._reconcile, ready))

    def _is_due(self, key: bytes) -> bool:
        return self.remote.is_ready(key) and self._pending.is_due(key)

    async def _reconcile(self, key: bytes) -> None:
        pending = self._pending.get(key)
        if pending is None:
            return
        if self._pending.age_s(key) >= self._ttl_s:
            self._pending.remove(key, pending)  # the conversation is over
            return
        now_ms = self._now_ms()
        if not is_alive(pending, now_ms, self._ttl_s * 1000):
            return  # the wall clock jumped ahead, and may come back
        try:
            stored, token = await self.remote.load(key)
            merged = reconciled(
                stored,
                pending,
                now_ms=now_ms,
                ttl_ms=self._ttl_s * 1000,
                random_bits=self._random_bits(),
            )
            if await self._save_there(key, merged, token, again=False) is not None:
                self._merged(key, pending)
        except StoreUnavailable as error:
            if error.kind == "server":
                self._pending.refused(key)

    async def close(self, *, within_s: float) -> None:
        """Merge what is left if memcached answers, for at most `within_s`; then stop."""
        self._reconciler.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._reconciler
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + within_s
        while len(self._pending) and loop.time() < deadline_s:
            await self.reconcile()
            await asyncio.sleep(0.05)
        if len(self._pending):
            self._observer.overlay_lost(len(self._pending))
        await self.remote.close()


class _Entry:
    """One pending record, encoded, so that its size is known."""

    def __init__(self, packed: bytes, now_s: float) -> None:
        self.packed = packed
        self.put_at_s = now_s
        self.retry = Backoff(RECONCILE_EVERY_S, MAX_RETRY_DELAY_S)


class Pending:
    """The pending records, oldest first, at most `max_bytes` of them."""

    def __init__(self, max_bytes: int, observer: Observer, clock_s: Callable[[], float]) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: dict[bytes, _Entry] = {}
        self._observer = observer
        self._clock_s = clock_s

    def __len__(self) -> int:
        return len(self._entries)

    def keys(self) -> list[bytes]:
        """Oldest first."""
        return list(self._entries)

    def get(self, key: bytes) -> Record | None:
        entry = self._entries.get(key)
        return decode(entry.packed) if entry else None

    def age_s(self, key: bytes) -> float:
        """Seconds since the record was put here, by the monotonic clock: a wall clock
        that is set ahead must not end conversations for good.
        """
        return self._clock_s() - self._entries[key].put_at_s

    def is_due(self, key: bytes) -> bool:
        """Whether to try to merge the record now."""
        entry = self._entries.get(key)
        return entry is not None and not entry.retry.is_waiting(self._clock_s())

    def refused(self, key: bytes) -> None:
        """Wait before this record is tried again: its node took the command and
        refused.
        """
        entry = self._entries.get(key)
        if entry:
            entry.retry.failed(self._clock_s())

    def put(self, key: bytes, record: Record) -> None:
        """Add or replace a record; if there is no room, drop the oldest."""
        self._take(key)
        self._entries[key] = entry = _Entry(encode(record), self._clock_s())
        self._bytes += len(entry.packed)
        while self._bytes > self._max_bytes:
            self._take(next(iter(self._entries)))
            self._observer.overlay_dropped()
        self._observer.store_pending(len(self._entries))

    def remove(self, key: bytes, record: Record) -> bool:
        """Forget the record unless it has grown meanwhile."""
        entry = self._entries.get(key)
        if entry is None or entry.packed != encode(record):
            return False
        self._take(key)
        self._observer.store_pending(len(self._entries))
        return True

    def _take(self, key: bytes) -> None:
        entry = self._entries.pop(key, None)
        if entry:
            self._bytes -= len(entry.packed)
