"""Faults at random for a long time: `make soak`. SOAK_SECONDS (600) and SOAK_SEED are
settings.

Not part of the tests: its name is not that of a test file.
"""

import os
import time
from itertools import cycle
from random import Random, SystemRandom

import pytest

from tests.faults.chaos import SLOW, Chaos
from tests.faults.turn_chaos import TurnChaos
from tests.faults.turns import scene
from tests.faults.world import world

pytestmark = pytest.mark.asyncio

ROUND_S = 20.0
TURNS = {"SMSD_STORE_TIMEOUT": "2", "SMSD_LOOP_LIMIT": "0", "SMSD_ANSWER_WITHIN": "1"}


async def test_no_violation_in_a_long_time() -> None:
    """Rounds of twenty seconds of three kinds, each with a seed of its own, drawn from
    SOAK_SEED: memcached keeps what it has; memcached and replicas die; slow dialogues
    whose replicas are killed, stopped and frozen.
    """
    seconds = float(os.environ.get("SOAK_SECONDS") or 600)
    seed = int(os.environ.get("SOAK_SEED") or SystemRandom().getrandbits(32))
    print(f"\nSOAK_SEED={seed}, {seconds:.0f} s")
    random, ends_s, deliveries, faults = Random(seed), time.monotonic() + seconds, 0, 0
    with (
        world(nodes=3, replicas=3, env=SLOW, proxied=True, named=True) as made,
        scene(nodes=2, replicas=3, env=TURNS) as slow,
    ):
        for kind in cycle(("outages", "losses", "turns")):
            left_s = ends_s - time.monotonic()
            if left_s <= 0:
                break
            round_seed = random.getrandbits(32)
            if kind == "turns":
                turns = TurnChaos(slow, round_seed)
                wrong = await turns.run(min(ROUND_S, left_s))
                report = "\n".join([*wrong, *turns.told])
                deliveries, faults = deliveries + turns.deliveries, faults + len(turns.told)
            else:
                chaos = Chaos(made, round_seed, lossy=kind == "losses")
                wrong = await chaos.run(min(ROUND_S, left_s))
                report = chaos.report(wrong) if wrong else ""
                deliveries, faults = (
                    deliveries + len(chaos.twilio.history),
                    faults + len(chaos.told),
                )
            assert not wrong, f"FAULT_SEED={round_seed} {kind}\n{report}"
            left_s = max(0, ends_s - time.monotonic())
            print(f"{left_s:4.0f} s left: {deliveries} deliveries, {faults} faults, none wrong")
