"""The settings: what is accepted, what is refused with which words, and that no secret
ever shows."""

import re
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from smsd.errors import SettingsError
from smsd.settings.table import SETTINGS, Secret, Settings, StoreUrl, load, paths, throw_away

SID = "AC" + "0123456789abcdef" * 2
GOOD = {
    "TWILIO_AUTH_TOKEN": "12345" + "a" * 27,
    "SMSD_PUBLIC_URL": "https://sms.example.com",
    "SMSD_COOKIE_KEYS": "2:" + "n" * 32 + ",1:" + "o" * 32,
    "SMSD_HASH_KEY": "h" * 32,
}
CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBfzCCASWgAwIBAgIUE2XLrS3RGOX/N4zUejx37NdgfXkwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJc21zZC10ZXN0MCAXDTI2MTEyNTEzMzUwN1oYDzIxMjYxMTAx
MTMzNTA3WjAUMRIwEAYDVQQDDAlzbXNkLXRlc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAASt/GPxibNGoCz1xjXpB21P0a4fpLp0FHS0FdZlg9hQimijLjZY4IDO
Vi9A6+GXCbA0HekpDh/a1PJbFKX9JO4oo1MwUTAdBgNVHQ4EFgQUdwqhved5fPPD
7OPgZRJ0FIvugi0wHwYDVR0jBBgwFoAUdwqhved5fPPD7OPgZRJ0FIvugi0wDwYD
VR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgNIADBFAiB7O+KRvbmKtpAM3qh4sfiD
a5fKaTG7o3D0D1qIFtZDJQIhAPBXTI/g7/FX4j68eBQC856NhmZVki+fLR6XOdhr
w6HP
-----END CERTIFICATE-----
"""
NAMES = {setting.name for setting in SETTINGS}


def good(**changes: str) -> Settings:
    return load({**GOOD, **changes})


def problems(**changes: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        good(**changes)
    return list(caught.value.problems)


def test_required_settings_suffice_with_specified_defaults() -> None:
    settings = load(GOOD)
    assert settings.auth_token.reveal() == b"12345" + b"a" * 27
    assert list(settings.cookie_keys) == [2, 1]
    assert settings.hash_key == Secret("h" * 32)
    assert (settings.auth_token_secondary, settings.account_sid, settings.accounts) == (
        None,
        None,
        {},
    )
    assert (settings.api_key, settings.api_secret, settings.store_ca) == (None, None, None)
    assert settings.store == StoreUrl("memory")
    assert (settings.answer_within_s, settings.one_moment, settings.history) == (12, "", 0)
    assert (settings.store_timeout_s, settings.session_ttl_s, settings.dialogue_timeout_s) == (
        0.25,
        14400,
        10,
    )
    assert settings.dialogue == "smsd.dialogues.greeting:reply"
    assert (settings.loop_limit, settings.opt_out, settings.drain_delay_s) == (20, True, 5)
    assert (settings.host, settings.port, settings.admin_port) == ("*", 8080, 9090)
    assert (settings.log_format, settings.log_level) == ("json", "info")
    assert settings.people == {
        "+14158675309": "Rey",
        "+14158675310": "Finn",
        "+14158675311": "Chewy",
    }
    assert settings.apology.startswith("Sorry")
    assert settings.given == set(GOOD)


def test_the_first_greeting_is_the_specified_text() -> None:
    values = {"name": "Rey", "from": "+14158675309", "to": "+15551234567", "count": 1}
    first = load(GOOD).greeting_first.format_map(values)
    assert first == "Thanks for the new message! Rey has messaged +15551234567 1 times"
    assert load(GOOD).greeting.format_map(values) == "Rey has messaged +15551234567 1 times"
    assert good(SMSD_GREETING="Hi {name}").greeting_first == "Thanks for the new message! Hi {name}"
    assert good(SMSD_GREETING="Hi {name}", SMSD_GREETING_FIRST="Yo").greeting_first == "Yo"


def test_built_in_directory_has_invented_people() -> None:
    persons = load(GOOD).directory
    assert len(persons) == 12
    assert all(re.fullmatch(r"\+1202555010\d|\+1202555011\d", person.phone) for person in persons)
    assert all(person.email.endswith("@example.com") for person in persons)
    assert all(person.picture.startswith("https://example.com/") for person in persons)
    surnames = [person.name.split()[-1] for person in persons]
    assert len(set(surnames)) < len(surnames)


def test_every_missing_setting_is_named_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        load({})
    assert caught.value.problems == tuple(
        f"{setting.name}: is required" for setting in SETTINGS if setting.required
    )
    assert "`smsd keys --output smsd.env`" in caught.value.hint
    assert "`smsd serve --dev`" in caught.value.hint


def test_the_hint_comes_with_missing_settings_only() -> None:
    with pytest.raises(SettingsError) as caught:
        good(SMSD_PORT="x")
    assert caught.value.hint == ""
    with pytest.raises(SettingsError) as caught:
        good(SMSD_HASH_KEY="")
    assert caught.value.hint


def test_every_default_is_a_valid_value() -> None:
    rows = {row.name: row.default for row in SETTINGS if row.default is not None and not row.file}
    assert good(**rows) == Settings(
        **{f.name: getattr(load(GOOD), f.name) for f in fields(Settings) if f.name != "given"},
        given=frozenset({*GOOD, *rows}),
    )


ACCEPTED = [
    ("SMSD_STORE", "cookie://", "store", StoreUrl("cookie")),
    ("SMSD_STORE", "memcached://a", "store", StoreUrl("memcached", ("a:11211",))),
    ("SMSD_STORE", "memcached://B:1,a.b-c:2/", "store", StoreUrl("memcached", ("b:1", "a.b-c:2"))),
    (
        "SMSD_STORE",
        "memcached://[::1]:9,[::2]",
        "store",
        StoreUrl("memcached", ("[::1]:9", "[::2]:11211")),
    ),
    ("SMSD_STORE", "memcacheds://a:1", "store", StoreUrl("memcached", ("a:1",), tls=True)),
    ("SMSD_STORE_TIMEOUT", "5", "store_timeout_s", 5.0),
    ("SMSD_STORE_TIMEOUT", ".01", "store_timeout_s", 0.01),
    ("SMSD_SESSION_TTL", "1", "session_ttl_s", 1),
    ("SMSD_SESSION_TTL", "14400", "session_ttl_s", 14400),
    ("SMSD_DIALOGUE_TIMEOUT", "300", "dialogue_timeout_s", 300.0),
    ("SMSD_ANSWER_WITHIN", "1", "answer_within_s", 1.0),
    ("SMSD_ANSWER_WITHIN", "14", "answer_within_s", 14.0),
    ("SMSD_ONE_MOMENT", "Wait …", "one_moment", "Wait …"),
    ("SMSD_ONE_MOMENT", "", "one_moment", ""),
    ("SMSD_HISTORY", "32", "history", 32),
    ("SMSD_LOOP_LIMIT", "0", "loop_limit", 0),
    ("SMSD_PORT", "0", "port", 0),
    ("SMSD_PORT", " 65535\n", "port", 65535),
    ("SMSD_DRAIN_DELAY", "0", "drain_delay_s", 0.0),
    ("SMSD_OPT_OUT", "off", "opt_out", False),
    ("SMSD_OPT_OUT", "True", "opt_out", True),
    ("SMSD_LOG_FORMAT", "TEXT", "log_format", "text"),
    ("SMSD_LOG_FORMAT", "pretty", "log_format", "pretty"),
    ("SMSD_HOST", "::", "host", "::"),
    ("SMSD_HOST", "*", "host", "*"),
    ("SMSD_DIALOGUE", "shop.texts:answer", "dialogue", "shop.texts:answer"),
    ("SMSD_APOLOGY", "", "apology", ""),
    ("SMSD_APOLOGY", " Sorry. ", "apology", " Sorry. "),
    ("SMSD_GREETING", "{{{name}}}", "greeting", "{{{name}}}"),
    ("SMSD_PUBLIC_URL", "https://sms.example.com/", "public_url", "https://sms.example.com"),
    (
        "SMSD_PUBLIC_URL",
        "https://example.com:8443/a/b//",
        "public_url",
        "https://example.com:8443/a/b",
    ),
    ("SMSD_PUBLIC_URL", "HTTPS://example.com/%7Ea", "public_url", "https://example.com/%7Ea"),
    ("SMSD_PUBLIC_URL", "http://127.0.0.1:8080", "public_url", "http://127.0.0.1:8080"),
    ("SMSD_PUBLIC_URL", "http://[::1]:8080", "public_url", "http://[::1]:8080"),
    ("TWILIO_ACCOUNT_SID", SID, "account_sid", SID),
    ("TWILIO_AUTH_TOKEN", "abc\n", "auth_token", Secret("abc")),
    ("TWILIO_AUTH_TOKEN_SECONDARY", "", "auth_token_secondary", None),
    ("SMSD_COOKIE_KEYS", "7:" + "a:" * 16, "cookie_keys", {7: Secret("a:" * 16)}),
]


@pytest.mark.parametrize(("name", "given", "field", "value"), ACCEPTED)
def test_accepts(name: str, given: str, field: str, value: object) -> None:
    assert getattr(good(**{name: given}), field) == value


REFUSED = [
    ("SMSD_STORE", "redis://a", "must be memory://"),
    ("SMSD_STORE", "memory", "must be memory://"),
    ("SMSD_STORE", "memory://x", "must be memory://"),
    ("SMSD_STORE", "memcached://", "node 1 must be host:port"),
    ("SMSD_STORE", "memcached://a,,b", "node 2 must be host:port"),
    ("SMSD_STORE", "memcached://a:0", "node 1 must be host:port"),
    ("SMSD_STORE", "memcached://a:70000", "node 1 must be host:port"),
    ("SMSD_STORE", "memcached://u:p@a:1", "node 1 must be host:port"),
    ("SMSD_STORE", "memcached://A,a:11211", "names a node twice"),
    ("SMSD_STORE_TIMEOUT", "0", "must be a number from 0.01 to 5"),
    ("SMSD_STORE_TIMEOUT", "nan", "must be a number"),
    ("SMSD_STORE_TIMEOUT", "250ms", "must be a number"),
    ("SMSD_STORE_TIMEOUT", "1e-1", "must be a number"),
    ("SMSD_STORE", "memcacheds://", "node 1 must be host:port"),
    ("SMSD_STORE", "MEMCACHEDX://a", "must be memory://"),
    ("SMSD_SESSION_TTL", "14401", "more than 14400 needs memcached as SMSD_STORE"),
    ("SMSD_SESSION_TTL", "2591001", "must be a whole number from 1 to 2591000"),
    ("SMSD_SESSION_TTL", "0", "must be a whole number from 1 to 2591000"),
    ("SMSD_SESSION_TTL", "1.5", "must be a whole number"),
    ("SMSD_SESSION_TTL", "1_000", "must be a whole number"),
    ("SMSD_SESSION_TTL", "٣", "must be a whole number"),
    ("SMSD_LOOP_LIMIT", "30", "must be a whole number from 0 to 29"),
    ("SMSD_DIALOGUE_TIMEOUT", "301", "must be a number from 0.1 to 300"),
    ("SMSD_ANSWER_WITHIN", "0.9", "must be a number from 1 to 14"),
    ("SMSD_ANSWER_WITHIN", "15", "must be a number from 1 to 14"),
    ("SMSD_HISTORY", "33", "must be a whole number from 0 to 32"),
    ("SMSD_HOST", "**", "must be *, or a host name"),
    ("SMSD_PORT", "65536", "must be a whole number"),
    ("SMSD_PORT", "tcp://10.0.0.1:8080", "set enableServiceLinks: false"),
    ("SMSD_ADMIN_PORT", "8080", "must differ from SMSD_PORT"),
    ("SMSD_HOST", "a b", "must be *, or a host name"),
    ("SMSD_OPT_OUT", "maybe", "must be on or off"),
    ("SMSD_LOG_FORMAT", "xml", "must be json, text or pretty"),
    ("SMSD_LOG_LEVEL", "loud", "must be debug, info, warning or error"),
    ("SMSD_DIALOGUE", "shop.texts", "must be module:callable"),
    ("SMSD_DIALOGUE", "shop..texts:f", "must be module:callable"),
    ("SMSD_GREETING", "{name.__class__}", "may contain {name}"),
    ("SMSD_GREETING", "{name[0]}", "may contain {name}"),
    ("SMSD_GREETING", "{count:>999999999}", "may contain {name}"),
    ("SMSD_GREETING", "{name!r}", "may contain {name}"),
    ("SMSD_GREETING", "{}", "may contain {name}"),
    ("SMSD_GREETING_FIRST", "{nmae}", "may contain {name}"),
    ("SMSD_GREETING_FIRST", "{name", "has unbalanced braces"),
    ("SMSD_GREETING_FIRST", "\udcff", "is not UTF-8 text"),
    ("SMSD_PUBLIC_URL", "http://sms.example.com", "must begin with https://"),
    ("SMSD_PUBLIC_URL", "sms.example.com", "must be a URL"),
    ("SMSD_PUBLIC_URL", "https://", "must be a URL"),
    ("SMSD_PUBLIC_URL", "https://a:99999", "is not a URL"),
    ("SMSD_PUBLIC_URL", "https://[::1", "is not a URL"),
    ("SMSD_PUBLIC_URL", "https://u:p@a.example", "must have no user"),
    ("SMSD_PUBLIC_URL", "https://a.example/?", "must have no user"),
    ("SMSD_PUBLIC_URL", "https://a.example/#rc=3", "must have no user"),
    ("SMSD_PUBLIC_URL", "https://bücher.example", "has a host name"),
    ("SMSD_PUBLIC_URL", "https://a.example/ü", "has a path"),
    ("TWILIO_ACCOUNT_SID", "AC123", "must be AC and 32"),
    ("TWILIO_AUTH_TOKEN", "abc def", "contains a blank"),
    ("TWILIO_AUTH_TOKEN", "abc\ndef", "contains a blank"),
    ("TWILIO_AUTH_TOKEN", "abc\x00def", "contains a blank"),
    ("TWILIO_AUTH_TOKEN", '"abcdef"', "is in quotes"),
    ("TWILIO_AUTH_TOKEN", "\n", "is empty, and required"),
    ("SMSD_HASH_KEY", "h" * 31, "must have at least 32 characters"),
    ("SMSD_COOKIE_KEYS", "n" * 32, "key 1 must be VERSION:SECRET"),
    (
        "SMSD_COOKIE_KEYS",
        "1:" + "n" * 32 + ",1:" + "o" * 32,
        "key 2 has the version of an earlier one",
    ),
    ("SMSD_COOKIE_KEYS", "1:" + "n" * 32 + ",2:short", "key 2 must have at least 32"),
    ("SMSD_COOKIE_KEYS", "1:" + "n" * 32 + ",", "key 2 must be VERSION:SECRET"),
]


def test_a_long_session_needs_memcached() -> None:
    for store in ("memcached://a", "memcacheds://a"):
        assert good(SMSD_STORE=store, SMSD_SESSION_TTL="2591000").session_ttl_s == 2591000
    for store in ("memory://", "cookie://"):
        assert problems(SMSD_STORE=store, SMSD_SESSION_TTL="14401") == [
            "SMSD_SESSION_TTL: more than 14400 needs memcached as SMSD_STORE"
        ]


def test_the_dialogue_must_end_before_the_last_redirect() -> None:
    assert good(SMSD_ANSWER_WITHIN="7.6", SMSD_DIALOGUE_TIMEOUT="300").answer_within_s == 7.6
    assert problems(SMSD_ANSWER_WITHIN="7.5", SMSD_DIALOGUE_TIMEOUT="300") == [
        "SMSD_DIALOGUE_TIMEOUT: must be less than 40 times SMSD_ANSWER_WITHIN"
    ]


def test_api_key_and_its_secret_need_each_other() -> None:
    key = "SK" + "0123456789abcdef" * 2
    both = good(TWILIO_API_KEY=key, TWILIO_API_SECRET="s" * 32)
    assert (both.api_key, both.api_secret) == (Secret(key), Secret("s" * 32))
    assert key not in repr(both)
    assert problems(TWILIO_API_KEY=key) == ["TWILIO_API_KEY: needs TWILIO_API_SECRET too"]
    assert problems(TWILIO_API_SECRET="s") == ["TWILIO_API_SECRET: needs TWILIO_API_KEY too"]
    assert problems(TWILIO_API_KEY="AC1", TWILIO_API_SECRET="s") == [
        "TWILIO_API_KEY: must be SK and 32 hexadecimal digits, as Twilio's console shows it"
    ]


@pytest.mark.parametrize("suffix", ["", "_FILE"])
def test_store_authorities_are_a_pem_file(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / "ca.pem"
    environ = {**GOOD, "SMSD_STORE": "memcacheds://a", f"SMSD_STORE_CA{suffix}": str(file)}
    file.write_text(CERTIFICATE)
    assert load(environ).store_ca == CERTIFICATE.rstrip()
    assert "BEGIN" not in repr(load(environ))
    file.write_text("\n")
    assert load(environ).store_ca is None
    for broken in ("hidden", CERTIFICATE[:200], CERTIFICATE.replace("B", "Ü")):
        file.write_text(broken)
        with pytest.raises(SettingsError) as caught:
            load(environ)
        assert caught.value.problems == (
            "SMSD_STORE_CA: its file is not a PEM file of certificates",
        )


@pytest.mark.parametrize(("name", "given", "said"), REFUSED)
def test_refuses(name: str, given: str, said: str) -> None:
    [problem] = problems(**{name: given})
    assert problem.startswith(f"{name}: ")
    assert said in problem


# ---- files


def test_any_setting_may_come_from_a_file(tmp_path: Path) -> None:
    values = {**GOOD, "SMSD_PORT": "81", "SMSD_GREETING": "Hi {name}"}
    for name, value in values.items():
        (tmp_path / name).write_text(value + "\n")
    environ = {f"{name}_FILE": str(tmp_path / name) for name in values}
    settings = load(environ)
    assert (settings.auth_token.reveal(), settings.port, settings.greeting) == (
        GOOD["TWILIO_AUTH_TOKEN"].encode(),
        81,
        "Hi {name}",
    )
    assert set(paths(environ)) == set(environ.values())


@pytest.mark.parametrize("suffix", ["", "_FILE"])
def test_toml_setting_takes_its_file_under_both_names(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / "people.toml"
    file.write_text(
        '"+49 151 (234) 5678-9" = "Mia"\n"whatsapp:+4915123456780" = "Jo"\n12345 = "Short code"\n'
    )
    environ = {**GOOD, f"SMSD_PEOPLE{suffix}": str(file)}
    expected = {"+4915123456789": "Mia", "+4915123456780": "Jo", "12345": "Short code"}
    assert load(environ).people == expected
    assert paths(environ) == (str(file),)


def test_empty_file_of_an_optional_setting_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("\n")
    assert (
        good(TWILIO_AUTH_TOKEN_SECONDARY_FILE=str(tmp_path / "token")).auth_token_secondary is None
    )
    (tmp_path / "token").write_bytes(b"\xef\xbb\xbfabc\r\n")
    assert good(
        TWILIO_AUTH_TOKEN_SECONDARY_FILE=str(tmp_path / "token")
    ).auth_token_secondary == Secret("abc")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"\xff", "is not UTF-8 text"),
        (b"a" * 1_000_001, "has more than 1,000,000 bytes"),
        (b"", "is empty, and required"),
        (b" \n", "is empty, and required"),
        (b"a b", "contains a blank"),
    ],
)
def test_unusable_file_is_a_problem(tmp_path: Path, content: bytes | None, said: str) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    environ = {**GOOD, "TWILIO_AUTH_TOKEN_FILE": str(file)}
    del environ["TWILIO_AUTH_TOKEN"]
    with pytest.raises(SettingsError) as caught:
        load(environ)
    [problem] = caught.value.problems
    assert problem.startswith("TWILIO_AUTH_TOKEN: ")
    assert said in problem


def test_path_must_lead_to_a_regular_file(tmp_path: Path) -> None:
    assert "is not a regular file" in problems(SMSD_PEOPLE=str(tmp_path))[0]
    assert "cannot be read" in problems(SMSD_PEOPLE="a\x00b")[0]


def test_setting_given_twice_is_a_problem(tmp_path: Path) -> None:
    assert problems(SMSD_PORT="1", SMSD_PORT_FILE="/x") == [
        "SMSD_PORT: is given twice, also as SMSD_PORT_FILE"
    ]
    assert problems(SMSD_PEOPLE="x", SMSD_PEOPLE_FILE="y") == [
        "SMSD_PEOPLE: is given twice, also as SMSD_PEOPLE_FILE"
    ]
    assert good(SMSD_PORT="", SMSD_PORT_FILE="", SMSD_PEOPLE="").port == 8080
    assert good(SMSD_PORT=" ").port == 8080


ACCOUNTS = f"""
[{SID}]
tokens = ["primus", "secundus"]
shared_keys = {{ K1 = {{ secret = "s1", algorithm = "HMAC_SHA256" }} }}
[{SID[:-1]}0]
shared_keys.K2 = {{ secret = "s2", algorithm = "HMAC_SHA1" }}
"""


def test_accounts_have_tokens_and_shared_keys(tmp_path: Path) -> None:
    file = tmp_path / "accounts.toml"
    file.write_text(ACCOUNTS)
    first, second = good(SMSD_ACCOUNTS=str(file)).accounts.values()
    assert [token.reveal() for token in first.tokens] == [b"primus", b"secundus"]
    assert (first.shared_keys["K1"].secret, first.shared_keys["K1"].algorithm) == (
        Secret("s1"),
        "sha256",
    )
    assert (second.tokens, second.shared_keys["K2"].algorithm) == ((), "sha1")


BROKEN = [
    ("SMSD_PEOPLE", '"+14155550123" = 5', 'entry 1 must be "+14155550123" = "Name"'),
    ("SMSD_PEOPLE", '"+14155550123" = " "', "entry 1 must be"),
    (
        "SMSD_PEOPLE",
        '"+1" = "a"\n4155550123 = "b"',
        "entry 2: a number of this length must begin with +",
    ),
    ("SMSD_PEOPLE", '"+1" = "a"\n"sms:+1" = "b"', "entry 2 has the number of an earlier one"),
    ("SMSD_PEOPLE", '"+14155550123" = "A"\n"+14155550123', "is not TOML (at end of document)"),
    (
        "SMSD_PEOPLE",
        '"+14155550123" = "A"\n"+14155550123" = "B"\n"+1" = "C"',
        "is not TOML (at line 2, column",
    ),
    ("SMSD_DIRECTORY", "", "must contain [[person]] tables"),
    ("SMSD_DIRECTORY", "person = 1", "must contain [[person]] tables"),
    ("SMSD_DIRECTORY", "[[people]]\nname = 'A'", "must contain [[person]] tables"),
    ("SMSD_DIRECTORY", "[[person]]\nname = 'A'\n[[person]]\nphone = '1'", "person 2 has no name"),
    ("SMSD_DIRECTORY", "[[person]]\nname = 1", "person 1 may hold only texts in quotes"),
    ("SMSD_DIRECTORY", "person = [1]", "person 1 may hold only texts in quotes"),
    ("SMSD_DIRECTORY", "[[person]]\nname = 'A'\nmail = 'x'", "person 1 has an unknown key"),
    (
        "SMSD_DIRECTORY",
        "[[person]]\nname = 'A'\npicture = 'x'",
        "person 1 has a picture that is not a URL",
    ),
    ("SMSD_ACCOUNTS", "[AC1]\ntokens = ['abc']", "account 1: must be AC and 32"),
    ("SMSD_ACCOUNTS", f"[{SID}]\ntoken = 'abc'", "account 1: must be a table with tokens"),
    ("SMSD_ACCOUNTS", f"[{SID}]", "account 1: must be a table with tokens"),
    ("SMSD_ACCOUNTS", f"{SID} = 1", "account 1: must be a table with tokens"),
    ("SMSD_ACCOUNTS", f"[{SID}]\ntokens = 'abc'", "account 1: tokens must be a list"),
    (
        "SMSD_ACCOUNTS",
        f"[{SID}]\ntokens = [1]",
        "account 1: a token or secret must be a non-empty text",
    ),
    ("SMSD_ACCOUNTS", f"[{SID}]\ntokens = ['a b']", "account 1: contains a blank"),
    ("SMSD_ACCOUNTS", f"[{SID}]\nshared_keys.K = 'abc'", "account 1: a shared key must be"),
    (
        "SMSD_ACCOUNTS",
        f"[{SID}]\nshared_keys.'a,b' = {{secret='s',algorithm='HMAC_SHA1'}}",
        "must be KEYID",
    ),
    (
        "SMSD_ACCOUNTS",
        f"[{SID}]\nshared_keys.K = {{secret='s',algorithm='HMAC_MD5'}}",
        "the algorithm",
    ),
    (
        "SMSD_ACCOUNTS",
        f"[{SID}]\nshared_keys.K = {{secret='',algorithm='HMAC_SHA1'}}",
        "must be a non-empty text",
    ),
]


@pytest.mark.parametrize(("name", "content", "said"), BROKEN)
def test_broken_file_is_refused_without_being_quoted(
    tmp_path: Path, name: str, content: str, said: str
) -> None:
    file = tmp_path / "file.toml"
    file.write_text(content)
    [problem] = problems(**{name: str(file)})
    assert problem.startswith(f"{name}: ")
    assert said in problem
    assert "4155550123" not in problem.replace('"+14155550123" = "Name"', "")


def test_every_problem_of_a_file_is_told(tmp_path: Path) -> None:
    file = tmp_path / "people.toml"
    file.write_text('"+1" = 1\n"+2" = "b"\n"+3" = 3')
    assert len(problems(SMSD_PEOPLE=str(file), SMSD_PORT="x")) == 3


# ---- warnings


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("SMSD_GRETING", "x", "SMSD_GRETING: no such setting; is SMSD_GREETING meant?"),
        (
            "SMSD_HASHKEY_FILE",
            "x",
            "SMSD_HASHKEY_FILE: no such setting; is SMSD_HASH_KEY_FILE meant?",
        ),
        ("SMSD_QQQQ", "x", "SMSD_QQQQ: no such setting"),
        ("SMSD_PUBLIC_URL", "https://a.example/sms", "SMSD_PUBLIC_URL: ends in /sms"),
    ],
)
def test_warns(name: str, value: str, said: str) -> None:
    settings = good(SMSD_STORE="cookie://", **{name: value})
    assert [warning[: len(said)] for warning in settings.warnings] == [said]


def test_warns_of_auth_tokens_that_twilio_never_makes() -> None:
    for name in ("TWILIO_AUTH_TOKEN", "TWILIO_AUTH_TOKEN_SECONDARY"):
        for odd in ("12345", "g" * 32, "a" * 33):
            [warning] = good(SMSD_STORE="cookie://", **{name: odd}).warnings
            assert (
                warning == f"{name}: is not 32 hexadecimal digits, as Twilio's auth tokens are; "
                "copy it again from Twilio's console"
            )
            assert odd not in warning
        assert good(SMSD_STORE="cookie://", **{name: "Ab" * 16}).warnings == ()
    assert load({**GOOD, "TWILIO_AUTH_TOKEN": "12345"}, dev=True).warnings == ()


def test_warns_of_authorities_that_nobody_asks(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text(CERTIFICATE)
    given = {"SMSD_STORE_CA": str(tmp_path / "ca.pem")}
    [warning] = good(SMSD_STORE="memcached://a", **given).warnings
    assert warning == "SMSD_STORE_CA: has no effect without memcacheds:// in SMSD_STORE"
    assert good(SMSD_STORE="memcacheds://a", **given).warnings == ()


def test_kubernetes_service_links_are_not_taken_for_settings() -> None:
    links = {
        "SMSD_SERVICE_HOST": "10.0.0.1",
        "SMSD_SERVICE_PORT": "80",
        "SMSD_SERVICE_PORT_HTTP": "80",
        "SMSD_PORT_8080_TCP": "tcp://10.0.0.1:8080",
        "SMSD_PORT_8080_TCP_PROTO": "tcp",
        "SMSD_PORT_8080_TCP_PORT": "8080",
        "SMSD_PORT_8080_TCP_ADDR": "10.0.0.1",
        "SMSD_CANARY_PORT": "tcp://10.0.0.2:80",
        "SMSD_CANARY_SERVICE_HOST": "10.0.0.2",
    }
    assert good(SMSD_STORE="cookie://", **links).warnings == ()


def test_memory_store_is_warned_of_in_production_only() -> None:
    assert [warning.split(":")[0] for warning in load(GOOD).warnings] == ["SMSD_STORE"]
    assert load(GOOD, dev=True).warnings == ()


# ---- dev


def test_dev_needs_no_settings_and_makes_its_secrets() -> None:
    settings = load({}, dev=True, token=iter(["a" * 32, "b" * 32, "c" * 32]).__next__)
    assert settings.auth_token.reveal() == b"a" * 32
    assert settings.cookie_keys == {1: Secret("b" * 32)}
    assert settings.hash_key.reveal() == b"c" * 32
    assert (settings.host, settings.log_format) == ("127.0.0.1", "text")
    assert (settings.public_url, settings.given) == ("http://127.0.0.1:8080", frozenset())
    assert load({}, dev=True).hash_key != load({}, dev=True).hash_key


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({"SMSD_PORT": "81"}, "http://127.0.0.1:81"),
        ({"SMSD_HOST": "0.0.0.0"}, "http://127.0.0.1:8080"),  # noqa: S104
        ({"SMSD_HOST": "::"}, "http://[::1]:8080"),
        ({"SMSD_HOST": "*"}, "http://127.0.0.1:8080"),
        ({"SMSD_PUBLIC_URL": "http://tunnel.example/x/"}, "http://tunnel.example/x"),
    ],
)
def test_dev_derives_the_public_url_and_accepts_http(environ: dict[str, str], url: str) -> None:
    assert load(environ, dev=True).public_url == url


def test_given_values_win_over_dev_defaults() -> None:
    defaults = {"SMSD_PORT": "81", "SMSD_HOST": "127.0.0.2"}
    settings = load({"SMSD_PORT": "82"}, dev=True, dev_defaults=defaults)
    assert (settings.port, settings.host) == (82, "127.0.0.2")
    with pytest.raises(SettingsError, match="SMSD_PORT"):
        load({"SMSD_PORT": "x"}, dev=True)


@pytest.mark.parametrize(
    ("url", "prefix"),
    [
        ("https://a.example/", ""),
        ("https://a.example/texts/", "/texts"),
        ("https://a.example/a/b", "/a/b"),
    ],
)
def test_prefix_is_the_path_of_the_public_url(url: str, prefix: str) -> None:
    assert good(SMSD_PUBLIC_URL=url).prefix == prefix


# ---- secrets


def test_a_secret_shows_itself_only_to_reveal() -> None:
    secret = Secret("correct-horse")
    assert secret.reveal() == b"correct-horse"
    assert "horse" not in f"{secret} {secret!r} {[secret]}"
    assert secret == Secret("correct-horse") != Secret("correct-house")
    assert secret != "correct-horse"
    assert len({secret, Secret("correct-horse")}) == 1


def test_repr_shows_neither_secrets_nor_people(tmp_path: Path) -> None:
    (tmp_path / "accounts.toml").write_text(ACCOUNTS)
    shown = repr(good(SMSD_ACCOUNTS=str(tmp_path / "accounts.toml")))
    assert not any(
        private in shown for private in ("12345", "nnnn", "hhhh", "primus", "4158675309", "202555")
    )


MARK = "zQ7jXw"
STARTS = ["", "1:", "memcached://", "https://", "https://u:", "/", "{", "a:", '"']
planted = st.builds("{}{}{}".format, st.sampled_from(STARTS), st.just(MARK), st.text(max_size=60))


@hypothesis_settings(deadline=None, max_examples=150)
@given(st.dictionaries(st.sampled_from(sorted(NAMES)), planted, min_size=1))
def test_problems_name_settings_and_never_values(
    given: dict[str, str],
) -> None:
    told, shown = outcome({**GOOD, **given})
    assert not any(MARK in problem or "\n" in problem for problem in told)
    assert all(problem.partition(": ")[0] in given for problem in told)
    assert MARK not in shown or any(
        not setting.secret and setting.name in given for setting in SETTINGS
    )


def outcome(environ: dict[str, str]) -> tuple[tuple[str, ...], str]:
    """The problems, and the repr of the settings if there are none."""
    try:
        return (), repr(load(environ))
    except SettingsError as error:
        return error.problems, ""


@hypothesis_settings(deadline=None, max_examples=50)
@given(content=st.text(max_size=40, alphabet=st.characters(codec="utf-8")).map(MARK.__add__))
def test_accounts_file_is_never_quoted(
    content: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("accounts") / "accounts.toml"
    file.write_text(f"[{SID}]\ntokens = [{content!r}]\n{content}")
    told, shown = outcome({**GOOD, "SMSD_ACCOUNTS": str(file)})
    assert MARK not in shown + "".join(told)


# ---- the table


def test_table_has_a_row_for_every_field() -> None:
    own = {f.name for f in fields(Settings)} - {"given", "warnings"}
    assert [setting.field for setting in SETTINGS] == [
        f.name for f in fields(Settings) if f.name in own
    ]
    assert len(NAMES) == len(SETTINGS)
    assert all(setting.meaning for setting in SETTINGS)
    assert set(throw_away(lambda: "")) < NAMES
