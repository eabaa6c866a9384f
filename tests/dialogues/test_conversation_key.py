"""A dialogue that names conversations itself: one person under two addresses, on two
replicas."""

from collections.abc import Mapping
from typing import Any

import pytest

from smsd import Message, Router, Session

NUMBER, USER_ID = "whatsapp:+14158675309", "whatsapp:US.13491208655302741918"


class Shop:
    """Counts a person's messages under both forms of a WhatsApp address."""

    def conversation_key(self, message: Message) -> str:
        if message.body == "broken":
            raise SystemExit
        return f"{message.to} {message.external_user_id}" if message.external_user_id else ""

    async def __call__(self, message: Message, session: Session) -> str:
        return f"{session.count}"


def in_router() -> Router:
    router = Router()
    router.number("+14158141829", "+14155550100")(Shop())
    return router


@pytest.fixture
def smsd_environ() -> Mapping[str, str]:
    return {"SMSD_LOOP_LIMIT": "0"}


@pytest.mark.parametrize("dialogue", [Shop(), in_router()], ids=["object", "router"])
def test_messages_with_one_key_are_one_conversation(phone: Any) -> None:
    by_number, by_id = (
        phone.as_(address, "whatsapp:+14158141829") for address in (NUMBER, USER_ID)
    )
    assert by_number.text("hi", ExternalUserId="US.1", deliveries=2) == "1"
    assert by_id.text("hi", ExternalUserId="US.1", deliveries=2) == "2"
    assert by_number.text("hi", ExternalUserId="US.1") == "3"
    assert by_id.text("hi", ExternalUserId="US.2") == "1"
    assert by_number.text("hi") == "1", "without a key, From and To are the conversation"
    assert by_id.as_(USER_ID, "whatsapp:+14155550100").text("x", ExternalUserId="US.1") == "1"


@pytest.mark.parametrize("dialogue", [Shop()])
def test_failing_key_leaves_the_conversation_to_from_and_to(phone: Any) -> None:
    assert phone.text("hi") == "1"
    assert phone.text("broken") == "2"
