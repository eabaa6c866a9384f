"""Whatever a dialogue does to `logging`, its author sees what happened: on the phone page,
in the terminal of `serve --dev`, and in tests."""

import http.client
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from smsd.dev.fixture import phone_for
from tests.dev.processes import DevServer
from tests.processes import wait_for

SETUPS = {
    "dictConfig": "logging.config.dictConfig({'version': 1, 'root': {'level': 'CRITICAL'}})",
    "disable": "logging.disable(logging.CRITICAL)",
    "force": "logging.basicConfig(level=logging.CRITICAL, force=True)",
    "levels": "[logging.getLogger(name).setLevel(logging.CRITICAL) for name in (None, 'smsd')]",
    "handlers": "[logging.getLogger(name).handlers.clear() for name in (None, 'smsd')]",
}
DIALOGUE = """
import asyncio, logging, logging.config

def silence():
    {setup}

silence()
tasks = set()

async def reply(message, session):
    silence()
    if message.body == "boom":
        raise KeyError("on purpose")
    if message.body == "slow boom":
        await asyncio.sleep(0.1)
        raise KeyError("on purpose")
    if message.body == "lose a task":
        asyncio.create_task(lost()).add_done_callback(tasks.discard)
    return str(session.count)

async def lost():
    raise ValueError("nobody awaits this")
"""


@pytest.fixture(params=SETUPS)
def dialogue_source(request: pytest.FixtureRequest) -> str:
    return DIALOGUE.format(setup=SETUPS[request.param])


def text(server: DevServer, body: str) -> Any:
    """What the phone page is told of a text that was delivered twice."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    asked = {"from": "+15551000", "to": "+15552000", "body": body, "twice": True}
    headers = {"Content-Type": "application/json"}
    connection.request("POST", "/phone/api/messages", json.dumps(asked), headers)
    event = json.loads(connection.getresponse().read())
    connection.close()
    return event


def test_page_and_terminal_of_the_server_tell_everything(
    tmp_path: Path, dialogue_source: str
) -> None:
    (tmp_path / "mine.py").write_text(dialogue_source)
    with DevServer(SMSD_DIALOGUE="mine:reply", PYTHONPATH=str(tmp_path)) as dev:
        good = text(dev, "hi")
        assert good["verdict"]["text"] == "Delivered twice: counted once, same reply."
        assert good["verdict"]["notes"] == ["No cookie, no record: counted as 1."]
        assert good["problem"] is None
        for failures, body in enumerate(("boom", "slow boom"), start=1):
            bad = text(dev, body)
            assert bad["verdict"]["text"] == "The dialogue failed: KeyError: 'on purpose'"
            assert bad["problem"]["text"] == "KeyError: 'on purpose'"
            assert bad["problem"]["traceback"].startswith("Traceback (most recent call last):")
            shown = dev.process.log().split("The dialogue failed, and the sender got the apology:")
            assert len(shown) - 1 == failures
            assert re.match(r"\nTraceback .*KeyError: 'on purpose'\n", shown[-1], re.DOTALL)
        stopped = text(dev, "STOP")
        assert stopped["verdict"]["notes"][0].startswith("Twilio itself answers this word.")
        text(dev, "lose a task")
        wait_for(lambda: "ValueError: nobody awaits this" in dev.process.log(), "the lost task")
        assert "\nTask exception was never retrieved:\nTraceback" in dev.process.log()
        (tmp_path / "mine.py").write_text("raise ValueError('the reason')\n")
        wait_for(lambda: "ValueError: the reason" in dev.process.log(), "the refused version")


@pytest.fixture
def _logging_as_before() -> Iterator[None]:
    """Undo what a dialogue in this process does to logging."""
    names = [None, "smsd"]
    before = [
        (logger, logger.level, list(logger.handlers), logger.disabled)
        for logger in (*map(logging.getLogger, names), *_loggers())
    ]
    yield
    logging.disable(logging.NOTSET)
    for logger, level, handlers, disabled in before:
        logger.setLevel(level)
        logger.handlers[:] = handlers
        logger.disabled = disabled


def _loggers() -> list[logging.Logger]:
    named = logging.Logger.manager.loggerDict.values()
    return [logger for logger in named if isinstance(logger, logging.Logger)]


@pytest.mark.usefixtures("_logging_as_before")
def test_fixture_raises_what_the_dialogue_raises(dialogue_source: str) -> None:
    module: dict[str, Any] = {}
    exec(dialogue_source, module)  # noqa: S102 - the source stands above
    with phone_for(module["reply"], {}) as phone:
        assert phone.text("hi") == "1"
        for body in ("boom", "slow boom"):
            with pytest.raises(KeyError, match="on purpose"):
                phone.text(body)
        assert phone.text("boom", failing=True) is not None
        assert phone.text("hi") == "5"
