"""Details of HTTP: cookies on odd ways, Expect, health checks, the same request in
other words."""

import socket
from collections.abc import Iterator
from urllib.parse import quote, urlencode

import pytest

from tests import raw_http as wire
from tests.processes import PUBLIC_URL, Smsd, wait_for

COOKIE_ONLY = {"SMSD_STORE": "cookie://"}
"""The count is in the cookie alone: whether it was found shows in the reply."""


@pytest.fixture(scope="module")
def smsd() -> Iterator[Smsd]:
    with Smsd(COOKIE_ONLY) as server:
        yield server


def conversation(server: Smsd) -> tuple[str, str, str]:
    """A sender with two messages, and the cookie after each."""
    sender = wire.new_number()
    received: list[str] = []
    for _ in range(2):
        headers = {"Cookie": received[-1]} if received else {}
        answer = wire.post(server.address, wire.message(From=sender), headers=headers)
        received.append(str(answer.header("Set-Cookie")).partition(";")[0])
    return sender, received[0], received[1]


def count(server: Smsd, sender: str, *cookie_headers: str) -> int:
    """The number of the next message, sent with these Cookie headers."""
    form = wire.message(From=sender)
    lines = [f"Cookie: {value}".encode() for value in cookie_headers]
    raw = wire.raw_post(urlencode(form).encode(), *lines, signed=wire.signature(form))
    body = wire.talk(server.address, raw).partition(b"\r\n\r\n")[2].decode()
    return int(body.rpartition(" times")[0].rpartition(" ")[2])


def in_each_way(older: str, newer: str) -> dict[str, tuple[str, ...]]:
    """Cookie headers from which `newer` has to be found."""
    name, _, value = newer.partition("=")
    foreign = "smsd=2|1:1|10:1700000000|4:smsd|4:AAAA|" + "0" * 64
    return {
        "alone": (newer,),
        "among others": (f"a=1; {newer}; b=2",),
        "without blanks": (f"a=1;{newer};b=2",),
        "several headers": ("a=1", newer, "b=2"),
        "joined by a comma": (f"a=1, {newer}, b=2",),
        "percent-encoded": (f"{name}={quote(value, safe='')}",),
        "quoted": (f'{name}="{value}"',),
        "doubled": (f"{newer}; {newer}",),
        "doubled over headers": (newer, newer),
        "after an older one": (f"{older}; {newer}",),
        "before an older one": (newer, older),
        "beside garbage": (f"smsd=garbage; {newer}",),
        "before garbage": (newer, "smsd="),
        "beside a forged one": (foreign, newer),
        "beside its encoded self": (newer, f"{name}={quote(value, safe='')}"),
    }


@pytest.mark.parametrize("way", in_each_way("", "=").keys())
def test_cookie_is_found_however_it_was_sent(smsd: Smsd, way: str) -> None:
    sender, older, newer = conversation(smsd)
    assert count(smsd, sender, *in_each_way(older, newer)[way]) == 3


def test_cookie_of_this_conversation_wins(smsd: Smsd) -> None:
    _, _, foreign = conversation(smsd)
    sender, _, own = conversation(smsd)
    for headers in ((foreign, own), (own, foreign), (f"{own}; {foreign}",)):
        assert count(smsd, sender, *headers) == 3


@pytest.mark.parametrize(
    "header",
    [
        "",
        "a=1",
        "smsd",
        "smsd=",
        "xsmsd=1; smsdx=2",
        "smsd=%ff%zz",
        ";,;,=",
        "smsd=a b",
        '"smsd=1"',
    ],
)
def test_header_without_a_good_cookie_is_no_worse_than_none(smsd: Smsd, header: str) -> None:
    assert count(smsd, wire.new_number(), header) == 1


# ---- Expect


