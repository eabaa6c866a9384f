"""What becomes of `session.data` on a repetition, a collision, an outage and a loss, on
real memcached.

Counts have tests of their own in tests/faults. Here it is what a dialogue keeps.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from smsd.simulator import LOST, BlockingClient, Client
from tests.processes import ACCOUNT, PUBLIC_URL, TOKEN, Memcached, Smsd, cluster, wait_for

pytestmark = pytest.mark.asyncio

DIALOGUE = """
LARGE = "x" * 500  # more than goes into the cookie

async def reply(message, session):
    data = session.data
    word, _, rest = message.body.partition(" ")
    if word == "keep":
        data.setdefault("kept", []).append(rest)
    if word == "large":
        data["large"] = LARGE
    if word == "fail":
        data.clear()
        raise ValueError
    if word == "bye":
        session.end()
    kept = " ".join(sorted(data.get("kept", [])))
    return f"{session.count} {kept or '-'} {'large' if 'large' in data else 'small'} {session.restored}"
"""


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str | None]:
    (tmp_path / "mine.py").write_text(DIALOGUE)
    return {"SMSD_DIALOGUE": "mine:reply", "PYTHONPATH": str(tmp_path), "SMSD_LOOP_LIMIT": "0"}


@contextmanager
def served(env: dict[str, str | None]) -> Iterator[tuple[Memcached, Smsd, BlockingClient]]:
    """One memcached, one smsd, one phone."""
    with cluster(1, 1, env) as ((node,), (smsd,)):
        yield node, smsd, phone(smsd)


def phone(smsd: Smsd) -> BlockingClient:
    return BlockingClient(f"{PUBLIC_URL}/sms", token=TOKEN, sid=ACCOUNT, connect_to=smsd.address)


def test_data_and_count_survive_a_restart_of_smsd(env: dict[str, str | None]) -> None:
    with served(env) as (_, smsd, rey):
        assert rey.text("keep a").text == "1 a small False"
        assert rey.text("large").text == "2 a large False"
        assert smsd.terminate() == 0
        smsd.start()
        again = BlockingClient(
            f"{PUBLIC_URL}/sms",
            token=TOKEN,
            sid=ACCOUNT,
            connect_to=smsd.address,
            twilio=rey.twilio,
        )
        assert again.text("keep b").text == "3 a b large False"


def test_repeated_message_changes_data_once(
    env: dict[str, str | None],
) -> None:
    with served(env) as (node, _, rey):
        first = rey.compose("keep a")
        assert rey.deliver(first).text == rey.deliver(first).text == "1 a small False"
        second = rey.compose("keep b")
        assert rey.deliver(second).text == "2 a b small False"
        node.flush()
        rey.deliver(second)
        assert rey.text("look").text == "3 a b small True"


async def test_simultaneous_messages_on_two_replicas_each_change_data_once(
    env: dict[str, str | None],
) -> None:
    """Until both have written one record at the same time, which a busy machine may
    prevent for a while."""
    words = [f"w{n:02}" for n in range(24)]
    with cluster(1, 2, {**env, "SMSD_STORE_TIMEOUT": "5"}) as (_, servers):
        addresses = [server.address for server in servers]
        async with Client(
            f"{PUBLIC_URL}/sms", token=TOKEN, sid=ACCOUNT, connect_to=addresses[0]
        ) as client:
            for sender in (f"+1415555{n:04}" for n in range(20)):
                await asyncio.gather(
                    *(
                        client.text(f"keep {word}", from_=sender, connect_to=addresses[n % 2])
                        for n, word in enumerate(words)
                    )
                )
                said = (await client.text("look", from_=sender)).text
                assert said == f"25 {' '.join(words)} small False"
                if any(server.metric("smsd_store_conflicts_total") for server in servers):
                    break
            else:
                pytest.fail("the replicas never wrote at the same time")


def test_data_goes_on_from_the_cookie_during_an_outage(
    env: dict[str, str | None],
) -> None:
    with served(env) as (node, smsd, rey):
        rey.text("keep a")
        node.kill()
        assert rey.text("keep b").text == "2 a b small True"
        assert rey.text("keep c").text == "3 a b c small False"
        node.start()
        wait_for(lambda: smsd.metric("smsd_store_pending") == 0, "the merge")
        assert rey.text("look", cookies=LOST).text == "4 a b c small False"


def test_large_data_returns_after_an_outage_unless_changed_meanwhile(
    env: dict[str, str | None],
) -> None:
    with served(env) as (node, smsd, rey):
        for changed, afterwards in (("look", "5 - large False"), ("keep b", "10 b small False")):
            rey.text("large")
            rey.text("look")
            node.hang()
            assert "small True" in str(rey.text("look").text)
            rey.text(changed)
            node.resume()
            wait_for(lambda: smsd.metric("smsd_store_pending") == 0, "the merge")
            assert rey.text("look").text == afterwards


def test_lost_record_keeps_small_data_and_loses_large(
    env: dict[str, str | None],
) -> None:
    with served(env) as (node, _, rey):
        rey.text("keep a")
        node.flush()
        assert rey.text("look").text == "2 a small True"
        assert rey.text("large").text == "3 a large False"
        node.flush()
        assert rey.text("look").text == "4 - small True"
        node.flush()
        assert rey.text("look", cookies=LOST).text == "1 - small False", "record and cookie lost"


def test_changes_of_a_failing_dialogue_are_dropped(env: dict[str, str | None]) -> None:
    with served(env) as (_, smsd, rey):
        rey.text("keep a")
        rey.text("fail")
        assert rey.text("look").text == "3 a small False"
        assert smsd.metric('smsd_messages_total{outcome="failed"}') == 1


def test_end_of_the_conversation_drops_data(env: dict[str, str | None]) -> None:
    with served(env) as (node, _, rey):
        rey.text("keep a")
        before = rey.text("bye").text
        assert before == "2 a small False"
        assert rey.text("look").text == "1 - small False"
        node.flush()
        assert rey.text("look").text == "2 - small True"


def test_cookie_as_the_store_carries_400_bytes_of_data(
    env: dict[str, str | None],
) -> None:
    with Smsd({**env, "SMSD_STORE": "cookie://", "SMSD_APOLOGY": "Sorry"}) as smsd:
        rey = phone(smsd)
        assert rey.text("keep a").text == "1 a small False"
        assert rey.text("large").text == "Sorry"
        assert rey.text("keep b").text == "3 a b small False"
