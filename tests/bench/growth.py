"""How the cost grows with conversations, messages in flight, distance to memcached and
processes, at half load and beyond capacity. `tests/bench/run growth`.

Every line is the median of BENCH_ROUNDS rounds of BENCH_SECONDS. BENCH_CONVERSATIONS is
the largest number of conversations, 1,000,000; the machine needs about a kilobyte for
each.
"""

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from statistics import median

from smsd.conversation import counting
from smsd.conversation.identity import conversation_id, hashing_key, storage_key
from smsd.conversation.record import encode
from tests.bench import measure, servers, traffic
from tests.bench.__main__ import CONVERSATIONS, FASTEST_PER_S, IN_FLIGHT, ROUNDS, SECONDS, say
from tests.bench.measure import Round
from tests.processes import ACCOUNT, SETTINGS, Memcached, Smsd, free_port, wait_for

MOST = int(os.environ.get("BENCH_CONVERSATIONS", "1000000"))
OVERLOAD_S, OVERLOAD_ROUNDS = 10, 3
"""Longer: thousands of connections take a second or two to be made."""

LIVE_TURNS = 5
"""Messages that each conversation of `filled` has had."""


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="smsd-bench-") as folder:
        file = Path(folder) / "traffic"
        say(
            f"smsd alone; CPU for a message and answer time, medians of {ROUNDS} rounds of {SECONDS} s"
        )
        by_conversations(file)
        by_flight(file)
        by_distance(file)
        by_processes(Path(folder))
        capacity = half_load(file)
        overload(file, capacity)


def rounds(file: Path, smsd: Smsd, seed: int, **settings: int | bool) -> list[Round]:
    """Rounds of fresh conversations."""
    made = []
    for number in range(ROUNDS):
        messages = SECONDS * FASTEST_PER_S
        traffic.write(file, messages=messages, conversations=CONVERSATIONS, seed=seed * 20 + number)
        given = {"in_flight": IN_FLIGHT, **settings}
        made.append(measure.play(file, port=smsd.port, pid=smsd.pid, seconds=SECONDS, **given))  # type: ignore[arg-type]
        assert not made[-1].off or not given.get("counts", True), (
            f"numbers were off by {made[-1].off}"
        )
    return made


@contextmanager
def fresh(memory_mb: int = 1024) -> Iterator[tuple[Memcached, Smsd]]:
    with servers.memcached(memory_mb) as store:
        smsd = servers.smsd(store.node)
        try:
            yield store, smsd
        finally:
            smsd.kill()


def show(name: str, made: list[Round], more: str = "") -> None:
    def middle(of: Callable[[Round], float]) -> float:
        return median(map(of, made))

    say(
        f"  {name:26} {middle(lambda r: r.cpu_us):5.0f} µs  {middle(lambda r: r.per_s):6,.0f}/s  "
        f"p50 {middle(lambda r: r.p50_ms):6.1f} ms  p99 {middle(lambda r: r.p99_ms):6.1f} ms{more}"
    )


def by_conversations(file: Path) -> None:
    say("live conversations")
    for live in (1_000, 100_000, MOST):
        with fresh(memory_mb=4096) as (store, smsd):
            filled(store, live)
            items, used = held(store)
            made = []
            for number in range(ROUNDS):
                traffic.write_among(file, messages=SECONDS * FASTEST_PER_S, live=live, seed=number)
                made.append(
                    measure.play(
                        file,
                        port=smsd.port,
                        pid=smsd.pid,
                        seconds=SECONDS,
                        in_flight=IN_FLIGHT,
                        counts=False,
                    )
                )
            begun = smsd.metric("smsd_conversations_started_total")
            assert begun == 0, f"{begun} conversations were not found in memcached"
            scaled = (
                "" if live < MOST or MOST >= 1_000_000 else " (scaled down by BENCH_CONVERSATIONS)"
            )
            show(f"{live:,}", made, f"  {used / items:,.0f} bytes in memcached for each{scaled}")


def filled(store: Memcached, live: int) -> None:
    """So many conversations of LIVE_TURNS messages each, put straight into memcached."""
    key = hashing_key(SETTINGS["SMSD_HASH_KEY"].encode())
    now_ms = time.time_ns() // 1_000_000
    record = None
    for turn in range(LIVE_TURNS):
        begun = counting.opened(
            record, (), now_ms=now_ms, ttl_ms=14_400_000, random_bits=Random(1).getrandbits(32)
        )
        answer = b"<Message>Rey has messaged +12000000000 %d times</Message>" % turn
        record = counting.added(begun.record, b"digest", answer, now_ms=now_ms, data=b"")
    assert record
    packed = encode(record)
    client = store.client()
    for start in range(0, live, 1000):
        names = (traffic.number(0, place) for place in range(start, min(live, start + 1000)))
        ids = (conversation_id(key, ACCOUNT, to, traffic.SENDER) for to in names)
        assert not client.set_many(
            {storage_key(each): packed for each in ids}, expire=14402, noreply=False
        )
    client.close()


