"""TwiML as an XML parser and Twilio's SDK see it; limits, splitting, segments."""

import re
from xml.etree import ElementTree as ET

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from twilio.twiml.messaging_response import MessagingResponse

from smsd.errors import ReplyError
from smsd.twilio.reply import MOST_BYTES, Reply, document, to_reply, verbs
from smsd.twilio.segments import Segments, segments

properties = hypothesis_settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
PNG = "https://x.example/a.png?b=1&c=2"
PNG_ESCAPED = "https://x.example/a.png?b=1&amp;c=2"
FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
FLAG = "\U0001f1e9\U0001f1ea"
THUMB = "\U0001f44d\U0001f3fd"

Tree = tuple[str, str, list["Tree"]]


def tree(xml: bytes | str) -> Tree:
    def walk(element: ET.Element) -> Tree:
        assert not element.attrib
        return element.tag, element.text or "", [walk(child) for child in element]

    return walk(ET.fromstring(xml))  # noqa: S314 - it is ours


def texts_in(twiml: bytes) -> list[str]:
    """The texts that a parser finds, one for each message."""
    _, _, messages = tree(twiml)
    return [
        text or "".join(body for tag, body, _ in nouns if tag == "Body")
        for _, text, nouns in messages
    ]


def utf16_units(text: str) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def legal(text: str) -> str:
    """XML 1.0, production 2, as a filter that is no regular expression."""
    return "".join(
        c
        for c in text
        if c in "\t\n\r" or " " <= c <= "\ud7ff" or "\ue000" <= c <= "\ufffd" or c >= "\U00010000"
    )


# --- documents


@pytest.mark.parametrize(
    ("reply", "inside"),
    [
        (None, ""),
        ("", ""),
        (" \n", ""),
        ("\x00", ""),
        (Reply(), ""),
        (Reply("", " "), ""),
        ("Hi", "<Message>Hi</Message>"),
        (" Hi ", "<Message> Hi </Message>"),
        ("a&b<c>d\r", "<Message>a&amp;b&lt;c&gt;d&#13;</Message>"),
        ("a\ud800b\ufffe\x07c", "<Message>abc</Message>"),
        (Reply("a", "", "b"), "<Message>a</Message><Message>b</Message>"),
        (
            Reply(media=["https://x.example/1"]),
            "<Message><Media>https://x.example/1</Media></Message>",
        ),
        (
            Reply("a", "b", media=PNG),
            f"<Message><Body>a</Body><Media>{PNG_ESCAPED}</Media></Message><Message>b</Message>",
        ),
    ],
)
def test_a_reply_becomes_this_document(reply: Reply | str | None, inside: str) -> None:
    response = f"<Response>{inside}</Response>" if inside else "<Response/>"
    assert to_reply(reply).twiml == f'<?xml version="1.0" encoding="UTF-8"?>{response}'.encode()


@properties
@given(st.text())
def test_a_parser_reads_the_text_without_what_xml_cannot_carry(text: str) -> None:
    assert texts_in(to_reply(text).twiml) == ([legal(text)] if legal(text).strip() else [])


plain = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff"), min_size=1
)


@properties
@given(st.lists(plain.filter(str.strip), max_size=10), st.lists(st.just(PNG), max_size=3))
def test_the_document_is_the_one_that_the_sdk_would_make(
    texts: list[str], media: list[str]
) -> None:
    expected = MessagingResponse()
    for place, text in enumerate(texts or [""] * bool(media)):
        if place or not media:
            expected.message(text)
            continue
        message = expected.message()
        if text:
            message.body(text)
        for link in media:
            message.media(link)
    assert tree(Reply(*texts, media=media).twiml) == tree(str(expected))


@properties
@given(st.lists(st.text(), max_size=3), st.booleans())
def test_the_verbs_can_be_kept_and_made_a_document_again(
    texts: list[str], with_media: bool
) -> None:
    twiml = Reply(*texts, media=PNG if with_media else ()).twiml
    assert document(verbs(twiml)) == twiml
    assert b"Response" not in verbs(twiml) or any("Response" in text for text in texts)


def test_what_is_not_a_reply_is_refused_by_its_type() -> None:
    with pytest.raises(
        ReplyError, match="a dialogue returns Reply, str, None or MessagingResponse, not dict"
    ):
        to_reply({"Body": "secret"})


# --- limits


@pytest.mark.parametrize(
    ("texts", "media", "split", "complaint"),
    [
        (["x"] * 11, (), True, "more than 10 messages"),
        (["x" * 16001], (), True, "more than 10 messages"),
        (["x" * 1601], (), False, "more than 1600 characters"),
        (["\U0001f600" * 801], (), False, "more than 1600 characters"),
        (["x"], [PNG] * 11, True, "11 media"),
        (["&" * 1600] * 9, (), True, "bytes of TwiML"),
        ([b"x"], (), True, "a text must be a str, not bytes"),
        ([None], (), True, "a text must be a str, not NoneType"),
        ([["x"]], (), True, "a text must be a str, not list"),
    ],
)
def test_reply_beyond_twilios_limits_is_an_error(
    texts: list[str], media: list[str], split: bool, complaint: str
) -> None:
    with pytest.raises(ReplyError, match=complaint):
        Reply(*texts, media=media, split=split)


def test_reply_at_twilios_limits_is_sent() -> None:
    full = Reply(*["x" * 1600] * 10, media=[PNG] * 10, split=False)
    assert (len(full.messages), len(full.media), len(full.twiml) <= MOST_BYTES) == (10, 10, True)
    assert Reply("\U0001f600" * 800, split=False).messages == ("\U0001f600" * 800,)
    assert Reply("x" * 16000).messages == ("x" * 1600,) * 10
    assert Reply(*["x"] * 10, *[""] * 5).messages == ("x",) * 10


