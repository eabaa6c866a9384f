"""`memory://` and `cookie://`: stores without any IO. And how long any store keeps a
record.

With `memory://` one process keeps the records in a dict. With `cookie://` nobody keeps
them but Twilio.
"""

import math
import time
from collections.abc import Callable
from typing import ClassVar

from smsd.conversation.copy import MAX_DATA_BYTES as COOKIE_DATA_BYTES
from smsd.conversation.record import Record
from smsd.store import View

_SWEEP_EVERY = 1024
"""Writes between two searches for expired records: the cost is spread, memory is
bounded."""

EXPIRY_MARGIN_S = 2
"""memcached expires in whole seconds, and must not be earlier than the record's own
time."""

OPEN_TURN_S = 180
"""A record in which a message waits for its answer is kept at least this long: its
lease or place (`turns.PLACE_MS` from now at most), and `trimming.OPEN_GRACE_MS` after
that."""


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

    def up_since_s(self, _key: bytes) -> float:
        return -math.inf

    def is_ready(self, _key: bytes) -> bool:
        return True

    async def load(self, key: bytes) -> tuple[Record | None, Record | None]:
        """The record, which is its own token: it is never changed, only replaced."""
        record = self._records.get(key)
        return record, record

    async def save(
        self,
        key: bytes,
        record: Record,
        token: Record | None,
        *,
        again: bool = False,  # noqa: ARG002 - the token costs nothing
    ) -> Record | None:
        if self._records.get(key) is not token:
            return None
        expires_s = expires_in_s(record, ttl_s=self._ttl_s, now_ms=self._now_ms())
        self._records[key] = record
        self._expire_at_s[key] = self._clock_s() + expires_s
        self._writes += 1
        if self._writes % _SWEEP_EVERY == 0:
            self._sweep()
        return record

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
    """The store that stores nothing: the cookie's copy is the record. Two messages at
    the same time may get the same number.
    """

    data_limit = COOKIE_DATA_BYTES
    patience_s = math.inf
    keeps_records = False
    nodes: ClassVar[dict[str, bool]] = {}
    pending = 0

    async def load(self, _key: bytes, before: View | None = None) -> View:  # noqa: ARG002 - no store
        return View(None)

    def load_here(self, _key: bytes, before: View | None = None) -> View:  # noqa: ARG002 - no store
        return View(None)

    async def save(
        self,
        _key: bytes,
        _record: Record,
        _token: None,
        *,
        again: bool = False,  # noqa: ARG002 - no store
    ) -> bool:
        return True

    async def close(self, *, within_s: float) -> None:
        """Nothing to close."""


def expires_in_s(record: Record, *, ttl_s: int, now_ms: int) -> int:
    """Seconds from `now_ms` (milliseconds since 1970) until a store may forget
    `record`. It must not do so before the conversation is over (`counting.is_alive`).

    At most the session's lifetime, however far this clock and the one that dated the
    record are apart. memcached would take more than 30 days for a date.
    """
    left_s = -(-(record.last_ms + ttl_s * 1000 - now_ms) // 1000)
    if left_s < OPEN_TURN_S and record.open_until_ms:
        return OPEN_TURN_S + EXPIRY_MARGIN_S
    return min(max(1, left_s), ttl_s) + EXPIRY_MARGIN_S
