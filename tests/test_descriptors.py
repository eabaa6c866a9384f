"""A process with few descriptors, with closed standard streams, on both address
families."""

import contextlib
import errno
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from tornado import netutil

from smsd import descriptors
from smsd.web import accept
from tests import raw_http as wire
from tests.processes import SETTINGS, Memcached, Smsd, free_port, wait_for


def events(server: Smsd, name: str) -> list[dict[str, object]]:
    """The lines of the log with this event."""
    lines = [json.loads(line) for line in server.log().splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == name]


@contextlib.contextmanager
def crowd(address: str, number: int) -> Iterator[list[socket.socket]]:
    """So many connections that send nothing. The kernel accepts those that smsd does
    not."""
    host, _, port = address.rpartition(":")
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(socket.create_connection((host, int(port)), timeout=20))
            for _ in range(number)
        ]


def open_files(server: Smsd) -> int:
    return len(os.listdir(f"/proc/{server.pid}/fd"))


def test_soft_limit_is_raised_to_the_hard_one_and_logged() -> None:
    with Smsd(limits="ulimit -Sn 300; ulimit -Hn 700") as server:
        assert resource.prlimit(server.pid, resource.RLIMIT_NOFILE) == (700, 700)
        (line,) = events(server, "file descriptors")
    assert (line["limit"], line["limit_before"]) == (700, 300)
    connections = line["connections"]
    assert isinstance(connections, int)
    assert 700 - 128 - 50 < connections < 700 - 128


def test_more_connections_than_descriptors_do_no_harm() -> None:
    """Messages are answered, the admin listener and memcached stay, the log stays
    short."""
    with (
        Memcached() as store,
        Smsd({"SMSD_STORE": f"memcached://{store.node}"}, limits="ulimit -n 100") as server,
    ):
        wire.post(server.address, wire.message())
        with crowd(server.address, 300):
            (line,) = events(server, "file descriptors")
            most = line["connections"]
            assert isinstance(most, int)
            wait_for(lambda: events(server, "too many connections"), "the limit is reached")
            store.kill()  # a new connection to memcached needs a descriptor
            store.start()
            assert server.admin("/livez")[0] == 200
            for _ in range(5):
                assert wire.post(server.address, wire.message()).status == 200
                assert open_files(server) < 100
            wait_for(
                lambda: (
                    wire.post(server.address, wire.message()).status == 200
                    and server.metric(f'smsd_store_up{{node="{store.node}"}}') == 1
                ),
                "memcached is connected again",
            )
            (line,) = events(server, "too many connections")
            assert "N connections need N + " in str(line["advice"])
        assert wire.post(server.address, wire.message()).status == 200
        wait_for(lambda: open_files(server) < 40, "connections are closed")
        assert not events(server, "accept failed")
        assert "Traceback" not in server.log()
        assert len(server.log()) < 20_000


def test_crowd_at_the_admin_listener_leaves_the_public_one_alone() -> None:
    with (
        Smsd(limits="ulimit -n 100") as server,
        crowd(f"127.0.0.1:{server.admin_port}", 40),
    ):
        assert wire.post(server.address, wire.message()).status == 200
        answer = wire.request(f"127.0.0.1:{server.admin_port}", "GET", "/readyz")
        assert answer.status == 200
        assert open_files(server) < 100


def test_descriptors_used_up_elsewhere_leave_one_line_and_come_back() -> None:
    """The limit falls while smsd runs, as if the dialogue had opened many files."""
    with Smsd() as server:
        assert wire.post(server.address, wire.message()).status == 200
        soft, hard = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (open_files(server), hard))
        with crowd(server.address, 20):
            wait_for(lambda: events(server, "accept failed"), "accept fails")
            time.sleep(1.5)  # some more attempts
            resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (soft, hard))
            assert wire.post(server.address, wire.message()).status == 200
        (line,) = events(server, "accept failed")
        assert "EMFILE" in str(line["error"])
        assert "Traceback" not in server.log()


@pytest.mark.parametrize("limit", [24, 64, 1024, 1_048_576])
@pytest.mark.parametrize("already_open", [10, 24, 60])
def test_budget_leaves_something_for_everybody(limit: int, already_open: int) -> None:
    budget = descriptors.budget(limit, already_open)
    assert budget.public >= 6
    assert budget.admin >= 2
    if limit > already_open + 16:
        assert budget.public + budget.admin + already_open < limit


