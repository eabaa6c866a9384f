"""What Twilio makes of an answer: every error code, every limit."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smsd.simulator import Response
from smsd.simulator.twiml import Document, read
from smsd.twilio.reply import Reply

URL = "https://sms.example.com/sms"


def _read(
    body: bytes | str, content_type: str | None = "text/xml; charset=utf-8", status: int = 200
) -> Document:
    headers = [("Content-Type", content_type)] if content_type else []
    return read(Response(status, headers, body.encode() if isinstance(body, str) else body), URL)


def _xml(inner: str) -> str:
    return f'<?xml version="1.0" encoding="UTF-8"?><Response>{inner}</Response>'


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ((b"x" * 65537,), 11750),
        (("", "text/xml"), 12100),
        ((" <Response/>",), 12100),
        (("\ufeff<Response/>",), 12100),
        (("<Response>",), 12100),
        (("<Response>&nbsp;</Response>",), 12100),
        ((b"<Response><Message>\x07</Message></Response>",), 12100),
        ((b"<Response><Message>\xff</Message></Response>",), 12100),
        (("<response/>",), 12200),
        (("<html></html>", "text/html"), 12200),
        (("{}", "application/json"), 12300),
        (("<Response/>", None), 12300),
        (("<Response/>", ""), 12300),
    ],
)
def test_a_useless_answer_fails_with_twilios_code(answer: tuple[str], code: int) -> None:
    document = _read(*answer)
    assert document.failed
    assert [notice.code for notice in document.notices] == [code]
    assert not document.messages


@pytest.mark.parametrize(
    "inner",
    [
        "<message>x</message>",
        "<Say>x</Say>",
        "stray",
        "<Message>a</Message>stray",
        "<Message color='red'>a</Message>",
        "<Message><body>x</body>a</Message>",
    ],
)
def test_a_breach_of_the_schema_is_a_warning(inner: str) -> None:
    document = _read(_xml(inner))
    assert not document.failed
    assert [(notice.code, notice.warning) for notice in document.notices] == [(12200, True)]
    assert [message.body for message in document.messages] == (
        ["a"] if "a</M" in inner or ">a" in inner else []
    )


@pytest.mark.parametrize(
    ("inner", "code", "kept"),
    [
        ("<Message/>", 14103, 0),
        ("<Message><Body> </Body></Message>", 14103, 0),
        ("<Message method='PUT'>a</Message>", 14104, 0),
        ("<Message statusCallback='mailto:a'>a</Message>", 14105, 1),
        ("<Message action='mailto:a'>a</Message>", 14105, 1),
        ("<Message to='nobody at all'>a</Message>", 14101, 0),
        ("<Message from='+'>a</Message>", 14102, 0),
        (f"<Message>{'a' * 1601}</Message>", 21617, 0),
        ("<Message>" + "<Media>https://a.example/1.png</Media>" * 11 + "</Message>", 21623, 0),
    ],
)
def test_a_limit_costs_the_message_and_nothing_else(inner: str, code: int, kept: int) -> None:
    document = _read(_xml(inner))
    assert not document.failed
    assert [notice.code for notice in document.notices] == [code]
    assert len(document.messages) == kept


@pytest.mark.parametrize(
    ("inner", "body"),
    [
        ("<Message>a &amp; b</Message>", "a & b"),
        ("<Message><Body>a</Body><Body>b</Body></Message>", "ab"),
        ("\n  <Message>\n    <Body>a</Body>\n  </Message>\n", "a"),
        ("<!-- nothing --><Message>\U0001f600</Message>", "\U0001f600"),
        (f"<Message>{'a' * 1600}</Message>", "a" * 1600),
    ],
)
def test_bodies_are_read(inner: str, body: str) -> None:
    document = _read(_xml(inner))
    assert ([message.body for message in document.messages], document.notices) == ([body], [])


def test_attributes_and_relative_urls_are_resolved() -> None:
    document = _read(
        _xml(
            "<Message to='+15551' from='+15552' statusCallback='/s' ><Media>/cat.png</Media></Message>"
        )
    )
    (message,) = document.messages
    assert (message.to, message.from_) == ("+15551", "+15552")
    assert message.media == ("https://sms.example.com/cat.png",)
    assert message.status_callback == "https://sms.example.com/s"


@pytest.mark.parametrize(
    "kind", ["text/xml", "application/xml", "text/html", "TEXT/XML ; charset=utf-8"]
)
def test_an_empty_response_says_nothing_and_warns_of_nothing(kind: str) -> None:
    document = _read("<Response/>", kind)
    assert (document.messages, document.notices, document.failed) == ([], [], False)


def test_plain_text_becomes_a_message() -> None:
    assert [message.body for message in _read("Traceback: hi", "text/plain").messages] == [
        "Traceback: hi"
    ]
    assert [notice.code for notice in _read("a" * 1601, "text/plain").notices] == [21617]


def test_204_needs_no_content_type() -> None:
    assert not _read("", None, 204).failed


def test_a_redirect_verb_ends_the_document() -> None:
    document = _read(
        _xml("<Message>a</Message><Redirect method='get'>more</Redirect><Message>b</Message>")
    )
    assert document.redirect == ("GET", "https://sms.example.com/more")
    assert len(document.messages) == 1


@given(st.text(min_size=1, max_size=300))
@settings(max_examples=100, deadline=None)
def test_what_smsd_writes_is_read_as_it_was_meant(text: str) -> None:
    """Two independent pieces of code agree: what smsd's own writer lets through
    arrives, whatever it is."""
    document = _read(Reply(text).twiml)
    assert not document.failed
    kept = re.sub("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]", "", text)
    assert "".join(message.body for message in document.messages).strip() == kept.strip()


@given(st.binary(max_size=200), st.sampled_from(["text/xml", "text/plain", "text/html"]))
@settings(max_examples=60, deadline=None)
def test_any_bytes_are_read_without_an_exception(body: bytes, kind: str) -> None:
    assert _read(body, kind).redirect is None


@pytest.mark.parametrize("to", ["+14158675309", "12345", "whatsapp:+14158675309", "messenger:1"])
def test_a_message_may_go_to_any_address(to: str) -> None:
    document = _read(_xml(f"<Message to='{to}' from='SHOP 24'>a</Message>"))
    assert (document.notices, document.messages[0].to) == ([], to)


def test_action_and_status_callback_are_urls_of_their_own() -> None:
    document = _read(_xml("<Message action='/did' statusCallback='/status'>a</Message>"))
    (message,) = document.messages
    assert message.action == "https://sms.example.com/did"
    assert message.status_callback == "https://sms.example.com/status"
