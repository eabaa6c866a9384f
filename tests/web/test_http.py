"""The public listener, row by row of the table in docs/twilio.md, against running `smsd
serve` processes."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from smsd.simulator import Account, BlockingClient, SharedKey
from smsd.twilio.diagnosis import ADVICE
from tests import raw_http as wire
from tests.processes import ACCOUNT, PUBLIC_URL, TOKEN, Smsd, wait_for
from tests.raw_http import REY, TO, URL

SECONDARY = "secondary-token-secondary-token"
SUB_ACCOUNT = "AC" + "2" * 32
SUB_TOKEN = "sub-account-token-sub-account-token"
SHARED = SharedKey("WK1", "shared-key-shared-key-shared-key")
SHARED_SHA1 = SharedKey("WK2", "another-shared-key-another-shared", "HMAC_SHA1")
ACCOUNTS = f"""
[{SUB_ACCOUNT}]
tokens = ["{SUB_TOKEN}"]
[{SUB_ACCOUNT}.shared_keys]
{SHARED.key_id} = {{ secret = "{SHARED.secret}", algorithm = "HMAC_SHA256" }}
{SHARED_SHA1.key_id} = {{ secret = "{SHARED_SHA1.secret}", algorithm = "HMAC_SHA1" }}
"""
PREFIXED_URL = "https://example.com/texts"
DIALOGUE = """
import asyncio, time
from smsd import Reply

async def reply(message, session):
    if message.body == "fail":
        raise ValueError(message.from_)
    if message.body == "late":
        await asyncio.sleep(60)
    if message.body == "late thread":
        await asyncio.to_thread(time.sleep, 1)
    if message.body == "huge":
        return Reply("x" * 2000, split=False)
    if message.body == "none":
        return None
    if message.body == "number":
        return 42
    session.data["bodies"] = [*session.data.get("bodies", []), message.body]
    return f"{session.count} {message.channel}: {message.body}"
