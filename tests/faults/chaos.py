"""Faults at random under a seed, while conversations go on, and what must hold of them
all the same.

Two kinds of conversation:

- a *walker* sends a message when the one before is answered, with the cookie that Twilio holds. Some messages come to
  several replicas at once, some come again later. Its counts are exact whatever fails.
- a *crowd* sends messages at the same time, with any cookie or none. During an outage two of them may show the same
  number; afterwards the sum is exact, unless memcached lost records or a process died with its overlay.
"""

import asyncio
import contextlib
import os
import resource
import time
from collections.abc import AsyncIterator, Callable
from random import Random
from typing import TypeVar

from smsd.simulator import JAR, LOST, STALE, Cookies, Inbound
from tests.faults.history import Recorder, violations
from tests.faults.names import HANGS
from tests.faults.proxy import Fault
from tests.faults.world import World, number, wait_until_merged

_Thing = TypeVar("_Thing")

GOOD = ("127.0.0.1",)
"""What names resolve to when nothing is wrong."""

SLOW = {
    "SMSD_DIALOGUE": "tests.faults.dialogues:sometimes_slow",
    "SMSD_ANSWER_WITHIN": "1",
    "SMSD_DIALOGUE_TIMEOUT": "10",
}
"""Settings of the replicas: some dialogues take long, and Twilio is asked to come
again."""

KEEP_OLD = Cookies(keep=False)
LATE = 12
"""So many messages back a retry may come: the cookie alone knows at least the last 16."""

PACE_S = 0.24
"""Between two messages of a conversation. A replica that is cut off for longer than
sixteen messages is beyond what is promised, since the cookie carries no more ids: so
faults come in waves, and everything is merged between two of them.
"""


