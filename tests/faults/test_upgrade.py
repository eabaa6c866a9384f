"""Upgrades: replicas of 0.1.0 and of this version serve the same conversations. No
count is lost.

The old version is the source of a commit, read from Git and run as processes of its
own. What is not promised while both versions run: the order of the dialogues, and
`data` that both write at once.
"""

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from smsd.simulator import LOST
from smsd.version import VERSION
from tests.faults.balancer import Balancer
from tests.faults.history import Delivery, Recorder
from tests.faults.world import PATIENT, number, store_of
from tests.processes import Memcached, Smsd, package_at, wait_for

pytestmark = pytest.mark.asyncio

CHECKOUT = Path(__file__).parents[2]
OLD_COMMIT = "ad364f7dd795803b1fe4875980b21e716107f6b8"
"""The last commit of version 0.1.0."""

TALKERS = 30
PAUSE_S = 0.4
"""Between two messages of a talker."""

DIALOGUE = """
import asyncio

async def reply(message, session):
    if message.body == "slow":
        await asyncio.sleep(1.5)
    return f"{session.count} times"
"""


@dataclass
class Mixed:
    """Replicas of both versions over one memcached node."""

    node: Memcached
    replicas: list[Smsd]

    @property
    def old(self) -> Smsd:
        return self.replicas[0]

    @property
    def new(self) -> Smsd:
        return self.replicas[-1]


