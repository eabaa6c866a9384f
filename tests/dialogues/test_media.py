"""Media of a message, read by a dialogue: offline, as the fixture `phone` serves it."""

import asyncio
from typing import Any

import pytest

from smsd import Media, Message, Session
from smsd.errors import MediaError

CAT = ("https://api.twilio.com/cat.png", "image/png", b"meow" * 100)


@pytest.fixture
def dialogue() -> object:
    async def reply(message: Message, session: Session) -> str:
        said = []
        for media in message.media:
            try:
                said.append(f"{media.content_type} {len(await media.read(limit=1000))}")
            except MediaError as error:
                said.append(f"{error.status} {error}")
        return "\n".join(said)

    return reply


def test_phone_serves_the_content_of_media_offline(phone: Any) -> None:
    assert phone.text("look", media=[CAT], deliveries=2) == "image/png 400"


def test_media_without_content_is_not_found(phone: Any) -> None:
    assert phone.text(media=[CAT[:2], CAT]) == "image/png 400\nimage/png 400"
    dog = ("https://api.twilio.com/dog.png", "image/png")
    assert phone.text(media=[dog]).startswith("404 no such file")


def test_media_over_the_limit_is_refused(phone: Any) -> None:
    assert phone.text(media=[(*CAT[:2], b"x" * 1001)]) == "None the file has more than 1000 bytes"


def plain(message: Message, session: Session) -> str:
    return asyncio.run(message.media[0].read()).decode()


@pytest.mark.parametrize("dialogue", [plain])
def test_plain_function_reads_media_with_asyncio_run(phone: Any) -> None:
    assert phone.text("look", media=[(*CAT[:2], b"meow")]) == "meow"


def test_media_of_a_message_that_smsd_did_not_receive_cannot_be_read() -> None:
    with pytest.raises(MediaError, match="not received by smsd"):
        asyncio.run(Media("https://x", "image/png").read())
