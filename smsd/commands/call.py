"""`smsd doctor --call`: asks SMSD_PUBLIC_URL as Twilio would, and says who answers
there.

It must not change anything: the signed request carries no message, so smsd refuses it
with 400 and counts nothing. That is also how smsd is recognized. Only a service that
has the same auth token and the same public URL answers 400 to the right signature and
403 to a wrong one.
"""

import http.client
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import urlencode, urlsplit

from smsd.commands.findings import Finding, ok, warning, wrong
from smsd.settings.table import Settings
from smsd.twilio.signature import Key, sign

TIMEOUT_S = 10.0
EXPIRES_SOON_DAYS = 14
ACCOUNT = "AC" + "0" * 32
HOP = "?hop=1"
"""The query of the URL at which smsd asks Twilio to come again."""

PROXIES: Mapping[str, tuple[str, float | None]] = {
    "nginx": ("nginx", 60),
    "envoy": ("Envoy", 15),
    "istio": ("Envoy", 15),
    "awselb": ("AWS ELB", 60),
    "cloudflare": ("Cloudflare", 100),
    "google": ("Google Cloud load balancing", 30),
    "caddy": ("Caddy", None),
    "haproxy": ("HAProxy", None),
    "traefik": ("Traefik", None),
}
"""What a Server header begins with: the proxy's name, and the seconds that it usually
waits for an answer (None if it has no usual limit)."""


class HttpAnswer(NamedTuple):
    """An HTTP answer, and the certificate of who gave it."""

    status: int
    headers: Sequence[tuple[str, str]]
    certificate: Mapping[str, object]

    def header(self, name: str) -> str:
        """The first header of that name, or ""."""
        return next((value for key, value in self.headers if key.lower() == name), "")


def check_public_url(settings: Settings) -> Iterator[Finding]:
    """Request the public URL; whether this smsd answers, through what, and for how
    long."""
    base = settings.public_url
    try:
        health = _request("GET", f"{base}/healthz")
        signed = _post(settings, f"{base}/sms")
    except (OSError, http.client.HTTPException) as error:
        yield wrong(f"{base}: {_no_answer(error)}")
        return
    if urlsplit(base).scheme == "https":
        yield _certificate(signed.certificate)
    yield from _health(base, health)
    recognized = _identity(base, signed)
    yield recognized
    if recognized.mark == "ok":
        yield from _rest(settings, base)
    yield from _in_front(signed, settings.answer_within_s)


def _rest(settings: Settings, base: str) -> Iterator[Finding]:
    """What matters once smsd is known to answer: that it refuses others, and that
    queries arrive."""
    try:
        forged = _post(settings, f"{base}/sms", forged=True)
        hop = _post(settings, f"{base}/sms{HOP}")
    except (OSError, http.client.HTTPException) as error:
        yield wrong(f"{base}: {_no_answer(error)}")
        return
    if forged.status != 403:
        yield wrong(
            f"{base}/sms: a wrong signature was answered with {forged.status}, not with 403"
        )
    if hop.status != 400:
        yield wrong(
            f"{base}/sms{HOP} was answered with {hop.status}: something in front changes the query, "
            "so slow replies would be lost"
        )


def _identity(base: str, signed: HttpAnswer) -> Finding:
    """Who answered a signed request that is no message."""
    status, url = signed.status, f"{base}/sms"
    if status == 400:
        return ok(f"{url}: smsd answers, with this auth token and this SMSD_PUBLIC_URL")
    if 300 <= status < 400:
        target = signed.header("location") or "nowhere"
        return wrong(
            f"{url} redirects with {status} to {target}. Twilio does not follow 308 and turns "
            "other redirects into a GET: make SMSD_PUBLIC_URL the final URL"
        )
    if status == 403:
        return wrong(
            f"{url}: the signature is refused. The service there has another TWILIO_AUTH_TOKEN or "
            "SMSD_PUBLIC_URL, or a firewall refuses; smsd's log says `signature mismatch` and why"
        )
    if status in (404, 405):
        return wrong(
            f"{url}: {status}, so POST /sms does not reach smsd. Which paths and methods does the "
            "proxy or ingress pass on?"
        )
    if status in (502, 503, 504):
        return wrong(f"{url}: {status}, so a proxy answers but reaches no smsd that is ready")
    return wrong(f"{url}: {status}, so something else answers there and not smsd")


