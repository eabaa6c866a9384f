"""`memory://` and `cookie://`: no IO. One process keeps the records in a dict, or nobody keeps them but
Twilio.
"""

from collections.abc import Callable

from smsd.conversation import Record
from smsd.cookie import MAX_DATA_BYTES as COOKIE_DATA_BYTES
from smsd.session import MAX_DATA_BYTES
from smsd.store import View

_SWEEP_EVERY = (
    1024  # writes between two look-outs for expired records: costs are spread, memory stays bounded
)


class MemoryStore:
    """Records in a dict. They end with the process; the cookies do not."""

    data_limit = MAX_DATA_BYTES

    def __init__(self, ttl_s: int, now_ms: Callable[[], int]) -> None:
        self._ttl_ms = ttl_s * 1000
        self._now_ms = now_ms
        self._records: dict[bytes, Record] = {}
        self._writes = 0

    def __len__(self) -> int:
        return len(self._records)

    async def load(self, key: bytes, copy: Record | None) -> View:
        return View(self._records.get(key), (copy,) if copy else ())

    async def commit(self, key: bytes, record: Record, view: View) -> View | None:
        if self._records.get(key) is not view.stored:
            return View(self._records.get(key), view.copies)
        self._records[key] = record
        self._writes += 1
        if self._writes % _SWEEP_EVERY == 0:
            self._sweep()
        return None

    def flush(self) -> None:
        self._records.clear()

    def _sweep(self) -> None:
        limit = self._now_ms() - self._ttl_ms
        for key in [key for key, record in self._records.items() if record.last_ms <= limit]:
            del self._records[key]


class CookieStore:
    """Nothing is stored: the cookie's copy is the record. Two messages at the same time may get the same
    number.
    """

    data_limit = COOKIE_DATA_BYTES

    async def load(self, key: bytes, copy: Record | None) -> View:  # noqa: ARG002 - no store
        return View(copy, ())

    async def commit(self, key: bytes, record: Record, view: View) -> View | None:  # noqa: ARG002 - no store
        return None
