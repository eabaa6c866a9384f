"""`memcached://`: records on several memcached nodes.

Rendezvous hashing over the nodes' names decides which node has a key. The keys of a
dead node must not move to another: two replicas that disagree about which node is dead
would split a conversation. The overlay and the cookie stand in for it.

When the list of nodes changes, some keys get another node. The nodes of the former list
may be given, too. They are read, never written, and what they hold is joined in: so
messages counted at the same time by replicas with the new list and with the former one
are all counted in the end.
"""

import asyncio
import hashlib
import ssl
import time
from collections.abc import Callable, Sequence
from functools import lru_cache

import msgspec

from smsd.conversation.counting import is_alive
from smsd.conversation.merging import covers, join
from smsd.conversation.record import Record, decode, encode
from smsd.errors import RecordError, StoreUnavailable
from smsd.store import Observer
from smsd.store.memory import expires_in_s
from smsd.store.node import Node
from smsd.store.pipeline import Token

MAX_REMEMBERED_KEYS = 4096
"""Keys whose node is remembered: a message needs it twice, and it takes a hash for each
node."""


class Memcached:
    """The records on several nodes. Operations raise StoreUnavailable; the overlay
    catches it.

    nodes       host:port of each node
    former      host:port of each node of the former list; usually none
    timeout_s   for one operation
    ttl_s       the session's lifetime
    now_ms      the time in milliseconds since 1970
    tls         if given, connect over TLS
    """

    def __init__(
        self,
        nodes: Sequence[str],
        *,
        timeout_s: float,
        ttl_s: int,
        now_ms: Callable[[], int],
        observer: Observer,
        former: Sequence[str] = (),
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._nodes = {
            name: Node(name, timeout_s, observer, tls=tls) for name in sorted({*nodes, *former})
        }
        self.node_of = self._rendezvous(nodes)
        self._former_node_of = self._rendezvous(former) if former else self.node_of
        self._ttl_s = ttl_s
        self._now_ms = now_ms
        self._observer = observer

    @property
    def nodes(self) -> dict[str, bool]:
        """Each node's name, and whether it answers."""
        return {name: node.is_up for name, node in self._nodes.items()}

    def _rendezvous(self, names: Sequence[str]) -> Callable[[bytes], Node]:
        """Make the function from a key to its node."""
        seeds = [(name.encode()[:64], self._nodes[name]) for name in sorted(names)]

        def node_of(key: bytes) -> Node:
            return max(
                seeds, key=lambda seed: hashlib.blake2b(key, key=seed[0], digest_size=8).digest()
            )[1]

        return lru_cache(maxsize=MAX_REMEMBERED_KEYS)(node_of)

    def up_since_s(self, key: bytes) -> float:
        return self.node_of(key).up_since_s

    def is_ready(self, key: bytes) -> bool:
        node = self.node_of(key)
        return node.is_up and not node.is_refusing

    async def load(self, key: bytes) -> tuple[Record | None, Token | None]:
        """Read the record and the token to replace it with. A value that is no record
        is as good as lost: it is overwritten.
        """
        node, former_node = self.node_of(key), self._former_node_of(key)
        if former_node is node:
            return await self._read(node, key)
        (record, token), former = await asyncio.gather(
            self._read(node, key), self._read_former(former_node, key)
        )
        return self._joined(record, former), token

    async def _read(self, node: Node, key: bytes) -> tuple[Record | None, Token | None]:
        started_s = time.perf_counter()
        value, token = await node.load(key)
        self._observer.store_took("read", time.perf_counter() - started_s)
        if value is None:
            return None, None
        try:
            return decode(value), token
        except RecordError:
            self._observer.store_error(node.name, "corrupt")
            return None, token

    async def _read_former(self, node: Node, key: bytes) -> Record | None:
        """Read from a node of the former list, which may be gone already."""
        try:
            return (await self._read(node, key))[0]
        except StoreUnavailable:
            return None

    def _joined(self, record: Record | None, former: Record | None) -> Record | None:
        """The record with what the former node knows. It goes on in its own lineage."""
        if former is None or not is_alive(former, self._now_ms(), self._ttl_s * 1000):
            return record
        if record is None:
            return msgspec.structs.replace(former, own=0)
        if covers(record, former):
            return record
        return msgspec.structs.replace(join(record, former), own=record.own)

    async def save(
        self, key: bytes, record: Record, token: Token | None, *, again: bool = False
    ) -> Token | None:
        started_s = time.perf_counter()
        expire_s = expires_in_s(record, ttl_s=self._ttl_s, now_ms=self._now_ms())
        node = self.node_of(key)
        next_token = await node.save(key, encode(record), token, expire_s, again=again)
        self._observer.store_took("write", time.perf_counter() - started_s)
        return next_token

    async def flush(self) -> None:
        """Empty every node."""
        for node in self._nodes.values():
            await node.flush()

    async def close(self) -> None:
        for node in self._nodes.values():
            await node.close()
