"""What a dialogue replies, within Twilio's limits.

It must not let a reply through that Twilio would refuse: everything is checked when a
`Reply` is made, so that a mistake shows in the dialogue that made it.

Limits: twilio.com/docs/messaging/twiml, errors 11750 (size), 14109 (messages), 21617
(characters).
"""

from collections.abc import Sequence
from itertools import islice
from typing import Any

from smsd.errors import ReplyError
from smsd.twilio import messaging_response
from smsd.twilio.markup import HEAD, Part, Redirect, document, is_http_url, twiml_of, verbs
from smsd.twilio.splitting import MOST_CHARACTERS, split_text

__all__ = ["MOST_CHARACTERS", "SILENCE", "Reply", "document", "to_reply", "verbs"]

MOST_MESSAGES = 10
MOST_MEDIA = 10
"""In one message."""
MOST_BYTES = 64_000
"""Of TwiML. Twilio says 64 kB: the smaller of its two meanings."""


class Reply:
    """One or more texts, and media that go with the first.

    texts  each becomes a message. Characters that XML cannot carry and blank texts are
           dropped; a text of more than 1,600 characters is split at word boundaries
    media  the http or https URL of a picture or another file, or several of them
    split  False refuses a text of more than 1,600 characters instead of splitting it

    Raises `smsd.errors.ReplyError` beyond Twilio's limits: 10 messages, 10 media, 64 kB
    of TwiML; and for media without a URL. A reply is immutable, and can be compared.

    Its attribute `messages` has the texts as they are sent, `media` the URLs.

    >>> Reply("Here it is", "And more", media="https://example.com/a.png").messages
    ('Here it is', 'And more')
    >>> [len(message) for message in Reply("twelve chars " * 200).messages]
    [1598, 1000]
    >>> Reply("twelve chars " * 200, split=False)
    Traceback (most recent call last):
    smsd.errors.ReplyError: a text has more than 1600 characters; shorten it, or leave out split=False
    """

    __slots__ = ("media", "messages", "texts", "twiml")

    messages: tuple[str, ...]
    media: tuple[str, ...]
    texts: tuple[str, ...]
    """The messages that travel as SMS: those without media."""
    twiml: bytes

    def __init__(self, *texts: str, media: str | Sequence[str] = (), split: bool = True) -> None:
        pieces = (piece for text in texts for piece in split_text(text, may_split=split))
        messages = tuple(islice(pieces, MOST_MESSAGES + 1))
        links = (media,) if isinstance(media, str) else tuple(media)
        if links:
            first, *others = messages or ("",)
            self._set([Part(first, links), *map(Part, others)])
        else:
            self._set([*map(Part, messages)])

    @classmethod
    def of_parts(cls, parts: Sequence[Part], redirect: Redirect | None = None) -> "Reply":
        """A reply of any messages. For smsd itself; raises ReplyError as `Reply` does."""
        reply = cls.__new__(cls)
        reply._set(parts, redirect)  # noqa: SLF001 - its own
        return reply

    def _set(self, parts: Sequence[Part], redirect: Redirect | None = None) -> None:
        if len(parts) > MOST_MESSAGES:
            raise ReplyError(
                f"more than {MOST_MESSAGES} messages; Twilio sends at most that many in one reply"
            )
        media = tuple([link for part in parts for link in part.media])
        if media:
            for part in parts:
                _check_media(part.media)
        twiml = twiml_of(parts, redirect)
        if len(twiml) > MOST_BYTES:
            raise ReplyError(f"{len(twiml)} bytes of TwiML; Twilio reads at most {MOST_BYTES}")
        set_ = object.__setattr__
        messages = tuple([part.text for part in parts if part.text])
        set_(self, "messages", messages)
        set_(self, "media", media)
        set_(self, "texts", tuple([p.text for p in parts if not p.media]) if media else messages)
        set_(self, "twiml", twiml)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a Reply is immutable")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("a Reply is immutable")

    def __eq__(self, other: object) -> bool:
        return self.twiml == other.twiml if isinstance(other, Reply) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.twiml)

    def __repr__(self) -> str:
        return f"<Reply: {len(self.messages)} messages, {len(self.media)} media>"


def to_reply(returned: Any) -> Reply:
    """What a dialogue returned, as a `Reply`.

    returned  a Reply, a str, None for no reply, or a MessagingResponse of Twilio's SDK

    Raises ReplyError for anything else, and for what Twilio would refuse.
    """
    if returned is None:
        return SILENCE
    if isinstance(returned, str):
        if returned.startswith(HEAD):  # a reply that quotes its sender must not become TwiML
            raise ReplyError("a text that is TwiML; return the MessagingResponse, not str() of it")
        return Reply(returned)
    if isinstance(returned, Reply):
        return returned
    if messaging_response.is_twiml(returned):
        return Reply.of_parts(*messaging_response.read(returned))
    kinds = "Reply, str, None or MessagingResponse"
    raise ReplyError(f"a dialogue returns {kinds}, not {type(returned).__name__}")


def _check_media(links: Sequence[str]) -> None:
    if len(links) > MOST_MEDIA:
        raise ReplyError(f"{len(links)} media; Twilio sends at most {MOST_MEDIA}")
    if not all(map(is_http_url, links)):
        raise ReplyError("media: each must be the http or https URL of a file")


SILENCE = Reply()