def _health(base: str, health: HttpAnswer) -> Iterator[Finding]:
    if health.status == 200:
        yield ok(f"{base}/healthz: 200")
    elif health.status == 503:
        yield warning(f"{base}/healthz: 503; this smsd shuts down, or no replica is ready")
    else:
        yield warning(
            f"{base}/healthz: {health.status} instead of 200; "
            "a load balancer that probes the traffic port needs it"
        )


def _certificate(certificate: Mapping[str, object]) -> Finding:
    expires_s = ssl.cert_time_to_seconds(str(certificate["notAfter"]))
    day = time.strftime("%Y-%m-%d", time.gmtime(expires_s))
    text = f"certificate: trusted here, valid until {day}"
    if expires_s - time.time() < EXPIRES_SOON_DAYS * 86400:
        return warning(f"{text}: renew it, since Twilio refuses an expired one")
    return ok(text)


def _in_front(answer: HttpAnswer, answer_within_s: float) -> Iterator[Finding]:
    """The proxy in front, as far as it names itself, and whether it waits long enough."""
    server, via = answer.header("server").lower(), answer.header("via")
    known = next((found for word, found in PROXIES.items() if server.startswith(word)), None)
    needed = f"its read time-out must be longer than SMSD_ANSWER_WITHIN ({answer_within_s:g} s)"
    name, usual_s = known or (via or answer.header("server"), None)
    if usual_s:
        text = f"in front: {name}; {needed}, and is {usual_s:g} s unless it was changed"
        yield ok(text) if usual_s > answer_within_s else warning(text)
    elif known or via or (server and not server.startswith("tornado")):
        yield warning(f"in front: {name}; {needed}. This cannot be seen from here: please check")
    else:
        yield ok(f"in front: nothing that names itself. If there is a proxy, {needed}")


def _no_answer(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is refused ({error.verify_message}); Twilio refuses it too"
    if isinstance(error, ssl.SSLError):
        return "TLS failed. Does this port speak TLS?"
    if isinstance(error, TimeoutError):
        return f"no answer within {TIMEOUT_S:g} s. Is a firewall in between?"
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there (connection refused). Is smsd, or the proxy, running?"
    if isinstance(error, http.client.HTTPException):
        return "something answers there that is not HTTP. Is the port right?"
    return f"cannot be reached: {getattr(error, 'strerror', None) or type(error).__name__}"


def _post(settings: Settings, url: str, *, forged: bool = False) -> HttpAnswer:
    """A form without a message, signed for this URL, or with a signature that is wrong."""
    key = Key(b"forged" if forged else settings.auth_token.reveal(), "primary")
    headers = {
        "Content-Type": "application/x-www-form-urlencoded",
        "X-Twilio-Signature": sign(key, url, {"AccountSid": [ACCOUNT.encode()]}),
    }
    return _request("POST", url, headers, urlencode({"AccountSid": ACCOUNT}))


def _request(
    method: str, url: str, headers: Mapping[str, str] | None = None, body: str | None = None
) -> HttpAnswer:
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port
    connection = (
        http.client.HTTPSConnection(
            host, port, timeout=TIMEOUT_S, context=ssl.create_default_context()
        )
        if parts.scheme == "https"
        else http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
    )
    try:
        try:
            connection.connect()
        except TimeoutError:
            if connection.sock is None:
                raise
            raise ssl.SSLError("connected, but the handshake was not answered") from None
        sock = connection.sock
        certificate = sock.getpeercert() if isinstance(sock, ssl.SSLSocket) else None
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        connection.request(method, target, body, dict(headers or {}))
        response = connection.getresponse()
        response.read()
        return HttpAnswer(response.status, response.getheaders(), certificate or {})
    finally:
        connection.close()
