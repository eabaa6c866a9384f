"""What is a message, what is none, and what a dialogue can read from it."""

from collections.abc import Mapping

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from smsd.errors import Malformed
from smsd.twilio.delivery import DELIVERY_STATUSES, Delivery
from smsd.twilio.media import Media
from smsd.twilio.message import (
    ADDRESS_LIMIT,
    OPT_OUT_WORDS,
    Button,
    Geography,
    Location,
    Message,
    address_without_channel,
)
from smsd.twilio.signature import Params

properties = hypothesis_settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
SID, ACCOUNT = "SM" + "0123456789abcdef" * 2, "AC" + "f" * 32
INBOUND = {
    "MessageSid": SID,
    "AccountSid": ACCOUNT,
    "From": "+14158675309",
    "To": "+14155550100",
    "Body": "Hi",
    "SmsStatus": "received",
    "NumMedia": "0",
}


def raw(form: Mapping[str, str | bytes]) -> Params:
    return {
        name: [value if isinstance(value, bytes) else value.encode()]
        for name, value in form.items()
    }


def message(**fields: str | bytes) -> Message:
    return Message.from_params(raw({**INBOUND, **fields}))


def test_a_message_has_its_fields_as_received() -> None:
    got = message(From="whatsapp:+14158675309", Body="  Grüße \n", ProfileName="Rey")
    assert (got.sid, got.account_sid) == (SID, ACCOUNT)
    assert (got.from_, got.to) == ("whatsapp:+14158675309", "+14155550100")
    assert (got.body, got.profile_name, got.channel) == ("  Grüße \n", "Rey", "whatsapp")


@pytest.mark.parametrize("name", ["MessageSid", "AccountSid", "From", "To"])
@pytest.mark.parametrize(
    "values",
    [
        [],
        [b""],
        [b" "],
        [b"x\x00"],
        [b"x\n"],
        [b"x\x7f"],
        ["x\x85".encode()],
        [b"\xff"],
        [b"x" * (ADDRESS_LIMIT + 1)],
    ],
)
def test_malformed_required_field_is_refused_without_its_value(
    name: str, values: list[bytes]
) -> None:
    with pytest.raises(Malformed) as caught:
        Message.from_params({**raw(INBOUND), name: values})
    assert str(caught.value) == f"{name}: missing, repeated, or not in Twilio's format"


@pytest.mark.parametrize("name", ["MessageSid", "AccountSid", "From", "To"])
def test_a_required_field_that_is_absent_or_repeated_is_refused(name: str) -> None:
    form = dict(raw(INBOUND))
    with pytest.raises(Malformed, match=name):
        Message.from_params({**form, name: [*form[name], *form[name]]})
    del form[name]
    with pytest.raises(Malformed, match=name):
        Message.from_params(form)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MessageSid", "SM" + "0" * 31),
        ("MessageSid", "SM" + "0" * 33),
        ("MessageSid", "SM" + "g" * 32),
        ("MessageSid", "sm" + "0" * 32),
        ("MessageSid", "CA" + "0" * 32),
        ("MessageSid", f"{SID}\n"),
        ("MessageSid", "SM" + "٣" * 32),
        ("AccountSid", "ac" + "0" * 32),
        ("AccountSid", "SM" + "0" * 32),
    ],
)
def test_a_sid_of_another_form_is_refused(name: str, value: str) -> None:
    with pytest.raises(Malformed, match=name):
        message(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MessageSid", "MM" + "A" * 32),
        ("AccountSid", "AC" + "aB" * 16),
        ("From", "12345"),
        ("From", "ACME Inc."),
        ("From", "rcs:brand_agent"),
        ("From", "whatsapp:+" + "1" * 15),
        ("To", "x" * ADDRESS_LIMIT),
        ("To", "Grüße"),
    ],
)
def test_addresses_that_are_not_phone_numbers_are_accepted(name: str, value: str) -> None:
    got = message(**{name: value})
    assert value in (got.sid, got.account_sid, got.from_, got.to)


def test_body_and_status_may_be_missing_or_not_text() -> None:
    form = {name: value for name, value in INBOUND.items() if name not in ("Body", "SmsStatus")}
    assert Message.from_params(raw(form)).body == ""
    assert message(Body=b"\xff\x00ok").body == "\ufffd\x00ok"


@pytest.mark.parametrize(
    ("name", "status"),
    [("SmsStatus", "delivered"), ("MessageStatus", "sent"), ("SmsStatus", "new")],
)
def test_a_status_callback_is_no_message(name: str, status: str) -> None:
    with pytest.raises(Malformed, match="status callback"):
        message(**{name: status})


