"""The phone page of `serve --dev`: its files, JSON endpoints and live events, under
/phone.

It must never run in production. What a request does is up to `smsd.dev.phone_page`.

It is made for a browser, or `smsd phone`, on this machine. Other web sites, and host
names that are made to point here (DNS rebinding), are kept out by four rules: the Host
is an IP address or localhost; no proxy stands between; a change comes as JSON from the
same origin; the token is told only to loopback peers that send no Origin.
"""

import ipaddress
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from tornado.http1connection import HTTP1Connection
from tornado.iostream import StreamClosedError
from tornado.web import HTTPError, RedirectHandler, RequestHandler

from smsd.dev.phone_page import COOKIES, Draft, PhonePage
from smsd.twilio.segments import segments

PAGE = Path(__file__).parent / "page"
CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
LIVE_S = 60
MOST_AHEAD_S = 21 * 86400  # signed cookies from further ahead are refused
MOST_CHARACTERS = 1600
ADDRESS = re.compile(r"\+?[1-9][0-9]{2,14}|[a-z][a-z0-9_.-]*:[^\s:][^\s]{0,79}")
"""A number in international form, a short code, or a channel's address. The page has
the same pattern."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PROXY_HEADERS = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "Via")


def routes(page: PhonePage) -> list[tuple[str, type[RequestHandler], dict[str, Any]]]:
    """The Tornado rules of the phone page, to be mounted as they are."""
    shared = {"page": page}
    return [
        (r"/", RedirectHandler, {"url": "/phone", "permanent": False}),
        (r"/phone/?", File, shared),
        (r"/phone/([a-z]+\.(?:css|js|svg))", File, shared),
        (r"/phone/dev\.json", Developer, shared),
        (r"/phone/api/state", State, shared),
        (r"/phone/api/events", Events, shared),
        (r"/phone/api/segments", SegmentCount, shared),
        (r"/phone/api/messages", Messages, shared),
        (r"/phone/api/clear", Clear, shared),
        (r"/phone/api/clock", VirtualClock, shared),
        (r"/phone/api/store", StoreSwitch, shared),
    ]


class BadRequest(HTTPError):
    """What the page asks for makes no sense: answered with 400, the problem, and the
    field that is wrong if it is one."""

    def __init__(self, problem: str, field: str | None = None) -> None:
        super().__init__(400)
        self.problem = problem
        self.field = field


class Guarded(RequestHandler):
    """A handler of the page, which refuses requests that do not come from this
    machine's own page."""

    page: PhonePage

    def initialize(self, page: PhonePage) -> None:
        self.page = page

    def set_default_headers(self) -> None:
        """Forbid caching, framing, sniffing and loading from elsewhere."""
        self.set_header("Content-Security-Policy", POLICY)
        self.set_header("Cache-Control", "no-store")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Referrer-Policy", "no-referrer")
        self.set_header("Cross-Origin-Resource-Policy", "same-origin")

    def prepare(self) -> None:
        """Refuse other hosts, other origins, proxies and plain forms."""
        headers = self.request.headers
        if not _is_address(self.request.host) or any(name in headers for name in _PROXY_HEADERS):
            raise HTTPError(
                403, reason="Open the phone page by an IP address or as localhost, without a proxy"
            )
        origin = headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != self.request.host:
            raise HTTPError(403, reason="Another origin")
        is_json = headers.get("Content-Type", "").partition(";")[0].strip() == "application/json"
        if self.request.method == "POST" and not is_json:
            raise HTTPError(415, reason="JSON only")

    def write_error(self, status_code: int, **more: Any) -> None:  # noqa: ARG002 - Tornado names it
        """Answer with the error as JSON, and with the field that is wrong if there is
        one."""
        error = more["exc_info"][1] if "exc_info" in more else None
        if isinstance(error, BadRequest):
            self.finish({"error": error.problem, "field": error.field})
        else:
            self.finish({"error": self._reason})

    def asked(self) -> dict[str, Any]:
        """The JSON object in the request's body; empty for other JSON."""
        try:
            body = json.loads(self.request.body)
        except ValueError:
            raise BadRequest("Not JSON") from None
        return body if isinstance(body, dict) else {}

    def send_json(self, value: object) -> None:
        """Answer with JSON."""
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps(value, ensure_ascii=False))


class File(Guarded):
    """A file of the page."""

    def get(self, name: str = "index.html") -> None:
        file = PAGE / name
        if not file.exists():
            raise HTTPError(404)
        self.set_header("Content-Type", CONTENT_TYPES[file.suffix])
        self.finish(file.read_bytes())


class Developer(Guarded):
    """What `smsd phone` needs to sign, for processes of this machine alone."""

    def get(self) -> None:
        headers = self.request.headers
        peer = ipaddress.ip_address(self.request.remote_ip or "0.0.0.0")  # noqa: S104
        is_phone = headers.get("X-Smsd-Phone") == "1" and "Origin" not in headers
        if not (peer.is_loopback and is_phone):
            raise HTTPError(403, reason="This is for smsd phone only")
        account = self.page.account
        people = dict(self.page.dev.settings.people)
        facts = {"account": account.sid, "webhook": account.url, "people": people}
        self.send_json({"token": account.token, **facts})


