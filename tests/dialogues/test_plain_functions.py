"""A plain function as a dialogue, with turns: it runs once for each message, on any
replica."""

import asyncio
from collections import Counter
from contextvars import ContextVar
from pathlib import Path

import pytest

from smsd import Message, Session
from smsd.dialogues.loading import LoadedDialogue
from smsd.simulator import Client
from tests.processes import ACCOUNT, PUBLIC_URL, TOKEN, cluster

pytestmark = pytest.mark.asyncio

DIALOGUE = """
import os, time

def reply(message, session):
    with open(os.environ["RUNS"], "a") as runs:
        runs.write(message.body + "\\n")
    time.sleep(0.02)
    order = session.data.setdefault("order", [])
    order.append(message.body)
    return f"{session.count} {len(order)}"
"""


async def test_plain_function_runs_once_for_each_simultaneous_message(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(DIALOGUE)
    runs = tmp_path / "runs"
    env = {"SMSD_DIALOGUE": "mine:reply", "PYTHONPATH": str(tmp_path), "RUNS": str(runs),
           "SMSD_LOOP_LIMIT": "0", "SMSD_STORE_TIMEOUT": "5"}  # fmt: skip
    words = [f"w{n}" for n in range(16)]
    with cluster(1, 2, env) as (_, servers):
        addresses = [server.address for server in servers]
        async with Client(
            f"{PUBLIC_URL}/sms", token=TOKEN, sid=ACCOUNT, connect_to=addresses[0]
        ) as client:
            texts = [client.text(word, connect_to=addresses[n % 2]) for n, word in enumerate(words)]
            replies = [outcome.text for outcome in await asyncio.gather(*texts)]
    assert sorted(replies, key=lambda reply: int((reply or "0").split()[0])) == [
        f"{n} {n}" for n in range(1, len(words) + 1)
    ]
    assert Counter(runs.read_text().split()) == Counter(words)


sender: ContextVar[str] = ContextVar("sender", default="nobody")


async def test_plain_function_sees_a_copy_of_its_messages_context_variables() -> None:
    def plain(message: Message, session: Session) -> str:
        before = sender.get()
        sender.set(message.from_)
        return before

    dialogue = LoadedDialogue(plain)

    async def text(number: int) -> str:
        sender.set(f"set for {number}")
        message = Message(
            "SM" + "0" * 32, "AC" + "0" * 32, f"+1415555{number:04}", "+14155550100", ""
        )
        reply: str = await dialogue(message, Session(1))
        assert sender.get() == f"set for {number}", "what the function sets stays its own"
        return reply

    numbers = range(80)  # more than there are threads
    replies = await asyncio.gather(*map(text, numbers))
    assert replies == [f"set for {number}" for number in numbers]
    assert sender.get() == "nobody"
