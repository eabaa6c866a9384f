"""Twilio's own MessagingResponse as a reply: what Twilio would send is sent, the rest
refused."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from twilio.twiml.messaging_response import Body, Media, MessagingResponse, Redirect
from twilio.twiml.messaging_response import Message as Verb
from twilio.twiml.voice_response import VoiceResponse

from smsd import Message, Session
from smsd.errors import ReplyError
from smsd.simulator import LOST
from smsd.simulator.twiml import Document, read
from smsd.simulator.values import Response
from smsd.twilio.reply import document, to_reply, verbs

properties = hypothesis_settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
PNG = "https://x.example/a.png?b=1&c=2"
URL = "https://sms.example.com/sms"


def twilio_reads(twiml: bytes | str) -> Document:
    """What Twilio makes of a document."""
    body = twiml.encode() if isinstance(twiml, str) else twiml
    return read(Response(200, (("Content-Type", "text/xml"),), body), URL)


def one(message: Verb) -> MessagingResponse:
    response = MessagingResponse()
    response.append(message)
    return response


def tutorial() -> MessagingResponse:
    """As in Twilio's tutorial on replies with pictures."""
    response = MessagingResponse()
    message = response.message("The Robots are coming! Head for the hills!")
    message.media("https://x.example/owl.png")
    return response


def everything() -> MessagingResponse:
    response = MessagingResponse()
    response.message(
        "a <b> & \"c\"", to="+14155550100", from_="+14155550199", action="/status?a=1&b=2",
        method="get", status_callback="https://x.example/delivered",
    )  # fmt: skip
    message = response.message()
    message.body("one ")
    message.body("two")
    message.media(PNG)
    message.media(PNG)
    response.message("")
    response.redirect("more.xml", method="POST")
    return response


def test_every_verb_and_noun_of_the_sdk_is_sent() -> None:
    reply = to_reply(everything())
    assert reply.twiml.decode().endswith(
        '<Message to="+14155550100" from="+14155550199" action="/status?a=1&amp;b=2" method="GET" '
        'statusCallback="https://x.example/delivered">a &lt;b&gt; &amp; "c"</Message>'
        "<Message><Body>one two</Body>"
        f"<Media>{PNG.replace('&', '&amp;')}</Media><Media>{PNG.replace('&', '&amp;')}</Media>"
        '</Message><Redirect method="POST">more.xml</Redirect></Response>'
    )
    assert reply.messages == ('a <b> & "c"', "one two")
    assert reply.texts == ('a <b> & "c"',), "the other goes as MMS"
    assert reply.media == (PNG, PNG)
    assert document(verbs(reply.twiml)) == reply.twiml


def test_tutorials_text_beside_media_becomes_its_body() -> None:
    (message,) = twilio_reads(to_reply(tutorial()).twiml).messages
    assert message.body == "The Robots are coming! Head for the hills!"
    assert message.media == ("https://x.example/owl.png",)


def test_empty_response_is_silence() -> None:
    assert to_reply(MessagingResponse()).twiml == to_reply(None).twiml
    assert to_reply(one(Verb())).twiml == to_reply(None).twiml
    assert to_reply(one(Verb(" \n"))).twiml == to_reply(None).twiml


texts = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff"))


@properties
@given(
    st.lists(st.tuples(st.lists(texts, max_size=3), st.integers(0, 2)), max_size=10),
    st.booleans(),
)
def test_twilio_reads_the_same_from_smsd_as_from_the_sdk(
    messages: list[tuple[list[str], int]], redirects: bool
) -> None:
    response = MessagingResponse()
    for bodies, media in messages:
        if media or "".join(bodies).strip():
            message = response.message(to="+14155550100")
            for body in bodies:
                message.body(body)
            for _ in range(media):
                message.media(PNG)
    if redirects:
        response.redirect("/more")
    expected, got = twilio_reads(str(response)), twilio_reads(to_reply(response).twiml)
    assert not got.notices
    assert got.redirect == expected.redirect
    assert [(m.media, m.to) for m in got.messages] == [(m.media, m.to) for m in expected.messages]
    for ours, theirs in zip(got.messages, expected.messages, strict=True):
        assert "".join(ours.body.split()) == "".join(theirs.body.split())


def test_characters_that_xml_cannot_carry_are_dropped() -> None:
    response = MessagingResponse()
    response.message("a\x00b\ud800c\x07", to="+1\x00415")
    (message,) = twilio_reads(to_reply(response).twiml).messages
    assert (message.body, message.to) == ("abc", "+1415")


def test_long_text_becomes_several_messages_with_the_same_attributes() -> None:
    message = Verb(body="word " * 500, to="+14155550100")
    message.media(PNG)
    sent = twilio_reads(to_reply(one(message)).twiml).messages
    assert [len(part.body) for part in sent] == [1599, 899]
    assert [part.to for part in sent] == ["+14155550100"] * 2
    assert [part.media for part in sent] == [(PNG,), ()]


