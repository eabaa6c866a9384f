"""Opens connections to one memcached node, over TCP or TLS.

With TLS it must always verify the certificate and the host's name: that is what TLS to
a store is for. It must not decide whether a node is up, or what is sent: that is
`node`'s. It waits for the name lookup and for the connection, each within a budget of
its own, which is larger than that of an operation: a node whose name takes a while to
look up, or which is far away, is connected late but not never.

If the name has several addresses they are tried in turn, the next one early, as RFC
8305 ("Happy Eyeballs") describes.
"""

import asyncio
import socket
import ssl
from typing import Protocol

import aiohappyeyeballs

from smsd.store.lookup import AddressInfo, LookupFailed, NameLookup

CONNECT_BUDGET_S = 5.0
"""For the TCP connection and the TLS handshake, over all addresses."""

NEXT_ADDRESS_S = 0.1
"""Start trying the next address after this time; RFC 8305 allows no less."""


class Owner(Protocol):
    """What a connection reports to: the node."""

    def received(self, connection: "Connection", data: bytes) -> None:
        """More of the answers has arrived."""
        ...

    def lost(self, connection: "Connection", error: Exception | None) -> None:
        """The connection is closed; `error` is None if the other side closed it."""
        ...


def client_context(authorities: str | None) -> ssl.SSLContext:
    """Make the context for TLS to nodes. It verifies certificates and names.

    authorities   PEM text of the certificates to trust; None for the system's
    """
    return ssl.create_default_context(cadata=authorities)


class ConnectFailed(Exception):
    """No connection within the budgets. `kind` is a label of smsd_store_errors_total."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


class Connection(asyncio.Protocol):
    """One connection, once it is open."""

    transport: asyncio.Transport

    def __init__(self, owner: Owner, peer: str) -> None:
        self.peer = peer
        """The address at the other end."""
        self.has_answered = False
        """At least one command was answered."""
        self.closed = asyncio.Event()
        self._owner = owner

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # a stream's

    def send(self, commands: bytes) -> None:
        self.transport.write(commands)

    def data_received(self, data: bytes) -> None:
        self._owner.received(self, data)

    def connection_lost(self, error: Exception | None) -> None:
        self.closed.set()
        self._owner.lost(self, error)


class Connector:
    """Opens connections to one node."""

    def __init__(self, lookup: NameLookup, tls: ssl.SSLContext | None) -> None:
        self._lookup = lookup
        self._tls = tls

    async def connect(self, owner: Owner) -> Connection:
        """Open a connection. Raises ConnectFailed."""
        try:
            addresses = await self._lookup.addresses_or_known()
            async with asyncio.timeout(CONNECT_BUDGET_S):
                return await self._open(addresses, owner)
        except Exception as error:  # not OSError alone: uvloop raises RuntimeError, ssl ValueError
            raise ConnectFailed(error_kind(error)) from error

    async def _open(self, addresses: tuple[AddressInfo, ...], owner: Owner) -> Connection:
        sock = await aiohappyeyeballs.start_connection(
            addresses, happy_eyeballs_delay=NEXT_ADDRESS_S
        )
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peer = str(sock.getpeername()[0])
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: Connection(owner, peer),
                sock=sock,
                ssl=self._tls,
                server_hostname=self._lookup.host.rstrip(".") if self._tls else None,
            )
        except BaseException:
            sock.close()
            raise
        return connection

    async def has_moved(self, connection: Connection) -> bool:
        """Whether the name no longer leads to the address of this connection.

        Raises LookupFailed if that cannot be told.
        """
        addresses = await self._lookup.addresses()
        return connection.peer not in {address[4][0] for address in addresses}


def error_kind(error: Exception | None) -> str:
    """Say which kind of failure ended a connection, or kept it from opening."""
    if isinstance(error, LookupFailed):
        return "lookup"
    if isinstance(error, ssl.SSLError):
        return "tls"
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    return "closed" if error is None or isinstance(error, ConnectionError) else "network"
