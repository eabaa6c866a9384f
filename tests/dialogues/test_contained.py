"""Whatever routes and forms raise, the sender gets the apology and the next message is
served."""

import asyncio
import concurrent.futures
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from twilio.twiml.messaging_response import MessagingResponse

from smsd import Message, Router, Session
from smsd.form import Ask, Form
from smsd.simulator import BlockingClient
from tests.processes import ACCOUNT, PUBLIC_URL, TOKEN, Smsd, wait_for


class Odd(BaseException):
    """What is no Exception and nobody knows."""


RAISED = [
    ValueError("secret"),
    SystemExit(3),
    KeyboardInterrupt(),
    GeneratorExit(),
    StopIteration(),
    asyncio.CancelledError(),
    concurrent.futures.CancelledError(),
    TimeoutError(),
    Odd(),
]


@pytest.fixture(params=RAISED, ids=lambda error: f"{type(error).__module__}.{type(error).__name__}")
def error(request: pytest.FixtureRequest) -> BaseException:
    found: BaseException = request.param
    return found


@pytest.fixture
def smsd_environ() -> Mapping[str, str]:
    return {"SMSD_APOLOGY": "Sorry"}


@pytest.fixture
def dialogue(error: BaseException) -> Router:
    router = Router()

    def fail(*_: object) -> Any:
        raise error

    class Response(MessagingResponse):  # type: ignore[misc]
        @property
        def verbs(self) -> list[object]:
            raise error

        @verbs.setter
        def verbs(self, value: list[object]) -> None:
            """The SDK sets it."""

    @router.on("async")
    async def coroutine(message: Message, session: Session) -> None:
        session.data.clear()
        fail()

    @router.on("late async")
    async def late(message: Message, session: Session) -> None:
        await asyncio.sleep(0.001)
        fail()

    @router.on("plain")
    def plain(message: Message, session: Session) -> None:
        fail()

    @router.on("awaitable")
    def awaitable(message: Message, session: Session) -> Any:
        return late(message, session)

    router.form(Form(Ask("a", "A?", read=fail), name="bad answer"), "form")(fail)
    router.form(Form(Ask("a", "A?"), name="bad callback"), "callback")(fail)
    router.on("reply", anywhere=True)(lambda message, session: Response())

    @router.otherwise
    async def anything(message: Message, session: Session) -> str:
        return f"{session.count}"

    return router


@pytest.mark.parametrize("route", ["async", "late async", "plain", "awaitable", "reply"])
def test_failing_handler_gets_the_apology_and_harms_nobody(phone: Any, route: str) -> None:
    assert phone.text("hi") == "1"
    assert phone.text(route, failing=True, deliveries=2) == "Sorry"
    assert phone.text("hi") == "3"
    assert phone.as_("+14155550100").text("hi") == "1"


@pytest.mark.parametrize("form", ["form", "callback"])
def test_failing_form_gets_the_apology_and_asks_again(
    phone: Any, form: str, error: BaseException
) -> None:
    assert phone.text(form) == "A?"
    refused = isinstance(error, ValueError) and form == "form"
    assert phone.text("7", failing=True) == ("A?" if refused else "Sorry")
    assert phone.text("never mind") == "All right, forgotten."


DIALOGUE = """
import asyncio, sys

class Bot:
    async def open(self): pass
    {word}def reload(self, settings): {raised}
    {word}def close(self): {raised}
    async def __call__(self, message, session): return str(session.count)
"""


@pytest.mark.parametrize(
    ("word", "raised"),
    [("", "sys.exit(3)"), ("async ", "sys.exit(3)"), ("async ", "raise asyncio.CancelledError")],
)
def test_process_survives_what_reload_raises_and_ends_in_spite_of_close(
    word: str, raised: str, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(DIALOGUE.format(word=word, raised=raised))
    people = tmp_path / "people.toml"
    people.write_text('"+14155550100" = "Ada"')
    env = {"SMSD_DIALOGUE": "mine:Bot", "PYTHONPATH": str(tmp_path), "SMSD_PEOPLE": str(people)}
    with Smsd(env) as smsd:
        phone = BlockingClient(
            f"{PUBLIC_URL}/sms", token=TOKEN, sid=ACCOUNT, connect_to=smsd.address
        )
        assert phone.text("hi").text == "1"
        people.write_text('"+14155550100" = "Bob"')
        smsd.signal(signal.SIGHUP)
        refused = 'smsd_reloads_total{result="refused"}'
        wait_for(lambda: smsd.metric(refused) == 1, "the refused reload")
        assert phone.text("hi").text == "2"
        assert smsd.terminate() == 0
        log = smsd.log()
    assert "reload() failed: " in log
    assert "dialogue not closed" in log
