"""TwiML for messages, as bytes: `<Message>`, `<Redirect>`, and the document around
them.

It must not be given characters that XML cannot carry: `smsd.twilio.splitting.clean`
drops those.

smsd writes the TwiML itself, because XML libraries let characters through that no XML
parser accepts; Twilio would then send nothing at all (error 12100).
"""

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import urlsplit

HEAD = '<?xml version="1.0" encoding="UTF-8"?><Response>'

_HEAD_BYTES = HEAD.encode()
_TAIL = b"</Response>"
_EMPTY = b'<?xml version="1.0" encoding="UTF-8"?><Response/>'
_NOT_IN_URL = re.compile(r"[\x00-\x20\x7f]")


class Part(NamedTuple):
    """One `<Message>`: its text, its media, and its attributes as TwiML names them."""

    text: str
    media: tuple[str, ...] = ()
    attributes: Mapping[str, str] = MappingProxyType({})


class Redirect(NamedTuple):
    """A `<Redirect>`: Twilio asks `url` for more TwiML."""

    url: str
    attributes: Mapping[str, str] = MappingProxyType({})


def twiml_of(parts: Sequence[Part], redirect: Redirect | None = None) -> bytes:
    """The document that sends `parts` and then follows `redirect`."""
    inside = "".join([_message(part) for part in parts])
    if redirect:
        inside += _element("Redirect", redirect.attributes, _escape(redirect.url))
    return f"{HEAD}{inside}</Response>".encode() if inside else _EMPTY


def verbs(twiml: bytes) -> bytes:
    """What stands inside `<Response>`: the part worth keeping of a document."""
    return b"" if twiml == _EMPTY else twiml[len(HEAD) : -len(_TAIL)]


def document(verbs: bytes) -> bytes:
    """The document around `verbs`, byte for byte as it was."""
    return b"%b%b%b" % (_HEAD_BYTES, verbs, _TAIL) if verbs else _EMPTY


def texts_of(verbs: bytes) -> tuple[str, ...]:
    """The text of each `<Message>` in `verbs`; "" for one that has media alone."""
    root = ET.fromstring(document(verbs))  # noqa: S314 - smsd wrote it
    return tuple(
        (message.text or "") + "".join(body.text or "" for body in message.iter("Body"))
        for message in root.iter("Message")
    )


def is_http_url(link: Any) -> bool:
    """Whether it is an absolute http or https URL without blanks."""
    try:
        parts = urlsplit(link)
        _ = parts.port  # ValueError if it is none
        has_host = parts.scheme in ("http", "https") and bool(parts.hostname)
        return has_host and link.isprintable() and not _NOT_IN_URL.search(link)
    except (ValueError, TypeError, AttributeError):
        return False


def _message(part: Part) -> str:
    content = _escape(part.text)
    if not part.media and not part.attributes:  # as in most replies
        return f"<Message>{content}</Message>"
    if part.media:
        body = f"<Body>{content}</Body>" if content else ""
        content = body + "".join([f"<Media>{_escape(link)}</Media>" for link in part.media])
    return _element("Message", part.attributes, content)


def _element(name: str, attributes: Mapping[str, str], content: str) -> str:
    shown = "".join(
        [
            f' {key}="{_escape(value).replace(chr(34), "&quot;")}"'
            for key, value in attributes.items()
        ]
    )
    return f"<{name}{shown}>{content}</{name}>"


def _escape(text: str) -> str:
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return text.replace("\r", "&#13;")  # a parser reads a bare one as \n
