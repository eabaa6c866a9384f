"""Requests to smsd as bytes on a socket, and what comes back. Forms of text are signed
by Twilio's SDK."""

import http.client
import itertools
import re
import socket
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import quote_from_bytes, urlencode

from twilio.request_validator import RequestValidator

from smsd.twilio.signature import Key, sign
from tests.processes import ACCOUNT, PATIENCE_S, PUBLIC_URL, TOKEN

URL = f"{PUBLIC_URL}/sms"
TO = "+14158141829"
REY = "+14158675309"
FORM = "application/x-www-form-urlencoded"

_sids = itertools.count(1)
_numbers = itertools.count(1)


def new_sid(prefix: str = "SM") -> str:
    """A MessageSid that was not used before."""
    return f"{prefix}{next(_sids):032x}"


def new_number() -> str:
    """A sender that has not written before."""
    return f"+1312555{next(_numbers):04d}"


def message(**changes: str | None) -> dict[str, str]:
    """The form of an inbound message, from a new sender; None takes a field away."""
    sid = new_sid()
    form = {
        "ToCountry": "US",
        "SmsMessageSid": sid,
        "NumMedia": "0",
        "FromCity": "",
        "SmsSid": sid,
        "SmsStatus": "received",
        "Body": "hi",
        "To": TO,
        "NumSegments": "1",
        "MessageSid": sid,
        "AccountSid": ACCOUNT,
        "From": new_number(),
        "ApiVersion": "2010-04-01",
        **changes,
    }
    return {name: value for name, value in form.items() if value is not None}


def status(state: str = "delivered", **changes: str | None) -> dict[str, str]:
    """The form of a status callback."""
    form = {
        "MessageSid": new_sid(),
        "AccountSid": ACCOUNT,
        "MessageStatus": state,
        "From": TO,
        "To": REY,
    }
    return {name: value for name, value in {**form, **changes}.items() if value is not None}


def signature(
    form: Mapping[str, str], url: str = URL, token: str = TOKEN, algorithm: str = "HMAC_SHA1"
) -> str:
    """X-Twilio-Signature, by Twilio's SDK."""
    return str(RequestValidator(token).compute_signature(url, dict(form), algorithm))


class Answer(NamedTuple):
    """One HTTP response."""

    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes

    def all(self, name: str) -> list[str]:
        """Every header of that name."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def header(self, name: str) -> str | None:
        """The header of that name, or None."""
        return next(iter(self.all(name)), None)


def request(
    address: str,
    method: str,
    target: str,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """One request on a connection of its own."""
    connection = http.client.HTTPConnection(address, timeout=PATIENCE_S)
    try:
        connection.request(method, target, body, dict(headers or {}))
        response = connection.getresponse()
        return Answer(response.status, response.getheaders(), response.read())
    finally:
        connection.close()


def post(
    address: str,
    form: Mapping[str, str],
    target: str = "/sms",
    *,
    url: str | None = None,
    token: str = TOKEN,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """A form as Twilio posts it, signed for `url` (that of the public host and
    `target`), unless a header says else."""
    signed = {"X-Twilio-Signature": signature(form, url or PUBLIC_URL + target, token)}
    given = {"Content-Type": FORM, **signed, **(headers or {})}
    return request(address, "POST", target, urlencode(form).encode(), given)


def raw_form(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Any bytes as a form, percent-encoded."""
    return b"&".join(
        f"{quote_from_bytes(name)}={quote_from_bytes(value)}".encode() for name, value in fields
    )


def raw_signature(fields: Iterable[tuple[bytes, bytes]], url: str = URL) -> str:
    """X-Twilio-Signature over any bytes, with TOKEN."""
    params: dict[str, list[bytes]] = {}
    for name, value in fields:
        params.setdefault(name.decode("latin-1"), []).append(value)
    return sign(Key(TOKEN.encode(), "primary"), url, params)


def raw_post(
    body: bytes, *headers: bytes, target: bytes = b"/sms", signed: str = "", method: bytes = b"POST"
) -> bytes:
    """A whole request with its Content-Length, as bytes."""
    lines = [
        method + b" " + target + b" HTTP/1.1",
        b"Host: sms.example.com",
        b"Content-Type: " + FORM.encode(),
        b"Content-Length: %d" % len(body),
    ]
    if signed:
        lines.append(b"X-Twilio-Signature: " + signed.encode("latin-1"))
    return b"\r\n".join([*lines, *headers, b"", body])


def talk(address: str, raw: bytes, *, wait_s: float = PATIENCE_S, answers: int = 1) -> bytes:
    """What is sent back: so many whole answers, or all until the peer closes.

    After `wait_s` of silence we end our side. AssertionError if the peer then does not
    close.
    """
    host, _, port = address.rpartition(":")
    received = b""
    with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as sock:
        try:
            sock.sendall(raw)
            sock.settimeout(wait_s)
            while not complete(received, answers) and (more := sock.recv(65536)):
                received += more
        except TimeoutError:
            received += _ended(sock)
        except ConnectionError:  # closed with our bytes unread: a refusal too
            pass
    return received


def _ended(sock: socket.socket) -> bytes:
    """What comes after we have said all: the peer must close."""
    received = b""
    sock.settimeout(PATIENCE_S)
    try:
        sock.shutdown(socket.SHUT_WR)
        while more := sock.recv(65536):
            received += more
    except TimeoutError:
        raise AssertionError("the server neither answers nor closes") from None
    except OSError:
        pass
    return received


def complete(received: bytes, answers: int = 1) -> bool:
    """Whether these bytes hold so many whole answers; 100 is none."""
    head, separator, rest = received.partition(b"\r\n\r\n")
    if not separator:
        return False
    if head.startswith(b"HTTP/1.1 100"):
        return complete(rest, answers)
    length = re.search(rb"(?i)\r\ncontent-length: *([0-9]+)", head)
    size = int(length[1]) if length else 0 if head.startswith(b"HTTP/1.1 204") else None
    if size is None or len(rest) < size:
        return False
    return answers == 1 or complete(rest[size:], answers - 1)
