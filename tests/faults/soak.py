"""Faults at random for a long time: `make soak`. SOAK_SECONDS (600) and SOAK_SEED are settings.

Not part of the tests: its name is not that of a test file.
"""

import asyncio
import os
import time
from random import Random, SystemRandom

from tests.faults.chaos import Chaos
from tests.faults.world import world

ROUND_S = 20.0


def test_no_violation_in_a_long_time() -> None:
    """Rounds of twenty seconds, every other one with losses; each has a seed of its own, drawn from SOAK_SEED."""
    seconds = float(os.environ.get("SOAK_SECONDS") or 600)
    seed = int(os.environ.get("SOAK_SEED") or SystemRandom().getrandbits(32))
    print(f"\nSOAK_SEED={seed}, {seconds:.0f} s")
    random, ends_s, messages, faults = Random(seed), time.monotonic() + seconds, 0, 0
    with world(nodes=3, replicas=3, proxied=True, named=True) as made:
        lossy = False
        while (left_s := ends_s - time.monotonic()) > 0:
            round_seed = random.getrandbits(32)
            chaos = Chaos(made, round_seed, lossy=lossy)
            wrong = asyncio.run(chaos.run(min(ROUND_S, left_s)))
            assert not wrong, f"FAULT_SEED={round_seed} lossy={lossy}\n{chaos.report(wrong)}"
            messages += len(chaos.twilio.history)
            faults += len(chaos.told)
            print(
                f"{max(0, ends_s - time.monotonic()):4.0f} s left: {messages} deliveries, {faults} faults, none wrong"
            )
            lossy = not lossy