def held(store: Memcached) -> tuple[int, int]:
    """Items in memcached, and the bytes they take with all that memcached needs for
    them."""
    client = store.client()
    stats = client.stats()
    client.close()
    return stats[b"curr_items"], stats[b"bytes"]


def by_flight(file: Path) -> None:
    say("messages in flight")
    for in_flight in (1, 8, 64):
        with fresh() as (_, smsd):
            show(str(in_flight), rounds(file, smsd, in_flight, in_flight=in_flight))


def by_distance(file: Path) -> None:
    say("added to memcached's round trip")
    for delay_ms in (0.0, 0.5, 2.0):
        with servers.memcached() as store, delayed(store.port, delay_ms) as node:
            smsd = servers.smsd(node)
            show(f"{delay_ms} ms", rounds(file, smsd, int(delay_ms * 10) + 100))
            smsd.kill()


@contextmanager
def delayed(port: int, delay_ms: float) -> Iterator[str]:
    """The node's name behind a proxy that brings its answers so much later."""
    proxy_port = free_port()
    with servers.on_core(servers.LOAD_CORE):
        command = [
            sys.executable,
            "-m",
            "tests.bench.delay",
            str(port),
            str(delay_ms),
            str(proxy_port),
        ]
        proxy = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        probe = Memcached()
        probe.port = proxy_port
        wait_for(probe.answers, "the delaying proxy")
        yield f"127.0.0.1:{proxy_port}"
    finally:
        proxy.kill()
        proxy.wait()


def by_processes(folder: Path) -> None:
    say("processes on one memcached, each with a load of its own; CPU for a message of any")
    for count in (1, 2):
        with servers.memcached() as store:
            running = [
                servers.smsd(store.node, core=core)
                for core in (servers.SERVER_CORE, servers.LOAD_CORE)[:count]
            ]
            made: list[list[Round]] = [[] for _ in running]

            def play(
                place: int, running: list[Smsd] = running, made: list[list[Round]] = made
            ) -> None:
                made[place] = rounds(folder / str(place), running[place], 200 + place)

            threads = [threading.Thread(target=play, args=(place,)) for place in range(count)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            for smsd in running:
                smsd.kill()
            together = sum(median(each.per_s for each in of) for of in made)
            show(str(count), [each for of in made for each in of], f"  together {together:,.0f}/s")


def half_load(file: Path) -> float:
    """The capacity that it is half of."""
    with fresh() as (_, smsd):
        capacity = median(each.per_s for each in rounds(file, smsd, 300))
        say(
            f"half load: {capacity / 2:,.0f} of {capacity:,.0f} messages/s, at random moments, from 64 connections"
        )
        made = rounds(file, smsd, 301, in_flight=64, pause_ms=round(64 / (capacity / 2) * 1000))
        p999 = median(each.p999_ms for each in made)
        show("", made, f"  p99.9 {p999:.1f} ms  (goal 10 and 30 on a quiet machine)")
    return capacity


def overload(file: Path, capacity: float) -> None:
    pause_ms = 1000
    in_flight = min(8000, round(2 * capacity * pause_ms / 1000))
    say(f"overload: {in_flight:,} senders, each a message a second, twice the capacity")
    with fresh() as (_, smsd):
        before_mb = measure.rss_mb(smsd.pid)
        made = []
        for number in range(OVERLOAD_ROUNDS):
            traffic.write(
                file,
                messages=OVERLOAD_S * FASTEST_PER_S,
                conversations=CONVERSATIONS,
                seed=8000 + number,
            )
            made.append(
                measure.play(
                    file,
                    port=smsd.port,
                    pid=smsd.pid,
                    seconds=OVERLOAD_S,
                    in_flight=in_flight,
                    pause_ms=pause_ms,
                    may_shed=True,
                    counts=False,
                )
            )
        answered = median(each.counted / OVERLOAD_S for each in made)
        shed = median(each.shed / OVERLOAD_S for each in made)
        slowest = max(each.most_ms for each in made) / 1000
        degraded = smsd.metric('smsd_messages_total{outcome="degraded"}')
        show(
            "",
            made,
            f"  {answered:,.0f}/s answered, {shed:,.0f}/s shed with 503, the slowest of all {slowest:.1f} s",
        )
        say(
            f"  memory {before_mb:.0f} -> {made[-1].rss_mb:.0f} MB, {degraded:.0f} messages counted on the overlay"
        )


if __name__ == "__main__":
    main()
