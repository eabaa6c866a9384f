"""`memory://` and `cookie://`: stores without any IO.

With `memory://` one process keeps the records in a dict. With `cookie://` nobody keeps
them but Twilio.
"""

import time
from collections.abc import Callable
from typing import ClassVar

from smsd.conversation.copy import MAX_DATA_BYTES as COOKIE_DATA_BYTES
from smsd.conversation.counting import resumed
from smsd.conversation.record import Copy, Record
from smsd.store import View
from smsd.store.expiry import expires_in_s

_SWEEP_EVERY = 1024
"""Writes between two searches for expired records: the cost is spread, memory is
bounded."""


class Memory:
    """Records in a dict, as `memcached.Memcached` keeps them on nodes. They end with
    the process; cookies do not.

    ttl_s     the session's lifetime
    now_ms    the time in milliseconds since 1970
    clock_s   a monotonic clock in seconds: as in memcached, a wall clock that is set back
              or ahead changes nothing about when a record is forgotten
    """

    def __init__(
        self, ttl_s: int, now_ms: Callable[[], int], clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        self.nodes: dict[str, bool] = {}
        self._ttl_s = ttl_s
        self._now_ms = now_ms
        self._clock_s = clock_s
        self._records: dict[bytes, Record] = {}
        self._expire_at_s: dict[bytes, float] = {}
        self._writes = 0

    def __len__(self) -> int:
        return len(self._records)

    def is_ready(self, _key: bytes) -> bool:
        return True

    async def load(self, key: bytes) -> tuple[Record | None, Record | None]:
        """The record, which is its own token: it is never changed, only replaced."""
        record = self._records.get(key)
        return record, record

    async def save(self, key: bytes, record: Record, token: Record | None) -> bool:
        if self._records.get(key) is not token:
            return False
        expires_s = expires_in_s(record, ttl_s=self._ttl_s, now_ms=self._now_ms())
        self._records[key] = record
        self._expire_at_s[key] = self._clock_s() + expires_s
        self._writes += 1
        if self._writes % _SWEEP_EVERY == 0:
            self._sweep()
        return True

    async def save_again(self, key: bytes, record: Record, token: Record | None) -> Record | None:
        return record if await self.save(key, record, token) else None

    async def flush(self) -> None:
        self._records.clear()
        self._expire_at_s.clear()

    async def close(self) -> None:
        """Nothing to close."""

    def _sweep(self) -> None:
        now_s = self._clock_s()
        for key in [key for key, at_s in self._expire_at_s.items() if at_s <= now_s]:
            del self._records[key], self._expire_at_s[key]


class CookieOnly:
    """Nothing is stored: the cookie's copy is the record. Two messages at the same time
    may get the same number.
    """

    data_limit = COOKIE_DATA_BYTES
    nodes: ClassVar[dict[str, bool]] = {}
    pending = 0

    async def load(self, key: bytes, copy: Copy | None) -> View:  # noqa: ARG002 - no store
        return View(resumed(copy.record()) if copy else None, ())

    async def commit(self, key: bytes, record: Record, view: View) -> View | None:  # noqa: ARG002 - no store
        return None

    async def checkpoint(self, key: bytes, record: Record, view: View) -> tuple[bool, View]:  # noqa: ARG002 - no store
        return True, View(record, ())

    async def close(self, *, within_s: float) -> None:
        """Nothing to close."""