def test_limit_that_cannot_be_raised_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_what: int, _limits: tuple[int, int]) -> None:
        raise ValueError

    monkeypatch.setattr(resource, "getrlimit", lambda _what: (10, 20))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert descriptors.raise_limit() == descriptors.Limit(10, 10)
    monkeypatch.setattr(resource, "getrlimit", lambda _what: (10, resource.RLIM_INFINITY))
    assert descriptors.raise_limit().now == 10


def test_open_descriptors_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    before = descriptors.open_now()
    with socket.socket():
        assert descriptors.open_now() == before + 1

    def missing(_path: str) -> list[str]:
        raise FileNotFoundError

    monkeypatch.setattr(os, "listdir", missing)
    assert descriptors.open_now() > 3


# ---- standard streams


@contextlib.contextmanager
def serving(shell_redirections: str, env: Mapping[str, str]) -> Iterator[int]:
    """`smsd serve` with these redirections; yields its public port once it is ready."""
    port, admin_port = free_port(), free_port()
    given = {
        **SETTINGS,
        "PATH": os.environ["PATH"],
        "SMSD_PORT": str(port),
        "SMSD_ADMIN_PORT": str(admin_port),
        **env,
    }
    command = [sys.executable, "-m", "smsd", "serve"]
    process = subprocess.Popen(
        ["bash", "-c", f'exec "$@" {shell_redirections}', "-", *command], env=given
    )

    def is_ready() -> bool:
        assert process.poll() is None, "smsd ended"
        with contextlib.suppress(OSError):
            url = f"http://127.0.0.1:{admin_port}/readyz"
            return bool(urllib.request.urlopen(url, timeout=5).status == 200)
        return False

    try:
        wait_for(is_ready, "smsd ready")
        yield port
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("redirections", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_do_no_harm(redirections: str) -> None:
    """What is logged and printed goes nowhere, above all not to a client."""
    with serving(redirections, {"SMSD_LOG_LEVEL": "debug"}) as port:
        for _ in range(3):
            answer = wire.post(f"127.0.0.1:{port}", wire.message())
            assert answer.status == 200
            assert answer.body.startswith(b"<?xml")


@pytest.mark.parametrize("redirections", ["2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("command", ["keys", "serve", "doctor"])
def test_commands_with_closed_streams_end_as_usual(command: str, redirections: str) -> None:
    done = subprocess.run(
        ["bash", "-c", f'exec "$@" {redirections}', "-", sys.executable, "-m", "smsd", command],
        env={"PATH": os.environ["PATH"]},
        check=False,
        timeout=60,
    )
    assert done.returncode == {"keys": 0, "serve": 2, "doctor": 1}[command]


# ---- address families


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


def test_both_listeners_accept_both_address_families() -> None:
    if not has_ipv6():
        pytest.skip("this machine has no IPv6")
    with Smsd({"SMSD_HOST": None}) as server:
        for host in ("127.0.0.1", "[::1]"):
            assert wire.post(f"{host}:{server.port}", wire.message()).status == 200
            answer = wire.request(f"{host}:{server.admin_port}", "GET", "/readyz")
            assert answer.status == 200


@pytest.mark.parametrize("number", [errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, socket.EAI_FAMILY])
@pytest.mark.parametrize("missing", [socket.AF_INET, socket.AF_INET6])
def test_missing_address_family_is_no_problem(
    number: int, missing: socket.AddressFamily, monkeypatch: pytest.MonkeyPatch
) -> None:
    if missing == socket.AF_INET and not has_ipv6():
        pytest.skip("this machine has no IPv6")

    def bind_sockets(*args: Any, **more: Any) -> list[socket.socket]:
        if args[2] == missing:
            raise OSError(number, "no such family")
        return netutil.bind_sockets(*args, **more)

    monkeypatch.setattr(accept, "bind_sockets", bind_sockets)
    (sock,) = accept.bind("*", 0)
    with sock:
        assert sock.family != missing


def test_no_address_family_at_all_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> list[socket.socket]:
        raise OSError(errno.EAFNOSUPPORT, "no such family")

    monkeypatch.setattr(accept, "bind_sockets", refuse)
    with pytest.raises(OSError, match="no such family"):
        accept.bind("*", 0)
    monkeypatch.setattr(accept, "bind_sockets", lambda *_args, **_more: [])
    with pytest.raises(OSError, match="no address family"):
        accept.bind("*", 0)


# Tornado leaves the socket that it could not bind to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_port_taken_on_one_family_only_is_taken() -> None:
    if not has_ipv6():
        pytest.skip("this machine has no IPv6")
    with socket.socket(socket.AF_INET6) as taken:
        taken.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        taken.bind(("::", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match="in use"):
            accept.bind("*", port)
    for sock in accept.bind("*", port):
        sock.close()
