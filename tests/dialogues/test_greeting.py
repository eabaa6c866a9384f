"""The default dialogue, as it comes and as it can be set."""

import pytest

from smsd import Message, Session
from smsd.dialogues.loading import LoadedDialogue, load
from smsd.settings.table import Settings
from smsd.settings.table import load as load_settings
from smsd.twilio.reply import to_reply

pytestmark = pytest.mark.asyncio

TO = "+14155550100"


def settings(**environ: str) -> Settings:
    return load_settings(environ, dev=True)


async def say(dialogue: LoadedDialogue, sender: str, count: int) -> str:
    message = Message("SM" + "0" * 32, "AC" + "0" * 32, sender, TO, "hi")
    (text,) = to_reply(await dialogue(message, Session(count))).messages
    return text


def default(**environ: str) -> LoadedDialogue:
    given = settings(**environ)
    return load(given.dialogue, given)


@pytest.mark.parametrize(
    ("sender", "count", "expected"),
    [
        ("+14158675309", 1, f"Thanks for the new message! Rey has messaged {TO} 1 times"),
        ("+14158675309", 2, f"Rey has messaged {TO} 2 times"),
        ("+14158675310", 3, f"Finn has messaged {TO} 3 times"),
        ("+14158675311", 4, f"Chewy has messaged {TO} 4 times"),
        ("whatsapp:+14158675311", 5, f"Chewy has messaged {TO} 5 times"),
        ("+14155550199", 6, f"Friend has messaged {TO} 6 times"),
        ("12345", 7, f"Friend has messaged {TO} 7 times"),
    ],
)
async def test_senders_are_greeted_by_name_and_thanked_at_first(
    sender: str, count: int, expected: str
) -> None:
    assert await say(default(), sender, count) == expected


async def test_both_texts_are_templates_of_name_from_to_and_count() -> None:
    dialogue = default(
        SMSD_GREETING="{count}. {name}: {from} -> {to}", SMSD_GREETING_FIRST="{{welcome}} {name}"
    )
    assert await say(dialogue, "rcs:+14158675309", 1) == "{welcome} Rey"
    assert await say(dialogue, "rcs:+14158675309", 2) == f"2. Rey: rcs:+14158675309 -> {TO}"


@pytest.mark.parametrize(("count", "times"), [(1, "once"), (2, "twice"), (3, "3 times")])
async def test_templates_may_say_how_often_in_words(count: int, times: str) -> None:
    template = "{name} has written {times}"
    dialogue = default(SMSD_GREETING=template, SMSD_GREETING_FIRST=template)
    assert await say(dialogue, "+14158675309", count) == f"Rey has written {times}"


async def test_braces_in_a_name_are_text() -> None:
    dialogue = default()
    await dialogue.reload(_Changed({"+1": "{count}"}))
    assert await say(dialogue, "+1", 9) == f"{{count}} has messaged {TO} 9 times"


async def test_new_people_and_texts_count_from_the_next_message_on() -> None:
    dialogue = default()
    await dialogue.reload(_Changed({"+14158675309": "Kira"}))
    assert await say(dialogue, "+14158675309", 1) == f"Welcome, Kira! {TO}"
    assert await say(dialogue, "+14158675310", 2) == f"Friend has messaged {TO} 2 times"


class _Changed:
    greeting = "{name} has messaged {to} {count} times"
    greeting_first = "Welcome, {name}! {to}"

    def __init__(self, people: dict[str, str]) -> None:
        self.people = people
