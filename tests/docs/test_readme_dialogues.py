"""The README's chapter "Write a conversation", step by step: a package outside of this checkout, in a virtual
environment of its own, tested, served, installed. Its container is tried in tests/container/test_derived.py.
"""

import asyncio
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from urllib.parse import parse_qs

import pytest
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPServerRequest
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler

from smsd.conversation.session import Session
from smsd.dialogues.loading import LoadedDialogue
from smsd.simulator import BlockingClient
from smsd.twilio.message import Message
from tests.processes import ACCOUNT, free_port, wait_for

ROOT = Path(__file__).parents[2]
TOKEN = "t" * 32


@dataclass(frozen=True)
class Block:
    language: str
    text: str

    @property
    def file(self) -> str | None:
        """The name in its first line, if it is a file."""
        named = re.match(r"# ([\w.]+)\n", self.text)
        return named[1] if named and self.language != "sh" else None


def blocks() -> list[Block]:
    """Of the chapter, in order."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (chapter,) = re.findall(
        r"^## Write a conversation\n(.*?)^## ", readme, re.MULTILINE | re.DOTALL
    )
    return [
        Block(*found)
        for found in re.findall(r"^```(\w+)\n(.*?)^```$", chapter, re.MULTILINE | re.DOTALL)
    ]


BLOCKS = blocks()
FILES = {block.file: block.text for block in BLOCKS if block.file}
SCRIPTS = [block.text for block in BLOCKS if block.language == "sh"]


class Reader:
    """Somebody who follows the chapter, in a folder beside the checkout; offline, what smsd needs is at hand."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        at_hand = folder / "at-hand"
        at_hand.mkdir()
        for entry in Path(sysconfig.get_path("purelib")).iterdir():
            if not re.match(r"smsd|__editable__|pip\b|.*\.pth$", entry.name):
                (at_hand / entry.name).symlink_to(entry)
        checkout = folder / "smsd"
        shutil.copytree(
            ROOT / "smsd", checkout / "smsd", ignore=shutil.ignore_patterns("__pycache__")
        )
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, checkout)
        self.port = free_port()
        self.env = {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(at_hand),
            "PIP_NO_INDEX": "1",
            "PIP_NO_BUILD_ISOLATION": "0",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_CONFIG_FILE": os.devnull,
            "TWILIO_AUTH_TOKEN": TOKEN,
            "SMSD_PORT": str(self.port),
            "SMSD_ADMIN_PORT": str(free_port()),
            "SMSD_DRAIN_DELAY": "0",
        }
        self.cafe = folder / "cafe"

    def run(self, script: str, cwd: Path | None = None) -> str:
        """What a script printed; it must succeed."""
        done = subprocess.run(
            ["bash", "-euc", script],
            cwd=cwd or self.cafe,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def converse(self, command: str, *texts: str, cwd: Path | None = None) -> list[str | None]:
        """The replies of the server that a command starts."""
        with (self.folder / "log").open("w+") as log:
            server = subprocess.Popen(
                ["bash", "-euc", f"{command.strip()} & wait"],
                cwd=cwd or self.cafe,
                env=self.env,
                stdout=log,
                stderr=log,
                process_group=0,
            )
            try:
                wait_for(lambda: "listening" in Path(log.name).read_text(), "listening")
                phone = BlockingClient(f"http://127.0.0.1:{self.port}/sms", token=TOKEN)
                return [phone.text(text).text for text in texts]
            finally:
                os.killpg(server.pid, 15)
                server.wait()


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    """After "Begin", with all files of the chapter."""
    reader = Reader(tmp_path_factory.mktemp("reader"))
    reader.run(SCRIPTS[0], reader.folder)
    for name, text in FILES.items():
        (reader.cafe / name).write_text(text)
    return reader


def test_every_block_is_a_file_or_a_script_and_has_its_test_here() -> None:
    assert [block for block in BLOCKS if not block.file and block.language != "sh"] == []
    assert [script.split()[0] for script in SCRIPTS] == [
        "mkdir",
        "SMSD_DIALOGUE=hello:reply",
        ".venv/bin/python",
        ".venv/bin/pip",
        "docker",
    ]
    tested = {name.removeprefix("test_") for name in FILES if name.startswith("test_")}
    assert set(FILES) - {f"test_{name}" for name in tested} - tested == {
        "later.py",
        "pyproject.toml",
        "Dockerfile",
    }


def test_the_first_dialogue_is_served(reader: Reader) -> None:
    said = reader.converse(SCRIPTS[1], "hi", "Ada")
    assert said == ["Hello! What is your name?", "Ada, this is message 2."]


def test_the_tests_of_all_dialogues_pass(reader: Reader) -> None:
    said = reader.run(SCRIPTS[2])
    assert "6 passed" in said


def test_installed_it_is_served_from_anywhere(reader: Reader, tmp_path: Path) -> None:
    reader.run(SCRIPTS[3])
    command = f"SMSD_DIALOGUE=booking:reply {reader.cafe}/.venv/bin/smsd serve --dev"
    assert reader.converse(command, "hi", cwd=tmp_path) == ["Welcome to the café! Under what name?"]


def test_the_late_answer_is_what_twilios_rest_api_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TWILIO_AUTH_TOKEN", TOKEN)
    later = module("later", tmp_path)
    message = Message("SM" + "0" * 32, ACCOUNT, "+14158675309", "+14158141829", "tea & scones")
    received: list[HTTPServerRequest] = []

    class Messages(RequestHandler):
        def post(self) -> None:
            received.append(self.request)
            self.set_status(201)

    async def test() -> object:
        sock, port = bind_unused_port()
        server = HTTPServer(
            Application([(f"/2010-04-01/Accounts/{ACCOUNT}/Messages.json", Messages)])
        )
        server.add_socket(sock)
        assert later.API == "https://api.twilio.com/2010-04-01"
        monkeypatch.setattr(later, "API", f"http://127.0.0.1:{port}/2010-04-01")
        said = await LoadedDialogue(later.reply)(message, Session(1))
        await asyncio.gather(*later.under_way)
        server.stop()
        await server.close_all_connections()
        return said

    assert asyncio.run(test()) == "One moment, I look it up."
    assert not later.under_way
    (request,) = received
    assert (
        request.headers["Authorization"]
        == f"Basic {b64encode(f'{ACCOUNT}:{TOKEN}'.encode()).decode()}"
    )
    assert parse_qs(request.body.decode()) == {
        "From": ["+14158141829"],
        "To": ["+14158675309"],
        "Body": ["All there is to know about tea & scones."],
    }


def module(name: str, folder: Path) -> ModuleType:
    """One of the chapter's, imported."""
    path = folder / f"{name}.py"
    path.write_text(FILES[path.name])
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec
    assert spec.loader
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made
