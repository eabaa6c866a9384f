"""Real processes for tests: memcached and smsd, started, stopped, killed, resumed. Each
ends with its `with` block."""

import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import cycle, islice
from pathlib import Path
from random import SystemRandom
from types import TracebackType
from typing import Self

from pymemcache.client.base import Client as MemcacheClient

TOKEN = "0123456789abcdef0123456789abcdef"
ACCOUNT = "AC" + "1" * 32
PUBLIC_URL = "https://sms.example.com"
SETTINGS = {
    "TWILIO_AUTH_TOKEN": TOKEN,
    "SMSD_PUBLIC_URL": PUBLIC_URL,
    "SMSD_COOKIE_KEYS": "1:cookie-key-cookie-key-cookie-key-cookie-key",
    "SMSD_HASH_KEY": "hash-key-hash-key-hash-key-hash-key-hash-key",
    "SMSD_HOST": "127.0.0.1",
    "SMSD_PORT": "0",
    "SMSD_ADMIN_PORT": "0",
    "SMSD_DRAIN_DELAY": "0",
}
"""Everything that `serve` requires, ports chosen by the system."""

PATIENCE_S = 20.0


def wait_for(condition: Callable[[], object], what: str, *, within_s: float = PATIENCE_S) -> None:
    """Until the condition holds; AssertionError, naming what was waited for, if it
    never does."""
    give_up_s = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > give_up_s:
            raise AssertionError(f"not within {within_s} s: {what}")
        time.sleep(0.01)


FIRST_PORT, PORTS_OF_A_WORKER = 12_000, 2000


def _ports_of(worker: str) -> list[int]:
    """The ports of one of the processes that run tests at the same time: "gw0", "gw1" and
    so on.

    They lie below those that Linux gives to connections and to sockets bound to port 0.
    So nothing takes a port by chance between `free_port` and its use.
    """
    first = FIRST_PORT + int(worker.removeprefix("gw")) * PORTS_OF_A_WORKER
    ports = list(range(first, first + PORTS_OF_A_WORKER))
    SystemRandom().shuffle(ports)
    return ports


_ports = cycle(_ports_of(os.environ.get("PYTEST_XDIST_WORKER", "gw0")))


def free_port() -> int:
    """A port that nobody listens on, and that no other test is given."""
    for port in islice(_ports, PORTS_OF_A_WORKER):
        with socket.socket() as sock, suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port
    raise AssertionError("every port is taken")


