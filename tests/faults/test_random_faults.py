"""All promises at once, under faults at random. A failure prints its seed:
`FAULT_SEED=… pytest …` plays it again."""

import os
from random import SystemRandom

import pytest

from tests.faults.chaos import SLOW, Chaos
from tests.faults.soak import TURNS
from tests.faults.turn_chaos import TurnChaos
from tests.faults.turns import scene
from tests.faults.world import world

pytestmark = pytest.mark.asyncio

SECONDS = 8.0


@pytest.mark.parametrize(
    "lossy", [False, True], ids=["memcached keeps what it has", "memcached and replicas die"]
)
async def test_g1_to_g4_hold_under_random_faults(lossy: bool) -> None:
    seed = int(os.environ.get("FAULT_SEED") or SystemRandom().getrandbits(32))
    print(f"FAULT_SEED={seed}")
    with world(nodes=3, replicas=3, env=SLOW, proxied=True, named=True) as made:
        chaos = Chaos(made, seed, lossy=lossy)
        wrong = await chaos.run(SECONDS)
        assert not wrong, f"FAULT_SEED={seed}\n{chaos.report(wrong)}"
        assert len(chaos.twilio.history) > 100


async def test_g10_and_g11_hold_while_replicas_die_at_random() -> None:
    seed = int(os.environ.get("FAULT_SEED") or SystemRandom().getrandbits(32))
    print(f"FAULT_SEED={seed}")
    with scene(nodes=2, replicas=3, env=TURNS) as made:
        chaos = TurnChaos(made, seed)
        wrong = await chaos.run(SECONDS)
        assert not wrong, "\n".join([f"FAULT_SEED={seed}", *wrong, *chaos.told])
        assert chaos.deliveries > 30