class State(Guarded):
    """Everything that the page needs to begin."""

    def get(self) -> None:
        self.send_json(self.page.state())


class Events(Guarded):
    """Server-sent events: whatever happens, as it happens.

    The stream ends after a minute; the browser comes back and says which it had.
    """

    async def get(self) -> None:
        self.set_header("Content-Type", "text/event-stream")
        self._write_named("hello", self.page.boot)
        self.write("retry: 500\n\n")
        with suppress(StreamClosedError):  # the page was closed
            await self.flush()
            await self._live(self._last_seen())

    async def _live(self, last_id: int) -> None:
        dialogue: object = None
        for _ in range(LIVE_S):
            for event in await self.page.after(last_id, timeout_s=1.0):
                last_id = event["id"]
                self.write(f"id: {last_id}\ndata: {json.dumps(event)}\n\n")
            if dialogue != (dialogue := self.page.dialogue()):
                self._write_named("dialogue", json.dumps(dialogue))
            if self.page.dev.service.draining:
                return
            await self.flush()

    def _write_named(self, name: str, data: str) -> None:
        self.write(f"event: {name}\ndata: {data}\n\n")

    def _last_seen(self) -> int:
        given = self.request.headers.get("Last-Event-ID") or self.get_query_argument("after", "0")
        return int(given) if given.isdecimal() and len(given) < 16 else 0


class SegmentCount(Guarded):
    """How many segments the text in `{"body": …}` needs."""

    def post(self) -> None:
        self.send_json(asdict(segments(str(self.asked().get("body", "")))))


class Messages(Guarded):
    """Texts the service as Twilio would; answers with what became of it."""

    async def post(self) -> None:
        draft = parse_draft(self.asked())
        self.send_json(await self.page.send(draft, self._own_address()))

    def _own_address(self) -> str:
        """Where this listener listens: the address that the browser itself has reached."""
        stream = cast("HTTP1Connection", self.request.connection).stream
        host, port, *_ = stream.socket.getsockname()
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Clear(Guarded):
    """Forgets the messages between `{"from": …, "to": …}`."""

    def post(self) -> None:
        self.send_json(self.page.clear(*parse_numbers(self.asked())))


class VirtualClock(Guarded):
    """Puts the clocks forward by `{"seconds": …}`, or back to the present by
    `{"seconds": null}`."""

    def post(self) -> None:
        asked = self.asked()
        if asked == {"seconds": None}:
            self.send_json(self.page.return_to_present())
            return
        seconds = asked.get("seconds")
        if not isinstance(seconds, (int, float)) or not 0 < seconds <= 7 * 86400:
            raise BadRequest("seconds must be more than 0 and at most a week")
        if self.page.ahead_s + seconds > MOST_AHEAD_S:
            raise BadRequest("The clock is three weeks ahead: take it back first")
        self.send_json(self.page.advance(seconds))


class StoreSwitch(Guarded):
    """Does to the store what `{"action": "flush" | "down" | "up"}` says."""

    async def post(self) -> None:
        action = self.asked().get("action")
        if action == "flush":
            self.send_json(await self.page.flush())
        elif action in ("down", "up"):
            self.send_json(self.page.set_store_up(action == "up"))
        else:
            raise BadRequest("action must be flush, down or up")


def parse_draft(asked: Mapping[str, object]) -> Draft:
    """The text that the page asks to be sent."""
    from_, to = parse_numbers(asked)
    draft = Draft(
        from_,
        to,
        body=str(asked.get("body", "")),
        deliveries=2 if asked.get("twice") else 1,
        cookie=str(asked.get("cookie", "jar")),
        forged=bool(asked.get("forged")),
        ticket=str(asked.get("ticket", ""))[:80],
    )
    if draft.cookie not in COOKIES:
        raise BadRequest(f"cookie is one of {', '.join(COOKIES)}", "cookie")
    if len(draft.body) > MOST_CHARACTERS:
        raise BadRequest(f"a message has {MOST_CHARACTERS} characters at most", "body")
    return draft


def parse_numbers(asked: Mapping[str, object]) -> tuple[str, str]:
    """From and To of what the page asks."""
    return _address(asked, "from"), _address(asked, "to")


def _address(asked: Mapping[str, object], field: str) -> str:
    text = str(asked.get(field, "")).strip()
    if ADDRESS.fullmatch(text):
        return text
    what = f"“{text[:40]}” is no phone number" if text else "a number is missing"
    raise BadRequest(
        f"{field.capitalize()}: {what}. "
        "Use +14158675309, a short code such as 12345, or whatsapp:+14158675309.",
        field,
    )


def _is_address(host: str) -> bool:
    """Whether a Host names this machine without any DNS server: an IP address, or
    localhost."""
    name = urlsplit("//" + host).hostname or ""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
