"""File descriptors of this process: the standard streams, the limit, what it allows.

A process at its limit can neither accept a connection nor connect to memcached. So smsd
raises the limit as far as it may, and stops accepting early enough that the admin
listener, memcached and the dialogue find descriptors left.
"""

import contextlib
import os
import resource
import sys
from dataclasses import dataclass

RESERVED = 128
"""Descriptors kept from the public listener if the limit allows it, else a quarter."""

_USUALLY_OPEN = 32


@dataclass(frozen=True, slots=True)
class Limit:
    """RLIMIT_NOFILE of this process."""

    before: int
    now: int


@dataclass(frozen=True, slots=True)
class Budget:
    """How many connections each listener accepts at most."""

    public: int
    admin: int


def open_standard_streams() -> None:
    """Open /dev/null on each standard stream that is closed (`>&-`).

    Call this before anything else opens a file: a socket that became descriptor 1 or 2
    would be sent whatever is printed or logged, and uvloop aborts on one.
    """
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free descriptor: this one
            setattr(sys, name, os.fdopen(descriptor, mode, encoding="utf-8", closefd=False))


def raise_limit() -> Limit:
    """Raise the soft limit to the hard one. Containers often start with 1,024
    descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):  # macOS: hard may be more than allowed
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    now = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return Limit(soft, sys.maxsize if now == resource.RLIM_INFINITY else now)


def open_now() -> int:
    """How many descriptors are open."""
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:
        return _USUALLY_OPEN


def budget(limit: int, already_open: int) -> Budget:
    """Share out what `limit` leaves.

    >>> budget(1024, 24)
    Budget(public=872, admin=64)
    >>> budget(64, 24)
    Budget(public=30, admin=5)
    """
    left = max(limit - already_open, 8)
    reserved = min(RESERVED, left // 4)
    return Budget(public=left - reserved, admin=max(reserved // 2, 2))
