"""One round: wrk plays a file against a server, and /proc tells what the server's
processes used meanwhile."""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.bench.servers import HERE, LOAD_CORE, on_core

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Round:
    """The result of one round."""

    cpu_us: float  # user and system time of the server's processes, for each message
    system_us: float  # the system's part
    per_s: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    rss_mb: float
    most_ms: float
    sent: int
    shed: int
    counted: int
    off: int  # what the numbers in the answers are off, summed up: 0 when each message counted once
    cookie_bytes: int


def family(pid: int) -> list[int]:
    """The process and all its descendants."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(found for child in children for found in family(int(child)))]


def cpu_s(pid: int) -> tuple[float, float]:
    """User and system time of a process and its descendants."""
    user = system = 0
    for each in family(pid):
        fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        user, system = user + int(fields[11]), system + int(fields[12])
    return user / _TICKS_PER_S, system / _TICKS_PER_S


def rss_mb(pid: int) -> float:
    """Resident memory, together."""
    pages = sum(int(Path(f"/proc/{each}/statm").read_text().split()[1]) for each in family(pid))
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def play(
    traffic: Path,
    *,
    port: int,
    pid: int,
    seconds: int,
    in_flight: int,
    cookie: str = "-",
    counts: bool = True,
    pause_ms: int = 0,
    may_shed: bool = False,
) -> Round:
    """Play a traffic file. Raise AssertionError if an answer is no TwiML or, with
    `counts`, contains no number.

    pause_ms  how long a connection waits on average between two messages
    may_shed  503 is a correct answer
    """
    command = ["wrk", "-t", "1", "-c", str(in_flight), "-d", f"{seconds}s", "--timeout", "20s"]
    command += [
        "-s",
        str(HERE / "load.lua"),
        f"http://127.0.0.1:{port}/sms",
        "--",
        str(traffic),
        cookie,
    ]
    command.append(str(pause_ms))
    before = cpu_s(pid)
    with on_core(LOAD_CORE):
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    user, system = (after - start for after, start in zip(cpu_s(pid), before, strict=True))
    said = json.loads(output.splitlines()[-1])
    assert not said["bad"], f"{said['bad']} answers were wrong, the first: {said['first_bad']}"
    assert not said["socket_errors"], f"{said['socket_errors']} errors of sockets"
    assert may_shed or not said["shed"], f"{said['shed']} messages were shed"
    if counts:
        assert not said["rewound"], "the traffic file was too short"
        assert said["counted"] == said["good"], "answers without a number"
    return Round(
        cpu_us=(user + system) / said["answers"] * 1e6,
        system_us=system / said["answers"] * 1e6,
        per_s=said["answers"] / said["seconds"],
        p50_ms=said["p50_ms"],
        p99_ms=said["p99_ms"],
        p999_ms=said["p999_ms"],
        most_ms=said["most_ms"],
        rss_mb=rss_mb(pid),
        sent=said["sent"],
        shed=said["shed"],
        counted=said["counted"],
        off=said["off"],
        cookie_bytes=said["cookie_bytes"] // max(1, said["counted"]),
    )
