"""A phone that texts a dialogue through all of smsd, in a test: what the fixture
`phone` is.

It holds no rule of Twilio's (those are the simulator's) and starts nothing itself (that
is the stage's). `smsd.testing` documents it for authors.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from smsd.dev.stage import Stage
from smsd.simulator.edge import DEFAULT_FROM, DEFAULT_TO
from smsd.simulator.twilio import JAR, Cookies
from smsd.simulator.values import Outcome

TYPING_S = 30.0  # so that a test with many messages does not look like two machines in a loop


class Phone:
    """One person's phone in a test.

    number  who texts, such as "+14158675309"
    to      the number that is texted
    last    everything about the last message, a `smsd.simulator.Outcome`: its replies, each
            request and answer, Twilio's error codes; None before the first message
    """

    def __init__(self, stage: Stage, number: str, to: str) -> None:
        self._stage = stage
        self.number = number
        self.to = to
        self.last: Outcome | None = None

    def text(
        self,
        body: str = "",
        *,
        media: Sequence[tuple[str, str] | tuple[str, str, bytes | None]] = (),
        deliveries: int = 1,
        cookies: Cookies = JAR,
        failing: bool = False,
        **extra: str,
    ) -> str | None:
        """Text the dialogue and return its reply.

        Twilio's `<Redirect>` is followed, so a slow dialogue's reply is returned too.
        Each text lets half a minute pass beforehand, as if somebody had typed it.

        body        the text of the message
        media       (URL, content type) of each attachment. A third value is the content
                    that `media.read` returns, by default "content of URL"; None if the file
                    is gone, so that it raises MediaError 404
        deliveries  how often Twilio delivers this one message
        cookies     which cookie it carries: `smsd.simulator.LOST` for none,
                    `smsd.simulator.STALE` for an old one
        failing     True to get the apology of a dialogue that fails; otherwise what it
                    raises is raised here
        extra       more of Twilio's parameters, such as ProfileName="Ada"

        Returns several messages joined by newlines, and None for no reply. Raises what
        the dialogue raised, `smsd.errors.SettingsError` if the dialogue or a setting
        cannot be used, and AssertionError if Twilio would refuse the reply or if two
        deliveries got different replies.
        """
        client = self._stage.client
        self._stage.clock.advance(TYPING_S)
        for url, _, *content in media:
            self._stage.files[url] = content[0] if content else f"content of {url}".encode()
        links = [(url, content_type) for url, content_type, *_ in media]
        message = client.compose(body, from_=self.number, to=self.to, media=links, extra=extra)
        outcomes = [client.deliver(message, cookies=cookies) for _ in range(deliveries)]
        self.last = outcomes[-1]
        self._stage.judge(outcomes, may_fail=failing)
        return self.last.text

    @property
    def media(self) -> tuple[str, ...]:
        """The URLs of all media of the last reply."""
        return tuple(
            url for reply in (self.last.replies if self.last else ()) for url in reply.media
        )

    @property
    def waited_s(self) -> float:
        """Seconds of virtual time from the last message to its last reply. Added in
        0.2."""
        return self.last.waited_s if self.last else 0.0

    @property
    def hops(self) -> int:
        """How often Twilio was asked to come again for the last message. Added in 0.2."""
        return self.last.hops if self.last else 0

    def wait(self, seconds: float = 0, *, minutes: float = 0, hours: float = 0) -> None:
        """Let time pass. After four hours without a message a conversation is over."""
        self._stage.clock.advance(seconds + 60 * minutes, hours=hours)

    def lose_store(self) -> None:
        """Empty the store, as a restart of memcached does. Cookies keep what they hold."""
        self._stage.lose_store()

    @contextmanager
    def store_down(self) -> Iterator[None]:
        """Within the `with` block the store cannot be reached."""
        self._stage.set_store_up(False)
        try:
            yield
        finally:
            self._stage.set_store_up(True)

    def as_(self, number: str, to: str | None = None) -> "Phone":
        """Another person's phone. It texts the same number unless `to` says otherwise."""
        return Phone(self._stage, number, to or self.to)


@contextmanager
def rehearsal(dialogue: Any, environ: Mapping[str, str]) -> Iterator[Phone]:
    """A phone in front of a dialogue: "module:callable", or a callable (message,
    session).

    The dialogue is imported now, and made and opened at the first text.
    """
    with Stage(dialogue, environ) as stage:
        yield Phone(stage, DEFAULT_FROM, DEFAULT_TO)