def nested(parent: Any, *children: Any) -> Any:
    for child in children:
        parent.append(child)
    return parent


def generic(name: str, **attributes: str) -> Callable[[], MessagingResponse]:
    def make() -> MessagingResponse:
        response = MessagingResponse()
        response.add_child(name, "x", **attributes)
        return response

    return make


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "voice": (lambda: nested(VoiceResponse(), Redirect("x")).say("hi"), "not a <Say>"),
    "a voice response": (
        lambda: [r := VoiceResponse(), r.say("hi"), r][-1],
        "may hold Message and Redirect, not Say",
    ),
    "an unknown verb": (generic("Sms"), "may hold Message and Redirect, not Sms"),
    "a verb of its own": (lambda: Verb("hi"), "return a MessagingResponse, not a <Message>"),
    "text outside of a verb": (lambda: nested(MessagingResponse(), "hi"), "not text"),
    "an unknown attribute": (lambda: one(Verb("hi", colour="red")), "no attribute colour"),
    "an attribute of the response": (lambda: MessagingResponse(x="y"), "no attribute x"),
    "an attribute of a noun": (
        lambda: one(nested(Verb(), Body("hi", x="y"))),
        "<Body> has no attribute x",
    ),
    "an unknown noun": (lambda: one(nested(Verb(), Redirect("x"))), "found <Redirect>"),
    "a noun in a noun": (
        lambda: one(nested(Verb(), nested(Body("a"), "b"))),
        "with text in them; found <",
    ),
    "a redirect with more in it": (
        lambda: nested(MessagingResponse(), nested(Redirect("/x"), "y")),
        "a URL and nothing else",
    ),
    "a verb after a redirect": (
        lambda: nested(MessagingResponse(), Redirect("/x"), Verb("hi")),
        "<Message> after <Redirect> is never reached",
    ),
    "a redirect nowhere": (
        lambda: nested(MessagingResponse(), Redirect("")),
        "Redirect must be an http",
    ),
    "a redirect to ftp": (
        lambda: nested(MessagingResponse(), Redirect("ftp://x.example/")),
        "Redirect must be an http",
    ),
    "a redirect to None": (
        lambda: nested(MessagingResponse(), Redirect(None)),
        "Redirect must be an http",
    ),
    "a broken callback": (lambda: one(Verb("hi", action="a b")), "action must be an http"),
    "a broken host": (
        lambda: one(Verb("hi", status_callback="//[x")),
        "statusCallback must be an http",
    ),
    "another method": (lambda: one(Verb("hi", method="PUT")), "method must be GET or POST"),
    "no number": (lambda: one(Verb("hi", to=" ")), "to must be a phone number"),
    "a number that is a number": (
        lambda: one(Verb("hi", from_=14155550100)),
        "from must be a phone number",
    ),
    "media that is no URL": (
        lambda: one(nested(Verb(), Media("owl.png"))),
        "media: each must be the http",
    ),
    "media of None": (lambda: one(nested(Verb(), Media(None))), "media: each must be the http"),
    "a text that is no text": (lambda: one(Verb(7)), "a text must be a str, not int"),
    "eleven messages": (lambda: nested(MessagingResponse(), *[Verb("x")] * 11), "more than 10"),
    "eleven media": (lambda: one(nested(Verb(), *[Media(PNG)] * 11)), "11 media"),
    "too many bytes": (
        lambda: nested(MessagingResponse(), *[Verb("&" * 1600)] * 9),
        "bytes of TwiML",
    ),
    "str() of it": (lambda: str(tutorial()), r"return the MessagingResponse, not str\(\) of it"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_sent_is_refused_by_name(what: str) -> None:
    make, complaint = REFUSED[what]
    with pytest.raises(ReplyError, match=complaint):
        to_reply(make())


def test_look_alike_of_another_package_is_no_messaging_response() -> None:
    class TwiML:
        name, verbs, attrs = "Response", (), ()

    with pytest.raises(ReplyError, match="not TwiML"):
        to_reply(TwiML())


@pytest.fixture
def dialogue() -> object:
    async def reply(message: Message, session: Session) -> MessagingResponse:
        session.data["n"] = session.data.get("n", 0) + 1
        response = MessagingResponse()
        response.message(f"{message.body} {session.data['n']}")
        response.message("and more", to="+14155550100").media(PNG)
        return response

    return reply


def test_every_delivery_gets_the_same_messaging_response(phone: Any) -> None:
    assert phone.text("hi", deliveries=3) == "hi 1\nand more"
    assert phone.media == (PNG,)
    assert phone.text("ho", deliveries=2, cookies=LOST) == "ho 2\nand more"
    with phone.store_down():
        assert phone.text("off", deliveries=2) == "off 3\nand more"
