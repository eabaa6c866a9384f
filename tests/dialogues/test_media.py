"""Media of a message, read by a dialogue: offline in a test, and by a real process."""

import asyncio
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from smsd import Media, Message, Session
from smsd.errors import MediaError
from smsd.simulator import BlockingClient
from tests.processes import ACCOUNT, PUBLIC_URL, TOKEN, Smsd

pytestmark = pytest.mark.asyncio

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


def test_phone_serves_some_content_unless_told_otherwise(phone: Any) -> None:
    dog = ("https://api.twilio.com/dog.png", "image/png")
    length = len("content of https://api.twilio.com/dog.png")
    assert phone.text(media=[CAT, dog]) == f"image/png 400\nimage/png {length}"


def test_phone_serves_no_file_that_is_gone(phone: Any) -> None:
    gone = (*CAT[:2], None)
    assert phone.text(media=[gone], deliveries=2) == "404 Twilio has no such file"


def test_media_over_the_limit_is_refused(phone: Any) -> None:
    assert phone.text(media=[(*CAT[:2], b"x" * 1001)]) == "None the file has more than 1000 bytes"


def plain(message: Message, session: Session) -> str:
    return asyncio.run(message.media[0].read()).decode()


@pytest.mark.parametrize("dialogue", [plain])
def test_plain_function_reads_media_with_asyncio_run(phone: Any) -> None:
    assert phone.text("look", media=[(*CAT[:2], b"meow")]) == "meow"


async def test_media_of_a_handmade_message_cannot_be_read() -> None:
    with pytest.raises(MediaError, match="not received by smsd"):
        await Media("https://x", "image/png").read()


DIALOGUE = """
import asyncio
from smsd import Router
from smsd.errors import MediaError

router = Router()

@router.on("plain")
def plain(message, session):
    return str(len(asyncio.run(message.media[0].read())))

@router.otherwise
async def anything(message, session):
    try:
        return str(len(await message.media[0].read(limit=1000)))
    except MediaError as error:
        return f"{error.status} {error}"
"""


class Files(BaseHTTPRequestHandler):
    """/N is a file of N bytes; nobody is sent credentials."""

    def do_GET(self) -> None:
        size = int(self.path[1:])
        found = size and "Authorization" not in self.headers
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", str(size))
        self.end_headers()
        self.wfile.write(bytes(size))

    def log_message(self, *_: object) -> None:
        """Print nothing."""


def test_serving_process_downloads_media_for_both_kinds_of_handlers(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(DIALOGUE)
    env = {"SMSD_DIALOGUE": "mine:router", "PYTHONPATH": str(tmp_path)}
    with HTTPServer(("127.0.0.1", 0), Files) as files, Smsd(env) as smsd:
        Thread(target=files.serve_forever, args=(0.01,), daemon=True).start()
        phone = BlockingClient(
            f"{PUBLIC_URL}/sms", token=TOKEN, sid=ACCOUNT, connect_to=smsd.address
        )

        def say(body: str, size: int) -> str | None:
            url = f"http://127.0.0.1:{files.server_port}/{size}"
            return phone.text(body, media=[(url, "image/png")]).text

        assert say("look", 1000) == "1000"
        assert say("plain", 5000) == "5000"
        assert say("look", 1001) == "None the file has more than 1000 bytes"
        assert str(say("look", 0)).startswith("404 Twilio has no such file")
        files.shutdown()
