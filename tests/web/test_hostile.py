"""Hostile and odd requests: whatever arrives, no 5xx, no hang, no trace, and the next
good message is answered.

A table of named cases, and properties over bytes that hypothesis makes up, all against
one running server.
"""

import re
import socket
import struct
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tornado.web import create_signed_value

from smsd.web.cookies import NAME
from tests import raw_http as wire
from tests.processes import ACCOUNT, PATIENCE_S, SETTINGS, Smsd, wait_for
from tests.raw_http import FORM, REY, TO, URL, raw_form, raw_post, raw_signature

Fields = list[tuple[bytes, bytes]]

CLOSED = 0
REFUSED = {CLOSED, 400, 403, 404, 405, 408, 413, 414, 431}
SILENCE_S = 0.05
"""An unfinished request is ended by us after so long a silence; nothing is asserted of
the time it took."""

PATIENT = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
COOKIE_KEY = SETTINGS["SMSD_COOKIE_KEYS"].partition(":")[2].encode()


@pytest.fixture(scope="module")
def smsd() -> Iterator[Smsd]:
    """Ends as it should after all of this: nothing under way is left behind to wait
    for."""
    with Smsd() as server:
        yield server
        server.signal(15)
        wait_for(lambda: '"stopped"' in server.log(), "the end of the drain", within_s=10)


def fields(**changes: bytes | None) -> Fields:
    """A message as raw fields; None takes one away."""
    form = {name: value.encode() for name, value in wire.message().items()}
    return [
        (name.encode(), value) for name, value in {**form, **changes}.items() if value is not None
    ]


def signed(
    given: Fields,
    *headers: bytes,
    target: bytes = b"/sms",
    more: Fields | None = None,
    url: str = URL,
) -> bytes:
    """A request with a good signature over `given` (and `more`, for repeated names)."""
    whole = [*given, *(more or [])]
    return raw_post(raw_form(whole), *headers, target=target, signed=raw_signature(whole, url))


def bare(line: bytes, *headers: bytes, body: bytes = b"") -> bytes:
    """A request as it is written here, no header added but Host."""
    return b"\r\n".join([line, b"Host: sms.example.com", *headers, b"", body])


def cookie(value: bytes) -> bytes:
    """A good message with this Cookie header."""
    return signed(fields(), b"Cookie: " + value)


def signed_value(value: bytes, *, version: int = 2, name: str = NAME) -> bytes:
    """A value that Tornado signs with our own key, as no code of ours would."""
    key: dict[int, bytes] | bytes = {1: COOKIE_KEY} if version == 2 else COOKIE_KEY
    key_version = 1 if version == 2 else None
    return create_signed_value(key, name, value, version=version, key_version=key_version)


BODY = raw_form(fields())
POST = b"POST /sms HTTP/1.1"
LENGTH = b"Content-Length: %d" % len(BODY)
TYPE = b"Content-Type: " + FORM.encode()

