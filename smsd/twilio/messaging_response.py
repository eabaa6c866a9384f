"""Reads `twilio.twiml.messaging_response.MessagingResponse`, which Twilio's tutorials
return.

It must not import `twilio.twiml`: the SDK's elements are known by the names of their
classes, so that only dialogues that use the SDK pay for it.

Twilio ignores elements that it does not know and drops messages that it refuses, and
tells the program neither. So whatever smsd cannot pass on raises a `ReplyError` that
names it.
"""

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from smsd.errors import ReplyError
from smsd.twilio.markup import Part, Redirect, is_http_url
from smsd.twilio.splitting import clean, split_text

MESSAGE_ATTRIBUTES = ("to", "from", "action", "method", "statusCallback")

_URLS = ("action", "statusCallback")


def is_twiml(value: object) -> bool:
    """Whether it is an element of TwiML as the SDK makes them."""
    return any(
        (kind.__module__, kind.__qualname__) == ("twilio.twiml", "TwiML")
        for kind in type(value).__mro__
    )


def read(response: Any) -> tuple[list[Part], Redirect | None]:
    """The messages of a MessagingResponse, and its redirect. Raises ReplyError.

    A text that is too long for one message becomes several, with the same attributes;
    the media go with the first.
    """
    if response.name != "Response":
        raise ReplyError(f"return a MessagingResponse, not a <{response.name}>")
    _attributes(response, ())
    parts: list[Part] = []
    redirect: Redirect | None = None
    for verb in response.verbs:
        name = getattr(verb, "name", "text")
        if redirect:
            raise ReplyError(f"<{name}> after <Redirect> is never reached")
        if name == "Message":
            parts += _messages(verb)
        elif name == "Redirect":
            redirect = _redirect(verb)
        else:
            raise ReplyError(f"a MessagingResponse may hold Message and Redirect, not {name}")
    return parts, redirect


def _messages(message: Any) -> Iterator[Part]:
    attributes = _attributes(message, MESSAGE_ATTRIBUTES)
    texts, media = _nouns(message)
    first, *others = [*split_text("".join(texts))] or [""]
    if first or media:
        yield Part(first, tuple(media), attributes)
    for text in others:
        yield Part(text, (), attributes)


def _nouns(message: Any) -> tuple[list[str], list[str]]:
    """The texts of a message, which Twilio joins, and its media."""
    texts = [] if message.value is None else [message.value]
    media: list[str] = []
    for noun in message.verbs:
        name = getattr(noun, "name", "text")
        if isinstance(noun, str):
            texts.append(noun)
        elif name in ("Body", "Media") and not noun.verbs:
            _attributes(noun, ())
            (texts if name == "Body" else media).append(noun.value)
        else:
            raise ReplyError(
                f"a <Message> may hold only <Body> and <Media> with text in them; found <{name}>"
            )
    return [clean(text) for text in texts], media


def _redirect(redirect: Any) -> Redirect:
    attributes = _attributes(redirect, ("method",))
    if redirect.verbs:
        raise ReplyError("a <Redirect> must hold a URL and nothing else")
    return Redirect(_url("Redirect", redirect.value), attributes)


def _attributes(element: Any, known: tuple[str, ...]) -> dict[str, str]:
    """An element's attributes, checked, in a fixed order."""
    for name in element.attrs:
        if name not in known:
            raise ReplyError(f"<{element.name}> has no attribute {name}")
    found = {name: element.attrs[name] for name in known if name in element.attrs}
    return {name: _attribute(name, value) for name, value in found.items()}


def _attribute(name: str, value: object) -> str:
    if name in _URLS:
        return _url(name, value)
    text = clean(value) if isinstance(value, str) else ""
    if name == "method" and text.upper() not in ("GET", "POST"):
        raise ReplyError("method must be GET or POST")
    if not text.strip() or not text.isprintable():
        raise ReplyError(f"{name} must be a phone number or another address")
    return text.upper() if name == "method" else text


def _url(name: str, value: object) -> str:
    """An absolute URL, or a relative one, which Twilio resolves against smsd's own."""
    try:
        if isinstance(value, str) and (
            is_http_url(value)
            or (
                value.isprintable() and value.split() == [value] and urlsplit(value)[:2] == ("", "")
            )
        ):
            return value
    except ValueError:  # of urlsplit
        pass
    raise ReplyError(f"{name} must be an http or https URL")
