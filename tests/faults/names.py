"""Name lookups that a test controls, in real smsd processes.

`Names` writes what each host resolves to into a file. `python -m tests.faults.names
serve` runs smsd with a `socket.getaddrinfo` that reads it at every lookup.
"""

import functools
import json
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import smsd.store.memcached
from smsd.cli import main
from smsd.store.node import Node
from tests.processes import Smsd

LOOKUP_EVERY_S = 0.2
"""Instead of 30 s."""

HANGS = 3600.0


class Names:
    """What hosts resolve to, for the length of a `with` block. Others are real."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory()
        self._file = Path(self._directory.name) / "names.json"
        self._names: dict[str, tuple[Sequence[str], float]] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._write()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._directory.cleanup()

    def set(self, host: str, *addresses: str, after_s: float = 0.0) -> None:
        """From now on `host` has these addresses, and a lookup takes `after_s`. A
        lookup that is under way ends once it has taken that long.
        """
        with self._lock:  # faults come from several threads
            self._names[host] = addresses, after_s
            self._write()

    def smsd(self, env: dict[str, str | None]) -> Smsd:
        """An smsd whose lookups these are; to be started by its `with` block."""
        return Smsd({**env, "NAMES_FILE": str(self._file)}, module="tests.faults.names")

    def _write(self) -> None:
        fresh = self._file.with_suffix(".new")
        fresh.write_text(json.dumps(self._names))
        fresh.replace(self._file)


_getaddrinfo = socket.getaddrinfo


def _controlled(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
    """In the place of `socket.getaddrinfo`."""
    begun_s = time.monotonic()
    while True:
        names = json.loads(Path(os.environ["NAMES_FILE"]).read_text())
        if host not in names:
            return _getaddrinfo(host, port, *args, **kwargs)
        addresses, after_s = names[host]
        if time.monotonic() - begun_s >= after_s:
            break
        time.sleep(0.01)
    if not addresses:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    return [
        (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, int(port)))
        for address in addresses
    ]


if __name__ == "__main__":
    socket.getaddrinfo = _controlled
    setattr(smsd.store.memcached, "Node", functools.partial(Node, lookup_every_s=LOOKUP_EVERY_S))  # noqa: B010 - a type for mypy
    sys.exit(main())
