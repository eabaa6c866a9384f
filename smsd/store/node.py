"""One memcached node: operations that end in time, a breaker, one connection.

Operations must end within the store's time-out whatever happens to the node, its name
or the network, and nothing here may block.

The idea: a failure opens the breaker. Then operations fail at once, so that messages go
on with the overlay, until the node has answered a probe. Meanwhile, and independently
of any message, one task looks up the name, connects, and connects again.
"""

import asyncio
import contextlib
import math
import ssl
from typing import Any

from pymemcache.client.base import Client

from smsd.errors import SaveUnsettled, StoreUnavailable
from smsd.store import Observer
from smsd.store.backoff import Backoff
from smsd.store.connection import ConnectFailed, Connection, Connector, error_kind
from smsd.store.lookup import LookupFailed, NameLookup, Resolver, resolve, split_name
from smsd.store.pipeline import (
    META_SINCE,
    VERSION,
    Answers,
    Loaded,
    Pipeline,
    ReadAnswer,
    Refused,
    Token,
    load_command,
    save_command,
)

RETRY_EVERY_S = 0.5
"""Between two attempts to connect to a node that is down, and between two probes."""

RECONNECT_AFTER_S = 0.02
MAX_RECONNECT_AFTER_S = 0.1
"""Before a connection that worked and closed is replaced; longer if none lasts."""

RESTART_S = 1.0
"""Most likely memcached is restarted then. If that takes no longer, and no message
comes meanwhile, it is no outage."""

LOOKUP_EVERY_S = 30.0
"""How often the name of a connected node is looked up again."""

MAX_REFUSAL_DELAY_S = 30.0
"""A node without memory is left alone by the reconciliation for at most this long."""

_PROBE_KEY = b"smsd:probe"


