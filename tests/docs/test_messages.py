"""The list of the messages for people is complete."""

from docs.tools.messages import messages


def test_the_list_holds_messages_of_every_kind() -> None:
    texts = [text for _, _, text in messages()]
    for part in ("SMSD_ADMIN_PORT: must differ", "Twilio calls another host", "text a running"):
        assert any(part.lower() in text.lower() for text in texts), part