@pytest.mark.parametrize("status", ["received", "receiving", ""])
def test_the_status_of_an_inbound_message_is_one(status: str) -> None:
    assert message(SmsStatus=status, MessageStatus=status).sid == SID


@pytest.mark.parametrize(
    ("sender", "channel", "bare"),
    [
        ("+14155550100", "sms", "+14155550100"),
        ("12345", "sms", "12345"),
        ("whatsapp:+14155550100", "whatsapp", "+14155550100"),
        ("WhatsApp:+14155550100", "whatsapp", "+14155550100"),
        ("rcs:brand:x", "rcs", "brand:x"),
        ("+1:2", "sms", "+1:2"),
        (":+1", "sms", ":+1"),
    ],
)
def test_the_channel_is_what_stands_before_the_address(
    sender: str, channel: str, bare: str
) -> None:
    assert message(From=sender).channel == channel
    assert address_without_channel(sender) == bare


def test_media_end_at_the_first_gap() -> None:
    got = message(
        NumMedia="2",
        MediaUrl0="https://x/0",
        MediaContentType0="image/png",
        MediaUrl1="https://x/1",
        MediaUrl3="https://x/3",
    )
    assert got.media == (Media("https://x/0", "image/png"), Media("https://x/1", ""))
    assert message().media == ()
    assert len(message(**{f"MediaUrl{n}": "https://x" for n in range(990)}).media) == 100


@pytest.mark.parametrize(
    ("sent", "button"),
    [
        ({"ButtonText": "Yes", "ButtonPayload": "y-7"}, Button("Yes", "y-7")),
        ({"ButtonText": "Yes"}, Button("Yes", "")),
        ({"ButtonPayload": "y-7"}, Button("", "y-7")),
        ({"ButtonText": "", "ButtonPayload": ""}, None),
        ({"ButtonType": "REPLY"}, None),
        ({}, None),
    ],
)
def test_button_has_text_and_payload_or_is_none(
    sent: dict[str, str], button: Button | None
) -> None:
    assert message(**sent).button == button


@pytest.mark.parametrize(
    ("sent", "location"),
    [
        (
            {"Latitude": "52.5", "Longitude": "-13.25", "Address": "Am Zoo", "Label": "Zoo"},
            Location(52.5, -13.25, "Am Zoo", "Zoo"),
        ),
        ({"Latitude": "0", "Longitude": "0"}, Location(0, 0, "", "")),
        ({"Latitude": "52.5"}, None),
        ({"Latitude": "x", "Longitude": "7"}, None),
        ({"Latitude": "nan", "Longitude": "7"}, None),
        ({"Latitude": "7", "Longitude": "inf"}, None),
        ({"Latitude": "", "Longitude": ""}, None),
        ({"Label": "Zoo"}, None),
    ],
)
def test_location_has_degrees_or_is_none(sent: dict[str, str], location: Location | None) -> None:
    assert message(**sent).location == location


def test_whatsapp_identity_and_replied_message_are_exposed() -> None:
    got = message(
        From="whatsapp:US.13491208655302741918",
        ExternalUserId="US.13491208655302741918",
        OriginalRepliedMessageSid=SID,
    )
    assert (got.channel, got.external_user_id) == ("whatsapp", "US.13491208655302741918")
    assert got.reply_to == SID
    assert (message().external_user_id, message().reply_to) == ("", None)
    assert message(OriginalRepliedMessageSid="").reply_to is None


def test_geography_is_blank_where_twilio_is_silent() -> None:
    got = message(FromCity="OAKLAND", FromCountry="US", ToZip="94107", ToState="")
    assert got.geography == Geography("OAKLAND", "", "", "US", "", "", "94107", "")


def test_params_hold_everything_decoded_first_value_of_each_name() -> None:
    got = Message.from_params(
        {**raw(INBOUND), "X\xc3\xa4": [b"1", b"2"], "Bad": [b"\xff"], "None": []}
    )
    assert got.params["Xä"] == "1"
    assert got.params["Bad"] == "\ufffd"
    assert got.params["None"] == ""
    assert got.params["From"] == INBOUND["From"]
    with pytest.raises(TypeError):
        got.params["From"] = "+1"  # type: ignore[index]


@pytest.mark.parametrize("word", sorted(OPT_OUT_WORDS))
def test_an_opt_out_word_alone_is_twilios_to_answer(word: str) -> None:
    assert message(Body=f" {word.title()}\n").is_opt_out


@pytest.mark.parametrize(
    "body", ["", "please stop", "STOP it", "STOP.", "YES", "\u017ftop", "S T O P"]
)
def test_other_texts_are_no_opt_out(body: str) -> None:
    assert not message(Body=body).is_opt_out


