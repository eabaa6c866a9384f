"""Each cause is provoked by a request that the SDK signed and something changed on the
way."""

import re
from collections.abc import Mapping
from urllib.parse import quote_plus

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tornado.escape import parse_qs_bytes
from tornado.httputil import HTTPHeaders
from twilio.request_validator import RequestValidator

from smsd.settings.table import AccountKeys, Secret, WebhookKey
from smsd.twilio import diagnosis as mismatch
from smsd.twilio.diagnosis import ADVICE, CAUSES, explain
from smsd.twilio.signature import Key, KeyRing, Params, candidate_urls, verify

properties = hypothesis_settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
ACCOUNT, OTHER_ACCOUNT = "AC" + "a" * 32, "AC" + "b" * 32
SETTINGS_HEADER = "X-Twilio-Webhooks-Signature-Settings"
STRONG = {SETTINGS_HEADER: "key=strong,algorithm=HMAC_SHA256"}
FORM = {
    "AccountSid": ACCOUNT,
    "Body": "Hello, world",
    "From": "+14155550123",
    "FromCity": "",
    "FromCountry": "US",
    "FromState": "",
    "FromZip": "",
    "MessageSid": "SM" + "1" * 32,
    "To": "+14155550100",
    "ToCity": "OAKLAND",
    "ToCountry": "US",
    "ToState": "CA",
    "ToZip": "",
}
WITHOUT_BLANKS = {name: value for name, value in FORM.items() if value}


def ring() -> KeyRing:
    return KeyRing(
        Secret("token"),
        Secret("secondary"),
        {
            ACCOUNT: AccountKeys(
                (),
                {
                    "strong": WebhookKey(Secret("s256"), "sha256"),
                    "old": WebhookKey(Secret("s1"), "sha1"),
                },
            ),
            OTHER_ACCOUNT: AccountKeys((Secret("other"),), {}),
        },
    )


def raw(form: Mapping[str, str]) -> Params:
    body = "&".join(f"{name}={quote_plus(value)}" for name, value in form.items())
    return parse_qs_bytes(body, keep_blank_values=True)


def diagnose(
    signed_url: str,
    public_url: str = "https://sms.example.com",
    target: str = "/sms",
    *,
    signed: Mapping[str, str] = FORM,
    received: Mapping[str, str] | None = None,
    token: str = "token",  # noqa: S107
    algorithm: str = "HMAC_SHA1",
    headers: Mapping[str, str] | None = None,
) -> str:
    """The cause named for a request that was signed for `signed_url`, and that is
    refused."""
    form = raw(signed if received is None else received)
    signature = RequestValidator(token).compute_signature(signed_url, signed, algorithm)
    sent = HTTPHeaders(
        {"Host": "sms.example.com", **(headers or {}), "X-Twilio-Signature": signature}
    )
    account_sid = form.get("AccountSid", [b""])[0].decode()
    keys = ring().keys_for(account_sid, sent.get(SETTINGS_HEADER))
    assert verify(keys, candidate_urls(public_url, target), form, signature) is None
    return explain(ring(), public_url, target, form, sent)


HTTPS = "https://sms.example.com"


