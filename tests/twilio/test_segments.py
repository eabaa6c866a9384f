"""What replies cost: the metric counts the SMS segments that Twilio charges, once for
each message."""

from pathlib import Path

from smsd.simulator import BlockingClient
from tests.processes import ACCOUNT, PUBLIC_URL, TOKEN, Smsd

DIALOGUE = """
from smsd import Reply

SAID = {
    "short": "hi",
    "long": "x" * 161,
    "accent": "déjà vu",
    "emoji": "\\N{WAVING HAND SIGN}",
    "two": Reply("one", "zwei \\N{SNOWMAN}"),
    "picture": Reply("look", "there", media="https://example.com/a.png"),
    "silence": None,
}

async def reply(message, session):
    return SAID[message.body]
"""


def test_reply_segments_are_counted_once_and_for_sms_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(DIALOGUE)
    env = {"SMSD_DIALOGUE": "mine:reply", "PYTHONPATH": str(tmp_path), "SMSD_APOLOGY": "Sorry"}
    with Smsd(env) as smsd:
        phone = BlockingClient(
            f"{PUBLIC_URL}/sms", token=TOKEN, sid=ACCOUNT, connect_to=smsd.address
        )

        def charged() -> tuple[float, float]:
            gsm, ucs = (
                smsd.metric(f'smsd_reply_segments_total{{encoding="{e}"}}')
                for e in ("GSM-7", "UCS-2")
            )
            return gsm, ucs

        assert charged() == (0, 0)
        expected = [
            ("short", 1, 0),
            ("long", 2, 0),
            ("accent", 1, 0),  # é and à are GSM's
            ("emoji", 0, 1),
            ("two", 1, 1),
            ("picture", 1, 0),  # the first message goes as MMS
            ("silence", 0, 0),
            ("unknown", 1, 0),  # the apology
        ]
        for body, gsm, ucs in expected:
            before = charged()
            message = phone.compose(body)
            for _ in range(2):
                phone.deliver(message)
            assert charged() == (before[0] + gsm, before[1] + ucs), body
        before = charged()
        assert (
            phone.text("short", from_="whatsapp:+14158675309", to="whatsapp:+14158141829").text
            == "hi"
        )
        assert charged() == before, "WhatsApp is not charged by segments"