@pytest.mark.parametrize(
    ("from_", "to", "is_opt_out"),
    [
        ("+14158675309", "+14155550100", True),
        ("+14158675309", "+18005550100", True),  # toll-free
        ("12345", "+14155550100", True),
        ("rcs:+14158675309", "rcs:acme_agent", True),
        ("RCS:+14158675309", "+14155550100", True),
        ("+14158675309", "12345", False),
        ("+14158675309", "123456", False),
        ("rcs:+14158675309", "rcs:12345", False),
        ("whatsapp:+14158675309", "whatsapp:+14155550100", False),
        ("messenger:123456789012345", "messenger:234567890123456", False),
        ("instagram:1", "instagram:2", False),
    ],
)
@pytest.mark.parametrize("word", ["Stop", "help", "END"])
def test_opt_out_words_count_only_where_twilio_answers_them(
    from_: str, to: str, is_opt_out: bool, word: str
) -> None:
    assert message(From=from_, To=to, Body=word).is_opt_out is is_opt_out
    assert message(From=from_, To=to, Body=word, OptOutType="STOP").is_opt_out
    assert not message(From=from_, To=to, Body=f"{word} it").is_opt_out


def test_advanced_opt_out_marks_any_text() -> None:
    assert message(Body="basta", OptOutType="STOP").is_opt_out
    assert not message(Body="basta", OptOutType="").is_opt_out


@pytest.mark.parametrize(
    ("sent", "read"),
    [("11200", "11200"), ("", None), ("12", "other"), ("\uff11" * 5, "other"), ("no", "other")],
)
def test_error_code_of_the_fallback_fits_a_label(sent: str, read: str | None) -> None:
    assert message(ErrorCode=sent, ErrorUrl="https://x").error_code == read
    assert message().error_code is None


def test_a_repr_shows_the_sid_and_nothing_else() -> None:
    assert repr(message(Body="secret")) == f"Message(sid='{SID}')"


def delivery(**fields: str) -> Delivery:
    return Delivery.from_params(raw({"MessageSid": SID, "AccountSid": ACCOUNT, **fields}))


@pytest.mark.parametrize(
    ("fields", "status", "error_code"),
    [
        ({"MessageStatus": "delivered"}, "delivered", ""),
        ({"MessageStatus": "undelivered", "ErrorCode": "30007"}, "undelivered", "30007"),
        ({"MessageStatus": "failed", "ErrorCode": "x"}, "failed", "other"),
        ({"SmsStatus": "sent"}, "sent", ""),
        ({"MessageStatus": "invented"}, "other", ""),
        ({}, "other", ""),
    ],
)
def test_a_delivery_has_a_known_status_and_error_code(
    fields: dict[str, str], status: str, error_code: str
) -> None:
    assert delivery(**fields) == Delivery(SID, ACCOUNT, status, error_code)
    assert status in DELIVERY_STATUSES


@pytest.mark.parametrize("name", ["MessageSid", "AccountSid"])
def test_a_delivery_of_no_message_or_no_account_is_refused(name: str) -> None:
    with pytest.raises(Malformed, match=name):
        delivery(**{name: "nonsense", "MessageStatus": "sent"})


names = st.sampled_from(
    [*INBOUND, "OptOutType", "MediaUrl0", "ErrorCode", "MessageStatus", "\xff", "€"]
)
values = st.lists(
    st.binary(max_size=8) | st.sampled_from([v.encode() for v in INBOUND.values()]), max_size=2
)


@properties
@given(st.dictionaries(names, values))
def test_any_form_is_read_whole_or_refused(form: Params) -> None:
    try:
        got = Message.from_params(form)
    except Malformed:
        return
    assert len(got.params) == len(form)
    assert got.channel == "sms"
    assert len(got.media) <= 1
    assert got.is_opt_out in (True, False)
    assert got.button is None
    assert got.location is None
    assert got.error_code in (None, "other")


@properties
@given(st.dictionaries(names, values))
def test_any_form_is_a_delivery_with_known_labels_or_refused(form: Params) -> None:
    try:
        got = Delivery.from_params(form)
    except Malformed:
        return
    assert got.status in DELIVERY_STATUSES
    assert got.error_code in ("", "other")


@properties
@given(st.dictionaries(names.filter(lambda name: name not in INBOUND), values))
def test_unknown_fields_never_hinder_a_message(form: Params) -> None:
    got = Message.from_params({**form, **raw({**INBOUND, "MessageStatus": ""})})
    assert got.params["MessageSid"] == SID
    assert len(got.media) <= 1
