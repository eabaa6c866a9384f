"""Looks up the hosts of smsd's own requests, such as downloads of media.

Must not use the event loop's resolver, for the reasons in `store.lookup`: a lookup that
hangs would hold up others, and the end of the process.
"""

import socket
from typing import Any

from tornado.netutil import Resolver

from smsd.store.lookup import LookupFailed, NameLookup

MAX_HOSTS = 64
"""Of which the latest lookup is remembered."""


class ThreadResolver(Resolver):
    """For Tornado's HTTP client. One lookup of a host at a time, in a daemon thread."""

    def initialize(self) -> None:
        """Tornado's way to say `__init__`."""
        self._lookups: dict[tuple[str, int], NameLookup] = {}

    async def resolve(
        self, host: str, port: int, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[tuple[int, Any]]:
        """The addresses of a host, as Tornado expects them. Raises OSError."""
        if len(self._lookups) >= MAX_HOSTS:
            self._lookups.clear()
        lookup = self._lookups.setdefault((host, port), NameLookup(host, port))
        try:
            found = await lookup.addresses()
        except LookupFailed as error:
            raise OSError("the host's name cannot be looked up") from error
        return [(each[0], each[4]) for each in found if family in (socket.AF_UNSPEC, each[0])]