REQUEST_LINES: dict[str, bytes] = {
    "nothing but line breaks": b"\r\n\r\n\r\n\r\n",
    "one word": b"HELLO\r\n\r\n",
    "no version": bare(b"GET /sms"),
    "HTTP/0.9": b"GET /sms\r\n\r\n",
    "HTTP/1.0 without Host": b"GET /sms HTTP/1.0\r\n\r\n",
    "HTTP/2.0": bare(b"POST /sms HTTP/2.0"),
    "HTTP/9.9": bare(b"POST /sms HTTP/9.9"),
    "HTTP/1.1.1": bare(b"POST /sms HTTP/1.1.1"),
    "a version that is none": bare(b"POST /sms SMTP/1.1"),
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 60 + b"\r\n\r\n",
    "a method of digits": bare(b"123 /sms HTTP/1.1"),
    "a method with a blank before": bare(b" POST /sms HTTP/1.1"),
    "a method of 5,000 letters": bare(b"A" * 5000 + b" /sms HTTP/1.1"),
    "a method with a null byte": bare(b"PO\x00ST /sms HTTP/1.1"),
    "two blanks": bare(b"POST  /sms HTTP/1.1"),
    "tabs for blanks": bare(b"POST\t/sms\tHTTP/1.1"),
    "CONNECT": bare(b"CONNECT sms.example.com:443 HTTP/1.1"),
    "TRACE": bare(b"TRACE /sms HTTP/1.1"),
    "OPTIONS *": bare(b"OPTIONS * HTTP/1.1"),
    "an absolute target": bare(
        b"POST http://sms.example.com/sms HTTP/1.1", TYPE, LENGTH, body=BODY
    ),
    "an absolute target elsewhere": bare(b"GET http://169.254.169.254/latest HTTP/1.1"),
    "no slash": bare(b"POST sms HTTP/1.1"),
    "two slashes": bare(b"POST //sms HTTP/1.1"),
    "up and up": bare(b"GET /sms/../../../etc/passwd HTTP/1.1"),
    "up, encoded": bare(b"GET /..%2f..%2fetc%2fpasswd HTTP/1.1"),
    "a target with a null byte": bare(b"POST /sms\x00 HTTP/1.1"),
    "a target with bytes over 127": bare(b"POST /sms/\xff\xfe HTTP/1.1"),
    "percent and nothing": bare(b"POST /sms% HTTP/1.1"),
    "percent and no hexadecimals": bare(b"POST /sms%zz HTTP/1.1"),
    "percent-encoded letters": bare(b"POST /%73%6d%73 HTTP/1.1"),
    "percent-encoded bytes that are no UTF-8": bare(b"GET /%ff%fe%00 HTTP/1.1"),
    "a target of 20,000 bytes": bare(b"GET /" + b"a" * 20_000 + b" HTTP/1.1"),
    "a fragment": bare(b"POST /sms#x HTTP/1.1"),
    "a query of question marks": bare(b"POST /sms???? HTTP/1.1"),
    "a semicolon": bare(b"POST /sms;x=1 HTTP/1.1"),
}

HEADERS: dict[str, bytes] = {
    "no Host": b"POST /sms HTTP/1.1\r\n\r\n",
    "two Hosts": bare(POST, b"Host: other.example.com"),
    "an empty Host": b"POST /sms HTTP/1.1\r\nHost:\r\n\r\n",
    "a header without colon": bare(POST, b"Nonsense"),
    "a header without name": bare(POST, b": value"),
    "a header with a null byte": bare(POST, b"X-Odd: a\x00b"),
    "a header name with a blank": bare(POST, b"X Odd: a"),
    "a folded header": bare(POST, b"X-Odd: a\r\n b\r\n c"),
    "a folded header as the first": b"POST /sms HTTP/1.1\r\n X: y\r\nHost: x\r\n\r\n",
    "bare carriage returns": b"POST /sms HTTP/1.1\rHost: x\r\r\n\r\n",
    "bare line feeds": b"POST /sms HTTP/1.1\nHost: x\n\n",
    "headers of 100 kB": bare(POST, b"X-Large: " + b"x" * 100_000),
    "5,000 headers": bare(POST, *[b"X-%d: x" % i for i in range(5000)]),
    "Expect": bare(POST, b"Expect: 100-continue", b"Content-Length: 0"),
    "Expect something else": bare(POST, b"Expect: the-unexpected", b"Content-Length: 0"),
    "Upgrade to a websocket": bare(
        b"GET /sms HTTP/1.1", b"Upgrade: websocket", b"Connection: Upgrade"
    ),
    "Range": bare(b"GET /sms HTTP/1.1", b"Range: bytes=-1,-2,-3"),
    "If-None-Match of anything": bare(b"GET /sms HTTP/1.1", b"If-None-Match: *"),
    "Connection of nonsense": bare(POST, b"Connection: , ,close,, \xff", b"Content-Length: 0"),
}

