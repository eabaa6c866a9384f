"""Test your own dialogue with pytest: a phone that texts it the way Twilio would.

The plugin is active as soon as smsd is installed; nothing needs to be imported.

    import pytest
    import mybot

    @pytest.fixture
    def dialogue():
        return mybot.reply

    def test_it_greets(phone):
        assert phone.text("hi") == "Hello, this is message 1"

`phone` sends the message through all of smsd in the test's own process: signature,
cookie, counting, TwiML. What the dialogue raises is raised by `phone.text`, and so is a
reply that Twilio would refuse.

The dialogue is made and opened at the first text. So a test that needs a working
directory, an environment variable or a file prepares it first:

    def test_entries_are_kept(phone, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert phone.text("Rain.") == "Dear diary now has 1."

What a phone can do:

    phone.text("hi", deliveries=2)                # Twilio delivers the message twice
    phone.text("hi", cookies=LOST)                # without its cookie (from smsd.simulator)
    phone.text("hi", failing=True)                # the apology of a dialogue that fails
    phone.text("look", media=[("https://…/cat.png", "image/png")])
    phone.text("hi", ProfileName="Ada")           # any other of Twilio's parameters
    phone.wait(hours=4)                           # the conversation is over
    phone.as_("+14155550100").text("hi")          # somebody else
    phone.lose_store()                            # memcached is empty; cookies are not
    with phone.store_down(): phone.text("hi")     # memcached cannot be reached
    phone.waited_s, phone.hops                    # how slow the last reply was (below)
    phone.media, phone.last                       # its pictures; everything about it

Slow dialogues. Time is virtual: a dialogue that sleeps for half a minute replies at
once, and `phone.waited_s` is 30. smsd asks Twilio to come again every
`SMSD_ANSWER_WITHIN` seconds; `phone.hops` says how often, and `phone.text` returns the
reply in the end. What waits for a real socket, thread or process takes real time.
(Added in 0.2.)

    @pytest.fixture
    def smsd_environ():
        return {"SMSD_DIALOGUE_TIMEOUT": "60"}

    def test_a_long_search_still_answers(phone):
        assert phone.text("search") == "Found it."
        assert 30 <= phone.waited_s < 31
        assert phone.hops == 2

Instead of overriding the fixture, a test, class or module can name its dialogue:

    @pytest.mark.dialogue("mybot:reply")
    def test_it_greets(phone): ...

Settings go into the fixture `smsd_environ`:

    @pytest.fixture
    def smsd_environ():
        return {"SMSD_GREETING": "{name}: {count}"}

For annotations, `smsd.testing.Phone` is the type of `phone`.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from smsd.dev.fixture import Phone

__all__ = ["Phone", "dialogue", "phone", "smsd_environ"]


def __getattr__(name: str) -> Any:
    """Import `Phone` only when asked for: pytest loads this plugin in every project."""
    if name != "Phone":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from smsd.dev.fixture import Phone  # noqa: PLC0415 - see above

    return Phone


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker `dialogue`."""
    config.addinivalue_line(
        "markers", 'dialogue("module:callable"): the dialogue that the fixture `phone` texts'
    )


@pytest.fixture
def dialogue(request: pytest.FixtureRequest) -> object:
    """The dialogue to test: the marker's, or else the greeting. Override it in your
    tests.

    Return a callable that takes (message, session), or its name as "module:callable".
    By name, a class or a factory works too: it is called at the first text.
    """
    marker = request.node.get_closest_marker("dialogue")
    return marker.args[0] if marker else "smsd.dialogues.greeting:reply"


@pytest.fixture
def smsd_environ() -> Mapping[str, str]:
    """Settings by name, as in the environment. Override it in your tests; empty by
    default."""
    return {}


@pytest.fixture
def phone(dialogue: object, smsd_environ: Mapping[str, str]) -> "Iterator[Phone]":
    """A phone that texts the dialogue. The service behind it starts at the first text.

    Raises `smsd.errors.SettingsError` if the dialogue cannot be imported.
    """
    from smsd.dev.fixture import phone_for  # noqa: PLC0415 - see `__getattr__`

    with phone_for(dialogue, smsd_environ) as phone:
        yield phone
