"""The service end to end: real processes, real memcached, the offline Twilio as the
client."""

import asyncio
import random
import re

import pytest

from smsd.simulator import BlockingClient, Client
from tests.processes import ACCOUNT, PUBLIC_URL, TOKEN, Memcached, Smsd, cluster

pytestmark = pytest.mark.asyncio

TO = "+14158141829"
REY = "+14158675309"


def test_a_conversation_over_http_with_its_state_in_memcached() -> None:
    with Memcached() as node, Smsd({"SMSD_STORE": f"memcached://{node.node}"}) as smsd:
        phone = BlockingClient(
            f"{PUBLIC_URL}/sms", token=TOKEN, sid=ACCOUNT, connect_to=smsd.address
        )
        assert (
            phone.text("hi", from_=REY, to=TO).text
            == f"Thanks for the new message! Rey has messaged {TO} 1 times"
        )
        assert phone.text("hi", from_=REY, to=TO).text == f"Rey has messaged {TO} 2 times"
        assert phone.text("hi", from_="+15005550006", to=TO).text == (
            f"Thanks for the new message! Friend has messaged {TO} 1 times"
        )
        assert smsd.metric('smsd_messages_total{outcome="counted"}') == 3
        assert smsd.terminate() == 0


async def test_four_processes_over_three_memcached_count_without_gap_or_double() -> None:
    seed = random.Random(7)
    numbers = [f"+1415555{i:04d}" for i in range(20)]

    with cluster(3, 4, {"SMSD_STORE_TIMEOUT": "5"}) as (_, servers):
        addresses = [server.address for server in servers]
        twilio = Client(f"{PUBLIC_URL}/sms", token=TOKEN, sid=ACCOUNT, connect_to=addresses[0])
        messages = [twilio.compose("hi", from_=numbers[i % 20], to=TO) for i in range(200)]
        deliveries = [message for message in messages for _ in range(seed.choice((1, 1, 2)))]
        seed.shuffle(deliveries)
        async with twilio:
            outcomes = await asyncio.gather(
                *(
                    twilio.deliver(message, connect_to=seed.choice(addresses))
                    for message in deliveries
                )
            )
    replies: dict[str, set[str | None]] = {message.sid: set() for message in messages}
    for message, outcome in zip(deliveries, outcomes, strict=True):
        replies[message.sid].add(outcome.text)
    assert all(len(texts) == 1 for texts in replies.values()), "a message got two replies"
    counts = sorted(int(re.search(r"(\d+) times", str(*texts))[1]) for texts in replies.values())  # type: ignore[index]
    assert counts == sorted(count for count in range(1, 11) for _ in numbers)
