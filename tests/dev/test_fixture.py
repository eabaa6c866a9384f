"""The fixture for authors of dialogues, used as they use it: a project of their own,
pytest in a process of its own."""

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import smsd.testing

CONFTEST = "from smsd.testing import dialogue, phone, pytest_configure, smsd_environ\n"
BOT = """
from smsd import Message, Reply, Session

async def reply(message: Message, session: Session) -> Reply | str | None:
    if message.body == "boom":
        raise ZeroDivisionError("on purpose")
    if message.body == "silence":
        return None
    if message.body == "picture":
        return Reply("look", media="https://pictures.example/cat.png")
    if message.body == "media":
        return str([medium.url for medium in message.media])
    if message.body == "who":
        return message.profile_name
    session.data["said"] = [*session.data.get("said", []), message.body]
    return f"{session.count}: {' '.join(session.data['said'])}"

def plain(message, session):
    return "plain"
"""
FIXTURE = """
import pytest
import bot

@pytest.fixture
def dialogue():
    return bot.reply
"""


def run(tmp_path: Path, tests: str) -> tuple[int, str]:
    """Run an author's tests; exit code and output."""
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "bot.py").write_text(BOT)
    (tmp_path / "test_bot.py").write_text(tests)
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-W",
            "error",
            "--strict-markers",
            "test_bot.py",
        ],
        cwd=tmp_path,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{root}{os.pathsep}{tmp_path}",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_everything_an_author_may_do_works(tmp_path: Path) -> None:
    tests = """
def test_it_counts_and_remembers(phone):
    assert phone.text("a") == "1: a"
    assert phone.text("b") == "2: a b"

def test_a_message_delivered_twice_counts_once(phone):
    assert phone.text("a", deliveries=3) == "1: a"
    assert phone.text("b") == "2: a b"

def test_time_travel(phone):
    phone.text("a")
    phone.wait(hours=3, minutes=59)
    assert phone.text("b") == "2: a b"
    phone.wait(hours=4)
    assert phone.text("c") == "1: c"

def test_a_store_that_is_lost_or_away(phone):
    phone.text("a")
    phone.lose_store()
    assert phone.text("b") == "2: a b"
    with phone.store_down():
        assert phone.text("c") == "3: a b c"
        assert phone.text("d", cookies=LOST) == "4: a b c d"
    assert phone.text("e") == "5: a b c d e"
    phone.lose_store()
    assert phone.text("f", cookies=LOST) == "1: f"

def test_other_people(phone):
    phone.text("a")
    other = phone.as_("+14155550100")
    assert other.text("b") == "1: b"
    assert phone.as_(phone.number, to="+14155550101").text("c") == "1: c"
    assert phone.text("d") == "2: a d"

def test_silence_pictures_and_parameters(phone):
    assert phone.text("silence") is None
    assert phone.media == ()
    assert phone.text("picture") == "look"
    assert phone.media == ("https://pictures.example/cat.png",)
    assert phone.text("media", media=[("https://a.example/1.png", "image/png")]) == "['https://a.example/1.png']"
    assert phone.text("who", ProfileName="Ada") == "Ada"
    assert phone.last.status == 200

def test_errors_are_raised_unless_the_apology_is_wanted(phone):
    with pytest.raises(ZeroDivisionError, match="on purpose"):
        phone.text("boom")
    assert "Sorry" in phone.text("boom", failing=True) or phone.last.replies
    assert phone.text("a").startswith("3:")

def test_many_messages_are_no_loop(phone):
    for number in range(1, 41):
        assert phone.text("x").startswith(f"{number}: ")

@pytest.mark.dialogue("bot:plain")
class TestMarked:
    @pytest.fixture
    def dialogue(self, request):
        return request.node.get_closest_marker("dialogue").args[0]

    def test_a_name_is_enough(self, phone):
        assert phone.text("hi") == "plain"
"""
    code, output = run(tmp_path, FIXTURE + "from smsd.simulator import LOST\n" + tests)
    assert code == 0, output
    assert "9 passed" in output


def test_dialogue_opens_at_the_first_text(tmp_path: Path) -> None:
    tests = """
import os
import pytest
from smsd.testing import Phone

class Diary:
    def __init__(self, settings):
        open("made", "w").close()
    def open(self):
        open("opened", "w").close()
    async def __call__(self, message, session):
        return str(session.count)

@pytest.mark.dialogue("test_bot:Diary")
@pytest.mark.parametrize("run", [1, 2])
def test_it(phone: Phone, tmp_path, monkeypatch, run):
    monkeypatch.chdir(tmp_path)
    assert os.listdir() == []
    assert phone.text("hi") == "1"
    assert sorted(os.listdir()) == ["made", "opened"]

@pytest.mark.dialogue("test_bot:Diary")
def test_without_a_text_it_is_never_made(phone):
    phone.wait(hours=4)
    assert not os.path.exists("made")
"""
    code, output = run(tmp_path, tests)
    assert code == 0, output
    assert not {"made", "opened"} & {file.name for file in tmp_path.iterdir()}


