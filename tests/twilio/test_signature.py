"""Twilio's published vectors, its SDK as the oracle, and the rules about keys."""

import hmac
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from urllib.parse import quote_plus

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tornado.escape import parse_qs_bytes
from twilio.request_validator import RequestValidator

from smsd.settings.table import AccountKeys, Secret, WebhookKey
from smsd.twilio import signature
from smsd.twilio.signature import (
    Key,
    KeyRing,
    Params,
    candidate_urls,
    key_named,
    sign,
    signed_string,
    verify,
)

properties = hypothesis_settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
ACCOUNT, OTHER_ACCOUNT = "AC" + "a" * 32, "AC" + "b" * 32
TOKEN = "12345"
KEY = Key(TOKEN.encode(), "primary")
CALL = {"CallSid": "CA1234567890ABCDE", "Digits": "1234", "To": "+18005551212"}


class MultiDict(dict[str, list[str]]):
    """A form as the SDK reads it when a name is repeated."""

    def getall(self, name: str) -> list[str]:
        return self[name]


def raw(form: Mapping[str, str | Sequence[str]]) -> dict[str, list[bytes]]:
    """The form as it arrives: posted, and read by Tornado."""
    pairs = [
        (name, value)
        for name, values in form.items()
        for value in ([values] if isinstance(values, str) else values)
    ]
    body = "&".join(f"{quote_plus(name)}={quote_plus(value)}" for name, value in pairs)
    return parse_qs_bytes(body, keep_blank_values=True)


JSON_BODY_SHA256 = "0a1ff7634d9ab3b95db5c9a2dfe9416e41502b283a80c7cf19632632f96e6620"

VECTORS = [
    (
        "https://example.com/myapp.php?foo=1&bar=2",
        {**CALL, "Caller": "+14158675310", "From": "+14158675310"},
        "L/OH5YylLD5NRKLltdqwSvS0BnU=",
    ),
    (
        "https://mycompany.com/myapp.php?foo=1&bar=2",
        {**CALL, "Caller": "+14158675309", "From": "+14158675309"},
        "RSOYDt4T1cUTdK1PDd93/VVr8B8=",
    ),
    (
        "https://mycompany.com/myapp.php?foo=1&bar=2",
        {"Sid": "CA123", "SidAccount": "AC123", "Digits": ["5678", "1234", "1234"]},
        "IK+Dwps556ElfBT0I3Rgjkr1wJU=",
    ),
    (
        f"https://mycompany.com/myapp.php?foo=1&bar=2&bodySHA256={JSON_BODY_SHA256}",
        {},
        "a9nBmqA0ju/hNViExpshrM61xv4=",
    ),
    (
        "https://customer.example/cb",
        {"From": "+4915123456789", "Body": "hello+world"},
        "RPmvJzz674XdYurPkoSZxwiOiWM=",
    ),
]


@pytest.mark.parametrize(("url", "form", "expected"), VECTORS)
def test_published_signatures_are_reproduced_and_accepted(
    url: str, form: dict[str, str], expected: str
) -> None:
    assert sign(KEY, url, raw(form)) == expected
    assert verify([KEY], [url], raw(form), expected) == KEY


def test_signed_string_is_url_and_sorted_fields() -> None:
    params = {"b": [b"2", b"1", b"2"], "a": [b""], "B": [b" x "]}
    assert signed_string(b"https://x/", params) == b"https://x/B x ab1b2"


def test_bytes_that_are_not_text_are_signed() -> None:
    params = {"Body": [b"\xff\x00 "], "\xe9": [b"1"]}
    assert signed_string(b"", params) == b"Body\xff\x00 \xe91"


words = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
names = words.filter(bool)
forms = st.dictionaries(names, st.lists(words, min_size=1, max_size=3), max_size=8)
hosts = st.sampled_from(["sms.example.com", "Example.COM", "10.0.0.7"])
ports = st.sampled_from(["", ":80", ":443", ":8080", ":65535"])
prefixes = st.sampled_from(["", "/texts", "/a/b"])
targets = st.sampled_from(["/sms", "/sms?a=1&b=2", "/sms?q=%20%2B+", "/sms/status", "/sms/?x=ä"])


