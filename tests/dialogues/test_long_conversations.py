"""Conversations longer than the cookie lives, on real memcached; hours and days pass
virtually."""

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any

import pytest

from smsd import Message, Session
from tests.processes import Memcached

DAY_H = 24


@pytest.fixture(scope="module")
def node() -> Iterator[Memcached]:
    with Memcached() as started:
        yield started


@pytest.fixture
def smsd_environ(node: Memcached) -> Mapping[str, str]:
    node.flush()
    return {"SMSD_STORE": f"memcached://{node.node}", "SMSD_SESSION_TTL": "2591000"}


@pytest.fixture
def dialogue() -> object:
    async def reply(message: Message, session: Session) -> str:
        session.data["said"] = [*session.data.get("said", []), message.body]
        return f"{session.count} {' '.join(session.data['said'])} {session.restored}"

    return reply


def cookie_of(phone: Any) -> str:
    return str(phone.last.answer.header("Set-Cookie"))


def test_conversation_goes_on_for_weeks_by_the_record_alone(phone: Any) -> None:
    assert phone.text("a") == "1 a False"
    phone.wait(hours=5)  # Twilio has dropped the cookie
    assert phone.text("b", deliveries=2) == "2 a b False"
    phone.wait(hours=29 * DAY_H)
    assert phone.text("c") == "3 a b c False"
    assert "Max-Age=14400" in cookie_of(phone)


def test_conversation_ends_after_its_whole_lifetime(phone: Any) -> None:
    phone.text("a")
    phone.wait(seconds=2_591_001)
    assert phone.text("b") == "1 b False"


def test_lost_record_is_restored_while_twilio_has_the_cookie(phone: Any, node: Memcached) -> None:
    phone.text("a")
    phone.wait(hours=3)
    node.flush()
    assert phone.text("b") == "2 a b True"


def test_lost_record_without_a_cookie_is_lost_for_good(phone: Any, node: Memcached) -> None:
    phone.text("a")
    phone.wait(hours=5)
    node.flush()
    assert phone.text("b") == "1 b False"


def test_memcached_keeps_the_record_for_the_whole_lifetime(phone: Any, node: Memcached) -> None:
    phone.text("a")
    with closing(node.client()) as client:
        dump = client.raw_command(b"lru_crawler metadump all", end_tokens=b"END\r\n")
    (expires,) = re.findall(rb"exp=(-?[0-9]+)", dump)
    left_s = int(expires) - time.time()
    assert 2_590_000 <= left_s <= 2_592_010, "beyond 30 days memcached takes it for a date"
