import pytest


@pytest.mark.dialogue("bot:reply")
def test_the_bot_remembers_a_name(phone):
    phone.text("hi")
    assert phone.text("Ada", deliveries=2) == "Ada, this is message 2."