def test_unusable_dialogue_says_why_each_time(tmp_path: Path) -> None:
    tests = """
import pytest
from smsd.errors import SettingsError
from smsd.simulator import LOST

class Shut:
    def open(self):
        raise OSError("no such database")
    async def __call__(self, message, session):
        return "never"

@pytest.mark.dialogue("test_bot:Shut")
def test_open(phone):
    for _ in range(2):
        with pytest.raises(SettingsError, match="open.. failed: OSError") as caught:
            phone.text("hi")
        assert "no such database" in str(caught.value.__cause__)

class TestSettings:
    @pytest.fixture
    def smsd_environ(self):
        return {"SMSD_LOOP_LIMIT": "many"}

    def test_wrong(self, phone):
        with pytest.raises(SettingsError, match="SMSD_LOOP_LIMIT"):
            phone.text("hi")

class TestWithoutStore:
    @pytest.fixture
    def smsd_environ(self):
        return {"SMSD_STORE": "cookie://"}

    def test_there_is_no_store_to_lose(self, phone):
        phone.lose_store()
        assert "1 times" in phone.text("hi")
        with phone.store_down():
            assert "2 times" in phone.text("hi")
        assert "1 times" in phone.text("hi", cookies=LOST)

@pytest.mark.dialogue("nowhere:reply")
def test_import(phone):
    phone.text("hi")
"""
    _, output = run(tmp_path, tests)
    assert "3 passed, 1 error" in output, output
    assert "No module named 'nowhere'" in output


def test_failure_reaches_the_phone_that_texted(tmp_path: Path) -> None:
    tests = """
import asyncio
import pytest
from smsd.dev.fixture import phone_for
from smsd.errors import DialogueTimeout

async def fails(message, session):
    raise ZeroDivisionError

async def sleeps(message, session):
    await asyncio.sleep(60)

async def fine(message, session):
    return "fine"

def test_two_at_once():
    with phone_for(fails, {}) as first, phone_for(fine, {}) as second:
        first.text("hi", failing=True)
        assert second.text("hi") == "fine"
        with pytest.raises(ZeroDivisionError):
            first.text("hi")

def test_late():
    with phone_for(sleeps, {"SMSD_DIALOGUE_TIMEOUT": "1"}) as phone:
        with pytest.raises(DialogueTimeout):
            phone.text("hi")
"""
    code, output = run(tmp_path, tests)
    assert code == 0, output
    assert "2 passed" in output


def test_marker_settings_and_the_greeting_by_default(tmp_path: Path) -> None:
    tests = """
import pytest

@pytest.fixture
def smsd_environ():
    return {"SMSD_GREETING": "{name} {count}", "SMSD_GREETING_FIRST": "welcome {name}"}

def test_the_greeting(phone):
    assert phone.text("hi") == "welcome Rey"
    assert phone.text("hi") == "Rey 2"

@pytest.mark.dialogue("bot:plain")
def test_the_marker(phone):
    assert phone.text("hi") == "plain"
"""
    code, output = run(tmp_path, tests)
    assert code == 0, output
    assert "2 passed" in output


def test_slow_example_of_the_docstring_holds(tmp_path: Path) -> None:
    example = (smsd.testing.__doc__ or "").partition("Slow dialogues.")[2]
    example = example.partition("Instead of overriding")[0]
    code = re.findall(r"^    .*\n|^\n(?=    )", example, re.MULTILINE)
    tests = """
import asyncio
import pytest

@pytest.fixture
def dialogue():
    async def reply(message, session):
        await asyncio.sleep(30)
        return "Found it."
    return reply
"""
    status, output = run(tmp_path, tests + textwrap.dedent("".join(code)))
    assert status == 0, output
    assert "1 passed" in output


@pytest.mark.parametrize(
    ("body", "deliveries", "complaint"),
    [
        ("return 7", 1, "ReplyError"),
        ("session.data['x'] = 'x' * 401", 1, "DataError"),
        ("return next(ANSWERS)", 2, "one message got different replies"),
        ("raise SystemExit(3)", 1, "1 failed"),
        ("raise KeyboardInterrupt", 1, "1 failed"),
        ("import asyncio; raise asyncio.CancelledError", 1, "1 failed"),
        ("return '<Response>'", 1, "1 passed"),
    ],
)
def test_what_must_not_be_fails_the_authors_test(
    tmp_path: Path, body: str, deliveries: int, complaint: str
) -> None:
    tests = f"""
import pytest
from smsd.simulator import LOST

ANSWERS = iter("ab")

@pytest.fixture
def dialogue():
    async def reply(message, session):
        {body}
    return reply

@pytest.fixture
def smsd_environ():
    return {{"SMSD_STORE": "cookie://"}}  # nothing is kept: without its cookie a message is another one

def test_it(phone):
    phone.text("hi", deliveries={deliveries}, cookies=LOST)
"""
    _, output = run(tmp_path, tests)
    assert complaint in output, output


def test_the_plugin_is_declared_and_light() -> None:
    code = "import sys, smsd.testing; print({'tornado', 'twilio', 'pymemcache'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert 'smsd = "smsd.testing"' in project
