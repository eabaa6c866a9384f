"""`serve --dev` loads a changed dialogue: the source that counts, and what a broken
version leaves behind."""

import asyncio
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from smsd.dev.live_reload import Source
from smsd.dialogues.loading import LoadedDialogue, load
from smsd.errors import SettingsError
from smsd.simulator import BlockingClient
from tests.dev.processes import DevServer
from tests.dialogues.test_loading import ask
from tests.processes import wait_for

SAYS = "async def reply(message, session):\n    return f'{} {{session.count}}'\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where modules are found, and forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *filter(None, sys.path)])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


def again(source: Source) -> LoadedDialogue:
    return asyncio.run(source.load(None))


def test_version_of_same_second_and_size_is_loaded(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    file = folder / "mine.py"
    file.write_text(SAYS.format("old"))
    os.utime(file, ns=(10**18, 10**18))
    load("mine:reply", None)
    source = Source("mine:reply")
    assert not source.changed()
    file.write_text(SAYS.format("new"))
    os.utime(file, ns=(10**18, 10**18 + 1))
    assert source.changed()
    assert ask(again(source)) == "new 1"
    assert not source.changed()


def test_package_reloads_with_modules_beside_it(folder: Path) -> None:
    package = folder / "bot" / "flows"
    package.mkdir(parents=True)
    (folder / "bot" / "__init__.py").touch()
    (folder / "bot" / "words.py").write_text("WORD = 'old'")
    (folder / "beside.py").write_text("MARK = '?'")
    (package / "__init__.py").write_text(
        "from beside import MARK\nfrom bot.words import WORD\n" + SAYS.format("{WORD}{MARK}")
    )
    assert ask(load("bot.flows:reply", None)) == "old? 1"
    source = Source("bot.flows:reply")
    (folder / "bot" / "words.py").write_text("WORD = 'newer'")
    assert source.changed()
    assert ask(again(source)) == "newer? 1"
    (folder / "beside.py").write_text("MARK = '!!'")
    assert source.changed()
    assert ask(again(source)) == "newer!! 1"


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        ("def reply(message", r"SyntaxError at {file}:1"),
        ("\nimport helper", r"SyntaxError at {folder}/helper.py:2"),
        ("\ndef reply(one): pass", r"\({file}:2\) does not take"),
        (
            "class reply:\n  def open(self): 1/0\n  def __call__(self, m, s): pass",
            r"ZeroDivisionError at {file}:2",
        ),
    ],
)
def test_broken_version_leaves_the_old_one(folder: Path, broken: str, complaint: str) -> None:
    file = folder / "mine.py"
    (folder / "helper.py").write_text("WORD = 1\nif")
    file.write_text(SAYS.format("old"))
    loaded = load("mine:reply", None)
    module = sys.modules["mine"]
    source = Source("mine:reply")
    file.write_text(broken)
    assert source.changed()
    with pytest.raises(
        SettingsError,
        match=complaint.format(file=re.escape(str(file)), folder=re.escape(str(folder))),
    ):
        again(source)
    assert sys.modules["mine"] is module
    assert ask(loaded) == "old 1"
    assert not source.changed(), "said once"
    (folder / "helper.py").write_text("WORD = 2")
    assert source.changed(), "also a module that was not loaded yet may be what is mended"


def test_installed_modules_and_smsd_are_never_reloaded(folder: Path) -> None:
    installed = folder / "site-packages"
    installed.mkdir()
    sys.path.insert(0, str(installed))
    (installed / "theirs.py").write_text(SAYS.format("theirs"))
    load("theirs:reply", None)
    source = Source("theirs:reply")
    (installed / "theirs.py").unlink()
    assert not source.changed()
    load("smsd.dialogues.directory:reply", _Nobody())
    own = set(Source("smsd.dialogues.directory:reply")._own())
    assert "smsd.dialogues.directory" in own
    assert {
        name for name in own if name.startswith("smsd") and not name.startswith("smsd.dialogues")
    } == set()


class _Nobody:
    directory = ()


def test_removed_folder_is_a_change(folder: Path) -> None:
    (folder / "bot").mkdir()
    (folder / "bot" / "__init__.py").write_text(SAYS.format("old"))
    load("bot:reply", None)
    source = Source("bot:reply")
    (folder / "bot").rename(folder / "elsewhere")
    assert source.changed()
    with pytest.raises(SettingsError, match="No module named 'bot'"):
        again(source)


def test_saved_version_answers_and_conversations_stay(
    tmp_path: Path,
) -> None:
    file = tmp_path / "mine.py"
    closed = tmp_path / "closed"
    file.write_text(
        f"class reply:\n  def close(self): open({str(closed)!r}, 'w').close()\n"
        "  async def __call__(self, message, session): return f'old {session.count}'\n"
    )
    with DevServer(
        SMSD_DIALOGUE="mine:reply", PYTHONPATH=str(tmp_path), TWILIO_AUTH_TOKEN="t" * 32
    ) as dev:
        phone = BlockingClient(f"{dev.url}/sms", token="t" * 32)
        assert phone.text("hi").text == "old 1"
        file.write_text(SAYS.format("new"))
        wait_for(lambda: "dialogue reloaded" in dev.process.log(), "the new version")
        assert closed.exists()
        assert phone.text("hi").text == "new 2"
        file.write_text("\n\nimport nowhere_at_all")
        wait_for(lambda: "dialogue not reloaded" in dev.process.log(), "the broken version")
        assert (
            f"ModuleNotFoundError at {file}:3: No module named 'nowhere_at_all'"
            in dev.process.log()
        )
        assert phone.text("hi").text == "new 3"
        file.write_text(SAYS.format("mended"))
        wait_for(lambda: dev.process.log().count("dialogue reloaded") == 2, "the mended version")
        assert phone.text("hi").text == "mended 4"
        assert dev.process.terminate() == 0
