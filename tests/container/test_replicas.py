"""Two replicas and memcached in a network of their own: they share every conversation."""

import asyncio
from collections.abc import Iterator

import pytest

from smsd.simulator import LOST, Client, Outcome

from .podman import (
    HARDENED,
    PUBLIC_URL,
    SETTINGS,
    SID,
    TOKEN,
    Container,
    container,
    get,
    podman,
    wait_until,
)

NODES = "memcached-0.memcached:11211"


@pytest.fixture(scope="module")
def network() -> Iterator[str]:
    name = podman("network", "create", "replicas")
    yield name
    podman("network", "rm", "--force", name)


@pytest.fixture(scope="module")
def memcached(network: str, memcached_image: str) -> Iterator[Container]:
    """memcached, under the name that it has in the cluster."""
    options = (
        "--network",
        network,
        "--network-alias",
        "memcached-0.memcached",
        "--read-only",
        "--cap-drop",
        "ALL",
    )
    with container(memcached_image, "memcached", "--memory-limit=64", options=options) as started:
        yield started


@pytest.fixture(scope="module")
def replicas(
    network: str, memcached: Container, image: str
) -> Iterator[tuple[Container, Container]]:
    environ = {**SETTINGS, "SMSD_STORE": f"memcached://{NODES}", "SMSD_LOOP_LIMIT": "0"}
    options = ("--network", network, *HARDENED)
    with (
        container(image, options=options, environ=environ) as one,
        container(image, options=options, environ=environ) as other,
    ):
        wait_until(lambda: one.is_ready() and other.is_ready(), "both replicas are ready")
        yield one, other


def phone(from_: str) -> Client:
    return Client(f"{PUBLIC_URL}/sms", token=TOKEN, sid=SID, from_=from_)


def counts(outcomes: list[Outcome]) -> list[int]:
    """The numbers in the replies."""
    texts = [outcome.text or "" for outcome in outcomes]
    return [int(text.split()[-2]) for text in texts]


def test_replicas_count_one_conversation_together(replicas: tuple[Container, Container]) -> None:
    async def go() -> list[Outcome]:
        async with phone("+15550000001") as client:
            return [
                await client.text("hi", cookies=LOST, connect_to=replicas[i % 2].address)
                for i in range(6)
            ]

    assert counts(asyncio.run(go())) == [1, 2, 3, 4, 5, 6]


def test_a_message_delivered_to_both_at_once_counts_once(
    replicas: tuple[Container, Container],
) -> None:
    async def go() -> tuple[list[Outcome], Outcome]:
        async with phone("+15550000002") as client:
            message = client.compose("hi")
            both = await client.everywhere(message, [r.address for r in replicas] * 3)
            return both, await client.text("next", connect_to=replicas[1].address)

    both, after = asyncio.run(go())
    assert len({outcome.text for outcome in both}) == 1
    assert counts([*both, after]) == [1] * 6 + [2]


def test_outage_of_memcached_loses_no_count(
    replicas: tuple[Container, Container], memcached: Container
) -> None:
    async def several(client: Client) -> list[Outcome]:
        return [await client.text("hi", connect_to=replicas[0].address) for _ in range(2)]

    async def go() -> tuple[list[Outcome], list[Outcome]]:
        async with phone("+15550000003") as client:
            before = await several(client)
            podman("pause", memcached.name)
            try:
                meanwhile = await several(client)
            finally:
                podman("unpause", memcached.name)
            wait_until(lambda: _pending(replicas[0]) == 0, "everything is merged")
            return before + meanwhile, await several(client)

    before, after = asyncio.run(go())
    assert counts(before + after) == [1, 2, 3, 4, 5, 6]


def _pending(replica: Container) -> float:
    (line,) = [
        x
        for x in get(f"{replica.admin}/metrics").splitlines()
        if x.startswith("smsd_store_pending ")
    ]
    return float(line.split()[1])