@pytest.fixture(scope="module")
def old_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The old version's package, without this one's."""
    found = package_at(OLD_COMMIT, tmp_path_factory.mktemp("old"))
    if found is None:
        pytest.skip(
            f"this clone lacks commit {OLD_COMMIT}: fetch the whole history to test upgrades"
        )
    return found


@contextmanager
def replicas_of(*sources: Path, **env: str | None) -> Iterator[Mixed]:
    """One replica for each source."""
    with ExitStack() as stack:
        node = stack.enter_context(Memcached())
        settings = {**store_of([node.node]), **PATIENT, **env}
        made = Mixed(node, [Smsd(settings) for _ in sources])
        for replica, source in zip(made.replicas, sources, strict=True):
            replica.run_package_in(source)
            stack.enter_context(replica)
        yield made


@pytest.fixture(scope="module")
def mixed(old_source: Path) -> Iterator[Mixed]:
    """An old replica and a new one."""
    with replicas_of(old_source, CHECKOUT) as made:
        yield made


def test_upgrade_replicas_report_their_versions(mixed: Mixed) -> None:
    assert mixed.old.metric('smsd_build_info{version="0.1.0"}') == 1
    assert mixed.new.metric(f'smsd_build_info{{version="{VERSION}"}}') == 1


@pytest.mark.parametrize("direction", ["upgrade", "rollback"])
async def test_upgrade_rolling_under_traffic_loses_no_count(
    old_source: Path, direction: str
) -> None:
    """Three replicas are replaced one at a time while TALKERS people text."""
    before, after = old_source, CHECKOUT
    if direction == "rollback":
        before, after = after, before
    with replicas_of(before, before, before, SMSD_DRAIN_DELAY="1") as made:
        async with (
            Balancer(made.replicas, kept=True) as balancer,
            Recorder(made.replicas) as twilio,
        ):
            twilio.client.perform = lambda request, **_: balancer.perform(request)  # type: ignore[method-assign]
            over = asyncio.Event()
            talking = asyncio.create_task(_talk(twilio, over))
            for replica in made.replicas:
                assert await asyncio.to_thread(replica.terminate) == 0
                replica.run_package_in(after)
                await asyncio.to_thread(replica.start)
                while not balancer.is_ready(replica):
                    await asyncio.sleep(0.02)
            over.set()
            await talking
            assert len(twilio.history) > 3 * TALKERS
            for from_ in {delivery.conversation for delivery in twilio.history}:
                await twilio.text(from_, cookies=LOST)
            assert twilio.violations() == []


async def _talk(twilio: Recorder, over: asyncio.Event) -> None:
    async def one(from_: str, begin_s: float) -> None:
        await asyncio.sleep(begin_s)
        while not over.is_set():
            next_s = time.monotonic() + PAUSE_S
            await twilio.text(from_)
            await asyncio.sleep(max(0, next_s - time.monotonic()))

    begins = [PAUSE_S * place / TALKERS for place in range(TALKERS)]
    await asyncio.gather(*(one(number(), begin_s) for begin_s in begins))


async def test_upgrade_message_sent_to_both_versions_counts_once(mixed: Mixed) -> None:
    async with Recorder(mixed.replicas) as twilio:
        for _ in range(20):
            from_ = number()
            for _ in range(3):
                message = twilio.compose(from_)
                both = [twilio.deliver(message, each) for each in mixed.replicas]
                await asyncio.gather(*both)
        assert twilio.violations() == []


async def test_upgrade_simultaneous_messages_get_different_numbers(mixed: Mixed) -> None:
    async with Recorder(mixed.replicas) as twilio:
        for _ in range(5):
            from_ = number()
            at_once = [twilio.text(from_, each, cookies=LOST) for each in mixed.replicas * 4]
            await asyncio.gather(*at_once)
        assert twilio.violations() == []


async def test_upgrade_each_version_reads_the_others_cookie(mixed: Mixed) -> None:
    async with Recorder(mixed.replicas) as twilio:
        from_ = number()
        texted: list[Delivery] = []
        for replica in (mixed.old, mixed.new, mixed.old, mixed.new):
            texted += [await twilio.text(from_, replica) for _ in range(3)]
            mixed.node.flush()
        assert [delivery.count for delivery in texted] == list(range(1, 13))


async def test_upgrade_old_replica_counts_beside_a_running_dialogue(
    old_source: Path, tmp_path: Path
) -> None:
    """The record then holds a turn, which the old version does not know."""
    (tmp_path / "upgraded.py").write_text(DIALOGUE)
    env = {"PYTHONPATH": str(tmp_path), "SMSD_DIALOGUE": "upgraded:reply"}
    with replicas_of(old_source, CHECKOUT, **env) as made:
        async with Recorder(made.replicas) as twilio:
            from_ = number()
            slow = twilio.client.compose("slow", from_=from_)
            running = asyncio.create_task(twilio.deliver(slow, made.new))
            key = await asyncio.to_thread(_only_key, made.node)
            second = await twilio.text(from_, made.old, cookies=LOST)
            assert not running.done()
            first = await running
            third = await twilio.text(from_, made.new, cookies=LOST)
            assert await asyncio.to_thread(_keys, made.node) == [key]
            assert [first.count, second.count, third.count] == [1, 2, 3]


@pytest.mark.parametrize("place", [0, -1], ids=["old replica", "new replica"])
async def test_upgrade_restores_a_record_of_a_later_format_from_the_cookie(
    old_source: Path, place: int
) -> None:
    """So a later version may change the format byte, and be rolled back."""
    with replicas_of(old_source, CHECKOUT) as made:
        async with Recorder(made.replicas) as twilio:
            from_ = number()
            replica = made.replicas[place]
            texted = [await twilio.text(from_, replica) for _ in range(3)]
            client = made.node.client()
            client.set(_only_key(made.node), b"\x02 a later format", expire=600)
            client.close()
            texted.append(await twilio.text(from_, replica))
            texted.append(await twilio.text(from_, replica, cookies=LOST))
            assert [delivery.count for delivery in texted] == [1, 2, 3, 4, 5]


def _only_key(node: Memcached) -> str:
    wait_for(lambda: _keys(node), "a record is written")
    (key,) = _keys(node)
    return key


def _keys(node: Memcached) -> list[str]:
    """The keys of everything that memcached holds."""
    client = node.client()
    listing = client.raw_command("lru_crawler metadump all", "END\r\n").decode()
    client.close()
    return [line.split()[0].removeprefix("key=") for line in listing.splitlines() if "key=" in line]