@pytest.mark.parametrize(
    "link",
    [
        "",
        "ftp://x.example/a",
        "/a.png",
        "https://",
        "https:///a",
        "https://x.example/a b",
        "https://x.example/a\n",
        "https://x.example/\ud800",
        "https://[x/",
        "javascript:alert(1)",
        None,
        7,
        b"https://x.example",
    ],
)
def test_media_that_twilio_cannot_fetch_is_an_error(link: object) -> None:
    with pytest.raises(ReplyError, match="media: each must be the http or https URL of a file"):
        Reply("x", media=[link])  # type: ignore[list-item]


@properties
@given(st.text(max_size=40))
def test_no_media_link_whatever_raises_another_error(link: str) -> None:
    try:
        twiml = Reply(media=[link]).twiml
    except ReplyError:
        return
    assert tree(twiml) == ("Response", "", [("Message", "", [("Media", link, [])])])


# --- splitting


@pytest.mark.parametrize(
    ("text", "lengths"),
    [
        ("x" * 1600, [1600]),
        ("x" * 1601, [1600, 1]),
        ("x" * 1600 + " " + "y" * 3, [1600, 3]),
        ("x" * 1500 + " " + "y" * 200, [1500, 200]),
        ("x" * 1500 + "\n\n" + "y" * 200, [1500, 200]),
        ("x" + " " * 3000 + "y", [1, 1]),
        (" " * 2000 + "y", [1]),
        (" " * 2000, []),
        ("x" * 1599 + "  " + "y" * 1600 + " ", [1599, 1600]),
        ("\U0001f600" * 801, [800, 1]),
        ("x" + "\U0001f600" * 800, [800, 1]),  # half a pair would still fit
        ("x" * 1595 + FAMILY, [1595, 5]),
        ("x" * 1597 + FLAG + FLAG, [1597, 4]),
        ("x" * 1592 + FLAG * 3, [1596, 2]),
        ("x" * 1598 + THUMB, [1598, 2]),
        ("x" * 1599 + "e\u0301", [1599, 2]),
        ("e" + "\u0301" * 1700, [1600, 101]),  # no end of it in sight
    ],
)
def test_long_text_is_cut_between_words_or_graphemes(text: str, lengths: list[int]) -> None:
    parts = Reply(text).messages
    assert [len(part) for part in parts] == lengths
    assert re.sub(r"\s", "", "".join(parts)) == re.sub(r"\s", "", text)


pieces = st.sampled_from(
    ["word", " ", "\n", "x" * 900, "é" * 700, FAMILY, FLAG, THUMB, "\U0001f600" * 500, "\t  "]
)


@properties
@given(st.lists(pieces, max_size=12))
def test_splitting_loses_nothing_but_blanks_and_every_part_fits(bits: list[str]) -> None:
    text = "".join(bits)
    parts = Reply(text).messages
    assert "".join("".join(parts).split()) == "".join(text.split())
    assert all(part.strip() and utf16_units(part) <= 1600 for part in parts)
    assert len(parts) < 2 or all(part == part.strip() for part in parts)


# --- a value


def test_reply_is_immutable_and_hides_its_text() -> None:
    one = Reply("secret", media=PNG)
    assert one == Reply("secret", media=[PNG])
    assert len({one, Reply("secret", media=[PNG])}) == 1
    assert one != Reply("other")
    assert one != "secret"
    assert repr(one) == "<Reply: 1 messages, 1 media>"
    with pytest.raises(AttributeError, match="immutable"):
        one.media = ()
    with pytest.raises(AttributeError, match="immutable"):
        del one.media


# --- segments


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Segments("GSM-7", 0, 1)),
        ("a" * 160, Segments("GSM-7", 160, 1)),
        ("a" * 161, Segments("GSM-7", 161, 2)),
        ("a" * 306, Segments("GSM-7", 306, 2)),
        ("a" * 307, Segments("GSM-7", 307, 3)),
        ("€" * 80, Segments("GSM-7", 160, 1)),
        ("a" + "€" * 80, Segments("GSM-7", 161, 2)),
        ("€" * 153, Segments("GSM-7", 306, 3)),  # 76 whole ones in each part
        ("^{}[]~\\|€\f", Segments("GSM-7", 20, 1)),
        ("Ç@£$¥èéùìòØøÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ¤¡ÄÖÑÜ§¿äöñüà\r\n", Segments("GSM-7", 44, 1)),
        ("ç", Segments("UCS-2", 1, 1)),
        ("`", Segments("UCS-2", 1, 1)),
        ("\u201chi\u201d", Segments("UCS-2", 4, 1)),
        ("\U0001f600", Segments("UCS-2", 2, 1)),
        ("é\u4e16" * 35, Segments("UCS-2", 70, 1)),
        ("\u4e16" * 71, Segments("UCS-2", 71, 2)),
        ("\u4e16" * 134, Segments("UCS-2", 134, 2)),
        ("\u4e16" * 135, Segments("UCS-2", 135, 3)),
        ("\U0001f600" * 67, Segments("UCS-2", 134, 3)),  # 33 whole ones in each part
    ],
)
def test_segments_are_counted_as_the_standard_has_it(text: str, expected: Segments) -> None:
    assert segments(text) == expected


@properties
@given(st.text(max_size=400))
def test_segments_hold_all_units_and_no_more_than_needed(text: str) -> None:
    got = segments(text)
    single, part = (160, 153) if got.encoding == "GSM-7" else (70, 67)
    assert got.units >= len(text)
    if got.count == 1:
        assert got.units <= single
    else:
        assert (got.count - 1) * (part - 1) < got.units <= got.count * part