@pytest.mark.parametrize(
    ("cause", "signed_url", "public_url", "target", "headers"),
    [
        ("scheme", "http://sms.example.com/sms", HTTPS, "/sms", {}),
        ("scheme", "https://sms.example.com/sms", "http://sms.example.com", "/sms", {}),
        ("scheme", "http://sms.example.com:80/texts/sms?a=1", f"{HTTPS}/texts", "/sms?a=1", {}),
        ("host", "https://old.example.com/sms", HTTPS, "/sms", {"Host": "old.example.com"}),
        ("host", "http://old.example.com/sms", HTTPS, "/sms", {"Host": "old.example.com"}),
        (
            "host",
            "https://a.example:8443/texts/sms",
            f"{HTTPS}/texts",
            "/sms",
            {"Host": "a.example:8443"},
        ),
        (
            "host",
            "https://a.example/sms",
            HTTPS,
            "/sms",
            {"X-Forwarded-Host": "a.example, b.example"},
        ),
        ("host", "https://[::1]:8443/sms", HTTPS, "/sms", {"Host": "[::1]:8443"}),
        ("port", "https://sms.example.com:8443/sms", HTTPS, "/sms", {}),
        (
            "port",
            "https://sms.example.com:5000/sms",
            HTTPS,
            "/sms",
            {"Host": "SMS.example.com:5000"},
        ),
        ("port", "https://sms.example.com:443/sms", f"{HTTPS}:8443", "/sms", {}),
        ("slash", "https://sms.example.com/sms/", HTTPS, "/sms", {}),
        ("slash", "https://sms.example.com/sms?a=1", HTTPS, "/sms/?a=1", {}),
        ("slash", "https://sms.example.com//sms", HTTPS, "/sms", {}),
        ("prefix", "https://sms.example.com/sms", f"{HTTPS}/texts", "/sms", {}),
        ("prefix", "https://sms.example.com/t/sms", HTTPS, "/sms", {"X-Forwarded-Prefix": "/t/"}),
        (
            "prefix",
            "https://sms.example.com/t/sms?a=1",
            HTTPS,
            "/sms",
            {"X-Original-URI": "/t/sms?a=1"},
        ),
        ("query", "https://sms.example.com/sms?a=1", HTTPS, "/sms", {"X-Original-URI": "/sms?a=1"}),
        ("query", "https://sms.example.com/sms", HTTPS, "/sms?added=1", {}),
        ("query_order", f"{HTTPS}/sms?b=2&a=1&c=3", HTTPS, "/sms?a=1&b=2&c=3", {}),
        ("query_order", f"{HTTPS}:443/t/sms?b=2&a=1", f"{HTTPS}/t", "/sms?a=1&b=2", {}),
        ("query_order", f"{HTTPS}/sms?e=5&c=3&a=1&b=2&d=4", HTTPS, "/sms?a=1&b=2&c=3&d=4&e=5", {}),
        ("query_order", f"{HTTPS}/sms?f&e&d&c&b&a", HTTPS, "/sms?a&b&c&d&e&f", {}),
        ("host_case", "https://SMS.example.com/sms", HTTPS, "/sms", {}),
        ("host_case", "https://Sms.Example.Com:443/sms?a=1", HTTPS, "/sms?a=1", {}),
        ("host_case", "https://SMS.EXAMPLE.COM:8443/t/sms", f"{HTTPS}:8443/t", "/sms", {}),
        ("host_case", "https://sMs.example.com/sms", HTTPS, "/sms", {"Host": "sMs.example.com"}),
        (
            "host_case",
            "https://sms.eXample.com:443/sms",
            "https://SMS.example.com",
            "/sms",
            {"X-Forwarded-Host": "sms.eXample.com"},
        ),
        ("query", "https://sms.example.com/sms?a=b%20c", HTTPS, "/sms?a=b+c", {}),
        ("query", "https://sms.example.com/sms?a=b+c", HTTPS, "/sms?a=b%20c", {}),
        ("query", "https://sms.example.com/sms?a=%2F", HTTPS, "/sms?a=%2f", {}),
        ("query", "https://sms.example.com/sms?a=%c3%a4", HTTPS, "/sms?a=%C3%A4", {}),
        ("query", "https://sms.example.com/sms?a=%2F", HTTPS, "/sms?a=/", {}),
        ("query", "https://sms.example.com/sms?a=/", HTTPS, "/sms?a=%2F", {}),
        ("query", "https://sms.example.com/sms?a=%C3%A4", HTTPS, "/sms?a=\xc3\xa4", {}),
        ("query", "https://sms.example.com/sms?a", HTTPS, "/sms?a=", {}),
        ("query", "https://sms.example.com/sms?a=", HTTPS, "/sms?a", {}),
        ("query_order", f"{HTTPS}/sms?a=1&b=2&c=3&d=4", HTTPS, "/sms?b=2&a=1&d=4&c=3", {}),
        ("query", "https://sms.example.com/sms?a=b:/%20", HTTPS, "/sms?a=b%3A%2F%20", {}),
        ("query", "https://sms.example.com/sms?a=b+c%2Fd", HTTPS, "/sms?a=b+c/d", {}),
        ("query", "https://sms.example.com/sms?", HTTPS, "/sms", {}),
        (
            "host",
            "http://old.example.com/sms",
            "http://x.example",
            "/sms",
            {"Host": "old.example.com"},
        ),
        ("unknown", "https://nowhere.example/sms", HTTPS, "/sms", {}),
    ],
)
def test_url_that_differs_is_named(
    cause: str, signed_url: str, public_url: str, target: str, headers: dict[str, str]
) -> None:
    assert diagnose(signed_url, public_url, target, headers=headers) == cause


@pytest.mark.parametrize(
    ("cause", "signed", "received"),
    [
        ("blanks", FORM, WITHOUT_BLANKS),
        ("blanks", {**WITHOUT_BLANKS, "Body": ""}, {**WITHOUT_BLANKS, "Body": None}),
        ("blanks", {**FORM, "Body": ""}, {**WITHOUT_BLANKS, "Body": None}),
        ("blanks", {**WITHOUT_BLANKS, "ToZip": ""}, WITHOUT_BLANKS),
        ("whitespace", {**FORM, "Body": "Hello "}, {**FORM, "Body": "Hello"}),
        ("whitespace", {**FORM, "Body": " Hello"}, {**FORM, "Body": "Hello"}),
        ("whitespace", {**FORM, "Body": "Hello\n"}, {**FORM, "Body": "Hello"}),
        ("whitespace", {**FORM, "Body": "\nHello"}, {**FORM, "Body": "Hello"}),
        ("whitespace", {**FORM, "Body": " "}, {**FORM, "Body": ""}),
        ("whitespace", {**FORM, "Body": "a\r\nb"}, {**FORM, "Body": "a\nb"}),
        ("whitespace", {**FORM, "Body": "a\nb"}, {**FORM, "Body": "a\r\nb"}),
        ("no_fields", FORM, {}),
        ("unknown", FORM, {**FORM, "Body": "Goodbye, world"}),
    ],
)
def test_a_form_that_was_changed_is_named(
    cause: str, signed: dict[str, str], received: dict[str, str | None]
) -> None:
    arrived = {name: value for name, value in received.items() if value is not None}
    assert diagnose(f"{HTTPS}/sms", signed=signed, received=arrived) == cause


