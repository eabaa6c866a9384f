"""G6: a cookie from another conversation, forged, expired, truncated or garbage neither
harms nor joins conversations.
"""

import asyncio
import time
from collections.abc import Callable, Iterator

import pytest
from tornado.web import create_signed_value

from smsd.conversation.copy import pack
from smsd.conversation.identity import conversation_id, hashing_key
from smsd.conversation.record import Entry, Lineage, Record
from smsd.simulator import Cookies
from smsd.web.cookies import NAME
from tests.faults.history import TO, Recorder
from tests.faults.world import World, number, world
from tests.processes import ACCOUNT, SETTINGS

HASH_KEY = hashing_key(SETTINGS["SMSD_HASH_KEY"].encode())
GOOD_KEY = SETTINGS["SMSD_COOKIE_KEYS"].removeprefix("1:").encode()


@pytest.fixture(scope="module")
def two() -> Iterator[World]:
    with world(nodes=1, replicas=2) as made:
        yield made


def made(from_: str, *, key: bytes = GOOD_KEY, version: int = 1, age_s: float = 0) -> str:
    """A cookie that claims nine hundred messages."""
    now_ms = int((time.time() - age_s) * 1000)
    lineage = Lineage(now_ms << 22, 900, (), (Entry(b"digest"),))
    payload = pack(
        Record(now_ms, lineages=(lineage,)), conversation_id(HASH_KEY, ACCOUNT, TO, from_)
    )
    value = create_signed_value(key, NAME, payload, version=2, key_version=version)
    return f"{NAME}={value.decode()}"


BAD: dict[str, tuple[str, Callable[[str, str], str]]] = {
    "another conversation's": ("foreign", lambda own, other: made("+14155559999")),
    "another conversation's, received": ("foreign", lambda own, other: other),
    "signed with another key": ("forged", lambda own, other: made("", key=b"x" * 40)),
    "signed with an unknown version": ("forged", lambda own, other: made("", version=7)),
    "truncated": ("forged", lambda own, other: own[:-20]),
    "cut in the payload": ("forged", lambda own, other: own[: len(own) // 2]),
    "one character changed": (
        "forged",
        lambda own, other: own[:60] + ("A" if own[60] != "A" else "B") + own[61:],
    ),
    "two halves of two": (
        "forged",
        lambda own, other: own[: len(own) // 2] + other[len(other) // 2 :],
    ),
    "empty": ("forged", lambda own, other: "smsd="),
    "garbage": ("forged", lambda own, other: "smsd=|;=\"'<>%00"),
    "of version 1": ("forged", lambda own, other: "smsd=YWJj|1300000000|" + "0" * 40),
    "very long": ("forged", lambda own, other: "smsd=" + "2|1:1" * 4000),
    "not UTF-8": ("forged", lambda own, other: "smsd=\xff\xfe"),
}


def cookies_seen(made: World, state: str) -> float:
    return sum(
        replica.metric(f'smsd_cookies_total{{state="{state}"}}') for replica in made.replicas
    )


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("record_lost", [False, True])
def test_g6_a_bad_cookie_neither_harms_nor_joins(two: World, kind: str, record_lost: bool) -> None:
    """The conversation goes on as without a cookie, and the others as before."""
    state, bad = BAD[kind]

    async def attack() -> None:
        async with Recorder(two.replicas) as twilio:
            from_, other = number(), number()
            for _ in range(3):
                await twilio.text(from_)
            for _ in range(10):
                await twilio.text(other)
            jar = twilio.client.twilio.jar
            own_cookie = jar.header((ACCOUNT, TO, from_)) or ""
            cookie = bad(own_cookie, jar.header((ACCOUNT, TO, other)) or "")
            if record_lost:
                two.nodes[0].flush()
            answered = await twilio.text(from_, cookies=Cookies(send=cookie, keep=False))
            assert answered.count == (1 if record_lost else 4)
            assert (await twilio.text(from_)).count == 5
            assert (await twilio.text(other)).count == 11

    before = cookies_seen(two, state)
    asyncio.run(attack())
    assert cookies_seen(two, state) == before + 1


def test_g6_an_expired_cookie_brings_nothing_back(two: World) -> None:
    async def attack() -> None:
        async with Recorder(two.replicas) as twilio:
            from_ = number()
            cookies = Cookies(send=made(from_, age_s=14_401))
            assert (await twilio.text(from_, cookies=cookies)).count == 1
            assert (await twilio.text(from_)).count == 2
            fresh = number()
            assert (
                await twilio.text(fresh, cookies=Cookies(send=made(fresh, age_s=14_000)))
            ).count == 901

    before = cookies_seen(two, "expired")
    asyncio.run(attack())
    assert cookies_seen(two, "expired") == before + 1


def test_g6_swapped_cookies_join_no_conversations(two: World) -> None:
    """Two people's cookies are exchanged at every message, and memcached forgets now
    and then."""

    async def swap() -> None:
        async with Recorder(two.replicas) as twilio:
            pair = [number(), number()]
            held: list[str | None] = [None, None]
            jar = twilio.client.twilio.jar
            for turn in range(20):
                for i in (0, 1):
                    wrong = held[1 - i]
                    cookies = Cookies(send=wrong, omit=wrong is None)
                    assert (await twilio.text(pair[i], cookies=cookies)).count == turn + 1
                    held[i] = jar.header((ACCOUNT, TO, pair[i]))
            assert twilio.violations() == []

    asyncio.run(swap())
