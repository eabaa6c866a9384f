"""`make bench`: measures a bare handler, smsd and the peers in turns, on one core, and
prints a table and ratios.

BENCH_SECONDS  length of a round, 2: short, because the rest of the machine's load changes from second to second
BENCH_ROUNDS   rounds, 12
"""

import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench import measure, servers, traffic
from tests.bench.measure import Round
from tests.processes import package_at

SECONDS = int(os.environ.get("BENCH_SECONDS", "2"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "12"))
IN_FLIGHT = 32
CONVERSATIONS = 1000
FASTEST_PER_S = 6000
"""No server here answers more on one core. It sets the length of a traffic file."""

BEFORE = "ad364f7"
"""The last commit of 0.1.0: what a message cost before turns, measured in the same
minutes."""

GOAL, LEAST = 0.85, 0.75
Servers = dict[str, Any]


@contextmanager
def started(node: str, names: dict[str, Callable[[str], Any]]) -> Iterator[Servers]:
    """Every server, each on the same core: they are measured one at a time."""
    running: Servers = {}
    try:
        for name, start in names.items():
            running[name] = start(node)
        yield running
    finally:
        for server in running.values():
            server.kill()


def main() -> None:
    peers = {"Starlette": servers.starlette, "Express": servers.express, "Flask": servers.flask}
    everyone: dict[str, Callable[[str], Any]] = {
        "bare handler": lambda _node: servers.bare(),
        "smsd": servers.smsd,
    }
    with (
        tempfile.TemporaryDirectory(prefix="smsd-bench-") as folder,
        tempfile.TemporaryDirectory(prefix="smsd-before-") as before,
        servers.memcached() as store,
    ):
        source = package_at(BEFORE, Path(before))
        if source:
            everyone["smsd 0.1.0"] = lambda node: servers.smsd(node, source=source)
        else:
            say(f"no row for smsd 0.1.0: this clone has no commit {BEFORE}")
        measure_all(Path(folder), store.node, everyone | peers, peers)


def measure_all(
    folder: Path, node: str, everyone: dict[str, Callable[[str], Any]], peers: Iterable[str]
) -> None:
    with started(node, everyone) as running:
        say(f"{ROUNDS} rounds of {SECONDS} s for each of {', '.join(running)}: {IN_FLIGHT} messages in flight, "
            f"{CONVERSATIONS:,} conversations of {traffic.TURNS} messages, one core")  # fmt: skip
        rounds = in_turns(folder, running)
        check_counts(running["smsd"], rounds["smsd"])
    table(rounds)
    for name in peers:
        wrong = sum(abs(each.off) for each in rounds[name])
        if wrong:
            say(f"{name} miscounted: its numbers were off by {wrong}")
    verdict(rounds)


def in_turns(folder: Path, running: Servers) -> dict[str, list[Round]]:
    """A B C, A B C …: the rest of the machine's load disturbs all alike."""
    rounds: dict[str, list[Round]] = {name: [] for name in running}
    seed = 0
    for number in range(ROUNDS):
        for name, server in running.items():
            seed += 1
            counts = name != "bare handler"
            file = folder / "traffic"
            messages = SECONDS * FASTEST_PER_S // (1 if counts else 6)
            traffic.write(file, messages=messages, conversations=CONVERSATIONS, seed=seed)
            cookie = "-" if counts else traffic.cookie_like("smsd", 320)
            rounds[name].append(
                measure.play(
                    file,
                    port=server.port,
                    pid=server.pid,
                    seconds=SECONDS,
                    in_flight=IN_FLIGHT,
                    cookie=cookie,
                    counts=counts,
                )
            )
        say(
            f"round {number + 1}: "
            + ", ".join(f"{name} {of[-1].cpu_us:.0f}" for name, of in rounds.items())
        )
    return rounds


def check_counts(smsd: Any, rounds: list[Round]) -> None:
    """smsd counted each message once; those that wrk cut off at its end may be missing."""
    assert not any(each.off for each in rounds), (
        f"numbers were wrong: {[each.off for each in rounds]}"
    )
    sent = sum(each.sent for each in rounds)
    answered = sum(each.counted for each in rounds)
    counted = smsd.metric('smsd_messages_total{outcome="counted"}')
    valid = smsd.metric('smsd_cookies_total{state="valid"}')
    assert answered <= counted <= sent, f"{counted} counted, {answered} answered, {sent} sent"
    say(
        f"smsd counted {counted:,.0f} messages, each once; {answered:,} answers were read, "
        f"{valid / counted:.0%} of the messages came with a good cookie"
    )


def table(rounds: dict[str, list[Round]]) -> None:
    say("\nmedians                CPU/message  of it system  messages/s   p50 ms   p99 ms   memory")
    for name, of in rounds.items():
        say(
            f"{name:22} {middle(of, 'cpu_us'):8.0f} µs {middle(of, 'system_us'):10.0f} µs "
            f"{middle(of, 'per_s'):11,.0f} {middle(of, 'p50_ms'):8.1f} {middle(of, 'p99_ms'):8.1f} "
            f"{middle(of, 'rss_mb'):5.0f} MB"
        )
    say("CPU is that of the server's processes; memcached's and wrk's is not in it.")


def verdict(rounds: dict[str, list[Round]]) -> None:
    """The median of each round's ratio, because the rest of the machine's load changes
    from minute to minute."""
    say("\nCPU of the bare handler over that of …")
    for name, of in rounds.items():
        ratios = [
            bare.cpu_us / each.cpu_us for bare, each in zip(rounds["bare handler"], of, strict=True)
        ]
        say(f"  {name:20} {median(ratios):.2f}   ({min(ratios):.2f} to {max(ratios):.2f})")
    say(f"goal for smsd: {GOAL}, at least {LEAST}, and ahead of every peer")
    if "smsd 0.1.0" in rounds:
        pairs = zip(rounds["smsd"], rounds["smsd 0.1.0"], strict=True)
        ratios = [now.cpu_us / before.cpu_us for now, before in pairs]
        say(
            f"CPU of smsd over that of 0.1.0: {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        )


def middle(rounds: list[Round], name: str) -> float:
    return float(median(getattr(each, name) for each in rounds))


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