@properties
@given(st.sampled_from(["http", "https"]), hosts, ports, prefixes, targets, forms, st.booleans())
def test_requests_signed_by_the_sdk_are_accepted(
    scheme: str,
    host: str,
    port: str,
    prefix: str,
    target: str,
    form: dict[str, list[str]],
    sha256: bool,
) -> None:
    algorithm, name = ("sha256", "HMAC_SHA256") if sha256 else ("sha1", "HMAC_SHA1")
    key = Key(TOKEN.encode(), "primary", algorithm)
    public_url = f"{scheme}://{host}{port}{prefix}"
    validator = RequestValidator(TOKEN)
    as_received = target.encode().decode("latin-1")  # what Tornado makes of a request line
    urls = candidate_urls(public_url, as_received)

    theirs = validator.compute_signature(public_url + target, MultiDict(form), name)
    assert verify([key], urls, raw(form), theirs) == key
    ours = sign(key, public_url + target, raw(form))
    assert validator.validate(public_url + target, MultiDict(form), ours, name)


@pytest.mark.parametrize(
    ("configured", "signed"),
    [
        ("https://x.example", "https://x.example:443/sms"),
        ("https://x.example:8443", "https://x.example/sms"),
        ("http://x.example", "http://x.example:80/sms"),
        ("https://[::1]:8443", "https://[::1]/sms"),
        ("https://x.example/texts/", "https://x.example/texts/sms"),
        ("https://user:secret@x.example:81", "https://x.example:81/sms"),
    ],
)
def test_ports_vary_and_credentials_are_never_signed(configured: str, signed: str) -> None:
    assert signed in candidate_urls(configured, "/sms")
    assert all("@" not in url for url in candidate_urls(configured, "/sms"))


def test_url_without_a_default_port_is_kept() -> None:
    assert set(candidate_urls("ws://x.example", "/sms")) == {"ws://x.example/sms"}


@properties
@given(st.text(max_size=60) | st.binary(max_size=60).map(lambda b: b.decode("latin-1")))
def test_no_signature_text_raises_or_is_accepted(text: str) -> None:
    assert verify([KEY], ["https://x.example/sms"], {"a": [b"1"]}, text) is None


@properties
@given(
    st.dictionaries(st.text(max_size=5), st.lists(st.binary(max_size=5), max_size=2), max_size=4),
    st.text(max_size=20),
)
def test_no_form_and_no_target_whatever_raises(params: Params, target: str) -> None:
    assert verify([KEY], candidate_urls("https://x.example", target), params, "no") is None


@pytest.mark.parametrize("change", ["value", "name", "dropped", "added", "url", "key"])
def test_any_change_is_refused(change: str) -> None:
    form, url, key = {"Body": "hi", "From": "+1"}, "https://x.example/sms", KEY
    theirs = RequestValidator(TOKEN).compute_signature(url, form)
    if change == "url":
        url += "?"
    elif change == "key":
        key = Key(b"54321", "primary")
    else:
        form = {
            "value": {"Body": "hi ", "From": "+1"},
            "name": {"body": "hi", "From": "+1"},
            "dropped": {"Body": "hi"},
            "added": {**form, "Zip": "1"},
        }[change]
    assert verify([key], [url], raw(form), theirs) is None


def test_signatures_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def compare(left: bytes, right: bytes) -> bool:
        compared.append((left, right))
        return hmac.compare_digest(left, right)

    monkeypatch.setattr(
        signature, "hmac", SimpleNamespace(digest=hmac.digest, compare_digest=compare)
    )
    good = sign(KEY, "https://x.example/sms", {})
    assert verify([KEY], ["https://x.example/sms"], {}, good) == KEY
    assert compared == [(good.encode(), good.encode())]


# --- keys


def ring() -> KeyRing:
    return KeyRing(
        Secret("primary-token"),
        Secret("secondary-token"),
        {
            ACCOUNT: AccountKeys(
                (Secret("account-token"),),
                {
                    "strong": WebhookKey(Secret("shared-256"), "sha256"),
                    "old": WebhookKey(Secret("shared-1"), "sha1"),
                },
            ),
            OTHER_ACCOUNT: AccountKeys((Secret("other-token"),), {}),
        },
    )


def signer(
    secret: str, account: str, algorithm: str = "HMAC_SHA1", header: str | None = None
) -> str | None:
    """The label of the key that verifies what the SDK signs with `secret` for
    `account`."""
    form = {"AccountSid": account, "Body": "hi"}
    theirs = RequestValidator(secret).compute_signature("https://x.example/sms", form, algorithm)
    key = verify(ring().keys_for(account, header), ["https://x.example/sms"], raw(form), theirs)
    return key.label if key else None


UNKNOWN_ACCOUNT = "AC" + "c" * 32


@pytest.mark.parametrize(
    ("secret", "account", "label"),
    [
        ("primary-token", UNKNOWN_ACCOUNT, "primary"),
        ("secondary-token", UNKNOWN_ACCOUNT, "secondary"),
        ("account-token", ACCOUNT, "account"),
        ("primary-token", ACCOUNT, "primary"),  # a parent may sign for its sub-account
        ("secondary-token", ACCOUNT, "secondary"),
        ("account-token", OTHER_ACCOUNT, None),
        ("account-token", UNKNOWN_ACCOUNT, None),
        ("shared-1", ACCOUNT, None),  # a shared key signs only when the header names it
        ("wrong", ACCOUNT, None),
    ],
)
def test_account_token_signs_for_its_account_only(
    secret: str, account: str, label: str | None
) -> None:
    assert signer(secret, account) == label