LENGTHS: dict[str, bytes] = {
    "a length that is a word": bare(POST, b"Content-Length: many", body=BODY),
    "a length below zero": bare(POST, b"Content-Length: -1", body=BODY),
    "a length with a plus": bare(POST, b"Content-Length: +5", body=BODY),
    "a length with an underscore": bare(POST, b"Content-Length: 1_0", body=BODY),
    "a length in hexadecimals": bare(POST, b"Content-Length: 0x10", body=BODY),
    "a length of digits that are no numbers": bare(
        POST, b"Content-Length: \xb2\xb2\xb2\xb2\xb2", body=BODY
    ),
    "a length of 5,000 digits": bare(POST, b"Content-Length: " + b"9" * 5000, body=BODY),
    "an empty length": bare(POST, b"Content-Length:", body=BODY),
    "no length": bare(POST, TYPE, body=BODY),
    "two lengths that differ": bare(POST, LENGTH, b"Content-Length: 5", body=BODY),
    "two lengths in one header": bare(POST, b"Content-Length: 5, 6", body=BODY),
    "length and chunks": bare(POST, LENGTH, b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    "a chunk size that is none": bare(
        POST, b"Transfer-Encoding: chunked", body=b"zz\r\nabc\r\n0\r\n\r\n"
    ),
    "a chunk size below zero": bare(
        POST, b"Transfer-Encoding: chunked", body=b"-5\r\nabc\r\n0\r\n\r\n"
    ),
    "a chunk size of 100 digits": bare(
        POST, b"Transfer-Encoding: chunked", body=b"f" * 100 + b"\r\n"
    ),
    "a chunk longer than its size": bare(
        POST, b"Transfer-Encoding: chunked", body=b"3\r\nabcdef\r\n0\r\n\r\n"
    ),
    "an unknown transfer encoding": bare(POST, b"Transfer-Encoding: gzip, identity", body=BODY),
    "chunked twice": bare(POST, b"Transfer-Encoding: chunked, chunked", body=b"0\r\n\r\n"),
}

UNFINISHED: dict[str, bytes] = {
    "nothing": b"",
    "half a request line": b"POST /s",
    "half the headers": b"POST /sms HTTP/1.1\r\nHost: x\r\nCont",
    "half the body": raw_post(BODY)[:-10],
    "a length beyond the body": bare(POST, TYPE, b"Content-Length: 60000", body=BODY),
    "a chunk that never ends": bare(POST, b"Transfer-Encoding: chunked", body=b"ff\r\nabc"),
    "chunks without an end": bare(POST, b"Transfer-Encoding: chunked", body=b"3\r\nabc\r\n"),
    "a chunk size without an end": bare(POST, b"Transfer-Encoding: chunked", body=b"1" * 100),
}


def body_of(kind: bytes, body: bytes, *headers: bytes) -> bytes:
    """A body of another kind than a form, with some signature."""
    lines = (
        b"X-Twilio-Signature: c2lnbmF0dXJl",
        b"Content-Type: " + kind,
        b"Content-Length: %d" % len(body),
    )
    return bare(POST, *lines, *headers, body=body)


BODIES: dict[str, bytes] = {
    "an empty body": body_of(FORM.encode(), b""),
    "JSON": body_of(b"application/json", b'{"MessageSid": "SM", "Body": {"a": [1e999]}}'),
    "XML": body_of(
        b"text/xml", b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x>&e;</x>'
    ),
    "no content type": bare(POST, LENGTH, b"X-Twilio-Signature: x", body=BODY),
    "a content type that is none": body_of(b"\xff;;;===", BODY),
    "multipart": body_of(
        b"multipart/form-data; boundary=b",
        b'--b\r\nContent-Disposition: form-data; name="Body"\r\n\r\nhi\r\n--b--\r\n',
    ),
    "multipart without boundary": body_of(b"multipart/form-data", b"--x\r\n\r\n--x--"),
    "multipart that never ends": body_of(b"multipart/form-data; boundary=b", b"--b\r\nContent-"),
    "multipart of nothing": body_of(b'multipart/form-data; boundary=""', b"----\r\n----"),
    "multipart of 2,000 parts": body_of(
        b"multipart/form-data; boundary=b", b"--b\r\n\r\n\r\n" * 2000 + b"--b--"
    ),
    "gzip": body_of(FORM.encode(), b"\x1f\x8b\x08\x00" + b"\x00" * 40, b"Content-Encoding: gzip"),
    "gzip, said of plain text": body_of(FORM.encode(), BODY, b"Content-Encoding: gzip"),
    "an unknown content encoding": body_of(FORM.encode(), BODY, b"Content-Encoding: rot13"),
    "null bytes": body_of(FORM.encode(), b"\x00" * 1000),
    "every byte": body_of(FORM.encode(), bytes(range(256)) * 4),
    "ampersands": body_of(FORM.encode(), b"&" * 60_000),
    "equals signs": body_of(FORM.encode(), b"=" * 60_000),
    "percents": body_of(FORM.encode(), b"%" * 60_000),
    "names without values": body_of(FORM.encode(), b"a&b&c&MessageSid&From&To"),
    "names like Python's": body_of(FORM.encode(), b"__class__=x&__init__=y&self=z&message=1"),
}

SIGNATURES: dict[str, bytes] = {
    name: raw_post(BODY, b"X-Twilio-Signature: " + value)
    for name, value in {
        "an empty signature": b"",
        "a signature of blanks": b"   ",
        "a signature that is no base64": b"%%%%",
        "a signature of bytes over 127": b"\xff\xfe\xfd",
        "a signature of 20,000 bytes": b"A" * 20_000,
        "a signature in quotes": b'"' + raw_signature(fields()).encode() + b'"',
        "two signatures in one": b"AAAA, BBBB",
    }.items()
} | {
    name: signed(fields(), b"X-Twilio-Webhooks-Signature-Settings: " + value)
    for name, value in {
        "settings without key": b"algorithm=HMAC_SHA256",
        "settings with an unknown algorithm": b"key=x,algorithm=none",
        "settings with MD5": b"key=x,algorithm=HMAC_MD5",
        "settings of commas": b"," * 5000,
        "settings of equals signs": b"key" + b"=" * 5000,
        "settings with bytes over 127": b"key=\xff,algorithm=HMAC_SHA1",
        "settings twice": b"key=a,key=b,algorithm=HMAC_SHA1,algorithm=HMAC_SHA256",
        "settings of blanks in plenty": b"key=" + b" " * 9000 + b",algorithm=HMAC_SHA1",
    }.items()
}

PROXIES: dict[str, bytes] = {
    name: raw_post(BODY, *headers, signed="d3Jvbmc=").replace(b"Host: sms.example.com\r\n", host + b"\r\n")
    for name, host, headers in [
        ("a Host whose port is no number", b"Host: sms.example.com:port", ()),
        ("a Host whose port is too large", b"Host: sms.example.com:99999999", ()),
        ("a Host whose port is below zero", b"Host: sms.example.com:-1", ()),
        ("a Host of brackets", b"Host: [[[[]]", ()),
        ("a Host that is half an address", b"Host: [::1", ()),
        ("a Host with a user", b"Host: user:password@sms.example.com", ()),
        ("a Host with a path", b"Host: sms.example.com/../..", ()),
        ("a Host of 10,000 bytes", b"Host: " + b"h" * 10_000, ()),
        ("a Host of bytes over 127", b"Host: \xff\xfe", ()),
        ("X-Forwarded-* of nonsense", b"Host: x", (
            b"X-Forwarded-Host: [:::", b"X-Forwarded-Port: \xb2", b"X-Forwarded-Proto: data:", b"X-Forwarded-For: \xff",
        )),
        ("X-Forwarded-* as lists", b"Host: x", (b"X-Forwarded-Proto: https, https", b"X-Forwarded-Host: a, b, c")),
        ("X-Forwarded-Prefix of slashes", b"Host: x", (b"X-Forwarded-Prefix: " + b"/" * 5000,)),
        ("X-Original-URI of anything", b"Host: x", (b"X-Original-URI: \xff%zz?%%&&==#",)),
    ]
}  # fmt: skip

COOKIES: dict[str, bytes] = {
    name: cookie(value)
    for name, value in {
        "an empty cookie header": b"",
        "a cookie without value": b"smsd",
        "a cookie with an empty value": b"smsd=",
        "only blanks": b"   ;  ; ",
        "garbage": b"\xff\xfe=\x80; ;;;===; smsd=\xff",
        "another's cookies": b"session=abc; theme=dark",
        "cookies twice": b"smsd=a; smsd=b",
        "a quoted value": b'smsd="2|1:0|10:1|4:smsd|4:aGk=|00"',
        "a quote that never ends": b'smsd="2|1:0|10',
        "octal escapes in quotes": b'smsd="\\377\\000\\012"',
        "a value of the old form": b"smsd=aGVsbG8=|1234567890|deadbeef",
        "the old form with a good signature": b"smsd=" + signed_value(b"hello", version=1),
        "a version to come": b"smsd=3|1:0|10:1300000000|4:smsd|4:aGk=|00",
        "a version of 1,000 digits": b"smsd=" + b"9" * 1000 + b"|1:0|",
        "a key that is not there": b"smsd=2|1:7|10:1300000000|4:smsd|4:aGk=|00",
        "a key that is a word": b"smsd=2|3:key|10:1300000000|4:smsd|4:aGk=|00",
        "lengths that lie": b"smsd=2|999:1|10:1300000000|4:smsd|4:aGk=|00",
        "lengths below zero": b"smsd=2|-1:1|-10:1300000000|4:smsd|4:aGk=|00",
        "lengths of 5,000 digits": b"smsd=2|" + b"1" * 5000 + b":1|",
        "pipes": b"smsd=" + b"|" * 5000,
        "signed by us, with nothing in it": b"smsd=" + signed_value(b""),
        "signed by us, but no record": b"smsd=" + signed_value(b"\x00\xc1\xc1"),
        "signed by us, of one byte": b"smsd=" + signed_value(b"\xff"),
        "signed by us, nested without end": b"smsd=" + signed_value(b"\x00" + b"\x91" * 400),
        "signed by us, under another name": b"smsd=" + signed_value(b"x", name="other"),
        "a value of 20,000 bytes": b"smsd=" + b"x" * 20_000,
        "3,000 cookies": b"; ".join(b"c%d=x" % i for i in range(3000)),
    }.items()
}

FIELD_NAMES = (
    "Body",
    "From",
    "To",
    "MessageSid",
    "AccountSid",
    "NumMedia",
    "OptOutType",
    "ErrorCode",
    "MediaUrl0",
)
FORMS: dict[str, tuple[bytes, set[int]]] = {
    **{
        f"invalid UTF-8 in {name}": (signed(fields(**{name: b"\xff\xfe\x80"})), {200, 400})
        for name in FIELD_NAMES
    },
    "invalid UTF-8 in every field": (signed([(name, b"\xff\xc0\xaf") for name, _ in fields()]), {400}),
    "invalid UTF-8 in a name": (signed(fields(), more=[(b"\xff\xfe", b"\x80")]), {200}),
    "a body of control characters": (signed(fields(Body=bytes(range(32)))), {200}),
    "a body of null bytes": (signed(fields(Body=b"\x00" * 100)), {200}),
    "half a surrogate, encoded": (signed(fields(Body=b"\xed\xa0\x80")), {200}),
    "a noncharacter": (signed(fields(Body="\ufffe\uffff".encode())), {200}),
    "markup": (signed(fields(Body=b"</Message><Media>http://x</Media>]]>", From=b"whatsapp:<&>")), {200}),
    "a template's braces": (signed(fields(Body=b"{name.__class__}", From=b"{count}")), {200}),
    "a percent format": (signed(fields(Body=b"%s %(x)d %n" * 50)), {200}),
    "a body of 60,000 bytes": (signed(fields(Body=b"b" * 60_000)), {200}),
    "a field of 64 KiB": (signed(fields(Body=b"b" * 65_536)), {CLOSED, 400, 413}),
    "1,001 fields": (signed(fields(), more=[(b"f%d" % i, b"") for i in range(1001)]), {413}),
    "one name 500 times": (signed(fields(), more=[(b"X", b"%d" % i) for i in range(500)]), {200}),
    "an empty name": (signed(fields(), more=[(b"", b"x")]), {200}),
    "MessageSid twice": (signed(fields(), more=[(b"MessageSid", b"SM" + b"f" * 32)]), {400}),
    "MessageSid twice, alike": (
        signed(fields(MessageSid=b"SM" + b"e" * 32), more=[(b"MessageSid", b"SM" + b"e" * 32)]),
        {400},
    ),
    "From twice": (signed(fields(), more=[(b"From", REY.encode())]), {400}),
    "Body twice": (signed(fields(), more=[(b"Body", b"another")]), {200}),
    "AccountSid twice": (signed(fields(), more=[(b"AccountSid", ACCOUNT.encode())]), {400}),
    "a sender of letters": (signed(fields(From=b"ACME Corp")), {200}),
    "a sender that is a short code": (signed(fields(From=b"24273")), {200}),
    "a sender with a line break": (signed(fields(From=b"+1415\r\nSet-Cookie: x=y")), {400}),
    "a receiver of 250 characters": (signed(fields(To=b"t" * 250)), {200}),
    "a receiver of 10,000 characters": (signed(fields(To=b"t" * 10_000)), {400}),
    "a million media": (signed(fields(NumMedia=b"999999999", MediaUrl0=b"x")), {200}),
    "media below zero": (signed(fields(NumMedia=b"-1")), {200}),
    "a query with everything": (
        signed(fields(), target=b"/sms?a=%ff&&==&b#c", url=f"{URL}?a=%ff&&==&b#c"),
        {200, 400, 403},
    ),
    "a query that repeats the form": (
        signed(fields(), target=b"/sms?Body=evil&From=x", url=f"{URL}?Body=evil&From=x"),
        {200},
    ),
    "From equal to To": (signed(fields(From=TO.encode())), {200}),
}  # fmt: skip


def ok(cases: dict[str, bytes], expected: set[int]) -> list[tuple[str, bytes, set[int]]]:
    return [(name, raw, expected) for name, raw in cases.items()]


CORPUS: list[tuple[str, bytes, set[int]]] = [
    *ok(REQUEST_LINES, REFUSED),
    *ok(HEADERS, REFUSED),
    *ok(LENGTHS, REFUSED),
    *ok(UNFINISHED, REFUSED),
    *ok(BODIES, REFUSED),
    *ok(SIGNATURES, REFUSED),
    *ok(PROXIES, REFUSED),
    *ok(COOKIES, {200}),
    *[(name, raw, expected) for name, (raw, expected) in FORMS.items()],
]


def status_of(received: bytes) -> int:
    """The status of the first answer that is no 100, or CLOSED."""
    codes = [int(code) for code in re.findall(rb"(?m)^HTTP/1\.[01] (\d{3}) ", received)]
    return next((code for code in codes if code != 100), CLOSED)


def check_harmless(received: bytes) -> None:
    """Nothing in these bytes is a failure of ours, nor a page."""
    assert not re.search(rb"(?m)^HTTP/1\.[01] 5", received), received
    for trace in (b"Traceback", b'File "', b"<html", b"<title", b"smsd/", b"tornado/"):
        assert trace not in received.replace(b"TornadoServer/", b""), received


def check_well(smsd: Smsd) -> None:
    """It answers a good message, and has nothing bad to tell since it was asked the
    last time."""
    assert wire.post(smsd.address, wire.message()).status == 200
    log = smsd.log()
    begin, _told[smsd.port] = _told.get(smsd.port, 0), len(log)
    for sign in ("request failed", "Uncaught", "Traceback", "uncaught", "never retrieved"):
        assert sign not in log[begin:], log[-3000:]


_told: dict[int, int] = {}
"""How much of each server's log was read, so that one failure is not every later test's
too."""


@pytest.mark.parametrize(
    ("raw", "expected"), [case[1:] for case in CORPUS], ids=[case[0] for case in CORPUS]
)
def test_hostile_bytes_do_no_harm(smsd: Smsd, raw: bytes, expected: set[int]) -> None:
    unfinished = raw in UNFINISHED.values()
    received = wire.talk(smsd.address, raw, wait_s=SILENCE_S if unfinished else PATIENCE_S)
    check_harmless(received)
    assert status_of(received) in expected
    check_well(smsd)


def test_the_corpus_is_as_large_as_promised() -> None:
    assert len(CORPUS) >= 60
    assert len({name for name, _, _ in CORPUS}) == len(CORPUS)


def test_the_admin_listener_takes_no_harm_either(smsd: Smsd) -> None:
    for name, raw in {**REQUEST_LINES, **HEADERS, **LENGTHS, **BODIES}.items():
        received = wire.talk(f"127.0.0.1:{smsd.admin_port}", raw, wait_s=SILENCE_S)
        check_harmless(received)
        assert status_of(received) in REFUSED, name
    check_well(smsd)
    assert smsd.admin("/livez")[0] == 200


def test_cookies_of_no_use_are_told_apart(smsd: Smsd) -> None:
    def state(name: str) -> float:
        return smsd.metric(f'smsd_cookies_total{{state="{name}"}}')

    forged, absent = state("forged"), state("absent")
    wire.talk(smsd.address, cookie(b"smsd=garbage"))
    wire.talk(smsd.address, cookie(b"other=garbage"))
    assert (state("forged"), state("absent")) == (forged + 1, absent + 1)


def test_pipelined_requests_are_answered_in_turn(smsd: Smsd) -> None:
    raw = (
        signed(fields())
        + bare(b"GET /nowhere HTTP/1.1")
        + signed(fields(MessageSid=b"x"))
        + signed(fields())
    )
    received = wire.talk(smsd.address, raw, answers=4)
    assert re.findall(rb"HTTP/1\.1 (\d{3})", received) == [b"200", b"404", b"400", b"200"]
    check_well(smsd)


def test_request_hidden_in_a_body_is_ignored(smsd: Smsd) -> None:
    hidden = bare(b"GET /hidden HTTP/1.1")
    received = wire.talk(smsd.address, raw_post(hidden) + bare(b"GET / HTTP/1.1"), answers=2)
    assert re.findall(rb"HTTP/1\.1 (\d{3})", received) == [b"403", b"404"]


@pytest.mark.parametrize("sent", [0, 1, 100, None], ids=lambda sent: f"after {sent} bytes")
@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_peer_that_leaves_early_does_no_harm(smsd: Smsd, sent: int | None, reset: bool) -> None:
    host, _, port = smsd.address.rpartition(":")
    with socket.create_connection((host, int(port))) as sock:
        sock.sendall(signed(fields())[:sent])
        if reset:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    check_well(smsd)


def test_hundred_silent_connections_keep_nobody_out(smsd: Smsd) -> None:
    host, _, port = smsd.address.rpartition(":")
    silent = [socket.create_connection((host, int(port))) for _ in range(100)]
    try:
        check_well(smsd)
    finally:
        for sock in silent:
            sock.close()


# --- properties

LINE = st.binary(max_size=60).map(lambda raw: re.sub(rb"[\r\n]", b"", raw))
BEGINNING = st.sampled_from(
    [b"", b"POST ", b"POST /sms HTTP/1.1\r\n", b"POST /sms HTTP/1.1\r\nHost: x\r\n"]
)
END = st.sampled_from([b"", b"\r\n\r\n", b"\n\n", b" HTTP/1.1\r\nHost: x\r\n\r\n"])


@PATIENT
@given(BEGINNING, st.binary(max_size=300), END)
def test_any_bytes_do_no_harm(smsd: Smsd, beginning: bytes, raw: bytes, end: bytes) -> None:
    received = wire.talk(smsd.address, beginning + raw + end, wait_s=SILENCE_S)
    check_harmless(received)
    check_well(smsd)


@PATIENT
@given(st.data())
def test_changed_bytes_of_a_good_request_do_no_harm(smsd: Smsd, data: st.DataObject) -> None:
    raw = signed(
        fields(), b"Cookie: smsd=" + signed_value(b"x"), b"X-Forwarded-Host: sms.example.com:8443"
    )
    for _ in range(data.draw(st.integers(1, 3))):
        begin = data.draw(st.integers(0, len(raw)))
        end = data.draw(st.integers(begin, min(len(raw), begin + 20)))
        raw = raw[:begin] + data.draw(st.binary(max_size=20)) + raw[end:]
    received = wire.talk(smsd.address, raw, wait_s=SILENCE_S)
    check_harmless(received)
    check_well(smsd)


@PATIENT
@given(
    changed=st.dictionaries(st.sampled_from(FIELD_NAMES), st.binary(max_size=80)),
    more=st.lists(st.tuples(st.binary(max_size=10), st.binary(max_size=80)), max_size=5),
    cookie=LINE,
    keyed=st.none() | LINE,
    host=LINE,
)
def test_signed_form_of_any_bytes_is_answered(
    smsd: Smsd,
    changed: dict[str, bytes],
    more: Fields,
    cookie: bytes,
    keyed: bytes | None,
    host: bytes,
) -> None:
    headers = [b"Cookie: smsd=" + cookie, b"X-Forwarded-Host: " + host]
    if keyed is not None:
        headers.append(b"X-Twilio-Webhooks-Signature-Settings: " + keyed)
    received = wire.talk(smsd.address, signed(fields(**changed), *headers, more=more))
    check_harmless(received)
    assert status_of(received) in {200, 400, 403}
    check_well(smsd)


@PATIENT
@given(text=st.text(max_size=300), sender=st.text(min_size=1, max_size=30))
def test_any_text_gets_an_answer_in_xml(smsd: Smsd, text: str, sender: str) -> None:
    given = fields(Body=text.encode(), From=sender.encode())
    received = wire.talk(smsd.address, signed(given))
    assert status_of(received) in {200, 400}
    if status_of(received) == 200:
        document = received.partition(b"\r\n\r\n")[2].decode()
        assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]", document)
