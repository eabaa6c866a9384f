"""`memcached://`: records on several memcached nodes. Which node is decided by rendezvous over the nodes'
names.

A dead node's keys move nowhere: two replicas that disagree about who is dead would split a conversation. The
overlay and the cookie stand in for it.
"""

import hashlib
import time
from collections.abc import Callable, Sequence
from functools import lru_cache

from smsd.conversation.record import Record, decode, encode
from smsd.errors import RecordError
from smsd.store import Observer
from smsd.store.node import Node, Read, Token

REMEMBERED = 4096
"""Keys whose node is remembered."""

EXPIRY_MARGIN_S = 2
"""memcached expires in whole seconds; the time in the record decides, and memcached must not be the earlier
one.
"""


class Memcached:
    """Reads and writes records. Its operations raise StoreUnavailable; `overlay` catches it."""

    def __init__(
        self,
        nodes: Sequence[str],
        *,
        timeout_s: float,
        ttl_s: int,
        now_ms: Callable[[], int],
        observer: Observer,
    ) -> None:
        self._nodes = {name: Node(name, timeout_s, observer) for name in sorted(nodes)}
        self._seeds = [(name.encode(), node) for name, node in self._nodes.items()]
        # a microsecond for each node, and each message asks twice: 46 for 25 nodes
        self.node_of = lru_cache(maxsize=REMEMBERED)(self._node_of)
        self._ttl_ms = ttl_s * 1000
        self._now_ms = now_ms
        self._observer = observer

    @property
    def nodes(self) -> dict[str, bool]:
        """Each node's name and whether it answers."""
        return {name: node.up for name, node in self._nodes.items()}

    def _node_of(self, key: bytes) -> Node:
        if len(self._seeds) == 1:
            return self._seeds[0][1]
        return max(
            self._seeds,
            key=lambda seed: hashlib.blake2b(key, key=seed[0][:64], digest_size=8).digest(),
        )[1]

    def is_up(self, key: bytes) -> bool:
        return self.node_of(key).up

    async def load(self, key: bytes) -> tuple[Record | None, Token | None]:
        """The record and the token to write it back with. What cannot be read is as good as lost: it is
        overwritten.
        """
        node = self.node_of(key)
        started_s = time.perf_counter()
        read: Read = await node.read(key)
        self._observer.store_took("read", time.perf_counter() - started_s)
        if read.value is None:
            return None, None
        try:
            return decode(read.value), read.token
        except RecordError:
            self._observer.store_error(node.name, "corrupt")
            return None, read.token

    async def save(self, key: bytes, record: Record, token: Token | None) -> bool:
        """True when written; False when another write came first, or perhaps: read again."""
        left_ms = record.last_ms + self._ttl_ms - self._now_ms()
        expire_s = max(1, -(-left_ms // 1000)) + EXPIRY_MARGIN_S
        started_s = time.perf_counter()
        stored = await self.node_of(key).write(key, encode(record), token, expire_s)
        self._observer.store_took("write", time.perf_counter() - started_s)
        return stored

    async def flush(self) -> None:
        """Empty every node."""
        for node in self._nodes.values():
            await node.flush()

    async def close(self) -> None:
        for node in self._nodes.values():
            await node.close()
