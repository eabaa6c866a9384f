"""`serve --dev` tells a developer everything: which file runs, and why a dialogue
failed."""

import asyncio
import io
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

import smsd.dialogues.greeting  # noqa: F401 - a Source is that of a loaded module
from smsd.conversation.record import Entry, Lineage, Record, Turn
from smsd.dev import dev_server, environment, failures
from smsd.dev.dev_service import record_json
from smsd.dev.live_reload import Source
from smsd.settings.table import load
from smsd.simulator import BlockingClient
from tests.dev.processes import DevServer
from tests.processes import SETTINGS, Smsd, free_port, wait_for

TOKEN = "t" * 32
FAILING = """
def look_up(word):
    return {"a": 1}[word]

async def reply(message, session):
    return str(look_up(message.body))
"""


def in_folder(folder: Path, *args: str, env: dict[str, str] | None = None) -> str:
    """What `smsd` prints that is started in this folder as the installed program, until
    it ends."""
    script = Path(sys.executable).with_name("smsd")
    done = subprocess.run(
        [str(script), *args],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", **(env or {})},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout + done.stderr


def test_a_failure_shows_message_and_traceback(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(FAILING)
    with DevServer(
        SMSD_DIALOGUE="mine:reply", PYTHONPATH=str(tmp_path), TWILIO_AUTH_TOKEN=TOKEN
    ) as dev:
        phone = BlockingClient(f"{dev.url}/sms", token=TOKEN)
        assert phone.text("a").text == "1"
        assert "Traceback" not in dev.process.log()
        assert phone.text("secret word").text != "1"
        wait_for(lambda: "KeyError: 'secret word'" in dev.process.log(), "the traceback")
        shown = dev.process.log().partition("The dialogue failed")[2]
    assert f'File "{tmp_path / "mine.py"}", line 3, in look_up' in shown
    first_frame = re.findall(r'^  File "(.*?)"', shown, re.MULTILINE)[0]
    assert first_frame == str(tmp_path / "mine.py"), "smsd's own frames are left out"


LOGGING = """
import asyncio, logging

tasks = set()

async def reply(message, session):
    if message.body == "log":
        try:
            {}["word"]
        except KeyError:
            logging.getLogger("mine").exception("not found")
    else:
        asyncio.create_task(lost()).add_done_callback(tasks.discard)
    return "ok"

async def lost():
    raise ValueError("nobody awaits this")

class reply_class:
    async def __call__(self, message, session):
        return await reply(message, session)
    def close(self):
        raise ValueError("stays open")
"""


def test_exceptions_that_the_author_logs_are_shown_too(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(LOGGING)
    with DevServer(
        SMSD_DIALOGUE="mine:reply_class", PYTHONPATH=str(tmp_path), TWILIO_AUTH_TOKEN=TOKEN
    ) as dev:
        phone = BlockingClient(f"{dev.url}/sms", token=TOKEN)
        phone.text("log")
        wait_for(lambda: "KeyError: 'word'" in dev.process.log(), "what was logged")
        assert "\nnot found:\nTraceback" in dev.process.log()
        phone.text("lose a task")
        wait_for(lambda: "ValueError: nobody awaits this" in dev.process.log(), "the lost task")
        dev.process.terminate()
        wait_for(lambda: "ValueError: stays open" in dev.process.log(), "close() that failed")


def test_production_never_shows_what_a_dialogue_raised(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(FAILING)
    with Smsd({"SMSD_DIALOGUE": "mine:reply", "PYTHONPATH": str(tmp_path)}) as smsd:
        phone = BlockingClient(
            f"{SETTINGS['SMSD_PUBLIC_URL']}/sms",
            token=SETTINGS["TWILIO_AUTH_TOKEN"],
            connect_to=smsd.address,
        )
        phone.text("secret word")
        wait_for(lambda: "dialogue failed" in smsd.log(), "the log line")
        assert "KeyError" in smsd.log()
        assert "secret word" not in smsd.log()


def test_refused_version_is_shown_with_its_traceback(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(FAILING)
    with DevServer(SMSD_DIALOGUE="mine:reply", PYTHONPATH=str(tmp_path)) as dev:
        file.write_text("raise ValueError('the reason')\n")
        wait_for(lambda: "ValueError: the reason" in dev.process.log(), "the reason")
        assert "the old one keeps answering" in dev.process.log()


def test_broken_dialogue_at_startup_is_shown_in_full(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("raise ValueError('the reason')\n")
    said = in_folder(tmp_path, "serve", "--dev", env={"SMSD_DIALOGUE": "mine:reply"})
    assert "ValueError: the reason" in said
    assert "smsd: SMSD_DIALOGUE: mine:reply cannot be imported" in said
    quiet = in_folder(
        tmp_path,
        "serve",
        env={**SETTINGS, "SMSD_DIALOGUE": "mine:reply", "PYTHONPATH": str(tmp_path)},
    )
    assert "the reason" not in quiet


def test_the_working_directory_wins_over_an_installed_copy(tmp_path: Path) -> None:
    installed = tmp_path / "site-packages"
    here = tmp_path / "here"
    for folder, word in ((installed, "installed"), (here, "mine")):
        folder.mkdir()
        (folder / "mine.py").write_text(f"async def reply(m, s):\n    return {word!r}\n")
    for folder, says in ((here, "mine"), (tmp_path, "installed")):
        with DevServer(
            cwd=folder,
            SMSD_DIALOGUE="mine:reply",
            PYTHONPATH=str(installed),
            TWILIO_AUTH_TOKEN=TOKEN,
        ) as dev:
            assert BlockingClient(f"{dev.url}/sms", token=TOKEN).text("hi").text == says
            banner = dev.process.log()
        if says == "mine":
            assert f"mine:reply in {here / 'mine.py'}; reloads when you save it" in banner
        else:
            assert f"mine:reply in {installed / 'mine.py'}\n" in banner
            assert "This is an INSTALLED COPY: your edits are not seen." in banner


def test_built_in_dialogue_is_named_as_such(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = "smsd.dialogues.greeting:reply"
    assert "reloads when you save it" in dev_server.described(spec, Source(spec)), "a checkout"
    monkeypatch.setattr(Source, "is_reloadable", property(lambda _: False))
    assert "comes with smsd" in dev_server.described(spec, Source(spec))


def test_the_banner_names_a_program_that_can_be_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert Path(environment.program()) == Path(sys.executable).with_name("smsd")
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    assert environment.program() == "smsd"


def test_in_a_container_the_phone_runs_inside() -> None:
    """The token is told to loopback peers only, and through a published port nobody is
    one."""
    with DevServer() as dev:
        assert (
            f"In a terminal {environment.program()} phone {dev.url}\n" in dev.process.log()
        )  # not process 1
    settings = load({}, dev=True)
    said = dev_server.welcome(settings, Source(settings.dialogue), 8080, 9090, engine="docker")
    assert re.search(r"In a terminal docker exec -it \S+ smsd phone http://127.0.0.1:8080\n", said)
    assert "add --host 0.0.0.0 for the host" in said
    settings = load({"SMSD_HOST": "0.0.0.0"}, dev=True)  # noqa: S104
    said = dev_server.welcome(settings, Source(settings.dialogue), 8080, 9090, engine="docker")
    assert "--host" not in said


def test_with_a_tunnel_the_phone_stays_on_this_machine() -> None:
    public = "https://tunnel.example/texts"
    with DevServer(SMSD_PUBLIC_URL=public) as dev:
        banner = dev.process.log()
        assert f"  The phone     {dev.url}/phone\n" in banner
        assert f"  Twilio calls  {public}/sms (SMSD_PUBLIC_URL)\n" in banner
        (curl,) = re.findall(r"With curl +(curl .*)$", banner, re.MULTILINE)
        done = subprocess.run(["sh", "-c", curl], capture_output=True, text=True, check=True)
        assert "Rey has messaged" in done.stdout
        (phone,) = re.findall(r"In a terminal (.*)$", banner, re.MULTILINE)
        done = subprocess.run(
            ["sh", "-c", f"{phone} --send hi"], capture_output=True, text=True, check=True
        )
        assert "Rey has messaged" in done.stdout


@pytest.mark.parametrize("host", ["::1", "::", "127.0.0.2", "0.0.0.0", "*"])  # noqa: S104
def test_the_addresses_of_the_banner_can_be_opened(host: str) -> None:
    with DevServer(SMSD_HOST=host) as dev:
        banner = dev.process.log()
        for label, path in (("The phone", "/phone"), ("Metrics", "/metrics")):
            (url,) = re.findall(rf"{label} +(http\S+{path})$", banner, re.MULTILINE)
            with urllib.request.urlopen(url, timeout=10) as page:  # noqa: S310 - http
                assert page.status == 200


@pytest.mark.parametrize(
    ("pid", "parent", "first", "main"),
    [
        (1, 0, "smsd", True),
        (7, 1, "tini", True),
        (7, 1, "bash", False),
        (70, 7, "tini", False),
    ],
)
def test_main_process_is_process_1_or_below_init(
    tmp_path: Path, pid: int, parent: int, first: str, main: bool
) -> None:
    (tmp_path / "comm").write_text(f"{first}\n")
    assert dev_server.is_main_process(pid, parent, tmp_path / "comm") is main


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_ports_are_made_real_on_either_family(host: str) -> None:
    prepared = environment.prepare({"SMSD_HOST": host, "SMSD_PORT": "0", "SMSD_ADMIN_PORT": "no"})
    assert int(prepared["SMSD_PORT"]) > 0
    assert prepared["SMSD_ADMIN_PORT"] == "no", "for the settings to refuse"
    free = str(free_port())
    assert environment.prepare({"SMSD_ADMIN_PORT": free})["SMSD_ADMIN_PORT"] == free


def test_project_dialogue_runs_unless_another_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    project = tmp_path / "pyproject.toml"
    assert "SMSD_DIALOGUE" not in environment.prepare({})
    project.write_text('[tool.smsd]\ndialogue = "mine:reply"\n')
    assert environment.prepare({})["SMSD_DIALOGUE"] == "mine:reply"
    assert environment.prepare({"SMSD_DIALOGUE": "other:f"})["SMSD_DIALOGUE"] == "other:f"
    assert "SMSD_DIALOGUE" not in environment.prepare({"SMSD_DIALOGUE_FILE": "/run/dialogue"})
    for harmless in ("[project]\nname = 'x'\n", "[tool]\nsmsd = 'x'\n", "[tool.smsd]\n"):
        project.write_text(harmless)
        assert "SMSD_DIALOGUE" not in environment.prepare({})


def test_log_is_pretty_on_a_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for is_terminal, given, expected in (
        (True, {}, "pretty"),
        (True, {"SMSD_LOG_FORMAT": "json"}, "json"),
        (True, {"SMSD_LOG_FORMAT_FILE": "/run/format"}, None),
        (False, {}, None),
    ):
        monkeypatch.setattr("sys.stderr.isatty", lambda is_terminal=is_terminal: is_terminal)
        assert environment.prepare(given).get("SMSD_LOG_FORMAT") == expected


@pytest.mark.parametrize("content", [b"[tool.smsd", b"\xff\xfe"])
def test_a_project_file_that_is_broken_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "pyproject.toml").write_bytes(content)
    said = in_folder(tmp_path, "serve", "--dev")
    assert said.startswith("smsd: SMSD_DIALOGUE: pyproject.toml is not valid TOML")


def test_a_traceback_begins_where_the_authors_code_does() -> None:
    error = LookupError("gone")
    error.__cause__ = ValueError("cause")
    text = failures.traceback_text(error)
    assert "LookupError: gone" in text
    assert "ValueError: cause" in text


def test_stderr_that_is_gone_harms_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = io.StringIO()
    gone.close()
    monkeypatch.setattr("sys.stderr", gone)
    failures.show("nobody reads this")


@pytest.mark.asyncio
async def test_loop_errors_are_shown_with_what_was_raised(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loop = asyncio.get_running_loop()
    logged: list[str] = []
    monkeypatch.setattr(loop, "default_exception_handler", lambda it: logged.append(it["message"]))
    monkeypatch.setattr("logging.root.handlers", [])
    failures.show_author_errors()
    loop.call_exception_handler({"message": "a late reply"})
    assert capsys.readouterr().err == ""
    loop.call_exception_handler({"message": "lost", "exception": ValueError("gone")})
    assert capsys.readouterr().err == "\nlost:\nValueError: gone\n\n"
    assert logged == ["a late reply", "lost"]


def test_record_shows_which_messages_run_and_wait() -> None:
    entries = (
        Entry(b"a", 1, reply=b""),
        Entry(b"b", 2, turn=Turn(1, 0)),
        Entry(b"c", 3, turn=Turn(0, 0)),
    )
    record = Record(0, lineages=(Lineage(1, 3, tail=entries),))
    shown = record_json(record)
    assert isinstance(shown, dict)
    assert (shown["count"], shown["running"], shown["waiting"]) == (3, [2], [3])
