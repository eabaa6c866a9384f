"""Checks one memcached node for `smsd doctor`: its name, a connection, a write and a
read.

It writes and deletes one key of its own and changes nothing else on the node.
"""

import os
import secrets
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

from pymemcache.client.base import Client
from pymemcache.exceptions import MemcacheError, MemcacheServerError, MemcacheUnexpectedCloseError

from smsd.commands.findings import Finding, ok, warning, wrong
from smsd.store.lookup import LOOKUP_BUDGET_S, split_name

_PROBLEMS = {
    9: "its certificate is not valid yet",  # the numbers are OpenSSL's X509_V_ERR_…
    10: "its certificate has expired",
    18: "its certificate is self-signed: SMSD_STORE_CA must name it",
    19: "its certificate was issued by an unknown authority: SMSD_STORE_CA must name that",
    20: "its certificate was issued by an unknown authority: SMSD_STORE_CA must name that",
    62: "its certificate is for another name than SMSD_STORE gives",
    64: "its certificate is not for this address: SMSD_STORE must give its name",
}

Resolver = Callable[..., Sequence[tuple[Any, ...]]]
"""Called as `socket.getaddrinfo` is."""


def check_node(
    name: str,
    timeout_s: float,
    tls: ssl.SSLContext | None,
    resolve: Resolver = socket.getaddrinfo,
    *,
    lookup_budget_s: float = LOOKUP_BUDGET_S,
) -> Iterator[Finding]:
    """Look the name up, then write, read and delete a key.

    name             "host:port", with an IPv6 address in brackets
    timeout_s        seconds for connecting, and for each operation
    tls              how to connect over TLS; None for plain TCP
    lookup_budget_s  seconds for looking the name up
    """
    host, port = split_name(name)
    try:
        found = _look_up(host, port, resolve, lookup_budget_s)
    except OSError:
        yield wrong(f"memcached {name}: there is no host of that name; check SMSD_STORE and DNS")
        return
    if found is None:
        yield wrong(
            f"memcached {name}: its name was not looked up within {lookup_budget_s:g} s; "
            "check the name servers"
        )
        return
    several = _several_addresses(name, found)
    if several:
        yield several
    client = Client((host, port), connect_timeout=timeout_s, timeout=timeout_s, tls_context=tls)
    yield _round_trip(name, client, timeout_s)


def _look_up(
    host: str, port: int, resolve: Resolver, budget_s: float
) -> Sequence[tuple[Any, ...]] | None:
    """The addresses; None if the resolver takes too long. Raises OSError if there are
    none."""
    answers: SimpleQueue[Sequence[tuple[Any, ...]] | OSError] = SimpleQueue()

    def ask() -> None:
        try:
            answers.put(resolve(host, port, type=socket.SOCK_STREAM))
        except OSError as error:
            answers.put(error)

    Thread(target=ask, daemon=True).start()  # a hanging resolver does not keep the process
    try:
        answer = answers.get(timeout=budget_s)
    except Empty:
        return None
    if isinstance(answer, OSError):
        raise answer
    return answer


def _several_addresses(name: str, found: Sequence[tuple[Any, ...]]) -> Finding | None:
    """Whether the name stands for several nodes. IPv4 and IPv6 may both name the same
    one."""
    by_family: dict[int, set[str]] = {}
    for family, _, _, _, address in found:
        by_family.setdefault(family, set()).add(address[0])
    most = max(map(len, by_family.values()))
    if most < 2:
        return None
    return warning(
        f"memcached {name}: this name has {most} addresses. If they are different nodes, replicas "
        "of smsd count on different ones. List every node by its own name, such as "
        "memcached-0.memcached:11211,memcached-1.memcached:11211"
    )


def _round_trip(name: str, client: Client, timeout_s: float) -> Finding:
    key, value = f"smsd:doctor:{os.getpid()}", secrets.token_hex(8).encode()
    started_s = time.perf_counter()
    try:
        version = client.version().decode("ascii", "replace")
        client.set(key, value, expire=10, noreply=False)
        read = client.get(key)
        client.delete(key, noreply=False)
    except (OSError, MemcacheError) as error:
        return wrong(f"memcached {name}: {_explained(error, timeout_s)}")
    finally:
        client.close()
    if read != value:
        return wrong(f"memcached {name}: did not return what was written")
    took_ms = (time.perf_counter() - started_s) * 1000
    return ok(f"memcached {name}: version {version}, written and read back in {took_ms:.1f} ms")


def _explained(error: Exception, timeout_s: float) -> str:
    """What went wrong, and what to look at."""
    if isinstance(error, TimeoutError):
        return f"no answer within {timeout_s} s (SMSD_STORE_TIMEOUT). Is a firewall in between?"
    if problem := tls_problem(error):
        return problem
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there (connection refused). Is memcached running, and is the port right?"
    if isinstance(error, (MemcacheUnexpectedCloseError, ConnectionResetError)):
        return (
            "closed the connection. It is not memcached, "
            "or it expects TLS: then use memcacheds:// in SMSD_STORE"
        )
    if isinstance(error, MemcacheServerError):
        return "refuses to store. Is it full? Its log or `stats` says why"
    if isinstance(error, MemcacheError):
        return "something answers there that is not memcached. Is the port right?"
    return f"cannot be reached: {getattr(error, 'strerror', None) or type(error).__name__}"


def tls_problem(error: BaseException) -> str | None:
    """Why a TLS connection failed; None if it was not TLS's fault."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _PROBLEMS.get(
            error.verify_code, f"its certificate is refused: {error.verify_message}"
        )
    if isinstance(error, ssl.SSLError):
        reason = (error.reason or "handshake failed").lower().replace("_", " ")
        return f"the TLS handshake failed ({reason})"
    return None
