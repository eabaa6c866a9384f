"""Reads an answer as Twilio does: content type, size, strict TwiML, limits, error
codes.

Does no IO and keeps no state: limits that concern a whole conversation are `twilio`'s.
"""

import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from urllib.parse import urljoin, urlsplit

from smsd.simulator.values import Notice, Response

MAX_BYTES = 64 * 1024
MAX_MESSAGES = 10
MAX_MEDIA = 10
MAX_CHARACTERS = 1600
_ADDRESS = re.compile(r"\+?[0-9]{3,15}|[A-Za-z0-9 ]{1,11}|[a-z][a-z0-9_.-]*:\S+|D[EG][0-9a-f]{32}")
"""What Twilio may send to or from: a number, a sender's name, a channel's address, a
SIM."""
_XML_TYPES = {"text/xml", "application/xml", "text/html"}
_MESSAGE_ATTRIBUTES = {"to", "from", "action", "method", "statusCallback"}


@dataclass(frozen=True, slots=True)
class MessageVerb:
    """One `<Message>` that may be sent."""

    body: str
    media: tuple[str, ...] = ()
    to: str | None = None
    from_: str | None = None
    status_callback: str | None = None
    action: str | None = None


@dataclass(slots=True)
class Document:
    """What Twilio makes of one answer.

    messages  the `<Message>` verbs to send
    notices   errors and warnings
    failed    whether Twilio asks the fallback URL instead
    redirect  method and URL of a `<Redirect>`
    """

    messages: list[MessageVerb] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    failed: bool = False
    redirect: tuple[str, str] | None = None

    def error(self, code: int, text: str) -> None:
        """Note an error that costs a message or the document."""
        self.notices.append(Notice(code, text))

    def warn(self, text: str) -> None:
        """Note a violation of the schema (12200): Twilio ignores that part and goes on."""
        self.notices.append(Notice(12200, text, warning=True))


def failed(code: int, text: str) -> Document:
    """A document that failed."""
    return Document(notices=[Notice(code, text)], failed=True)


def read(answer: Response, url: str) -> Document:
    """Read a 2xx answer from `url`."""
    if len(answer.body) > MAX_BYTES:
        return failed(11750, "the answer is larger than 64 kB")
    if answer.status == 204:
        return Document()
    kind = (answer.header("Content-Type") or "").partition(";")[0].strip().lower()
    if kind == "text/plain":
        return _plain(answer.body)
    if kind not in _XML_TYPES:
        return failed(12300, f"content type {kind or '(none)'} is not TwiML")
    return _xml(answer.body, url)


def _plain(body: bytes) -> Document:
    document = Document()
    _admit(document, MessageVerb(body.decode("utf-8", "replace")))
    return document


def _xml(body: bytes, url: str) -> Document:
    if not body.startswith(b"<"):
        return failed(12100, "the document does not start with '<'")
    try:
        root = ET.fromstring(body)  # noqa: S314 - the service under test is no attacker, and expat limits entities
    except ET.ParseError as error:
        return failed(12100, f"not well-formed: {error}")
    if root.tag != "Response":
        return failed(12200, f"the root is <{root.tag}>, not <Response>")
    document = Document()
    if (root.text or "").strip():
        document.warn("text outside of a verb")
    _verbs(document, root, url)
    return document


def _verbs(document: Document, root: ET.Element, url: str) -> None:
    for verb in root:
        if verb.tag == "Message":
            _message(document, verb, url)
        elif verb.tag == "Redirect":
            _redirect(document, verb, url)
            return  # Twilio never runs what stands after it
        else:
            document.warn(f"<{verb.tag}> is no messaging verb")
        if (verb.tail or "").strip():
            document.warn("text outside of a verb")


def _redirect(document: Document, verb: ET.Element, url: str) -> None:
    method = verb.get("method", "POST").upper()
    if method not in {"GET", "POST"}:
        document.warn("the method of <Redirect> is GET or POST")
        method = "POST"
    document.redirect = method, urljoin(url, (verb.text or "").strip())


def _message(document: Document, verb: ET.Element, url: str) -> None:
    for name in set(verb.keys()) - _MESSAGE_ATTRIBUTES:
        document.warn(f"<Message> has no attribute {name}")
    if verb.get("method", "POST") not in {"GET", "POST"}:
        document.error(14104, "method must be GET or POST")
        return
    for code, name in ((14101, "to"), (14102, "from")):
        if not _ADDRESS.fullmatch(verb.get(name, "12345")):
            document.error(code, f"{name} is no phone number")
            return
    texts, media = [verb.text or ""], []
    for noun in verb:
        if noun.tag == "Body":
            texts.append(noun.text or "")
        elif noun.tag == "Media":
            media.append(urljoin(url, (noun.text or "").strip()))
        else:
            document.warn(f"<{noun.tag}> is no noun of <Message>")
        texts.append((noun.tail or "") if (noun.tail or "").strip() else "")
    body = "".join(text for text in texts if text.strip())
    _admit(
        document,
        MessageVerb(
            body,
            tuple(media),
            verb.get("to"),
            verb.get("from"),
            _callback(document, verb, "statusCallback", url),
            _callback(document, verb, "action", url),
        ),
    )


def _callback(document: Document, verb: ET.Element, name: str, url: str) -> str | None:
    """The URL in that attribute, or None; a bad one is noted and does not cost the
    message."""
    given = verb.get(name)
    if given is None:
        return None
    target = urljoin(url, given)
    if not urlsplit(target).hostname:
        document.error(14105, f"{name} is not a URL")
        return None
    return target


def _admit(document: Document, message: MessageVerb) -> None:
    """Add the message, or note which limit it exceeds."""
    if not message.body and not message.media:
        document.error(14103, "a message needs a body or media")
    elif len(message.body) > MAX_CHARACTERS:
        document.error(21617, f"{len(message.body)} characters, 1600 at most")
    elif len(message.media) > MAX_MEDIA:
        document.error(21623, f"{len(message.media)} media, 10 at most")
    else:
        document.messages.append(message)
