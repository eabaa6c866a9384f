"""Containers and other processes for the tests, in the isolated network of `engine.sh
alone`."""

import contextlib
import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).parents[2]
ENGINE = CHECKOUT / "tests" / "container" / "engine.sh"
TOKEN = "0123456789abcdef0123456789abcdef"
SID = "AC" + "0" * 31 + "1"
PUBLIC_URL = "https://sms.example.com"
SETTINGS = {
    "TWILIO_AUTH_TOKEN": TOKEN,
    "SMSD_PUBLIC_URL": PUBLIC_URL,
    "SMSD_COOKIE_KEYS": "1:a-cookie-key-for-tests-that-is-long-enough",
    "SMSD_HASH_KEY": "a-hash-key-for-tests-that-is-long-enough",
    "SMSD_DRAIN_DELAY": "0.5",
}
HARDENED = (
    *("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
    *("--memory", "128m", "--pids-limit", "64"),
)


def podman(*args: object, check: bool = True, stdin: str | None = None) -> str:
    """Run podman and return its stdout. With `check`, raise AssertionError if it fails."""
    done = run(*args, stdin=stdin)
    assert not check or done.returncode == 0, f"podman {args}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def run(*args: object, stdin: str | None = None) -> "subprocess.CompletedProcess[str]":
    """Run podman, whether it succeeds or not."""
    command = [str(ENGINE), "podman", *map(str, args)]
    return subprocess.run(
        command, input=stdin, check=False, capture_output=True, text=True, timeout=120
    )


def inspect(kind: str, name: str) -> dict[str, Any]:
    """The result of `podman image inspect` or `podman container inspect`."""
    (found,) = json.loads(podman(kind, "inspect", name))
    return dict(found)


@dataclass(frozen=True)
class Container:
    name: str

    @property
    def ip(self) -> str:
        networks = inspect("container", self.name)["NetworkSettings"]["Networks"]
        return str(next(iter(networks.values()))["IPAddress"])

    @property
    def pid(self) -> int:
        return int(inspect("container", self.name)["State"]["Pid"])

    @property
    def address(self) -> str:
        """host:port of the public listener."""
        return f"{self.ip}:8080"

    @property
    def admin(self) -> str:
        return f"http://{self.ip}:9090"

    def logs(self) -> str:
        done = run("logs", self.name)
        return done.stdout + done.stderr

    def signal(self, name: str) -> None:
        podman("kill", "--signal", name, self.name)

    def exit_code(self) -> int:
        """Wait until the container has stopped, and return its exit code."""
        return int(podman("wait", self.name))

    def is_ready(self) -> bool:
        return status(f"{self.admin}/readyz") == 200


@contextlib.contextmanager
def container(
    image: str,
    *args: object,
    options: tuple[object, ...] = (),
    environ: Mapping[str, str] | None = None,
) -> Iterator[Container]:
    """Run a container in the background, and remove it at the end."""
    variables = [f"--env={key}={value}" for key, value in (environ or {}).items()]
    name = podman("create", *variables, *options, image, *args)
    try:
        podman("start", name)
        yield Container(name)
    finally:
        podman("rm", "--force", "--time", "0", name)


def status(url: str) -> int | None:
    """The HTTP status of a GET; None if nothing listens."""
    try:
        with urllib.request.urlopen(url, timeout=2) as response:  # noqa: S310 - http, to a container
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as response:  # noqa: S310 - http, to a container
        return str(response.read().decode())


def wait_until(condition: Callable[[], object], what: str, *, at_most_s: float = 30) -> None:
    give_up_s = time.monotonic() + at_most_s
    while not condition():
        assert time.monotonic() < give_up_s, f"not within {at_most_s} s: {what}"
        time.sleep(0.05)


@contextlib.contextmanager
def process(*command: object, log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a process in the background with its output in `log`, and terminate it at the
    end."""
    with log.open("wb") as output:
        started = subprocess.Popen(list(map(str, command)), stdout=output, stderr=subprocess.STDOUT)
    try:
        yield started
    finally:
        started.terminate()
        started.wait(timeout=20)
