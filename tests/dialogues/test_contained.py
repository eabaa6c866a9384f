"""Whatever routes and forms raise, the sender gets the apology and the next message is served."""

import asyncio
import concurrent.futures
from collections.abc import Mapping
from typing import Any

import pytest
from twilio.twiml.messaging_response import MessagingResponse

from smsd import Message, Router, Session
from smsd.form import Ask, Form


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