@pytest.mark.parametrize(
    ("cause", "token", "algorithm", "headers"),
    [
        ("token", "other", "HMAC_SHA1", {}),
        ("token", "secondary", "HMAC_SHA1", STRONG),
        ("shared_key", "s1", "HMAC_SHA1", {}),  # the header was lost
        ("shared_key", "s256", "HMAC_SHA256", {SETTINGS_HEADER: "key=new,algorithm=HMAC_SHA256"}),
        (
            "shared_key",
            "unheard of",
            "HMAC_SHA256",
            {SETTINGS_HEADER: "key=new,algorithm=HMAC_SHA256"},
        ),
        ("shared_key", "unheard of", "HMAC_SHA256", {SETTINGS_HEADER: "nonsense"}),
        ("algorithm", "s256", "HMAC_SHA1", STRONG),
        ("algorithm", "s256", "HMAC_SHA1", {SETTINGS_HEADER: "key=strong,algorithm=HMAC_SHA1"}),
        ("algorithm", "token", "HMAC_SHA256", {}),
        ("unknown", "unheard of", "HMAC_SHA256", STRONG),
        ("unknown", "unheard of", "HMAC_SHA1", {}),
    ],
)
def test_key_that_may_not_sign_is_named(
    cause: str, token: str, algorithm: str, headers: dict[str, str]
) -> None:
    assert diagnose(f"{HTTPS}/sms", token=token, algorithm=algorithm, headers=headers) == cause


@pytest.mark.parametrize("place", [0, 1])
def test_second_signature_is_named(place: int) -> None:
    good = RequestValidator("token").compute_signature(f"{HTTPS}/sms", FORM)
    both = [good, good]
    both[place] = "bm9ib2R5J3M="
    sent = HTTPHeaders()
    for value in both:
        sent.add("X-Twilio-Signature", value)
    assert explain(ring(), HTTPS, "/sms", raw(FORM), sent) == "signature_twice"
    neither = {"X-Twilio-Signature": "bm9ib2R5J3M=,b3RoZXI="}
    assert explain(ring(), HTTPS, "/sms", raw(FORM), neither) == "unknown"


def test_secondary_token_is_tried_for_every_suspect() -> None:
    assert diagnose("http://sms.example.com/sms", token="secondary") == "scheme"


text = st.text(max_size=30)
headers = st.dictionaries(
    st.sampled_from(
        [
            "Host",
            "X-Forwarded-Host",
            "X-Forwarded-Prefix",
            "X-Original-URI",
            "X-Envoy-Original-Path",
            "X-Twilio-Signature",
            SETTINGS_HEADER,
        ]
    ),
    text,
)
forms = st.dictionaries(text, st.lists(st.binary(max_size=9), max_size=2), max_size=5)
urls = st.sampled_from(["https://x.example", "http://[::1]:1/p", "https://x.example:443/a%20b"])


@properties
@given(urls, text, forms, headers)
def test_no_request_raises_or_gets_another_label(
    public_url: str, target: str, form: Params, sent: dict[str, str]
) -> None:
    assert explain(ring(), public_url, target, form, sent) in CAUSES


def test_work_is_bounded_by_tries_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def mac(key: Key, signed: bytes) -> bytes:
        sizes.append(len(signed))
        return b"another"

    monkeypatch.setattr(mismatch, "mac", mac)
    many = AccountKeys(
        tuple(Secret(f"t{n}") for n in range(500)),
        {str(n): WebhookKey(Secret(f"s{n}"), "sha1") for n in range(500)},
    )
    crowd = KeyRing(Secret("t"), Secret("u"), {ACCOUNT: many})
    hosts = {"Host": "a.example:1", "X-Forwarded-Host": "b.example:2", "X-Original-URI": "/z"}

    assert explain(crowd, f"{HTTPS}/p", "/sms?a=1&b=2&c=3", raw(FORM), hosts) == "unknown"
    assert 100 < len(sizes) <= mismatch.MOST_TRIES

    sizes.clear()
    huge = raw({**FORM, "AddOns": "x" * 60_000})
    assert explain(crowd, HTTPS, "/sms", huge, hosts) == "unknown"
    assert sum(sizes) <= mismatch.MOST_BYTES + max(sizes)


def test_every_cause_has_one_line_of_advice() -> None:
    assert tuple(ADVICE) == CAUSES
    for cause, advice in ADVICE.items():
        assert re.fullmatch(r"[a-z_]+", cause)
        assert re.fullmatch(r"[A-Z][^\n]+\.", advice)