class Memcached:
    """One memcached process on a port of its own, which it keeps over restarts. It
    listens on `host`, an address of this machine. `tls` is what a client verifies its
    certificate with, if `options` make it speak TLS.
    """

    def __init__(
        self,
        *options: str,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.host = host
        self.port = port or free_port()
        self.node = f"{host}:{self.port}"
        self._options = options
        self._tls = tls
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()

    def start(self) -> None:
        """Start it, empty, and wait until it answers."""
        command = ["memcached", "-u", "nobody", "-l", self.host, "-p", str(self.port), "-U", "0"]
        self._process = subprocess.Popen([*command, *self._options])
        try:
            wait_for(self.answers, f"memcached on port {self.port}")
        except AssertionError:
            self.kill()
            raise

    def kill(self) -> None:
        """SIGKILL, also to a stopped one."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def hang(self) -> None:
        """SIGSTOP: it accepts connections and says nothing. Returns when every thread
        has stopped."""
        assert self._process
        self._process.send_signal(signal.SIGSTOP)
        tasks = Path(f"/proc/{self._process.pid}/task")
        wait_for(
            lambda: all(
                (task / "stat").read_text().rpartition(")")[2].split()[0] == "T"
                for task in tasks.iterdir()
            ),
            "memcached stopped",
        )

    def resume(self) -> None:
        """SIGCONT."""
        assert self._process
        self._process.send_signal(signal.SIGCONT)

    def client(self) -> MemcacheClient:
        """A plain client, for looking in."""
        return MemcacheClient(
            (self.host, self.port),
            connect_timeout=2,
            timeout=2,
            default_noreply=False,
            tls_context=self._tls,
        )

    def flush(self) -> None:
        """flush_all."""
        client = self.client()
        client.flush_all()
        client.close()

    def answers(self) -> bool:
        """Whether it answers `version`."""
        client = self.client()
        try:
            return bool(client.version())
        except OSError:
            return False
        finally:
            client.close()


class Smsd:
    """One `smsd serve` process. `env` is added to SETTINGS; None takes a setting away.

    It runs in the checkout, or as the installed program in another working directory
    `cwd`. `limits` are commands of the shell for its limits, such as `ulimit -n 128`.
    `module` is run instead of smsd itself, and runs smsd in its turn.
    """

    def __init__(
        self,
        env: Mapping[str, str | None] | None = None,
        *,
        args: tuple[str, ...] = (),
        cwd: Path | None = None,
        limits: str = "",
        module: str = "smsd",
    ) -> None:
        given = {**SETTINGS, **(env or {})}
        self._env = {
            "PATH": os.environ["PATH"],
            **{key: value for key, value in given.items() if value is not None},
        }
        script = str(Path(sys.executable).with_name("smsd"))
        program = (script,) if cwd else (sys.executable, "-m", module)
        command = (*program, "serve", *args)
        self._command = ("bash", "-c", f'{limits}; exec "$@"', "-", *command) if limits else command
        self._cwd = cwd or Path(__file__).parent.parent
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by __exit__
        self.process: subprocess.Popen[bytes] | None = None
        self.port = 0
        self.admin_port = 0
        self._log_begins = 0

    def __enter__(self) -> Self:
        try:
            self.start()
        except AssertionError:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()
        if kind:
            sys.stderr.write(f"--- log of smsd on port {self.port}\n{self.log()[-4000:]}\n")
        self._log.close()

    def run_package_in(self, folder: Path) -> None:
        """From the next start on, run the package `smsd` in this folder: perhaps
        another version."""
        self._cwd = folder

    def start(self) -> None:
        """Start it, perhaps again, and wait until it listens."""
        self._log_begins = len(self.log())
        self.process = subprocess.Popen(
            self._command,
            env=self._env,
            cwd=self._cwd,
            stdout=self._log,
            stderr=self._log,
        )
        wait_for(self._listening, "smsd listening")

    def _listening(self) -> bool:
        assert self.process
        assert self.process.poll() is None, f"smsd ended: {self.log()}"
        found = re.findall(
            r'(?:"port":|\bport=)(\d+).*(?:"admin_port":|admin_port=)(\d+)',
            self.log()[self._log_begins :],
        )
        if found:
            self.port, self.admin_port = map(int, found[-1])
        return bool(found)

    def log(self) -> str:
        """Everything it wrote so far."""
        return os.pread(self._log.fileno(), 50_000_000, 0).decode("utf-8", "replace")

    @property
    def address(self) -> str:
        """host:port of the public listener."""
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self.process
        return self.process.pid

    def terminate(self) -> int:
        """SIGTERM, and its exit code."""
        assert self.process
        self.process.terminate()
        return self.process.wait(PATIENCE_S * 2)

    def signal(self, number: int) -> None:
        """Send a signal."""
        assert self.process
        self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL."""
        if self.process:
            self.process.kill()
            self.process.wait()

    def admin(self, path: str) -> tuple[int, str]:
        """Status and text of a page of the admin listener."""
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self.admin_port}{path}", timeout=5
            ) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def metric(self, name: str) -> float:
        """The value of one series, written as Prometheus writes it:
        `smsd_messages_total{outcome="counted"}`."""
        for line in self.admin("/metrics")[1].splitlines():
            series, _, value = line.rpartition(" ")
            if series == name:
                return float(value)
        raise KeyError(name)


def package_at(commit: str, folder: Path) -> Path | None:
    """The package `smsd` as it was at a commit, unpacked into `folder`. None if this
    clone does not have the commit.
    """
    checkout = Path(__file__).parent.parent
    packed = subprocess.run(
        ["git", "archive", commit, "smsd"], cwd=checkout, check=False, capture_output=True
    )
    if packed.returncode:
        return None
    subprocess.run(["tar", "-x", "-C", str(folder)], input=packed.stdout, check=True)
    return folder


@contextmanager
def cluster(
    nodes: int, replicas: int, env: Mapping[str, str | None] | None = None
) -> Iterator[tuple[list[Memcached], list[Smsd]]]:
    """So many memcached processes, and so many smsd processes over them."""
    stores = [Memcached() for _ in range(nodes)]
    started: list[Memcached | Smsd] = []
    try:
        for store in stores:
            store.start()
            started.append(store)
        url = "memcached://" + ",".join(store.node for store in stores)
        servers = [Smsd({"SMSD_STORE": url, **(env or {})}) for _ in range(replicas)]
        for server in servers:
            server.start()
            started.append(server)
        yield stores, servers
    finally:
        for process in reversed(started):
            process.__exit__(*sys.exc_info())