class Chaos:
    """One run over a world that lives on."""

    def __init__(self, world: World, seed: int, *, lossy: bool) -> None:
        self.world = world
        self.random = Random(seed)
        self.twilio = Recorder(world.replicas, seed=seed)
        self.told: list[str] = []
        """What was done, in order."""
        self._lossy = lossy
        self._over = asyncio.Event()
        self._busy: set[object] = set()

    async def run(self, seconds: float, *, walkers: int = 15, crowds: int = 4) -> list[str]:
        """Whatever went wrong."""
        walking = [number() for _ in range(walkers)]
        crowding = [] if self._lossy else [number() for _ in range(crowds)]
        async with self.twilio:
            talks = [asyncio.create_task(self._walk(from_)) for from_ in walking]
            talks += [asyncio.create_task(self._crowd(from_)) for from_ in crowding]
            faults = asyncio.create_task(self._disturb())
            await asyncio.wait([faults], timeout=seconds)
            self._over.set()
            await asyncio.gather(*talks)
            await faults
            await asyncio.to_thread(
                wait_until_merged, self.world
            )  # the last messages may have come after a wave
            return await self._judge(walking, crowding)

    async def _judge(self, walking: list[str], crowding: list[str]) -> list[str]:
        for from_ in walking:
            await self.twilio.text(from_)
        wrong = []
        for from_ in crowding:
            sent = len(
                {delivery.sid for delivery in self.twilio.history if delivery.conversation == from_}
            )
            last = await self.twilio.text(from_, cookies=LOST)
            if last.count != sent + 1:
                wrong.append(f"{from_}: after {sent} messages one more was number {last.count}")
        history = [
            delivery
            for delivery in self.twilio.history
            if delivery.status is not None or not self._lossy
        ]
        wrong += violations(delivery for delivery in history if delivery.conversation in walking)
        wrong += [
            f"{d.conversation}: {d.sid} was answered with {d.status}, {d.reply!r}"
            for d in history
            if d.status != 200 or d.count is None
        ]
        return wrong

    def report(self, wrong: list[str]) -> str:
        """What is wrong, what was done, and what became of the first conversation that
        is named."""
        conversation = wrong[0].partition(":")[0]
        lines = [
            f"{d.start_s:.3f} to {d.end_s:.3f} {d.sid} at {d.replica}: {d.count}"
            for d in self.twilio.history
            if d.conversation == conversation
        ]
        return "\n".join([*wrong, "what was done:", *sorted([*self.told, *lines])])

    # --- conversations

    async def _walk(self, from_: str) -> None:
        past: list[Inbound] = []
        while not self._over.is_set():
            message = self.twilio.compose(from_, self._body())
            copies = self.random.choice((1, 1, 1, 2, 3))
            await asyncio.gather(*(self._insist(message) for _ in range(copies)))
            past.append(message)
            if self.random.random() < 0.2:
                await self._insist(self.random.choice(past[-LATE:]), KEEP_OLD)
            await asyncio.sleep(PACE_S)

    def _body(self) -> str:
        """Most dialogues answer at once, some take a while."""
        slow_s = self.random.choice((0.005, 0.05, 0.3, 0.9))
        return f"take {slow_s}" if self.random.random() < 0.15 else "hi"

    async def _insist(self, message: Inbound, cookies: Cookies = JAR) -> None:
        """Deliver until it is answered; only in a lossy run a replica may be away."""
        while (await self.twilio.deliver(message, cookies=cookies)).status is None and self._lossy:
            await asyncio.sleep(0.05)

    async def _crowd(self, from_: str) -> None:
        while not self._over.is_set():
            messages = [self.twilio.compose(from_) for _ in range(self.random.randint(1, 3))]
            cookies = [self.random.choice((JAR, LOST, STALE, KEEP_OLD)) for _ in messages]
            await asyncio.gather(*map(self._insist, messages, cookies))
            await asyncio.sleep(PACE_S)

    # --- faults

    async def _disturb(self) -> None:
        kinds = [self._misbehave, self._misbehave, self._cut_off, self._hang, self._starve]
        if self.world.lookups:
            kinds += [self._fail_lookup]
        if self._lossy:
            kinds += [self._flush, self._restart_node, self._kill_replica, self._restart_replica]
        while not self._over.is_set():
            wave = self.random.choices(kinds, k=self.random.randint(1, 3))
            await asyncio.gather(*(fault() for fault in wave))
            await asyncio.to_thread(wait_until_merged, self.world)

    async def _misbehave(self) -> None:
        fault = self.random.choice([fault for fault in Fault if fault is not Fault.PASS])
        async with self._alone(self.world.proxies) as proxy:
            proxy.delay_s = self.random.choice((0.005, 0.05, 0.2, 0.3))
            await self._for_a_while(
                f"{fault.name} {proxy.delay_s} at {proxy.node}",
                lambda: proxy.set(fault),
                lambda: proxy.set(Fault.PASS),
            )

    async def _cut_off(self) -> None:
        """A partition of one replica from one node."""
        replica = self.random.choice(self.world.replicas)
        fault = self.random.choice((Fault.SILENT, Fault.CUT, Fault.HOLD_WRITES))
        async with self._alone(self.world.proxies) as proxy:
            await self._for_a_while(
                f"{fault.name} between {replica.address} and {proxy.node}",
                lambda: proxy.set(fault, only=replica),
                lambda: proxy.set(Fault.PASS),
            )

    async def _hang(self) -> None:
        async with self._alone(self.world.nodes) as node:
            await self._for_a_while(f"hang {node.node}", node.hang, node.resume)

    async def _fail_lookup(self) -> None:
        """The lookups of a node's name hang, are slow, or fail; its address stays the
        same."""
        names = self.world.lookups
        assert names
        addresses, after_s = self.random.choice(((GOOD, HANGS), (GOOD, 0.4), ((), 0.0)))
        async with self._alone(self.world.hosts) as host:
            await self._for_a_while(
                f"{host} resolves to {addresses} after {after_s} s",
                lambda: names.set(host, *addresses, after_s=after_s),
                lambda: names.set(host, *GOOD),
            )

    async def _starve(self) -> None:
        """A replica has no descriptor left: it can accept nothing, and connect to
        nothing."""
        async with self._alone(self.world.replicas) as replica:
            pid = replica.pid
            before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            is_open = len(os.listdir(f"/proc/{pid}/fd"))

            def limit_to(soft: int) -> None:
                resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, before[1]))

            await self._for_a_while(
                f"no descriptors for {replica.address}",
                lambda: limit_to(is_open),
                lambda: limit_to(before[0]),
            )

    async def _flush(self) -> None:
        async with self._alone(self.world.nodes) as node:
            await self._do(f"flush {node.node}", node.flush)

    async def _restart_node(self) -> None:
        async with self._alone(self.world.nodes) as node:
            await self._for_a_while(f"kill {node.node}", node.kill, node.start)

    async def _kill_replica(self) -> None:
        async with self._alone(self.world.replicas) as replica:
            await self._for_a_while(f"kill {replica.address}", replica.kill, replica.start)

    async def _restart_replica(self) -> None:
        async with self._alone(self.world.replicas) as replica:
            await self._do(f"end {replica.address}", replica.terminate)
            await self._do("start it again", replica.start)

    @contextlib.asynccontextmanager
    async def _alone(self, things: list[_Thing]) -> AsyncIterator[_Thing]:
        """One that no other fault is at, and at least one of its kind left alone."""
        while len(free := [thing for thing in things if thing not in self._busy]) < 2:
            await asyncio.sleep(0.05)
        thing = self.random.choice(free)
        self._busy.add(thing)
        try:
            yield thing
        finally:
            self._busy.discard(thing)

    async def _for_a_while(
        self, what: str, begin: Callable[[], object], end: Callable[[], object]
    ) -> None:
        await self._do(what, begin)
        try:
            async with asyncio.timeout(self.random.choice((0.05, 0.3, 0.8))):
                await self._over.wait()
        except TimeoutError:
            pass  # so long it lasted
        finally:
            await self._do(f"no more: {what}", end)

    async def _do(self, what: str, action: Callable[[], object]) -> None:
        self.told.append(f"{time.monotonic():.3f} {what}")
        await asyncio.to_thread(action)
