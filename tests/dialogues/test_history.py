"""`session.history` as a dialogue sees it: repetitions, opt-outs, failures, losses,
replicas."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from smsd import Message, Session
from smsd.simulator import LOST, BlockingClient
from tests.processes import ACCOUNT, PUBLIC_URL, TOKEN, cluster


@pytest.fixture
def smsd_environ() -> Mapping[str, str]:
    return {"SMSD_HISTORY": "4", "SMSD_APOLOGY": "Sorry"}


@pytest.fixture
def dialogue() -> object:
    async def reply(message: Message, session: Session) -> str | None:
        if message.body == "fail":
            raise ValueError
        if message.body == "silence":
            return None
        if message.body == "bye":
            session.end()
        return json.dumps([[entry.text, entry.reply[:9]] for entry in session.history])

    return reply


def seen(reply: str | None) -> list[str]:
    """The texts that the dialogue found in the history."""
    return [text for text, _ in json.loads(reply or "")]


def test_history_has_earlier_messages_only(phone: Any) -> None:
    assert phone.text("one") == "[]"
    assert phone.text("two") == '[["one", "[]"]]'
    assert seen(phone.text("three")) == ["one", "two"]


def test_history_keeps_so_many_messages_as_the_setting_says(phone: Any) -> None:
    for n in range(6):
        phone.text(str(n))
    assert seen(phone.text("last")) == ["2", "3", "4", "5"]


def test_repeated_message_is_remembered_once(phone: Any) -> None:
    phone.text("one", deliveries=3)
    assert seen(phone.text("two", deliveries=2)) == ["one"]


def test_silence_and_failure_are_remembered_with_what_the_sender_got(phone: Any) -> None:
    phone.text("silence")
    assert phone.text("fail", failing=True) == "Sorry"
    assert phone.text("look") == '[["silence", ""], ["fail", "Sorry"]]'


def test_message_that_twilio_answers_is_not_remembered(phone: Any) -> None:
    phone.text("one")
    assert phone.text("help") is None
    assert seen(phone.text("two")) == ["one"]


def test_end_of_the_conversation_begins_a_new_history(phone: Any) -> None:
    phone.text("one")
    assert seen(phone.text("bye")) == ["one"]
    assert phone.text("two") == "[]"
    phone.wait(hours=5)
    assert phone.text("three") == "[]"


def test_cookie_brings_the_count_back_and_no_history(phone: Any) -> None:
    phone.text("one")
    phone.lose_store()
    assert phone.text("two") == "[]"
    assert seen(phone.text("three")) == ["two"]


def test_history_of_an_outage_is_merged_afterwards(phone: Any) -> None:
    phone.text("one")
    with phone.store_down():
        assert phone.text("two") == "[]"
        assert seen(phone.text("three")) == ["two"]
    phone.text("four")
    assert seen(phone.text("five"))[-2:] == ["three", "four"]


@pytest.mark.parametrize("smsd_environ", [{}, {"SMSD_HISTORY": "4", "SMSD_STORE": "cookie://"}])
def test_history_is_empty_by_default_and_without_a_store(phone: Any) -> None:
    phone.text("one")
    assert phone.text("two") == "[]"


DIALOGUE = """
import asyncio, json

async def reply(message, session):
    if "slow" in message.body:
        await asyncio.sleep(0.2)
    return json.dumps([entry.text for entry in session.history])
"""


def test_history_is_shared_by_replicas_and_never_logged(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(DIALOGUE)
    env = {"SMSD_DIALOGUE": "mine:reply", "PYTHONPATH": str(tmp_path), "SMSD_HISTORY": "32"}
    with cluster(1, 2, env) as (_, servers):
        phone = BlockingClient(f"{PUBLIC_URL}/sms", token=TOKEN, sid=ACCOUNT)
        for n in range(6):
            message = phone.compose(f"secret-{'slow-' if n % 2 else ''}{n}")
            address = servers[n % 2].address
            outcome = phone.deliver(message, cookies=LOST, connect_to=address)
            assert len(json.loads(outcome.text or "")) == n
            assert outcome.text == phone.deliver(message, connect_to=address).text
        cookie = outcome.answer.header("Set-Cookie") if outcome.answer else ""
        assert "secret" not in (cookie or "")
        for server in servers:
            assert "secret" not in server.log()