@pytest.mark.parametrize("value", ["100-continue", "100-Continue", "100-CONTINUE"])
def test_expect_in_any_case_is_answered_before_the_body(smsd: Smsd, value: str) -> None:
    form = wire.message()
    raw = wire.raw_post(
        urlencode(form).encode(), f"Expect: {value}".encode(), signed=wire.signature(form)
    )
    head, separator, body = raw.partition(b"\r\n\r\n")
    with socket.create_connection(("127.0.0.1", smsd.port), timeout=20) as sock:
        sock.sendall(head + separator)
        reader = sock.makefile("rb")
        assert reader.readline().startswith(b"HTTP/1.1 100")
        assert reader.readline() == b"\r\n"
        sock.sendall(body)
        assert reader.readline() == b"HTTP/1.1 200 OK\r\n"


# ---- health


def test_health_needs_no_signature(smsd: Smsd) -> None:
    answer = wire.request(smsd.address, "GET", "/healthz")
    assert (answer.status, answer.body) == (200, b"ready\n")
    assert answer.header("Cache-Control") == "no-store"
    head = wire.request(smsd.address, "HEAD", "/healthz")
    assert (head.status, head.body) == (200, b"")


def test_health_is_below_the_prefix_too() -> None:
    with Smsd({"SMSD_PUBLIC_URL": "https://example.com/texts"}) as server:
        for path in ("/healthz", "/texts/healthz"):
            assert wire.request(server.address, "GET", path).status == 200


def test_health_fails_while_draining_and_messages_are_still_answered() -> None:
    with Smsd({"SMSD_DRAIN_DELAY": "30"}) as server:
        server.process.terminate()  # type: ignore[union-attr]
        wait_for(
            lambda: wire.request(server.address, "GET", "/healthz").status == 503, "health fails"
        )
        assert wire.request(server.address, "GET", "/healthz").body == b"draining\n"
        assert wire.post(server.address, wire.message()).status == 200


# ---- the same request in other words


@pytest.mark.parametrize("path", ["/sms/", "/sms/?a=1"])
def test_slash_at_the_end_is_served(smsd: Smsd, path: str) -> None:
    assert wire.post(smsd.address, wire.message(), path).status == 200
    assert wire.post(smsd.address, wire.status(), "/sms/status/").status == 204


@pytest.mark.parametrize(
    "content_type",
    [
        "Application/X-WWW-Form-URLEncoded",
        "APPLICATION/X-WWW-FORM-URLENCODED; Charset=UTF-8",
        f"{wire.FORM}, {wire.FORM}",
        f" {wire.FORM} ",
    ],
)
def test_media_type_in_other_words_is_a_form(smsd: Smsd, content_type: str) -> None:
    answer = wire.post(smsd.address, wire.message(), headers={"Content-Type": content_type})
    assert answer.status == 200


@pytest.mark.parametrize("joined", [True, False])
def test_same_signature_twice_is_one(smsd: Smsd, joined: bool) -> None:
    form = wire.message()
    signed = wire.signature(form)
    again = b"" if joined else f"X-Twilio-Signature: {signed}".encode()
    raw = wire.raw_post(
        urlencode(form).encode(),
        *filter(None, [again]),
        signed=f"{signed}, {signed}" if joined else signed,
    )
    assert wire.talk(smsd.address, raw).startswith(b"HTTP/1.1 200")


def test_other_signature_beside_a_good_one_is_refused(smsd: Smsd) -> None:
    form = wire.message()
    for both in (f"{wire.signature(form)}, x", f"x,{wire.signature(form)}"):
        answer = wire.post(smsd.address, form, headers={"X-Twilio-Signature": both})
        assert answer.status == 403


def test_capitals_in_the_public_url_do_not_matter() -> None:
    with Smsd({"SMSD_PUBLIC_URL": "https://SMS.Example.com"}) as server:
        for host in ("SMS.Example.com", "sms.example.com", "sms.example.com:443"):
            answer = wire.post(server.address, wire.message(), url=f"https://{host}/sms")
            assert answer.status == 200
        wrong = wire.post(server.address, wire.message(), url="https://sms.EXAMPLE.com/sms")
        assert wrong.status == 403
        assert '"cause":"host_case"' in server.log()
    assert PUBLIC_URL.islower()
