"""The overlay: what is counted while memcached cannot be reached, in this process, until it is merged back.

It wraps the remote store and never raises. A conversation whose node fails goes on here in a lineage of its
own; when the node is back, the next message of the conversation or the reconciliation, whichever comes first,
joins it into memcached.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable

from smsd.conversation.merging import reconciled
from smsd.conversation.record import Copy, Record, decode, encode
from smsd.conversation.session import MAX_DATA_BYTES
from smsd.errors import StoreUnavailable
from smsd.store import Observer, Remote, View

MAX_PENDING_BYTES = 32 * 1024 * 1024
"""Of records waiting to be merged. Beyond it the oldest are dropped: their counts live on in their cookies.
"""

RECONCILE_EVERY_S = 0.25
_AT_ONCE = 64


class OverlayStore:
    """The remote store where it answers, an in-process overlay where it does not."""

    data_limit = MAX_DATA_BYTES

    def __init__(
        self,
        remote: Remote,
        *,
        timeout_s: float,
        ttl_s: int,
        now_ms: Callable[[], int],
        random_bits: Callable[[], int],
        observer: Observer,
        max_pending_bytes: int = MAX_PENDING_BYTES,
    ) -> None:
        self.remote = remote
        self._budget_s = 1.5 * timeout_s
        self._ttl_ms = ttl_s * 1000
        self._now_ms = now_ms
        self._random_bits = random_bits
        self._observer = observer
        self._pending = Pending(max_pending_bytes, observer)
        self._reconciler = asyncio.get_running_loop().create_task(self._reconcile_for_ever())

    @property
    def nodes(self) -> dict[str, bool]:
        """Each node's name and whether it answers."""
        return self.remote.nodes

    @property
    def pending(self) -> int:
        """Conversations that wait to be merged into memcached."""
        return len(self._pending)

    async def load(self, key: bytes, copy: Copy | None) -> View:
        return await self._load(key, (copy,) if copy else ())

    async def _load(
        self,
        key: bytes,
        copies: tuple[Copy, ...],
        waited_s: float = 0.0,
        seen: Record | None = None,
    ) -> View:
        """`waited_s`: how long this message has waited for the store. `seen`: the record as it was last read
        for it, in case it cannot be read again.
        """
        if waited_s > self._budget_s:
            return self._degraded(key, copies, seen)
        asked_s = time.monotonic()
        try:
            stored, token = await self.remote.load(key)
        except StoreUnavailable:
            return self._degraded(key, copies, seen)
        waited_s += time.monotonic() - asked_s
        waiting = self._pending.get(key)
        return View(
            stored, (*copies, waiting) if waiting else copies, (token, waiting), waited_s=waited_s
        )

    def _degraded(self, key: bytes, copies: tuple[Copy, ...], seen: Record | None = None) -> View:
        known = (*copies, seen) if seen else copies
        return View(self._pending.get(key), known, degraded=True)

    async def commit(self, key: bytes, record: Record, view: View) -> View | None:
        if view.degraded:
            return self._commit_here(key, record, view)
        if view.waited_s > self._budget_s:
            return self._degraded(key, view.copies, view.stored)
        token, waiting = view.token
        asked_s = time.monotonic()
        try:
            stored = await self.remote.save(key, record, token)
        except StoreUnavailable:
            return self._degraded(key, view.copies, view.stored)
        if stored:
            if waiting is not None:
                self._merged(key, waiting)
            return None
        self._observer.store_conflict()
        waited_s = view.waited_s + time.monotonic() - asked_s
        return await self._load(key, view.copies, waited_s, view.stored)

    def _commit_here(self, key: bytes, record: Record, view: View) -> View | None:
        if self._pending.get(key) != view.stored:
            return self._degraded(key, view.copies)
        self._pending.put(key, record)
        return None

    def _merged(self, key: bytes, waiting: Record) -> None:
        if self._pending.remove(key, waiting):
            self._observer.overlay_merged()

    async def _reconcile_for_ever(self) -> None:
        while True:
            await asyncio.sleep(RECONCILE_EVERY_S)
            await self.reconcile()

    async def reconcile(self) -> None:
        """Merge whatever can be merged now."""
        keys = list(filter(self.remote.is_up, self._pending.keys()))
        for start in range(0, len(keys), _AT_ONCE):
            await asyncio.gather(*map(self._reconcile, keys[start : start + _AT_ONCE]))

    async def _reconcile(self, key: bytes) -> None:
        waiting = self._pending.get(key)
        if waiting is None:
            return
        now_ms = self._now_ms()
        if now_ms - waiting.last_ms >= self._ttl_ms:
            self._pending.remove(key, waiting)
            return
        with contextlib.suppress(
            StoreUnavailable
        ):  # the node is down again: the next round tries again
            stored, token = await self.remote.load(key)
            merged = reconciled(
                stored, waiting, now_ms=now_ms, ttl_ms=self._ttl_ms, random_bits=self._random_bits()
            )
            if await self.remote.save(key, merged, token):
                self._merged(key, waiting)

    async def close(self, *, within_s: float) -> None:
        """Merge what is left if memcached answers, for at most `within_s`; then stop."""
        self._reconciler.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._reconciler
        deadline_s = time.monotonic() + within_s
        while len(self._pending) and time.monotonic() < deadline_s:
            await self.reconcile()
            await asyncio.sleep(0.05)
        await self.remote.close()


class Pending:
    """Records that wait, oldest first, encoded, so that their size is known and bounded."""

    def __init__(self, max_bytes: int, observer: Observer) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._records: dict[bytes, bytes] = {}
        self._observer = observer

    def __len__(self) -> int:
        return len(self._records)

    def keys(self) -> list[bytes]:
        """Oldest first."""
        return list(self._records)

    def get(self, key: bytes) -> Record | None:
        packed = self._records.get(key)
        return decode(packed) if packed is not None else None

    def put(self, key: bytes, record: Record) -> None:
        self._take(key)
        self._records[key] = packed = encode(record)
        self._bytes += len(packed)
        while self._bytes > self._max_bytes:
            self._take(next(iter(self._records)))
            self._observer.overlay_dropped()
        self._observer.store_pending(len(self._records))

    def remove(self, key: bytes, record: Record) -> bool:
        """Forget the record unless it has grown meanwhile."""
        if self._records.get(key) != encode(record):
            return False
        self._take(key)
        self._observer.store_pending(len(self._records))
        return True

    def _take(self, key: bytes) -> None:
        self._bytes -= len(self._records.pop(key, b""))
