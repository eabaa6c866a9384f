"""Slow dialogues while replicas are killed, stopped and frozen at random, under a seed.

memcached stays up and keeps what it has, so G10 and G11 must hold to the letter: the
checker of `turns` is applied to everything that the dialogues noted. What outages of
memcached do to conversations is `chaos`' subject.
"""

import asyncio
import signal
import time
from random import Random

from smsd.simulator import LOST, Inbound
from tests.faults.turns import Scene, Texter, turn_violations
from tests.faults.world import number
from tests.processes import Smsd

TAKES_S = (0, 0, 0.001, 0.02, 0.2, 0.8, 2.5)
PAUSE_S = (1.6, 2.6)
"""Between two faults: longer than SMSD_ANSWER_WITHIN. Twilio has one fallback request for
each document, so two replicas that are killed in one wait leave a message unanswered."""

FROZEN_S = 5.5
"""Longer than a lease and the clocks' allowance."""


class TurnChaos:
    """One run over replicas that live on."""

    def __init__(self, scene: Scene, seed: int) -> None:
        self.scene = scene
        self.told: list[str] = []
        self._random = Random(seed)
        self._texter = Texter(scene.replicas, seed=seed)
        self._over = asyncio.Event()
        self._killed: set[int] = set()
        self._ended: set[int] = set()
        """Processes that were killed, frozen or told to stop: their dialogues may run
        again."""

    async def run(self, seconds: float, *, conversations: int = 8) -> list[str]:
        """Whatever went wrong."""
        senders = [number() for _ in range(conversations)]
        talks = [asyncio.create_task(self._talk(from_)) for from_ in senders]
        faults = asyncio.create_task(self._disturb())
        await asyncio.sleep(seconds)
        self._over.set()
        await faults
        await asyncio.gather(*talks)
        runs = [run for run in self.scene.notes.runs() if run.conversation in senders]
        again = {run.sid for run in runs if run.process in self._ended}
        wrong = turn_violations(
            runs, self._texter.outcomes, killed=self._killed, may_run_again=again
        )
        for from_ in senders:
            sent = {
                each.message.sid for each in self._texter.outcomes if each.message.from_ == from_
            }
            last = await self._texter.text("take 0", from_)
            if not str(last.text).startswith(f"{len(sent) + 1} times"):
                wrong.append(f"{from_}: after {len(sent)} messages the reply was {last.text}")
        return wrong

    @property
    def deliveries(self) -> int:
        return len(self._texter.outcomes)

    def close(self) -> None:
        self._texter.close()

    # --- conversations

    async def _talk(self, from_: str) -> None:
        """Texts alone or in a row; Twilio allows 30 replies in quick succession."""
        for _ in range(12):
            if self._over.is_set():
                return
            burst = [
                self._texter.compose(f"take {self._random.choice(TAKES_S)}", from_)
                for _ in range(self._random.choice((1, 1, 2)))
            ]
            await asyncio.gather(
                *(self._deliver(message, i * 0.05) for i, message in enumerate(burst))
            )
            await asyncio.sleep(self._random.uniform(0, 0.5))

    async def _deliver(self, message: Inbound, after_s: float) -> None:
        await asyncio.sleep(after_s)
        copies = self._random.choice((1, 1, 1, 2))
        await asyncio.gather(
            *(self._texter.deliver(message, cookies=LOST) for _ in range(copies - 1)),
            self._texter.deliver(message),
        )

    # --- faults

    async def _disturb(self) -> None:
        faults = (self._kill, self._stop, self._freeze)
        while not self._over.is_set():
            await asyncio.sleep(self._random.uniform(*PAUSE_S))
            replica = self._random.choice(self.scene.replicas)
            fault = self._random.choice(faults)
            self.told.append(
                f"{time.monotonic():.3f} {fault.__name__} {replica.port} {replica.pid}"
            )
            self._ended.add(replica.pid)
            self._texter.down.add(replica.port)
            await fault(replica)
            self._texter.down.discard(replica.port)

    async def _kill(self, replica: Smsd) -> None:
        self._killed.add(replica.pid)
        replica.kill()
        await asyncio.to_thread(replica.start)

    async def _stop(self, replica: Smsd) -> None:
        assert await asyncio.to_thread(replica.terminate) == 0
        await asyncio.to_thread(replica.start)

    async def _freeze(self, replica: Smsd) -> None:
        self._killed.add(replica.pid)
        replica.signal(signal.SIGSTOP)
        await asyncio.sleep(FROZEN_S)
        replica.signal(signal.SIGCONT)
