"""Every form of dialogue can be named, and whatever is wrong with one is said with its
place."""

import asyncio
import signal
import subprocess
import sys
import textwrap
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from smsd.conversation.session import Session
from smsd.dialogues import calling, loading
from smsd.dialogues.calling import MOST_THREADS, DaemonThreads
from smsd.dialogues.loading import LoadedDialogue, load
from smsd.errors import SettingsError, UserCodeError
from smsd.twilio.message import Message
from smsd.twilio.reply import Reply
from tests.processes import SETTINGS as SERVE

pytestmark = pytest.mark.asyncio

MESSAGE = Message("SM" + "0" * 32, "AC" + "0" * 32, "+1", "+2", "hi")
SETTINGS = object()
ROOT = str(Path(__file__).parents[2])

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Makes the module `mine` of a text; it is found in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])

    def module(code: str) -> Path:
        path = tmp_path / "mine.py"
        path.write_text(textwrap.dedent(code))
        return path

    yield module
    sys.modules.pop("mine", None)


def ask(dialogue: LoadedDialogue, count: int = 1) -> Reply | str | None:
    """The answer of a dialogue that is opened, asked once and closed on a loop of its
    own."""

    async def whole_life() -> Reply | str | None:
        await dialogue.open()
        try:
            answer: Reply | str | None = await dialogue(MESSAGE, Session(count))
            return answer
        finally:
            await dialogue.close()

    return asyncio.run(whole_life())


FORMS = {
    "an async function": "async def reply(message, session): return f'{message.body} {session.count}'",
    "a plain function": "def reply(message, session): return f'{message.body} {session.count}'",
    "a function of anything": "def reply(*args): return f'{args[0].body} {args[1].count}'",
    "a plain function that returns an awaitable": """
        async def answer(message, session): return f'{message.body} {session.count}'
        reply = lambda message, session: answer(message, session)
        """,
    "a class": """
        class reply:
            def __init__(self): self.word = ' '
            async def __call__(self, message, session): return f'{message.body}{self.word}{session.count}'
        """,
    "a class without __init__": """
        class reply:
            def __call__(self, message, session): return f'{message.body} {session.count}'
        """,
    "a class that wants the settings": """
        class reply:
            def __init__(self, settings): self.settings = settings
            def __call__(self, message, session):
                assert type(self.settings) is object
                return f'{message.body} {session.count}'
        """,
    "a class whose arguments have defaults": """
        class reply:
            def __init__(self, blank=' '): self.blank = blank
            def __call__(self, message, session): return f'{message.body}{self.blank}{session.count}'
        """,
    "a factory": """
        def reply():
            return lambda message, session: f'{message.body} {session.count}'
        """,
    "a factory that wants the settings": """
        def reply(settings):
            async def answer(message, session): return f'{message.body} {session.count}'
            return answer
        """,
    "an object": """
        class Answer:
            async def __call__(self, message, session): return f'{message.body} {session.count}'
        reply = Answer()
        """,
    "a method": """
        class Answer:
            async def ask(self, message, session): return f'{message.body} {session.count}'
        reply = Answer().ask
        """,
}


@pytest.mark.parametrize("form", FORMS)
def test_a_dialogue_may_be(form: str, write: Write) -> None:
    write(FORMS[form])
    assert ask(load("mine:reply", SETTINGS), 7) == "hi 7"


def test_only_coroutines_run_on_the_event_loop(write: Write) -> None:
    write("""
        import threading
        async def here(message, session): return str(threading.get_ident())
        def elsewhere(message, session): return str(threading.get_ident())
        """)
    mine = str(threading.get_ident())
    assert ask(load("mine:here", SETTINGS)) == mine
    assert ask(load("mine:elsewhere", SETTINGS)) != mine


@pytest.mark.parametrize("word", ["", "async "])
async def test_a_dialogue_is_opened_told_of_new_settings_and_closed(
    word: str, write: Write
) -> None:
    write(f"""
        class reply:
            def __init__(self): self.seen = []
            {word}def open(self): self.seen.append('open')
            {word}def reload(self, settings): self.seen.append(settings)
            {word}def close(self): self.seen.append('close')
            def __call__(self, message, session): return ' '.join(self.seen)
        """)
    dialogue = load("mine:reply", SETTINGS)
    await dialogue.open()
    await dialogue.reload("new")
    said = await dialogue(MESSAGE, Session(1))
    await dialogue.close()
    assert said == "open new"
    assert dialogue._dialogue.seen == ["open", "new", "close"]  # type: ignore[attr-defined]


