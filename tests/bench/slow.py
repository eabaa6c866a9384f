"""What slow dialogues cost: of 20 ms, of 1 s, and 1,000 that wait at once.
`tests/bench/run slow`.

The first table has a row for each dialogue. Below it, 1,000 conversations wait on one
process while quick messages of others arrive at half of its capacity: once because
their dialogues run there, once because an earlier message of each runs on another
replica. BENCH_WAITING is the number of conversations that wait.
"""

import asyncio
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median

from smsd.simulator import Client
from tests.bench import measure, servers, traffic
from tests.bench.__main__ import CONVERSATIONS, FASTEST_PER_S, IN_FLIGHT, ROUNDS, SECONDS, say
from tests.bench.measure import Round
from tests.processes import ACCOUNT, PUBLIC_URL, TOKEN, Memcached, Smsd, wait_for

WAITING = int(os.environ.get("BENCH_WAITING", "1000"))
ARRIVE_S = 6
"""The slow messages arrive over so long: their hops spread alike."""

IDLE_S = 8
"""So long nothing but waiting is measured."""

DIALOGUES = "tests.bench.dialogues:"
OPERATIONS = (b"cmd_get", b"cmd_set")
"""memcached's names for reads and writes; a compare-and-swap that fails is among the
writes."""


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="smsd-bench-") as folder:
        file = Path(folder) / "traffic"
        by_dialogue(file)
        capacity = capacity_of(file)
        beside_running(file, capacity)
        beside_waiting(file, capacity)


def settings(dialogue: str) -> dict[str, str]:
    return {"SMSD_DIALOGUE": DIALOGUES + dialogue, "SMSD_DIALOGUE_TIMEOUT": "200"}


