"""Tests of the conversation key."""

import pytest

pytestmark = pytest.mark.dialogue("shop:Shop")


def test_one_person_under_two_addresses_has_one_conversation(phone):
    number = phone.as_("whatsapp:+14155550100")
    user_id = phone.as_("whatsapp:US.1234")
    assert number.text("hi", ExternalUserId="US.1234") == "Message 1"
    assert user_id.text("hi again", ExternalUserId="US.1234") == "Message 2"


def test_others_have_conversations_of_their_own(phone):
    phone.as_("whatsapp:+14155550100").text("hi", ExternalUserId="US.1234")
    assert phone.text("hi") == "Message 1"