async def test_failing_open_or_reload_is_a_settings_error(
    write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    path = write("""
        class reply:
            def open(self): raise OSError('secret')
            async def reload(self, settings): raise ValueError('secret')
            def close(self): raise KeyError('secret')
            def __call__(self, message, session): return 'hi'
        """)
    dialogue = load("mine:reply", SETTINGS)
    with pytest.raises(SettingsError) as caught:
        await dialogue.open()
    assert str(caught.value) == f"SMSD_DIALOGUE: open() failed: OSError at {path}:3"
    with pytest.raises(SettingsError) as caught:
        await dialogue.reload(SETTINGS)
    assert str(caught.value) == f"SMSD_DIALOGUE: reload() failed: ValueError at {path}:4"
    await dialogue.close()
    assert [record.message for record in caplog.records] == ["dialogue not closed"]


@pytest.mark.parametrize("word", ["", "async "])
@pytest.mark.parametrize(
    "raised",
    [
        "SystemExit(3)",
        "KeyboardInterrupt",
        "GeneratorExit",
        "asyncio.CancelledError",
        "concurrent.futures.CancelledError",
        "StopIteration",
        "type('Odd', (BaseException,), {})",
    ],
)
async def test_methods_of_a_dialogue_may_raise_anything(
    word: str, raised: str, write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(f"""
        import asyncio, concurrent.futures
        class reply:
            {word}def open(self): raise {raised}
            {word}def reload(self, settings): raise {raised}
            {word}def close(self): raise {raised}
            def __call__(self, message, session): return 'hi'
        """)
    dialogue = load("mine:reply", SETTINGS)
    said = []
    for method, line in ((dialogue.open(), 4), (dialogue.reload(SETTINGS), 5)):
        with pytest.raises(SettingsError, match=rf"\(\) failed: \w+ at {path}:{line}") as caught:
            await method
        said.append(str(caught.value))
    await dialogue.close()
    assert [text.split("(")[0] for text in said] == ["SMSD_DIALOGUE: open", "SMSD_DIALOGUE: reload"]
    (record,) = caplog.records
    assert record.message == "dialogue not closed"
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], Exception)


