"""For tests of your own dialogue, with pytest. The plugin is there as soon as smsd is installed.

    import pytest
    import mybot

    @pytest.fixture
    def dialogue():
        return mybot.reply

    def test_it_greets(phone):
        assert phone.text("hi") == "Hello, this is message 1"

`phone` texts the dialogue through all of smsd: signature, cookie, counting, TwiML, in this process. What the
dialogue raises is raised by `phone.text`, and so is a reply that Twilio would refuse.

    phone.text("hi", deliveries=2)                # Twilio delivers the message twice
    phone.text("look", media=[("https://…/cat.png", "image/png")])
    phone.wait(hours=4)                           # the conversation is over
    phone.as_("+14155550100").text("hi")          # somebody else
    phone.lose_store()                            # memcached is empty; cookies are not
    with phone.store_down(): phone.text("hi")     # memcached cannot be reached
    phone.waited_s, phone.hops                    # how long the reply took, in virtual time, and how many redirects
    phone.media, phone.last                       # pictures of the last reply; everything about it

Instead of the fixture, name the dialogue of one test, class or module with
`@pytest.mark.dialogue("mybot:reply")`. Settings go into the fixture `smsd_environ`:

    @pytest.fixture
    def smsd_environ():
        return {"SMSD_GREETING": "{name}: {count}"}
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from smsd.dev.rehearsal import Phone


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    config.addinivalue_line(
        "markers", 'dialogue("module:callable"): the dialogue that the fixture `phone` texts'
    )


@pytest.fixture
def dialogue(request: pytest.FixtureRequest) -> object:
    """The dialogue on trial: from the marker, or else the greeting. Override it in your tests."""
    marker = request.node.get_closest_marker("dialogue")
    return marker.args[0] if marker else "smsd.dialogues.greeting:reply"


@pytest.fixture
def smsd_environ() -> Mapping[str, str]:
    """Settings as in the environment. Override it in your tests."""
    return {}


@pytest.fixture
def phone(dialogue: object, smsd_environ: Mapping[str, str]) -> "Iterator[Phone]":
    """A phone that texts the dialogue."""
    from smsd.dev.rehearsal import rehearsal  # noqa: PLC0415 - pytest loads this module in every project

    with rehearsal(dialogue, smsd_environ) as phone:
        yield phone
