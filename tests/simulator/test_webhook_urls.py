"""The webhook URL as Twilio reads it, and signatures against the SDK's own validator."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twilio.request_validator import RequestValidator, get_signature_algorithm

from smsd.simulator import Account, SharedKey, WebhookUrl
from smsd.simulator.webhook import signature_headers

ALPHABET = "abcXYZ019 +&=%?#/\u00e9\u20ac\U0001f600\n\x07-_.~*"


def _word(random: Random, longest: int) -> str:
    return "".join(random.choice(ALPHABET) for _ in range(random.randrange(longest)))


def test_the_sdk_accepts_ten_thousand_random_requests() -> None:
    random = Random(4)
    for _ in range(10_000):
        key = SharedKey("k1", _word(random, 20), random.choice(["HMAC_SHA1", "HMAC_SHA256"]))
        shared = random.random() < 0.5
        account = Account("AC1", "t" + _word(random, 20), "", shared_key=key if shared else None)
        params = {_word(random, 6): _word(random, 12) for _ in range(random.randrange(12))}
        port = random.choice(["", ":8080", ":443"])
        url = f"https://sms{random.randrange(99)}.example.com{port}/sms" + random.choice(
            ["", "?a=1&b=%20", "/"]
        )
        headers = dict(signature_headers(account, url, list(params.items())))
        algorithm = get_signature_algorithm(headers.get("X-Twilio-Webhooks-Signature-Settings"))
        validator = RequestValidator(key.secret if shared else account.token)
        assert validator.validate(url, params, headers["X-Twilio-Signature"], algorithm)


def test_repeated_names_are_signed_as_the_published_vector() -> None:
    url = "https://mycompany.com/myapp.php?foo=1&bar=2"
    params = [
        ("Sid", "CA123"),
        ("SidAccount", "AC123"),
        *(("Digits", d) for d in ("5678", "1234", "1234")),
    ]
    assert signature_headers(Account("AC", "12345", url), url, params) == [
        ("X-Twilio-Signature", "IK+Dwps556ElfBT0I3Rgjkr1wJU=")
    ]


def test_an_unsigned_account_sends_no_signature() -> None:
    assert signature_headers(Account("AC", "t", "", signed=False), "https://a.example/", []) == []


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("https://a.example/sms#rc=2", "https://a.example/sms"),
        ("https://a.example", "https://a.example/"),
        ("https://a.example:8443/x?b=2&a=%2B1#ct=100", "https://a.example:8443/x?b=2&a=%2B1"),
        ("https://user:pa%20ss@a.example/sms", "https://a.example/sms"),
        ("https://a.example/sms?", "https://a.example/sms?"),
    ],
)
def test_fragment_and_credentials_are_neither_sent_nor_signed(url: str, asked: str) -> None:
    assert WebhookUrl.parse(url).url == asked


def test_connection_overrides_are_read_and_have_twilios_defaults() -> None:
    hook = WebhookUrl.parse(
        "https://u:p%40@a.example/#ct=500&rt=1500&tt=9000&rc=5&rp=4xx,rt&e=dublin&sni=n"
    )
    assert (hook.connect_timeout_s, hook.read_timeout_s, hook.total_timeout_s, hook.retries) == (
        0.5,
        1.5,
        9,
        5,
    )
    assert hook.retried == {"4xx", "rt"}
    assert hook.credentials == ("u", "p@")
    plain = WebhookUrl.parse("https://a.example/")
    assert (
        plain.connect_timeout_s,
        plain.read_timeout_s,
        plain.total_timeout_s,
        plain.retries,
    ) == (
        5,
        15,
        15,
        1,
    )
    assert plain.retried == {"ct"}


@pytest.mark.parametrize(
    "url",
    [
        "/sms",
        "ftp://a.example/",
        "https:///sms",
        *(
            f"https://a.example/#{part}"
            for part in ("ct=99", "ct=10001", "rt=15001", "tt=0", "rc=6", "rc=x", "rp=3xx")
        ),
    ],
)
def test_a_url_outside_twilios_ranges_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="11100"):
        WebhookUrl.parse(url)


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=40))
@settings(max_examples=50, deadline=None)
def test_any_url_is_parsed_or_refused_cleanly(text: str) -> None:
    try:
        assert "#" not in WebhookUrl.parse("https://a.example/" + text).url
    except ValueError as error:
        assert "11100" in str(error)  # noqa: PT017 - either way is right, anything else is not
