"""The servers that are measured, each a real process on a core of its own."""

import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.processes import Memcached, Smsd, free_port, wait_for

HERE = Path(__file__).parent
SERVER_CORE, LOAD_CORE = 0, 1


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """What is started here runs on this core alone."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core} & before or before)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Process:
    """A server that takes its port as the last argument."""

    def __init__(self, *command: str, env: Mapping[str, str] | None = None) -> None:
        self.port = free_port()
        with on_core(SERVER_CORE):
            self._process = subprocess.Popen(
                [*command, str(self.port)],
                env={**os.environ, **(env or {})},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd=HERE.parent.parent,
            )
        self.pid = self._process.pid
        wait_for(self._answers, f"{command[0]} on port {self.port}")

    def _answers(self) -> bool:
        assert self._process.poll() is None, f"{self._process.args!r} ended"
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{self.port}/", timeout=1).close()
        except urllib.error.HTTPError as error:
            error.close()
        except OSError:
            return False
        return True

    def kill(self) -> None:
        self._process.terminate()
        self._process.wait()


def bare() -> Process:
    return Process(sys.executable, str(HERE / "bare.py"))


def smsd(store: str) -> Smsd:
    """As in production: JSON lines to a file. Without the loop limit: here one person texts all the time."""
    server = Smsd({"SMSD_STORE": store, "SMSD_LOOP_LIMIT": "0"})
    with on_core(SERVER_CORE):
        server.start()
    return server


@contextmanager
def memcached() -> Iterator[Memcached]:
    """On the load's core: what it uses is not the server's cost, and it does not slow the server down."""
    store = Memcached("-t", "1", "-m", "1024")
    with on_core(LOAD_CORE), store:
        yield store