"""
EMPTY = b"<Response/>"


@pytest.fixture(scope="module")
def smsd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Smsd]:
    """As an operator with sub-accounts and a token under rotation runs it."""
    accounts = tmp_path_factory.mktemp("http") / "accounts.toml"
    accounts.write_text(ACCOUNTS)
    env = {
        "TWILIO_ACCOUNT_SID": ACCOUNT,
        "TWILIO_AUTH_TOKEN_SECONDARY": SECONDARY,
        "SMSD_ACCOUNTS": str(accounts),
    }
    with Smsd(env) as server:
        yield server
        assert "request failed" not in server.log()
        assert "Uncaught" not in server.log()


@pytest.fixture(scope="module")
def prefixed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Smsd]:
    """Behind a path, with people, templates, and other limits than usual."""
    people = tmp_path_factory.mktemp("http") / "people.toml"
    people.write_text(
        '"+1 (415) 867-5309" = "Rey Skywalker <Jedi>"\n"+4930901820" = "Jörg & Söhne"\n'
    )
    env = {
        "SMSD_PUBLIC_URL": PREFIXED_URL,
        "SMSD_PEOPLE": str(people),
        "SMSD_GREETING": "{from} {to} {count} {{{name}}}",
        "SMSD_GREETING_FIRST": "Welcome, {name}",
        "SMSD_SESSION_TTL": "77",
        "SMSD_LOOP_LIMIT": "3",
    }
    with Smsd(env) as server:
        yield server


@pytest.fixture(scope="module")
def troubled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Smsd]:
    """With a dialogue that fails when asked to."""
    directory = tmp_path_factory.mktemp("troubled")
    (directory / "troubled.py").write_text(DIALOGUE)
    env = {
        "PYTHONPATH": str(directory),
        "SMSD_DIALOGUE": "troubled:reply",
        "SMSD_DIALOGUE_TIMEOUT": "0.3",
        "SMSD_APOLOGY": "Sorry & <so on>",
        "SMSD_OPT_OUT": "off",
        "SMSD_LOOP_LIMIT": "0",
    }
    with Smsd(env) as server:
        yield server


def bodies(answer: wire.Answer) -> list[str | None]:
    """The messages of a TwiML document."""
    return [element.text for element in ET.fromstring(answer.body).iter("Message")]  # noqa: S314 - our own


def rejected(server: Smsd, reason: str) -> float:
    return server.metric(f'smsd_rejected_total{{reason="{reason}"}}')


def messages(server: Smsd) -> float:
    """Accepted messages, whatever became of them."""
    lines = server.admin("/metrics")[1].splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("smsd_messages_total{"))


def outcome(server: Smsd, name: str) -> float:
    return server.metric(f'smsd_messages_total{{outcome="{name}"}}')


# --- POST /sms


def test_good_message_gets_twiml_and_one_cookie(smsd: Smsd) -> None:
    answer = wire.post(smsd.address, wire.message(From=REY))
    assert answer.status == 200
    assert answer.header("Content-Type") == "text/xml; charset=utf-8"
    assert bodies(answer) == [f"Thanks for the new message! Rey has messaged {TO} 1 times"]
    assert len(answer.all("Set-Cookie")) == 1
    assert answer.header("ETag") is None


def test_cookie_is_as_promised_in_long_conversations(smsd: Smsd) -> None:
    sender = wire.new_number()
    cookie = ""
    for _ in range(40):
        answer = wire.post(smsd.address, wire.message(From=sender), headers={"Cookie": cookie})
        (line,) = answer.all("Set-Cookie")
        matched = re.fullmatch(
            r"(smsd=[!#-+\--:<-\[\]-~]+); Path=/; HttpOnly; Secure; Max-Age=14400", line
        )
        assert matched, line
        assert len(line) < 1000
        assert sender[1:] not in line
        cookie = matched[1]
    assert smsd.metric('smsd_cookies_total{state="valid"}') >= 39


def test_the_cookies_life_is_the_sessions(prefixed: Smsd) -> None:
    answer = wire.post(prefixed.address, wire.message(), url=f"{PREFIXED_URL}/sms")
    assert str(answer.header("Set-Cookie")).endswith("; Max-Age=77")


def test_form_with_a_charset_is_read(smsd: Smsd) -> None:
    for content_type in (f"{wire.FORM}; charset=UTF-8", f"{wire.FORM};charset=utf-8"):
        answer = wire.post(smsd.address, wire.message(), headers={"Content-Type": content_type})
        assert answer.status == 200


def test_channel_prefix_is_ignored_for_the_name_only(smsd: Smsd) -> None:
    form = wire.message(From=f"whatsapp:{REY}", To=f"whatsapp:{TO}", ProfileName="Somebody")
    assert bodies(wire.post(smsd.address, form)) == [
        f"Thanks for the new message! Rey has messaged whatsapp:{TO} 1 times"
    ]


def test_channels_are_conversations_of_their_own(smsd: Smsd) -> None:
    sender = wire.new_number()
    for address in (sender, f"whatsapp:{sender}", f"rcs:{sender}"):
        (text,) = bodies(wire.post(smsd.address, wire.message(From=address)))
        assert str(text).endswith(" 1 times")


def test_repeated_message_is_counted_once(smsd: Smsd) -> None:
    form = wire.message()
    counted, again = outcome(smsd, "counted"), outcome(smsd, "duplicate")
    first, second = wire.post(smsd.address, form), wire.post(smsd.address, form)
    assert first.body == second.body
    assert outcome(smsd, "counted") == counted + 1
    assert outcome(smsd, "duplicate") == again + 1


def test_people_file_and_both_templates_are_used(prefixed: Smsd) -> None:
    def text(**fields: str) -> list[str | None]:
        return bodies(
            wire.post(prefixed.address, wire.message(**fields), url=f"{PREFIXED_URL}/sms")
        )

    assert text(From=REY) == ["Welcome, Rey Skywalker <Jedi>"]
    assert text(From=REY) == [f"{REY} {TO} 2 {{Rey Skywalker <Jedi>}}"]
    assert text(From="whatsapp:+4930901820") == ["Welcome, Jörg & Söhne"]
    assert text(From="+14158675310") == ["Welcome, Friend"], "the built-in people are replaced"


@pytest.mark.parametrize(
    "word",
    [
        "STOP",
        "stopall",
        "Unsubscribe",
        " CANCEL ",
        "end",
        "QUIT\n",
        "revoke",
        "OPTOUT",
        "start",
        "Help",
    ],
)
def test_opt_out_words_are_counted_and_answered_with_silence(smsd: Smsd, word: str) -> None:
    sender = wire.new_number()
    before = outcome(smsd, "opted_out")
    answer = wire.post(smsd.address, wire.message(From=sender, Body=word))
    assert (answer.status, answer.body[-len(EMPTY) :]) == (200, EMPTY)
    assert answer.header("Set-Cookie")
    assert outcome(smsd, "opted_out") == before + 1
    assert "2 times" in str(bodies(wire.post(smsd.address, wire.message(From=sender))))


def test_advanced_opt_out_is_silent_whatever_the_text_says(smsd: Smsd) -> None:
    answer = wire.post(smsd.address, wire.message(Body="arrêt", OptOutType="STOP"))
    assert answer.body.endswith(EMPTY)


def test_opt_out_words_reach_the_dialogue_if_off(troubled: Smsd) -> None:
    assert bodies(wire.post(troubled.address, wire.message(Body="STOP"))) == ["1 sms: STOP"]


def test_loop_limit_silences_and_keeps_counting(prefixed: Smsd) -> None:
    sender = wire.new_number()
    before = outcome(prefixed, "looped")
    answers = [
        wire.post(prefixed.address, wire.message(From=sender), url=f"{PREFIXED_URL}/sms")
        for _ in range(5)
    ]
    assert [bool(bodies(answer)) for answer in answers] == [True, True, True, False, False]
    assert answers[-1].body.endswith(EMPTY)
    assert outcome(prefixed, "looped") == before + 2


def test_the_loop_limit_can_be_turned_off(troubled: Smsd) -> None:
    sender = wire.new_number()
    answers = [wire.post(troubled.address, wire.message(From=sender)) for _ in range(25)]
    assert bodies(answers[-1]) == ["25 sms: hi"]


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("fail", "ValueError"),
        ("late", "smsd.errors.DialogueTimeout"),
        ("late thread", "smsd.errors.DialogueTimeout"),
        ("huge", "smsd.errors.ReplyError"),
        ("number", "smsd.errors.ReplyError"),
    ],
)
def test_failing_or_late_dialogue_costs_an_apology_only(
    troubled: Smsd, body: str, error: str
) -> None:
    form = wire.message(Body=body)
    before = outcome(troubled, "failed")
    answer = wire.post(troubled.address, form)
    assert (answer.status, bodies(answer)) == (200, ["Sorry & <so on>"])
    assert outcome(troubled, "failed") == before + 1
    assert bodies(wire.post(troubled.address, wire.message(From=form["From"]))) == ["2 sms: hi"]
    assert wire.post(troubled.address, form).body == answer.body, (
        "a duplicate gets the same apology"
    )
    (line,) = [
        line
        for line in troubled.log().splitlines()
        if form["MessageSid"] in line and "failed" in line
    ][:1]
    assert error in line
    assert form["From"] not in line


def test_no_reply_is_an_empty_response(troubled: Smsd) -> None:
    answer = wire.post(troubled.address, wire.message(Body="none"))
    assert (answer.status, answer.header("Content-Type")) == (200, "text/xml; charset=utf-8")
    assert answer.body.endswith(EMPTY)


def test_an_empty_apology_is_silence(tmp_path: Path) -> None:
    (tmp_path / "troubled.py").write_text(DIALOGUE)
    env = {"PYTHONPATH": str(tmp_path), "SMSD_DIALOGUE": "troubled:reply", "SMSD_APOLOGY": ""}
    with Smsd(env) as server:
        answer = wire.post(server.address, wire.message(Body="fail"))
        assert (answer.status, answer.body[-len(EMPTY) :]) == (200, EMPTY)
        assert outcome(server, "failed") == 1


# --- the fallback URL


def test_repetition_at_the_fallback_url_is_no_new_message(
    smsd: Smsd,
) -> None:
    form = wire.message()
    first = wire.post(smsd.address, form)
    counted = outcome(smsd, "counted")
    fallbacks = smsd.metric('smsd_fallbacks_total{error_code="11205"}')
    again = wire.post(smsd.address, {**form, "ErrorCode": "11205", "ErrorUrl": URL})
    assert (again.status, again.body) == (200, first.body)
    assert outcome(smsd, "counted") == counted
    assert smsd.metric('smsd_fallbacks_total{error_code="11205"}') == fallbacks + 1


def test_message_at_the_fallback_url_alone_is_answered(smsd: Smsd) -> None:
    counted = outcome(smsd, "counted")
    answer = wire.post(smsd.address, wire.message(ErrorCode="11200", ErrorUrl=URL))
    assert "1 times" in str(bodies(answer))
    assert outcome(smsd, "counted") == counted + 1


def test_odd_error_code_becomes_no_label(smsd: Smsd) -> None:
    before = smsd.metric('smsd_fallbacks_total{error_code="other"}')
    assert wire.post(smsd.address, wire.message(ErrorCode="+14155550199")).status == 200
    assert smsd.metric('smsd_fallbacks_total{error_code="other"}') == before + 1
    assert "4155550199" not in smsd.admin("/metrics")[1]


# --- POST /sms/status


@pytest.mark.parametrize(
    ("state", "code", "labels"),
    [
        ("delivered", None, 'error_code="",status="delivered"'),
        ("undelivered", "30007", 'error_code="30007",status="undelivered"'),
        ("read", None, 'error_code="",status="read"'),
        ("teleported", "x" * 40, 'error_code="other",status="other"'),
    ],
)
def test_status_callback_is_counted_by_status_and_code(
    smsd: Smsd, state: str, code: str | None, labels: str
) -> None:
    before = messages(smsd)
    answer = wire.post(smsd.address, wire.status(state, ErrorCode=code), "/sms/status")
    assert (answer.status, answer.body, answer.header("Set-Cookie")) == (204, b"", None)
    assert smsd.metric(f"smsd_deliveries_total{{{labels}}}") == 1
    assert messages(smsd) == before


def test_status_callback_at_the_webhook_is_no_message(smsd: Smsd) -> None:
    before, malformed = messages(smsd), rejected(smsd, "malformed")
    answer = wire.post(smsd.address, wire.message(MessageStatus="delivered", SmsStatus="delivered"))
    assert (answer.status, answer.body) == (400, b"")
    assert messages(smsd) == before
    assert rejected(smsd, "malformed") == malformed + 1


def test_status_callback_needs_signature_account_and_sid(smsd: Smsd) -> None:
    address = smsd.address
    form = wire.status()
    assert wire.post(address, form, "/sms/status", token="wrong").status == 403
    assert wire.request(address, "POST", "/sms/status", urlencode(form).encode()).status == 403
    assert wire.post(address, wire.status(AccountSid="AC" + "9" * 32), "/sms/status").status == 403
    for incomplete in (wire.status(MessageSid=None), wire.status(AccountSid=None)):
        answer = wire.post(address, incomplete, "/sms/status")
        assert (answer.status, answer.body) == (400, b"")


# --- refusals


def test_missing_signature_changes_nothing(smsd: Smsd) -> None:
    form = wire.message()
    before, missing = messages(smsd), rejected(smsd, "signature_missing")
    headers = {"Content-Type": wire.FORM}
    for given in (headers, {**headers, "X-Twilio-Signature": ""}):
        answer = wire.request(smsd.address, "POST", "/sms", urlencode(form).encode(), given)
        assert (answer.status, answer.body, answer.header("Set-Cookie")) == (403, b"", None)
    assert messages(smsd) == before
    assert rejected(smsd, "signature_missing") == missing + 2
    assert "1 times" in str(bodies(wire.post(smsd.address, form)))


def test_wrong_signature_changes_nothing(smsd: Smsd) -> None:
    form = wire.message()
    good = wire.signature(form)
    before, mismatch = messages(smsd), rejected(smsd, "signature_mismatch")
    for wrong in (
        good.lower(),
        f"{good}=",
        good[:-4],
        "x",
        wire.signature(form, token="another token"),
    ):
        answer = wire.post(smsd.address, form, headers={"X-Twilio-Signature": wrong})
        assert (answer.status, answer.body, answer.header("Set-Cookie")) == (403, b"", None)
    changed = wire.post(
        smsd.address, {**form, "Body": "else"}, headers={"X-Twilio-Signature": good}
    )
    assert changed.status == 403
    assert messages(smsd) == before
    assert rejected(smsd, "signature_mismatch") == mismatch + 6
    assert "1 times" in str(bodies(wire.post(smsd.address, form)))


@pytest.mark.parametrize(
    "changes",
    [
        {"MessageSid": None},
        {"MessageSid": ""},
        {"MessageSid": "SM123"},
        {"MessageSid": "SM" + "g" * 32},
        {"MessageSid": "SM" + "0" * 33},
        {"MessageSid": "SM" + "0" * 31 + "\n"},
        {"AccountSid": None},
        {"AccountSid": "AC1"},
        {"From": None},
        {"From": ""},
        {"From": " "},
        {"From": "+1415\x00"},
        {"To": None},
        {"To": ""},
        {"To": "x" * 300},
        {"MessageStatus": "sent"},
        {"SmsStatus": "delivered"},
    ],
    ids=str,
)
def test_signed_form_without_a_message_is_malformed(
    smsd: Smsd, changes: dict[str, str | None]
) -> None:
    before, malformed = messages(smsd), rejected(smsd, "malformed")
    answer = wire.post(smsd.address, wire.message(**changes))
    assert (answer.status, answer.body, answer.header("Set-Cookie")) == (400, b"", None)
    assert messages(smsd) == before
    assert rejected(smsd, "malformed") == malformed + 1


def test_optional_fields_may_be_missing(smsd: Smsd) -> None:
    form = wire.message()
    least = {name: form[name] for name in ("MessageSid", "AccountSid", "From", "To")}
    assert wire.post(smsd.address, least).status == 200


def test_another_account_is_refused_despite_good_signature(smsd: Smsd) -> None:
    before, refused = messages(smsd), rejected(smsd, "account")
    answer = wire.post(smsd.address, wire.message(AccountSid="AC" + "9" * 32))
    assert (answer.status, answer.body, answer.header("Set-Cookie")) == (403, b"", None)
    assert (messages(smsd), rejected(smsd, "account")) == (before, refused + 1)


@pytest.mark.parametrize(
    "method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND", "FOO", "post"]
)
@pytest.mark.parametrize("path", ["/sms", "/sms/status"])
def test_other_methods_are_told_what_is_allowed(smsd: Smsd, method: str, path: str) -> None:
    answer = wire.request(smsd.address, method, path)
    assert (answer.status, answer.header("Allow"), answer.body) == (405, "POST", b"")


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/sms//",
        "/smsd",
        "/sms/status//",
        "/SMS",
        "/phone",
        "/metrics",
        "/livez",
        "/readyz",
        "/texts/sms",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_other_paths_are_not_found(smsd: Smsd, method: str, path: str) -> None:
    answer = wire.request(smsd.address, method, path)
    assert (answer.status, answer.body) == (404, b"")


def test_drain_does_not_wait_for_finished_requests() -> None:
    with Smsd() as server:
        for method, headers in (
            ("PROPFIND", {}),
            ("POST", {"Content-Type": "multipart/form-data; boundary=x"}),
        ):
            assert wire.request(server.address, method, "/sms", b"--x", headers).status in (
                400,
                403,
                405,
            )
        server.signal(15)
        wait_for(lambda: "stopped" in server.log(), "the end of the drain", within_s=10)


# --- sizes


def padded(size: int) -> dict[str, str]:
    """A message whose form has so many bytes."""
    form = wire.message(Body="")
    return {**form, "Body": "b" * (size - len(urlencode(form)))}


def test_body_above_64_kib_is_refused_unread(smsd: Smsd) -> None:
    assert wire.post(smsd.address, padded(64 * 1024)).status == 200
    large = rejected(smsd, "too_large")
    for announced in (64 * 1024 + 1, 10**12):
        head = f"POST /sms HTTP/1.1\r\nHost: x\r\nContent-Length: {announced}\r\n\r\n".encode()
        assert re.match(rb"HTTP/1.1 4\d\d [^<]*\r\n\r\n$", wire.talk(smsd.address, head))
    assert rejected(smsd, "too_large") == large + 2


def test_chunked_body_is_refused_once_too_large(smsd: Smsd) -> None:
    head = b"POST /sms HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert wire.talk(smsd.address, head + b"10001\r\n").startswith(b"HTTP/1.1 4")


def test_form_above_1000_fields_is_refused(smsd: Smsd) -> None:
    def crowd(count: int) -> dict[str, str]:
        form = wire.message()
        return {**form, **{f"f{i}": "" for i in range(count - len(form))}}

    large = rejected(smsd, "too_large")
    assert wire.post(smsd.address, crowd(1000)).status == 200
    answer = wire.post(smsd.address, crowd(1001))
    assert (answer.status, answer.body) == (413, b"")
    assert rejected(smsd, "too_large") == large + 1


def test_headers_too_large_are_refused(smsd: Smsd) -> None:
    raw = b"POST /sms HTTP/1.1\r\nHost: x\r\nX-Large: " + b"x" * 100_000 + b"\r\n\r\n"
    answer = wire.talk(smsd.address, raw)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4")


# --- the path before /sms


@pytest.mark.parametrize("target", ["/texts/sms", "/sms"])
def test_both_paths_answer_with_a_prefix(prefixed: Smsd, target: str) -> None:
    form = wire.message()
    assert wire.post(prefixed.address, form, target, url=f"{PREFIXED_URL}/sms").status == 200
    without = wire.post(prefixed.address, wire.message(), target, url="https://example.com/sms")
    assert without.status == 403
    query = wire.post(
        prefixed.address, wire.message(), f"{target}?a=%2f&b", url=f"{PREFIXED_URL}/sms?a=%2f&b"
    )
    assert query.status == 200
    callback = wire.post(
        prefixed.address, wire.status(), f"{target}/status", url=f"{PREFIXED_URL}/sms/status"
    )
    assert callback.status == 204
    assert wire.request(prefixed.address, "GET", target).header("Allow") == "POST"


def test_other_paths_are_not_found_with_a_prefix(prefixed: Smsd) -> None:
    for path in ("/texts", "/texts/", "/texts/texts/sms", "/textssms", "/sms/sms"):
        assert wire.request(prefixed.address, "POST", path).status == 404


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example:4711"},
        {"X-Forwarded-Proto": "http", "X-Forwarded-Host": "evil.example", "X-Forwarded-Port": "81"},
        {"X-Forwarded-For": "1.2.3.4", "Forwarded": "host=evil.example;proto=http"},
        {"X-Scheme": "javascript", "X-Real-Ip": "none"},
    ],
    ids=lambda headers: next(iter(headers)),
)
def test_signed_url_is_never_derived_from_headers(smsd: Smsd, headers: dict[str, str]) -> None:
    assert wire.post(smsd.address, wire.message(), headers=headers).status == 200
    forged = wire.message()
    signed_for_them = wire.post(
        smsd.address, forged, url="https://evil.example/sms", headers=headers
    )
    assert signed_for_them.status == 403


def test_the_port_may_be_signed_or_not(smsd: Smsd) -> None:
    assert wire.post(smsd.address, wire.message(), url=f"{PUBLIC_URL}:443/sms").status == 200
    assert wire.post(smsd.address, wire.message(), url=f"{PUBLIC_URL}:8443/sms").status == 403


# --- keys


def signed_by(server: Smsd, key: str) -> float:
    return server.metric(f'smsd_signatures_total{{key="{key}"}}')


@pytest.mark.parametrize(
    ("account", "token", "label"),
    [
        (ACCOUNT, TOKEN, "primary"),
        (ACCOUNT, SECONDARY, "secondary"),
        (SUB_ACCOUNT, SUB_TOKEN, "account"),
        (SUB_ACCOUNT, TOKEN, "primary"),
    ],
)
def test_each_token_signs_and_is_counted_apart(
    smsd: Smsd, account: str, token: str, label: str
) -> None:
    before = signed_by(smsd, label)
    assert wire.post(smsd.address, wire.message(AccountSid=account), token=token).status == 200
    assert signed_by(smsd, label) == before + 1


def test_sub_account_token_signs_for_no_other(smsd: Smsd) -> None:
    assert wire.post(smsd.address, wire.message(), token=SUB_TOKEN).status == 403


@pytest.mark.parametrize("key", [SHARED, SHARED_SHA1], ids=lambda key: key.algorithm)
def test_shared_keys_sign_with_their_algorithm(smsd: Smsd, key: SharedKey) -> None:
    before = signed_by(smsd, "shared")
    account = Account(SUB_ACCOUNT, "unused", URL, shared_key=key)
    phone = BlockingClient(account=account, connect_to=smsd.address)
    assert phone.text("hi", from_=wire.new_number()).status == 200
    assert signed_by(smsd, "shared") == before + 1


@pytest.mark.parametrize(
    ("settings", "algorithm"),
    [
        ("key=WK1,algorithm=HMAC_SHA1", "HMAC_SHA1"),
        ("key=WK1,algorithm=HMAC_SHA1", "HMAC_SHA256"),
        ("key=WK1", "HMAC_SHA256"),
        ("key=WK1,algorithm=HMAC_MD5", "HMAC_SHA1"),
        ("key=WK9,algorithm=HMAC_SHA256", "HMAC_SHA256"),
        ("key=WK2,algorithm=HMAC_SHA256", "HMAC_SHA256"),
        ("algorithm=HMAC_SHA256,key=WK1,key=WK2", "HMAC_SHA256"),
        (None, "HMAC_SHA1"),
        (None, "HMAC_SHA256"),
    ],
)
def test_shared_key_is_never_downgraded(smsd: Smsd, settings: str | None, algorithm: str) -> None:
    form = wire.message(AccountSid=SUB_ACCOUNT)
    headers = {"X-Twilio-Signature": wire.signature(form, token=SHARED.secret, algorithm=algorithm)}
    if settings:
        headers["X-Twilio-Webhooks-Signature-Settings"] = settings
    assert wire.post(smsd.address, form, headers=headers).status == 403


def test_shared_key_signs_for_no_other_account(smsd: Smsd) -> None:
    form = wire.message()
    headers = {
        "X-Twilio-Signature": wire.signature(form, token=SHARED.secret, algorithm="HMAC_SHA256"),
        "X-Twilio-Webhooks-Signature-Settings": "key=WK1,algorithm=HMAC_SHA256",
    }
    assert wire.post(smsd.address, form, headers=headers).status == 403


# --- the signature doctor


@pytest.mark.parametrize(
    ("cause", "url", "token"),
    [
        ("scheme", "http://sms.example.com/sms", TOKEN),
        ("slash", f"{URL}/", TOKEN),
        ("token", URL, SUB_TOKEN),
        ("unknown", URL, "nobody's"),
    ],
)
def test_diagnosis_shows_in_metric_and_log(smsd: Smsd, cause: str, url: str, token: str) -> None:
    """At most one a second is examined; the others are counted as unknown."""

    def named() -> bool:
        assert wire.post(smsd.address, wire.message(), url=url, token=token).status == 403
        return f'"cause":"{cause}"' in smsd.log()

    wait_for(named, f"the cause {cause}")
    assert smsd.metric(f'smsd_signature_mismatch_total{{cause="{cause}"}}') >= 1
    line = next(line for line in smsd.log().splitlines() if f'"cause":"{cause}"' in line)
    assert ADVICE[cause] in line
    assert '"level":"warning"' in line
