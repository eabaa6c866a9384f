"""The servers that are measured, each a process on one core."""

import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.processes import PUBLIC_URL, TOKEN, Memcached, Smsd, free_port, wait_for

HERE = Path(__file__).parent
PEERS = HERE.parent.parent / ".venv/bench"
SERVER_CORE, LOAD_CORE = 0, 1
CORES = os.sched_getaffinity(0)


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """Processes that start in this block run on this core only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core} & CORES or CORES)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Process:
    """A server that takes its port, or gunicorn's 127.0.0.1:PORT, as the last argument."""

    def __init__(self, *command: str, env: Mapping[str, str] | None = None) -> None:
        self.port = free_port()
        address = f"127.0.0.1:{self.port}" if command[-1] == "--bind" else str(self.port)
        with on_core(SERVER_CORE):
            self._process = subprocess.Popen(
                [*command, address],
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


def smsd(
    node: str,
    core: int = SERVER_CORE,
    *,
    source: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> Smsd:
    """As in production: JSON lines to a file. Without the loop limit, since one person
    sends everything.

    `source` is the folder of another version's package; `env` are more settings.
    """
    server = Smsd({"SMSD_STORE": f"memcached://{node}", "SMSD_LOOP_LIMIT": "0", **(env or {})})
    if source:
        server.run_package_in(source)
    with on_core(core):
        server.start()
    return server


def flask(node: str) -> Process:
    """One worker, threads as its documentation has it for keep-alive."""
    gunicorn = (
        str(PEERS / "bin/gunicorn"),
        "--worker-class",
        "gthread",
        "--threads",
        "8",
        "--keep-alive",
        "75",
    )
    return Process(
        *gunicorn, "--chdir", str(HERE / "peers"), "flask_app:app", "--bind", env=_peer_env(node)
    )


def starlette(node: str) -> Process:
    """With uvloop and httptools, as "uvicorn[standard]" brings them."""
    uvicorn = (
        str(PEERS / "bin/uvicorn"),
        "--app-dir",
        str(HERE / "peers"),
        "--no-access-log",
        "starlette_app:app",
    )
    return Process(*uvicorn, "--port", env=_peer_env(node))


def express(node: str) -> Process:
    env = {
        "NODE_ENV": "production",
        "NODE_PATH": str(PEERS / "node/node_modules"),
        **_peer_env(node),
    }
    return Process("node", str(HERE / "peers/express_app.js"), env=env)


def _peer_env(node: str) -> dict[str, str]:
    return {
        "BENCH_MEMCACHED": node,
        "BENCH_TOKEN": TOKEN,
        "BENCH_URL": PUBLIC_URL,
        "BENCH_SECRET": "a-secret-of-the-bench-a-secret-of-the-bench",
    }


@contextmanager
def memcached(memory_mb: int = 1024) -> Iterator[Memcached]:
    """On the core of the load: its CPU is not the server's cost, and it does not slow
    the server down."""
    store = Memcached("-t", "1", "-m", str(memory_mb))
    with ExitStack() as stack:
        with on_core(LOAD_CORE):
            stack.enter_context(store)
        yield store