class Node:
    """One memcached node. Operations raise StoreUnavailable: at once while the node is
    down, and after `timeout_s` at the latest.

    name             host:port
    timeout_s        the budget of one operation
    tls              if given, connect over TLS and verify the host's name
    resolver         looks names up; it may block, since it is called in a thread
    lookup_every_s   how often to look whether the name leads to another address
    """

    def __init__(
        self,
        name: str,
        timeout_s: float,
        observer: Observer,
        *,
        tls: ssl.SSLContext | None = None,
        resolver: Resolver = resolve,
        lookup_every_s: float = LOOKUP_EVERY_S,
    ) -> None:
        self.name = name
        self.is_up = True
        self.up_since_s = -math.inf
        self._timeout_s = timeout_s
        self._observer = observer
        self._tls = tls
        self._lookup_every_s = lookup_every_s
        self._loop = asyncio.get_running_loop()
        self._pipeline = Pipeline(timeout_s, self._fail)
        self._lookup = NameLookup(*split_name(name), resolver=resolver)
        self._connector = Connector(self._lookup, tls)
        self._refusals = Backoff(RETRY_EVERY_S, MAX_REFUSAL_DELAY_S)
        self._speaks_meta = False
        self._outage = ("", 0.0)
        """Kind and beginning of the latest one."""
        self._tasks = [self._loop.create_task(self._stay_connected())]
        if not self._lookup.is_literal:
            self._tasks.append(self._loop.create_task(self._follow_name()))

    # --- operations

    @property
    def is_refusing(self) -> bool:
        """The node had no memory for a recent write and should be left alone for a
        while.
        """
        return self._refusals.is_waiting(self._loop.time())

    async def load(self, key: bytes) -> Loaded:
        """Read a value and the token to replace it with."""
        loaded: Loaded = await self._ask(load_command(key), lambda read: read.read_value(key))
        return loaded

    async def save(
        self, key: bytes, value: bytes, token: Token | None, expire_s: int, *, again: bool = False
    ) -> Token | None:
        """Write if nobody wrote since the token was given; without a token, if there is
        no value. None if somebody did: load again. Raises SaveUnsettled too.

        With `again`, the token returned is good for the next write. An old memcached
        does not tell it, so that the next write must load first.
        """
        if token is not None and self.is_up and token.generation != self._pipeline.generation:
            return None  # of an earlier connection: it may fit by chance, and proves nothing
        cas = token.cas if token else None
        command = save_command(key, value, expire_s, cas, again=again and self._speaks_meta)
        generation = self._pipeline.generation
        saved: Token | None = await self._ask(
            command, Answers.read_saved, is_bound=token is not None
        )
        if saved is not None:
            self._refusals.succeeded()
        elif generation != self._pipeline.generation:  # the connection ended meanwhile
            raise SaveUnsettled
        return saved

    async def _ask(self, command: bytes, read_answer: ReadAnswer, *, is_bound: bool = False) -> Any:
        if not self.is_up:
            raise StoreUnavailable(self.name, "down")
        answer = await self._pipeline.submit(command, read_answer, is_bound=is_bound)
        if isinstance(answer, Refused):
            if answer.is_full and not self.is_refusing:  # refused together, counted once
                self._refusals.failed(self._loop.time())
            self._observer.store_error(self.name, "server")
            raise StoreUnavailable(self.name, "server")
        return answer

    async def flush(self) -> None:
        """Empty the node, over a short connection of its own: no message waits for it."""
        await asyncio.to_thread(flush, self.name, self._timeout_s, self._tls)

    async def close(self) -> None:
        """Give up what is under way: nobody waits for it any more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._pipeline.close()

    # --- the breaker

    def _fail(self, kind: str) -> None:
        """Open the breaker: every message that waits goes on with the overlay now. An
        attempt to connect goes on, too.
        """
        if kind == "timeout" and self._lookup.is_pending and not self._pipeline.connection:
            kind = "lookup"
        self._observer.store_error(self.name, kind)
        if self.is_up:
            self.is_up = False
            self._outage = kind, self._loop.time()
            self._observer.store_node_down(self.name, kind)
        self._pipeline.give_up(StoreUnavailable(self.name, kind))

    async def _probe(self, connection: Connection) -> bool:
        """Close the breaker if the node answers, so that no message has to find out."""
        command = load_command(_PROBE_KEY)
        try:
            # bound to the connection: nobody opens the next one before this has an answer
            loaded = await self._pipeline.submit(command, Answers.read_value, is_bound=True)
        except StoreUnavailable:
            return False
        if not isinstance(loaded, Loaded):
            return False
        if not self.is_up and connection is self._pipeline.connection:
            self.is_up, self.up_since_s = True, self._loop.time()
            kind, began_s = self._outage
            self._observer.store_node_up(self.name, kind, self._loop.time() - began_s)
        return True

    async def _ask_version(self) -> None:
        version = self._pipeline.submit(VERSION, Answers.read_version, is_bound=True)
        with contextlib.suppress(StoreUnavailable):
            self._speaks_meta = (await version or ()) >= META_SINCE

    # --- the connection

    async def _stay_connected(self) -> None:
        """Connect, probe, wait for the end of the connection, and again."""
        worked_until_s = -RESTART_S
        reconnects = Backoff(RECONNECT_AFTER_S, MAX_RECONNECT_AFTER_S)
        while True:
            try:
                connection = await self._connector.connect(self)
            except ConnectFailed as failed:
                is_restarting = self._loop.time() - worked_until_s < RESTART_S
                if self.is_up and is_restarting and not self._pipeline.is_busy:
                    await asyncio.sleep(RECONNECT_AFTER_S)
                else:
                    self._fail(failed.kind)
                    await asyncio.sleep(RETRY_EVERY_S)
                continue
            opened_s = self._loop.time()
            if connection.closed.is_set():
                self._fail("closed")
            else:
                self._pipeline.use(connection)
            while not connection.closed.is_set() and not await self._probe(connection):
                await asyncio.sleep(RETRY_EVERY_S)
            if not connection.closed.is_set():
                await self._ask_version()
            await connection.closed.wait()
            worked_until_s = self._loop.time()
            if worked_until_s - opened_s > RESTART_S:
                reconnects.succeeded()
            delay_s = reconnects.failed(worked_until_s)
            await asyncio.sleep(delay_s if self.is_up else RETRY_EVERY_S)

    def received(self, connection: Connection, data: bytes) -> None:
        """See `connection.Owner`."""
        if connection is self._pipeline.connection:  # and not one that was given up
            self._pipeline.received(connection, data)

    def lost(self, connection: Connection, error: Exception | None) -> None:
        """See `connection.Owner`. If the connection worked, what waits is sent over the
        next one: most likely memcached was restarted.
        """
        if connection is not self._pipeline.connection:
            return
        if connection.has_answered:
            self._pipeline.disconnect()
        else:
            self._fail(error_kind(error))

    async def _follow_name(self) -> None:
        """Leave a connection whose name leads to another address now, even if the old
        address still answers: other replicas may count at the new one.
        """
        delay_s = self._lookup_every_s
        while True:
            await asyncio.sleep(delay_s)
            connection = self._pipeline.connection
            if connection is None:
                continue
            try:
                if await self._connector.has_moved(connection):
                    connection.transport.abort()
                delay_s = self._lookup_every_s
            except LookupFailed:
                delay_s = min(self._lookup_every_s, RETRY_EVERY_S)


def flush(name: str, timeout_s: float, tls: ssl.SSLContext | None = None) -> None:
    """Empty one node. Blocks; raises OSError and pymemcache's MemcacheError."""
    client = Client(split_name(name), connect_timeout=timeout_s, timeout=timeout_s, tls_context=tls)
    client.flush_all(noreply=False)
    client.close()