async def test_methods_that_swallow_cancellation_are_left_behind(
    write: Write, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(loading, "OPEN_LIMIT_S", 0.01)
    monkeypatch.setattr(loading, "CLOSE_LIMIT_S", 0.01)
    write("""
        import asyncio
        class reply:
            def __init__(self): self.enough = asyncio.Event()
            async def open(self):
                while not self.enough.is_set():
                    try: await self.enough.wait()
                    except asyncio.CancelledError: pass
            async def close(self): await asyncio.Event().wait()
            def __call__(self, message, session): return 'hi'
        """)
    dialogue = load("mine:reply", SETTINGS)
    with pytest.raises(SettingsError, match=r"open\(\) took longer than 0.01 s"):
        await dialogue.open()
    await dialogue.close()
    dialogue._dialogue.enough.set()  # type: ignore[attr-defined]
    assert [record.message for record in caplog.records] == ["dialogue not closed"]


@pytest.mark.parametrize(
    "block", ["time.sleep(60)", "threading.Event().wait(60)", "queue.Queue().get(timeout=60)"]
)
async def test_plain_open_that_blocks_is_interrupted(
    block: str, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "OPEN_LIMIT_S", 0.05)
    write(f"""
        import queue, threading, time
        class reply:
            def open(self):
                try: {block}
                except Exception: pass
            def __call__(self, message, session): return 'hi'
        """)
    dialogue = load("mine:reply", SETTINGS)
    with pytest.raises(SettingsError, match=r"open\(\) took longer than 0.05 s"):
        await dialogue.open()
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL


def test_plain_open_off_the_main_thread_has_no_limit(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "OPEN_LIMIT_S", 0.01)
    write("""
        import time
        class reply:
            def open(self): time.sleep(0.05)
            def __call__(self, message, session): return 'hi'
        """)
    opened: list[None] = []
    thread = threading.Thread(
        target=lambda: opened.append(asyncio.run(load("mine:reply", SETTINGS).open()))
    )
    thread.start()
    thread.join(60)
    assert opened == [None]


async def test_cancellation_from_outside_passes_through_open(write: Write) -> None:
    write("""
        import asyncio
        class reply:
            entered = False
            async def open(self):
                self.entered = True
                try: await asyncio.Event().wait()
                finally: self.left = True
            def __call__(self, message, session): return 'hi'
        """)
    dialogue = load("mine:reply", SETTINGS)
    inner: Any = dialogue._dialogue
    opening = asyncio.ensure_future(dialogue.open())
    while not inner.entered:
        await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    while not hasattr(inner, "left"):
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("hook", "key"),
    [
        ("def conversation_key(self, message): return 'shop ' + message.body", "shop hi"),
        ("def conversation_key(self, message): return None", None),
        ("def conversation_key(self, message): return ''", None),
        ("conversation_key = None", None),
        ("pass", None),
    ],
)
def test_a_dialogue_may_name_the_conversation_of_a_message(
    hook: str, key: str | None, write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    write(f"""
        class reply:
            {hook}
            def __call__(self, message, session): return 'hi'
        """)
    assert load("mine:reply", SETTINGS).conversation_key(MESSAGE) == key
    assert not caplog.records


@pytest.mark.parametrize(
    "hook",
    [
        "def conversation_key(self, message): raise SystemExit",
        "def conversation_key(self, message): raise KeyError(message.from_)",
        "def conversation_key(self, message): return 7",
        "def conversation_key(self, message): return 'x' * 257",
        "async def conversation_key(self, message): return 'x'",
        "def conversation_key(self): return 'x'",
        "@property\n            def conversation_key(self): raise GeneratorExit",
    ],
)
def test_failing_conversation_key_is_logged_and_counts_as_none(
    hook: str, write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    write(f"""
        class reply:
            {hook}
            def __call__(self, message, session): return 'hi'
        """)
    assert load("mine:reply", SETTINGS).conversation_key(MESSAGE) is None
    assert [record.message for record in caplog.records] == ["conversation_key() failed"]


@pytest.mark.parametrize("word", ["", "async "])
@pytest.mark.parametrize(
    ("raised", "arrives"),
    [("KeyError", KeyError), ("StopIteration", (RuntimeError, UserCodeError))],
)
def test_what_a_dialogue_raises_arrives_at_once(
    word: str, raised: str, arrives: type[Exception], write: Write
) -> None:
    write(f"{word}def reply(message, session): raise {raised}")
    with pytest.raises(arrives):
        ask(load("mine:reply", SETTINGS))


@pytest.mark.parametrize(
    "raised",
    [
        "SystemExit(3)",
        "KeyboardInterrupt",
        "GeneratorExit",
        "asyncio.CancelledError",
        "concurrent.futures.CancelledError",
        "StopIteration",
        "type('Odd', (BaseException,), {})",
    ],
)
def test_plain_function_never_raises_what_asyncio_would_misunderstand(
    raised: str, write: Write
) -> None:
    path = write(f"""
        import asyncio, concurrent.futures
        def reply(message, session): raise {raised}
        """)
    with pytest.raises(UserCodeError, match=r"\w+ raised by a dialogue") as caught:
        ask(load("mine:reply", SETTINGS))
    assert caught.value.__cause__ is not None
    (*_, frame) = traceback.extract_tb(caught.value.__cause__.__traceback__)
    assert (frame.filename, frame.lineno) == (str(path), 3)


def test_hanging_plain_function_does_not_hold_up_the_exit(write: Write) -> None:
    write("""
        import asyncio, sys, threading
        from smsd import Message, Session
        from smsd.dialogues.loading import load

        entered = threading.Event()

        def reply(message, session):
            entered.set()
            threading.Event().wait()

        async def life():
            dialogue = load("mine:reply", None)
            message = Message("SM" + "0" * 32, "AC" + "0" * 32, "+1", "+2", "hi")
            asked = asyncio.ensure_future(dialogue(message, Session(1)))
            await asyncio.to_thread(entered.wait)
            asked.cancel()
            await dialogue.close()

        if __name__ == "__main__":
            sys.modules["mine"] = sys.modules["__main__"]
            asyncio.run(life())
            print("the end")
        """)
    ended = subprocess.run(
        [sys.executable, "mine.py"],
        env={"PYTHONPATH": ROOT},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "the end\n", "")


async def test_plain_functions_beyond_the_thread_limit_wait(
    write: Write, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(calling, "_threads", DaemonThreads(MOST_THREADS))
    write("""
        import threading
        lock, gate, running = threading.Lock(), threading.Event(), []
        def reply(message, session):
            with lock:
                running.append(session.count)
            gate.wait()
            return str(session.count)
        """)
    dialogue = load("mine:reply", SETTINGS)
    module = sys.modules["mine"]
    asked = [
        asyncio.ensure_future(dialogue(MESSAGE, Session(n))) for n in range(1, MOST_THREADS + 4)
    ]
    while len(module.running) < MOST_THREADS:
        await asyncio.sleep(0.001)
    last = asked.pop()
    last.cancel()  # it still waits for its turn, and now never runs
    with pytest.raises(asyncio.CancelledError):
        await last
    at_once = len(module.running)
    module.gate.set()
    answers = [await answer for answer in asked]
    assert at_once == MOST_THREADS
    assert answers == [str(n) for n in range(1, MOST_THREADS + 3)]
    assert MOST_THREADS + 3 not in module.running
    assert [record.getMessage() for record in caplog.records] == [
        "all 32 threads for plain functions are busy, others wait"
    ]


@pytest.mark.parametrize(
    ("code", "complaint"),
    [
        (
            "",
            "mine:reply cannot be imported: AttributeError: module 'mine' has no attribute 'reply'",
        ),
        (
            "import nowhere_at_all",
            "cannot be imported: ModuleNotFoundError at {path}:1: No module named 'nowhere_at_all'",
        ),
        ("x = 1\nif", "cannot be imported: SyntaxError at {path}:2: invalid syntax"),
        ("\nx = y", "cannot be imported: NameError at {path}:2: name 'y' is not defined"),
        ("raise ValueError('secret')", "cannot be imported: ValueError at {path}:1"),
        ("import sys\nsys.exit('secret')", "cannot be imported: SystemExit at {path}:2"),
        ("raise KeyboardInterrupt", "cannot be imported: KeyboardInterrupt at {path}:1"),
        (
            "class reply:\n    def __init__(self): raise SystemExit",
            "mine:reply cannot be made: SystemExit at {path}:2",
        ),
        (
            "import asyncio\ndef reply(): raise asyncio.CancelledError",
            "mine:reply cannot be made: CancelledError at {path}:2",
        ),
        ("reply = 7", "mine:reply must take nothing, the settings, or (message, session)"),
        ("reply = type", "mine:reply must take nothing, the settings, or (message, session)"),
        ("reply = 'ab'.join", "mine:reply cannot be made: TypeError: can only join an iterable"),
        (
            "\ndef reply(a, b, c): pass",
            "mine:reply ({path}:2) must take nothing, the settings, or (message, session)",
        ),
        (
            "\nclass reply:\n    def __init__(self, a, b): pass",
            "mine:reply ({path}:2) must take nothing, the settings, or (message, session)",
        ),
        (
            "class reply:\n    def __init__(self): {}[1]",
            "mine:reply cannot be made: KeyError at {path}:2",
        ),
        ("\nclass reply: pass", "mine:reply ({path}:2) does not take (message, session)"),
        (
            "class reply:\n    def __call__(self, message): pass",
            "mine:reply ({path}:1) does not take (message, session)",
        ),
        (
            "class Reply:\n    async def __call__(self, message): pass\n\nreply = Reply()",
            "mine:reply ({path}:1) does not take (message, session)",
        ),
        (
            "def reply(): return lambda message: 1",
            "mine:reply ({path}:1) does not take (message, session)",
        ),
        ("\ndef reply(message): pass", "mine:reply ({path}:2) does not take (message, session)"),
        (
            "\nasync def reply(message): pass",
            "mine:reply ({path}:2) does not take (message, session)",
        ),
    ],
)
def test_what_is_not_a_dialogue_is_refused_with_its_place(
    code: str, complaint: str, write: Write
) -> None:
    path = write(code)
    with pytest.raises(SettingsError) as caught:
        load("mine:reply", SETTINGS)
    said = str(caught.value)
    assert said.startswith("SMSD_DIALOGUE: mine:reply ")
    assert said.endswith(complaint.format(path=path) if "{path}" in complaint else complaint)


def test_missing_module_is_named() -> None:
    with pytest.raises(SettingsError, match="ModuleNotFoundError: No module named 'nowhere'"):
        load("nowhere.at_all:reply", SETTINGS)


@pytest.mark.parametrize(
    ("code", "complaint"),
    [
        ("\nimport nowhere_at_all", "cannot be imported: ModuleNotFoundError at {path}:2"),
        ("\nasync def reply(message): pass", "({path}:2) does not take (message, session)"),
        (
            "class reply:\n  def open(self): 1/0\n  def __call__(self, m, s): pass",
            "open() failed: ZeroDivisionError at {path}:2",
        ),
        (
            "import sys\nclass reply:\n  def open(self): sys.exit()\n  def __call__(self, m, s): 1",
            "open() failed: SystemExit at {path}:3",
        ),
    ],
)
@pytest.mark.parametrize("options", [(), ("--dev",)])
def test_serve_with_a_broken_dialogue_exits_2_with_its_place(
    code: str, complaint: str, options: tuple[str, ...], write: Write
) -> None:
    path = write(code)
    ended = subprocess.run(
        [sys.executable, "-m", "smsd", "serve", *options],
        env={**SERVE, "PYTHONPATH": ROOT, "SMSD_DIALOGUE": "mine:reply"},
        cwd=path.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    (line,) = (line for line in ended.stderr.splitlines() if line.startswith("smsd: "))
    assert line.startswith("smsd: SMSD_DIALOGUE: ")
    assert complaint.format(path=path) in line
    assert "listening" not in ended.stderr
