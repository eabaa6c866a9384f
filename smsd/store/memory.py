"""`memory://` and `cookie://`: no IO. One process keeps the records in a dict, or nobody keeps them but
Twilio.
"""

from collections.abc import Callable
from typing import ClassVar

from smsd.conversation.cookie import MAX_DATA_BYTES as COOKIE_DATA_BYTES
from smsd.conversation.merging import resumed
from smsd.conversation.record import Copy, Record
from smsd.store import View

_SWEEP_EVERY = (
    1024  # writes between two look-outs for expired records: costs are spread, memory stays bounded
)


class Memory:
    """Records in a dict, as `memcached.Memcached` has them on nodes. They end with the process; cookies do
    not.
    """

    def __init__(self, ttl_s: int, now_ms: Callable[[], int]) -> None:
        self.nodes: dict[str, bool] = {}
        self._ttl_ms = ttl_s * 1000
        self._now_ms = now_ms
        self._records: dict[bytes, Record] = {}
        self._writes = 0

    def __len__(self) -> int:
        return len(self._records)

    def is_up(self, _key: bytes) -> bool:
        return True

    async def load(self, key: bytes) -> tuple[Record | None, object]:
        """The record, which is its own token: it is never changed, only replaced."""
        record = self._records.get(key)
        return record, record

    async def save(self, key: bytes, record: Record, token: object) -> bool:
        if self._records.get(key) is not token:
            return False
        self._records[key] = record
        self._writes += 1
        if self._writes % _SWEEP_EVERY == 0:
            self._sweep()
        return True

    async def flush(self) -> None:
        self._records.clear()

    async def close(self) -> None:
        """Nothing to close."""

    def _sweep(self) -> None:
        limit = self._now_ms() - self._ttl_ms
        for key in [key for key, record in self._records.items() if record.last_ms <= limit]:
            del self._records[key]


class CookieOnly:
    """Nothing is stored: the cookie's copy is the record. Two messages at the same time may get the same
    number.
    """

    data_limit = COOKIE_DATA_BYTES
    nodes: ClassVar[dict[str, bool]] = {}
    pending = 0

    async def load(self, key: bytes, copy: Copy | None) -> View:  # noqa: ARG002 - no store
        return View(resumed(copy.record()) if copy else None, ())

    async def commit(self, key: bytes, record: Record, view: View) -> View | None:  # noqa: ARG002 - no store
        return None

    async def close(self, *, within_s: float) -> None:
        """Nothing to close."""