@pytest.mark.parametrize(
    ("secret", "algorithm", "account", "header", "label"),
    [
        ("shared-256", "HMAC_SHA256", ACCOUNT, "key=strong,algorithm=HMAC_SHA256", "shared"),
        ("shared-1", "HMAC_SHA1", ACCOUNT, "key=old,algorithm=HMAC_SHA1", "shared"),
        ("shared-256", "HMAC_SHA1", ACCOUNT, "key=strong,algorithm=HMAC_SHA1", None),
        ("shared-256", "HMAC_SHA1", ACCOUNT, "key=strong,algorithm=HMAC_SHA256", None),
        ("shared-256", "HMAC_SHA256", ACCOUNT, "key=strong,algorithm=HMAC_SHA1", None),
        ("shared-256", "HMAC_SHA1", ACCOUNT, None, None),
        ("shared-1", "HMAC_SHA256", ACCOUNT, "key=old,algorithm=HMAC_SHA256", None),
        ("shared-256", "HMAC_SHA256", OTHER_ACCOUNT, "key=strong,algorithm=HMAC_SHA256", None),
        ("shared-256", "HMAC_SHA256", ACCOUNT, "key=old,algorithm=HMAC_SHA256", None),
        ("primary-token", "HMAC_SHA1", ACCOUNT, "key=unknown,algorithm=HMAC_SHA1", None),
        ("primary-token", "HMAC_SHA1", ACCOUNT, "key=old,algorithm=HMAC_SHA1", None),
        ("primary-token", "HMAC_SHA1", ACCOUNT, "nonsense", None),
        ("primary-token", "HMAC_SHA1", ACCOUNT, "", "primary"),  # as the SDK: empty is absent
    ],
)
def test_shared_key_needs_its_id_account_and_algorithm(
    secret: str, algorithm: str, account: str, header: str | None, label: str | None
) -> None:
    assert signer(secret, account, algorithm, header) == label


@pytest.mark.parametrize(
    ("header", "named"),
    [
        ("key=abc,algorithm=HMAC_SHA256", ("abc", "sha256")),
        (" key=a_b-1 , algorithm=HMAC_SHA1 ", ("a_b-1", "sha1")),
        ("key=abc", None),
        ("algorithm=HMAC_SHA1", None),
        ("algorithm=HMAC_SHA1,key=abc", None),
        ("key=,algorithm=HMAC_SHA1", None),
        ("key=abc,algorithm=hmac_sha1", None),
        ("key=abc,algorithm=HMAC_MD5", None),
        ("key=abc,algorithm=HMAC_SHA256,algorithm=HMAC_SHA1", None),
        ("key=abc,key=d,algorithm=HMAC_SHA1", None),
        ("key=abc,algorithm=HMAC_SHA256,", None),
        ("key=" + "a" * 257 + ",algorithm=HMAC_SHA1", None),
    ],
)
def test_settings_header_has_one_form_only(header: str, named: tuple[str, str] | None) -> None:
    assert key_named(header) == named


@properties
@given(
    st.text()
    | st.lists(st.sampled_from(["key", "algorithm", "=", ",", "HMAC_SHA1", "x", " "])).map("".join)
)
def test_no_settings_header_raises_or_selects_tokens(header: str) -> None:
    labels = {key.label for key in ring().keys_for(ACCOUNT, header)}
    assert labels <= {"shared"} or header == ""


@properties
@given(st.text())
def test_no_account_sid_whatever_raises(account_sid: str) -> None:
    assert [key.label for key in ring().keys_for(account_sid, None)] == ["primary", "secondary"]


def test_likely_keys_come_first() -> None:
    assert [key.label for key in ring().keys_for(ACCOUNT, None)] == [
        "account",
        "primary",
        "secondary",
    ]


def test_one_key_without_a_secondary_token() -> None:
    assert [key.label for key in KeyRing(Secret("t")).keys_for(ACCOUNT, None)] == ["primary"]


def test_an_empty_key_is_refused() -> None:
    with pytest.raises(ValueError, match="secondary key is empty"):
        Key(b"", "secondary")


def test_no_secret_shows_in_a_repr() -> None:
    shown = repr([ring(), *ring()])
    assert "primary" in shown
    assert "-token" not in shown
    assert "shared-" not in shown
