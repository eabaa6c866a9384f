"""Looks up the addresses of a memcached node's name.

A lookup must hold up neither the event loop, nor another node, nor the end of the
process. So this module must not use the event loop's resolver: asyncio and uvloop look
names up in a shared pool of few threads, where one hanging name starves all others, and
where the process waits for it at exit.

The idea: each node has one lookup under way at most, in a daemon thread of its own.
Callers wait for it for as long as their budget allows. An answer that comes later is
kept, and the next caller gets it.
"""

import asyncio
import contextlib
import ipaddress
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Any

AddressInfo = tuple[Any, Any, int, str, tuple[Any, ...]]
"""As `socket.getaddrinfo` returns it: family, type, protocol, canonical name,
address."""

Resolver = Callable[[str, int], Sequence[AddressInfo]]
"""Blocks while it looks up a host and a port. Raises OSError if there is no answer."""

LOOKUP_BUDGET_S = 5.0
"""A caller waits this long for an answer."""

KNOWN_BUDGET_S = 0.5
"""If an earlier answer is known, a caller in a hurry waits only this long for a new
one."""

FRESH_S = 2.0
"""An answer this young is not looked up again, whether it is good or bad: reconnecting
twice a second must not burden the name servers."""

HUNG_AFTER_S = 60.0
"""A lookup that takes longer is taken for lost, and another one may start."""

MAX_HUNG = 3
"""Lost lookups of one node. Each keeps a thread until the system's resolver gives
up."""


class LookupFailed(Exception):
    """The name has no address, or the resolver did not answer within the budget."""


def split_name(name: str) -> tuple[str, int]:
    """Host and port of "host:port". IPv6 addresses are in brackets, as in a URL."""
    host, _, port = name.rpartition(":")
    return host.strip("[]"), int(port)


def resolve(host: str, port: int) -> Sequence[AddressInfo]:
    """Ask the system's resolver."""
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)


class NameLookup:
    """The addresses of one host. Belongs to the event loop in which it was made."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        resolver: Resolver = resolve,
        budget_s: float = LOOKUP_BUDGET_S,
    ) -> None:
        self.host = host
        self.port = port
        self._resolver = resolver
        self._budget_s = budget_s
        self._loop = asyncio.get_running_loop()
        self._known = _literal(host, port)
        self.is_literal = bool(self._known)
        """The host is an IP address, so nothing needs to be looked up."""
        self._lookup: _Lookup | None = None
        self._hung: list[_Lookup] = []

    @property
    def is_pending(self) -> bool:
        """The system's resolver has not answered the latest lookup yet."""
        return self._lookup is not None and not self._lookup.answer.done()

    async def addresses(self) -> tuple[AddressInfo, ...]:
        """The current addresses. Raises LookupFailed if there are none, or after the
        budget.
        """
        if self.is_literal:
            return self._known
        found = await self._wait(self._budget_s)
        if not found:
            raise LookupFailed(self.host)
        return found

    async def addresses_or_known(self) -> tuple[AddressInfo, ...]:
        """The same in less time: the last known addresses, if the resolver is slow or
        fails.
        """
        if not self._known:
            return await self.addresses()
        if self.is_literal:
            return self._known
        return await self._wait(KNOWN_BUDGET_S) or self._known

    async def _wait(self, budget_s: float) -> tuple[AddressInfo, ...]:
        lookup = self._current()
        await asyncio.wait([lookup.answer], timeout=budget_s)
        if not lookup.answer.done():
            return ()
        self._known = lookup.answer.result() or self._known
        return lookup.answer.result()

    def _current(self) -> "_Lookup":
        """The lookup to wait for: the one under way, or a fresh answer, or else a new
        one.
        """
        last, now_s = self._lookup, self._loop.time()
        if last and last.is_current(now_s):
            return last
        if last and not last.answer.done():
            self._hung = [lookup for lookup in self._hung if not lookup.answer.done()]
            if len(self._hung) >= MAX_HUNG:
                return last
            self._hung.append(last)
        self._lookup = _Lookup(self._loop)
        self._lookup.start(lambda: self._resolver(self.host, self.port))
        return self._lookup


class _Lookup:
    """One call of the resolver, in a thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.answer: asyncio.Future[tuple[AddressInfo, ...]] = loop.create_future()
        """Empty if the resolver failed."""
        self._loop = loop
        self._started_s = loop.time()
        self._answered_s = 0.0

    def is_current(self, now_s: float) -> bool:
        if self.answer.done():
            return now_s - self._answered_s < FRESH_S
        return now_s - self._started_s < HUNG_AFTER_S

    def start(self, look_up: Callable[[], Sequence[AddressInfo]]) -> None:
        try:
            threading.Thread(
                target=self._run, args=(look_up,), name="smsd-lookup", daemon=True
            ).start()
        except RuntimeError:  # the system has no thread left
            self._settle(())

    def _run(self, look_up: Callable[[], Sequence[AddressInfo]]) -> None:
        try:
            found = tuple(look_up())
        except (OSError, ValueError):  # the latter for a name that cannot be encoded
            found = ()
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._settle, found)

    def _settle(self, found: tuple[AddressInfo, ...]) -> None:
        self._answered_s = self._loop.time()
        self.answer.set_result(found)


def _literal(host: str, port: int) -> tuple[AddressInfo, ...]:
    """The address that `host` is, if it is one. Asks nobody."""
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        return ()
    if version == 4:
        return ((socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port)),)
    return ((socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port, 0, 0)),)