def rounds(
    file: Path,
    smsd: Smsd,
    seed: int,
    *,
    count: int,
    seconds: int,
    in_flight: int,
    pause_ms: int = 0,
) -> list[Round]:
    made = []
    for number in range(count):
        traffic.write(
            file,
            messages=seconds
            * (FASTEST_PER_S if not pause_ms else 2 * in_flight * 1000 // pause_ms),
            conversations=CONVERSATIONS,
            seed=seed * 50 + number,
        )
        played = measure.play(
            file, port=smsd.port, pid=smsd.pid, seconds=seconds, in_flight=in_flight,
            pause_ms=pause_ms, may_shed=bool(pause_ms),
        )  # fmt: skip
        assert not played.off, f"numbers were off by {played.off}"
        made.append(played)
    return made


def middle(made: list[Round], name: str) -> float:
    return float(median(getattr(each, name) for each in made))


def by_dialogue(file: Path) -> None:
    say(
        "dialogues                  CPU/message  memcached ops   messages/s   p50 ms   p99 ms   memory"
    )
    for place, (dialogue, in_flight, seconds, count) in enumerate((
        ("at_once", IN_FLIGHT, SECONDS, ROUNDS),
        ("after_20_ms", IN_FLIGHT, SECONDS, ROUNDS),
        ("after_1_s", 256, 10, 3),
    )):  # fmt: skip
        with servers.memcached() as store:
            smsd = servers.smsd(store.node, env=settings(dialogue))
            before = operations(store)
            made = rounds(file, smsd, 10 + place, count=count, seconds=seconds, in_flight=in_flight)
            sent = sum(each.sent for each in made)
            each_message = (operations(store) - before) / sent
            say(
                f"{dialogue:25} {middle(made, 'cpu_us'):9.0f} µs {each_message:14.1f} "
                f"{middle(made, 'per_s'):12,.0f} {middle(made, 'p50_ms'):8.1f} "
                f"{middle(made, 'p99_ms'):8.1f} {middle(made, 'rss_mb'):5.0f} MB"
            )
            smsd.kill()


def capacity_of(file: Path) -> float:
    """Quick messages a second on one core."""
    with servers.memcached() as store:
        smsd = servers.smsd(store.node, env=settings("held_up"))
        made = rounds(file, smsd, 20, count=3, seconds=SECONDS, in_flight=IN_FLIGHT)
        smsd.kill()
    return middle(made, "per_s")


def beside_running(file: Path, capacity: float) -> None:
    """Their dialogues run in the process that is measured."""
    with servers.memcached() as store:
        smsd = servers.smsd(store.node, env=settings("held_up"))
        before_mb = measure.rss_mb(smsd.pid)
        with texting(smsd):
            wait_for(lambda: waiting(smsd) >= 0.99 * WAITING, "all dialogues run", within_s=60)
            report(f"{WAITING:,} dialogues run here", file, store, smsd, capacity, before_mb)
        smsd.kill()


def beside_waiting(file: Path, capacity: float) -> None:
    """They wait in the process that is measured, for dialogues that run on another
    replica."""
    with servers.memcached() as store:
        runner = servers.smsd(store.node, core=servers.LOAD_CORE, env=settings("held_up"))
        smsd = servers.smsd(store.node, env=settings("held_up"))
        before_mb = measure.rss_mb(smsd.pid)
        with texting(runner):
            wait_for(lambda: waiting(runner) >= 0.99 * WAITING, "all dialogues run", within_s=60)
            with texting(smsd):
                wait_for(lambda: waiting(smsd) >= 0.99 * WAITING, "all messages wait", within_s=60)
                name = f"{WAITING:,} messages wait here for another replica"
                report(name, file, store, smsd, capacity, before_mb, runner)
        smsd.kill()
        runner.kill()


def report(
    name: str,
    file: Path,
    store: Memcached,
    smsd: Smsd,
    capacity: float,
    before_mb: float,
    runner: Smsd | None = None,
) -> None:
    processes = {"this process": smsd, **({"the runner": runner} if runner else {})}
    before_s = {key: sum(measure.cpu_s(each.pid)) for key, each in processes.items()}
    before, begun_s = operations(store), time.monotonic()
    time.sleep(IDLE_S)
    took_s = time.monotonic() - begun_s
    per_s = (operations(store) - before) / took_s
    shares = [
        f"{(sum(measure.cpu_s(each.pid)) - before_s[key]) / took_s:.1%} of a core for {key}"
        for key, each in processes.items()
    ]
    memory_mb = measure.rss_mb(smsd.pid)
    say(
        f"{name}: {per_s:,.0f} operations of memcached a second, {', '.join(shares)}, "
        f"memory {before_mb:.0f} -> {memory_mb:.0f} MB"
    )
    made = rounds(
        file, smsd, 30 + len(processes), count=5, seconds=5, in_flight=64,
        pause_ms=round(64 / (capacity / 2) * 1000),
    )  # fmt: skip
    say(
        f"  quick messages beside them, {middle(made, 'per_s'):,.0f}/s (half load): "
        f"p50 {middle(made, 'p50_ms'):.1f} ms, p99 {middle(made, 'p99_ms'):.1f} ms (goal 10), "
        f"{sum(each.shed for each in made)} shed; at the end {waiting(smsd):,.0f} still wait"
    )


def waiting(smsd: Smsd) -> float:
    return smsd.metric("smsd_turns_waiting")


def operations(store: Memcached) -> int:
    """What memcached has done so far."""
    client = store.client()
    stats = client.stats()
    client.close()
    return sum(int(stats[name]) for name in OPERATIONS)


@contextmanager
def texting(smsd: Smsd) -> Iterator[None]:
    """WAITING people send a slow message each, and follow redirects until this ends."""
    over = asyncio.Event()
    loop = asyncio.new_event_loop()

    async def one(client: Client, place: int) -> None:
        await asyncio.sleep(ARRIVE_S * place / WAITING)
        to = traffic.number(799, place)
        message = client.compose("slow", from_=traffic.SENDER, to=to)
        while True:  # as Twilio retries if it is told to
            await client.deliver(message, connect_to=smsd.address)

    async def everybody() -> None:
        async with Client(f"{PUBLIC_URL}/sms", token=TOKEN, sid=ACCOUNT) as client:
            tasks = [asyncio.create_task(one(client, place)) for place in range(WAITING)]
            await over.wait()
            for task in tasks:
                task.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.gather(*tasks, return_exceptions=True)

    def run() -> None:
        with servers.on_core(servers.LOAD_CORE):
            loop.run_until_complete(everybody())

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()
        loop.close()


if __name__ == "__main__":
    main()
