"""G5: only requests that Twilio signed change anything; a captured request replayed
changes nothing."""

import dataclasses
from collections.abc import Callable, Iterator
from urllib.parse import parse_qsl, urlencode

import pytest

from smsd.simulator import LOST, Outcome, Request, Response
from tests.faults.history import Recorder
from tests.faults.world import World, counted, number, world
from tests.processes import Memcached

pytestmark = pytest.mark.asyncio


@pytest.fixture(scope="module")
def two() -> Iterator[World]:
    with world(nodes=1, replicas=2) as made:
        yield made


def writes(node: Memcached) -> int:
    """How many writes memcached has been asked for."""
    client = node.client()
    try:
        stats = client.stats()
        return int(stats[b"cmd_set"]) + int(stats[b"cmd_touch"])
    finally:
        client.close()


def with_form(request: Request, **changes: str) -> Request:
    form = {**dict(parse_qsl(request.body.decode(), keep_blank_values=True)), **changes}
    return dataclasses.replace(request, body=urlencode(form).encode())


def with_header(request: Request, name: str, value: str | None) -> Request:
    kept = [(key, text) for key, text in request.headers if key != name]
    return dataclasses.replace(request, headers=kept + [(name, value)] * (value is not None))  # type: ignore[list-item]


TAMPERED: dict[str, Callable[[Request], Request]] = {
    "another body": lambda r: with_form(r, Body="send money"),
    "another sid": lambda r: with_form(r, MessageSid="SM" + "f" * 32),
    "another sender": lambda r: with_form(r, From="+14155559999"),
    "another account": lambda r: with_form(r, AccountSid="AC" + "9" * 32),
    "one field more": lambda r: with_form(r, Extra="1"),
    "no body": lambda r: dataclasses.replace(r, body=b""),
    "no signature": lambda r: with_header(r, "X-Twilio-Signature", None),
    "empty signature": lambda r: with_header(r, "X-Twilio-Signature", ""),
    "garbage signature": lambda r: with_header(r, "X-Twilio-Signature", "\xff=garbage"),
    "query added": lambda r: dataclasses.replace(r, url=r.url + "?a=1"),
    "weaker algorithm asked for": lambda r: with_header(
        with_form(r, Body="x"),
        "X-Twilio-Webhooks-Signature-Settings",
        "key=none,algorithm=HMAC_SHA1",
    ),
}


async def captured(twilio: Recorder, from_: str) -> Outcome:
    """A message of a conversation, with the request that carried it."""
    return await twilio.client.text("hi", from_=from_, connect_to=twilio.replicas[0].address)


@pytest.mark.parametrize("how", TAMPERED)
async def test_g5_a_tampered_request_changes_nothing(two: World, how: str) -> None:
    async with Recorder(two.replicas) as twilio:
        from_ = number()
        request = (await captured(twilio, from_)).attempts[0].request
        before = writes(two.nodes[0])
        for replica in two.replicas:
            answer = await twilio.client.perform(TAMPERED[how](request), connect_to=replica.address)
            assert isinstance(answer, Response)
            assert answer.status == 403
            assert answer.body == b""
            assert not answer.all("Set-Cookie")
        assert writes(two.nodes[0]) == before
        assert (await twilio.text(from_, cookies=LOST)).count == 2


async def test_g5_a_captured_request_replayed_changes_nothing(two: World) -> None:
    """With its own cookie, another's, the newest, none, at every replica, also while
    the conversation goes on."""
    async with Recorder(two.replicas) as twilio:
        from_, other = number(), number()
        first = await captured(twilio, from_)
        foreign = (await captured(twilio, other)).cookie
        for _ in range(30):
            await twilio.text(from_, cookies=LOST)
        newest = twilio.client.twilio.jar.header(first.message.pair)
        before = writes(two.nodes[0]), sum(map(counted, two.replicas))
        for cookie in (None, foreign, newest, first.cookie, "smsd=garbage"):
            request = with_header(first.attempts[0].request, "Cookie", cookie)
            for replica in two.replicas:
                answer = await twilio.client.perform(request, connect_to=replica.address)
                assert isinstance(answer, Response)
                assert answer.body == first.twiml
        assert (writes(two.nodes[0]), sum(map(counted, two.replicas))) == before
        assert (await twilio.text(from_, cookies=LOST)).count == 32
