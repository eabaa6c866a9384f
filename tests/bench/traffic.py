"""The load: inbound messages as Twilio posts them, signed in advance, one per line in a
file for load.lua."""

import hashlib
from pathlib import Path
from random import Random
from urllib.parse import urlencode

from smsd.simulator import inbound
from smsd.twilio.signature import Key, sign
from tests.processes import ACCOUNT, PUBLIC_URL, TOKEN

SENDER = "+14158675309"
TURNS = 20
"""Messages per conversation: the cost of a message depends on the length of its
conversation."""


def write(file: Path, *, messages: int, conversations: int, seed: int) -> None:
    """Lines of "SIGNATURE CONVERSATION FORM". So many conversations are live at a time;
    each gets TURNS messages, one after the other round all of them, before the next
    ones take their place.
    """
    random = Random(seed)
    key = Key(TOKEN.encode(), "primary")
    with file.open("w", encoding="ascii") as lines:
        for place in range(messages):
            conversation = place % conversations + place // (conversations * TURNS) * conversations
            lines.write(_line(conversation, seed, random, key))


def write_among(file: Path, *, messages: int, live: int, seed: int) -> None:
    """As `write`, of conversations drawn among `live` ones, numbered as by seed 0."""
    random = Random(seed)
    key = Key(TOKEN.encode(), "primary")
    with file.open("w", encoding="ascii") as lines:
        for _ in range(messages):
            lines.write(_line(random.randrange(live), 0, random, key))


def number(seed: int, conversation: int) -> str:
    """The number that is texted: one for each conversation."""
    return f"+1{(seed % 800 + 200) * 10_000_000 + conversation:010d}"


def _line(conversation: int, seed: int, random: Random, key: Key) -> str:
    to = number(seed, conversation)
    body = f"Hello, can you tell me whether my order no. {random.randrange(10_000)} has left?"
    form = inbound.build(ACCOUNT, body, SENDER, to, random).params
    signature = sign(key, f"{PUBLIC_URL}/sms", {name: [value.encode()] for name, value in form})
    return f"{signature} {to} {urlencode(form)}\n"


def cookie_like(name: str, length: int) -> str:
    """A cookie for servers that set none: so many bytes that mean nothing."""
    text = hashlib.shake_256(b"cookie").hexdigest(length)
    return f"{name}={text[:length]}"
