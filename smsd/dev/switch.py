"""Takes the store down and up again, in development and in tests. Production must not
import it."""

from typing import Any

from smsd.conversation.record import Record
from smsd.errors import StoreUnavailable
from smsd.store import Remote


class Switch:
    """Wraps the remote store.

    While `up` is False, every operation fails at once, as with a node that refuses
    connections.
    """

    def __init__(self, remote: Remote) -> None:
        self.remote = remote
        self.up = True

    @property
    def nodes(self) -> dict[str, bool]:
        return {name: up and self.up for name, up in self.remote.nodes.items()}

    def up_since_s(self, key: bytes) -> float:
        return self.remote.up_since_s(key)

    def is_ready(self, key: bytes) -> bool:
        return self.up and self.remote.is_ready(key)

    async def load(self, key: bytes) -> tuple[Record | None, Any]:
        self._check()
        return await self.remote.load(key)

    async def save(self, key: bytes, record: Record, token: Any, *, again: bool = False) -> Any:
        self._check()
        return await self.remote.save(key, record, token, again=again)

    async def flush(self) -> None:
        await self.remote.flush()

    async def close(self) -> None:
        await self.remote.close()

    def _check(self) -> None:
        if not self.up:
            raise StoreUnavailable("dev", "refused")
