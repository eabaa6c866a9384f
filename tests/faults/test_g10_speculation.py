"""G10, G12: a dialogue's work is done once, from its very first line, however it begins."""

import asyncio

import pytest

from tests.faults.turns import Texter, scene, turn_violations
from tests.faults.world import number

pytestmark = pytest.mark.asyncio

PATIENT = {"SMSD_STORE_TIMEOUT": "2"}


@pytest.mark.parametrize("first_act", ["child task", "thread", "shared pool"])
async def test_g10_work_before_the_first_wait_is_done_once(first_act: str) -> None:
    with scene(nodes=2, replicas=3, env=PATIENT, dialogue="first_waits") as made:
        texter, senders = Texter(made.replicas), [number() for _ in range(8)]
        texts = [
            texter.text(first_act, from_, made.replicas[place % 3])
            for place in range(6)
            for from_ in senders
        ]
        outcomes = await asyncio.gather(*texts)
        runs = made.notes.runs()
        assert {run.sid for run in runs} == {each.message.sid for each in outcomes}
        assert all(run.has_finished for run in runs)
        assert turn_violations(runs, outcomes) == []
        for from_ in senders:
            texted = [str(each.text) for each in outcomes if each.message.from_ == from_]
            assert sorted(texted) == [f"{count} times" for count in range(1, 7)]
        assert not any("await wasn't used" in replica.log() for replica in made.replicas)
