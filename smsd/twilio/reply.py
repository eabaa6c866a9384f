"""What a dialogue answers, within Twilio's limits, and the TwiML it becomes.

No network, no clock, no environment. Everything is checked when a `Reply` is made, so that a mistake shows
in the dialogue that made it. TwiML is written by hand: an XML library would let characters through that no
XML parser accepts, and Twilio then answers nothing at all (error 12100).

Limits: twilio.com/docs/messaging/twiml, errors 11750 (size), 14109 (messages), 21617 (characters).
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import islice
from urllib.parse import urlsplit

from smsd.errors import ReplyError

MOST_MESSAGES = 10
MOST_MEDIA = 10
MOST_CHARACTERS = 1600
"""In a message, counted in UTF-16 units: whoever counts in code points counts fewer."""
MOST_BYTES = 64_000
"""Of TwiML. Twilio says 64 kB: the smaller of its two meanings."""

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_HEAD = '<?xml version="1.0" encoding="UTF-8"?><Response>'
_HEAD_BYTES = _HEAD.encode()
_TAIL = b"</Response>"
_EMPTY = b'<?xml version="1.0" encoding="UTF-8"?><Response/>'
_NOT_IN_URL = re.compile(r"[\x00-\x20\x7f]")

_ZWJ = "\u200d"
_LONGEST_CLUSTER = 64


class Reply:
    """One or more texts, and media that go with the first: `Reply("Here it is", media=["https://…/a.png"])`.

    `messages` are the texts as they are sent: without characters that XML cannot carry, blank ones dropped,
    longer ones than 1,600 characters split at word boundaries, or refused with `split=False`.
    Raises `ReplyError` beyond Twilio's limits. A reply is immutable.

    >>> Reply("Here it is", "And more", media="https://example.com/a.png").messages
    ('Here it is', 'And more')
    >>> [len(message) for message in Reply("twelve chars " * 200).messages]
    [1598, 1000]
    >>> Reply("twelve chars " * 200, split=False)
    Traceback (most recent call last):
    smsd.errors.ReplyError: a text of more than 1600 characters, and split=False
    """

    __slots__ = ("media", "messages", "twiml")

    messages: tuple[str, ...]
    media: tuple[str, ...]
    twiml: bytes

    def __init__(self, *texts: str, media: str | Sequence[str] = (), split: bool = True) -> None:
        parts = (part for text in texts for part in _parts(text, split))
        messages = tuple(islice(parts, MOST_MESSAGES + 1))
        links = (media,) if isinstance(media, str) else tuple(media)
        if len(messages) > MOST_MESSAGES:
            raise ReplyError(f"more than {MOST_MESSAGES} messages, the most that Twilio sends")
        if len(links) > MOST_MEDIA:
            raise ReplyError(f"{len(links)} media; Twilio sends at most {MOST_MEDIA}")
        for link in links:
            _check_link(link)
        twiml = _twiml(messages, links)
        if len(twiml) > MOST_BYTES:
            raise ReplyError(f"{len(twiml)} bytes of TwiML; Twilio reads at most {MOST_BYTES}")
        object.__setattr__(self, "messages", messages)
        object.__setattr__(self, "media", links)
        object.__setattr__(self, "twiml", twiml)

    @property
    def texts(self) -> tuple[str, ...]:
        """The messages that travel as SMS: all, or all but the first if media go with it."""
        return self.messages[1:] if self.media else self.messages

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


def to_reply(said: Reply | str | None) -> Reply:
    """What a dialogue returned, as a `Reply`; None is one without messages. Raises `ReplyError`."""
    if said is None:
        return SILENCE
    if isinstance(said, str):
        return Reply(said)
    if not isinstance(said, Reply):
        raise ReplyError(f"a dialogue returns Reply, str or None, not {type(said).__name__}")
    return said


def verbs(twiml: bytes) -> bytes:
    """What stands inside `<Response>`: the part worth keeping of a document that a `Reply` made."""
    return b"" if twiml == _EMPTY else twiml[len(_HEAD) : -len(_TAIL)]


def document(verbs: bytes) -> bytes:
    """The document around `verbs`, byte for byte as it was."""
    return b"%b%b%b" % (_HEAD_BYTES, verbs, _TAIL) if verbs else _EMPTY


def _twiml(messages: Sequence[str], media: Sequence[str]) -> bytes:
    if not messages and not media:
        return _EMPTY
    first, *others = messages or ("",)
    if media:
        body = f"<Body>{_escape(first)}</Body>" if first else ""
        content = body + "".join(f"<Media>{_escape(link)}</Media>" for link in media)
    else:
        content = _escape(first)
    rest = "".join(f"<Message>{_escape(text)}</Message>" for text in others)
    return f"{_HEAD}<Message>{content}</Message>{rest}</Response>".encode()


def _escape(text: str) -> str:
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return text.replace("\r", "&#13;")  # a parser reads a bare one as \n


def _check_link(link: str) -> None:
    try:
        parts = urlsplit(link)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and link.isprintable()
    except (ValueError, TypeError, AttributeError):
        good = False
    if not good or _NOT_IN_URL.search(link):
        raise ReplyError("media: not the http or https URL of a file")


def _parts(text: str, split: bool) -> Iterator[str]:
    """The messages that `text` becomes: none if it is blank, several if it is too long for one."""
    if not isinstance(text, str):
        raise ReplyError(f"a text is a str, not {type(text).__name__}")
    if not text.isprintable():  # what is printable is XML, and most texts are
        text = _NOT_XML.sub("", text)
    if _fits(text):
        if text.strip():
            yield text
        return
    if not split:
        raise ReplyError(f"a text of more than {MOST_CHARACTERS} characters, and split=False")
    rest = text.strip()
    while not _fits(rest):
        cut = _cut(rest)
        yield rest[:cut].rstrip()
        rest = rest[cut:].lstrip()
    if rest:
        yield rest


def _fits(text: str) -> bool:
    if len(text) > MOST_CHARACTERS or text.isascii():
        return len(text) <= MOST_CHARACTERS
    return len(text.encode("utf-16-le")) <= 2 * MOST_CHARACTERS


def _cut(text: str) -> int:
    """Where to end the first message of a text that does not fit into one: at the last blank, else between
    graphemes.
    """
    units = text[:MOST_CHARACTERS].encode("utf-16-le")[: 2 * MOST_CHARACTERS]
    head = units.decode("utf-16-le", "ignore")  # drops half a pair at the end
    if text[len(head)].isspace():
        return len(head)
    last_word = head.split()[-1]
    if len(last_word) < len(head):
        return head.rindex(last_word)
    for cut in range(len(head), len(head) - _LONGEST_CLUSTER, -1):
        if not _joined(text, cut):
            return cut
    return len(head)


def _joined(text: str, cut: int) -> bool:
    """Whether the characters on both sides of `cut` are one to the eye: accents, emoji sequences, flags."""
    before, after = text[cut - 1], text[cut]
    if _ZWJ in (before, after) or unicodedata.category(after)[0] == "M":
        return True
    if (
        "\U0001f3fb" <= after <= "\U0001f3ff" or "\U000e0020" <= after <= "\U000e007f"
    ):  # skin tone, tag
        return True
    flags = re.search("[\U0001f1e6-\U0001f1ff]*$", text[max(0, cut - _LONGEST_CLUSTER) : cut])
    return "\U0001f1e6" <= after <= "\U0001f1ff" and flags is not None and len(flags[0]) % 2 == 1


SILENCE = Reply()
