"""The tutorial of docs/dialogues.md, step by step.

The project is made outside of this checkout, in a virtual environment of its own, then
tested, served and installed. tests/container/test_derived.py builds its container.
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
from pathlib import Path
from types import ModuleType
from urllib.parse import parse_qs

import pytest
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPServerRequest
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler

from docs.tools.pages import ROOT, page
from smsd.conversation.session import Session
from smsd.dialogues.loading import LoadedDialogue
from smsd.simulator import BlockingClient
from smsd.twilio.message import Message
from tests.processes import ACCOUNT, free_port, wait_for

pytestmark = pytest.mark.asyncio

TOKEN = "t" * 32
EXAMPLE = ROOT / "docs/examples/cafe"
SCRIPTS = [block.text for block in page("docs/dialogues.md").blocks("sh")]


class Reader:
    """Somebody who follows the tutorial in a folder beside the checkout.

    The machine is offline: what smsd depends on is linked from this environment.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        libraries = folder / "libraries"
        libraries.mkdir()
        for entry in Path(sysconfig.get_path("purelib")).iterdir():
            if not re.match(r"smsd|__editable__|pip\b|.*\.pth$", entry.name):
                (libraries / entry.name).symlink_to(entry)
        checkout = folder / "smsd"
        shutil.copytree(
            ROOT / "smsd", checkout / "smsd", ignore=shutil.ignore_patterns("__pycache__")
        )
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, checkout)
        self.port = free_port()
        self.env = {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(libraries),
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
        """What a script prints; it must succeed."""
        done = subprocess.run(
            ["bash", "-euc", script],
            cwd=cwd or self.cafe,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=300,
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
    """After "Begin", with all files of the tutorial."""
    reader = Reader(tmp_path_factory.mktemp("reader"))
    reader.run(SCRIPTS[0], reader.folder)
    for file in EXAMPLE.iterdir():
        if file.is_file():
            shutil.copy(file, reader.cafe)
    return reader


def test_every_script_of_the_tutorial_is_run_here() -> None:
    assert [script.split()[0] for script in SCRIPTS] == [
        "mkdir",
        "SMSD_DIALOGUE=hello:reply",
        ".venv/bin/python",
        ".venv/bin/pip",
        "docker",
    ]


def test_hello_is_served(reader: Reader) -> None:
    replies = reader.converse(SCRIPTS[1], "hi", "Ada")
    assert replies == ["Hello! What is your name?", "Ada, this is message 2."]


def test_the_tests_of_the_cafe_pass(reader: Reader) -> None:
    assert "6 passed" in reader.run(SCRIPTS[2])


def test_an_installed_dialogue_is_served_from_any_directory(reader: Reader, tmp_path: Path) -> None:
    reader.run(SCRIPTS[3])
    command = f"SMSD_DIALOGUE=booking:reply {reader.cafe}/.venv/bin/smsd serve --dev"
    assert reader.converse(command, "hi", cwd=tmp_path) == ["Welcome to the café! Under what name?"]


def test_readmes_bot_is_installed_tested_and_served(reader: Reader) -> None:
    _, script = [block.text for block in page("README.md").blocks("sh")]
    *setup, serve = script.splitlines()
    bot = shutil.copytree(ROOT / "docs/examples/hello", reader.folder / "bot")
    assert "1 passed" in reader.run("\n".join(setup), bot)
    replies = reader.converse(serve, "hi", "Ada", cwd=bot)
    assert replies == ["Hello! What is your name?", "Ada, this is message 2."]


async def test_the_later_dialogue_calls_twilios_rest_api(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWILIO_AUTH_TOKEN", TOKEN)
    later = module("later")
    message = Message("SM" + "0" * 32, ACCOUNT, "+14158675309", "+14158141829", "tea & scones")
    received: list[HTTPServerRequest] = []

    class Messages(RequestHandler):
        def post(self) -> None:
            received.append(self.request)
            self.set_status(201)

    sock, port = bind_unused_port()
    server = HTTPServer(Application([(f"/2010-04-01/Accounts/{ACCOUNT}/Messages.json", Messages)]))
    server.add_socket(sock)
    assert later.API == "https://api.twilio.com/2010-04-01"
    monkeypatch.setattr(later, "API", f"http://127.0.0.1:{port}/2010-04-01")
    answer = await LoadedDialogue(later.reply)(message, Session(1))
    await asyncio.gather(*later.running)
    server.stop()
    await server.close_all_connections()
    assert answer == "This will take a while. I will text you."
    assert not later.running
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


def module(name: str) -> ModuleType:
    """One of the café's modules, imported."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLE / f"{name}.py")
    assert spec
    assert spec.loader
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


async def test_the_later_dialogue_logs_what_it_could_not_send(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And asyncio has nothing to say about an exception that was never retrieved."""
    monkeypatch.setenv("TWILIO_AUTH_TOKEN", TOKEN)
    later = module("later")
    monkeypatch.setattr(later, "API", f"http://127.0.0.1:{free_port()}")
    message = Message("SM" + "0" * 32, ACCOUNT, "+14158675309", "+14158141829", "tea")
    await LoadedDialogue(later.reply)(message, Session(1))
    await asyncio.gather(*later.running)
    (record,) = caplog.records
    assert record.getMessage() == f"no result for message {message.sid}"
