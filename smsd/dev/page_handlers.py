"""The phone page of `serve --dev`: its files, JSON endpoints and live events, under
/phone.

It must never run in production, and must not decide anything: `smsd.dev.phone_page` does.

It is made for a browser, or `smsd phone`, on this machine. Other web sites, and host
names that are made to point here (DNS rebinding), are kept out by four rules: the Host
is an IP address or localhost; no proxy stands between; a change comes as JSON from the
same origin; the token is told only to loopback peers that send no Origin.
"""

import ipaddress
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

from tornado.http1connection import HTTP1Connection
from tornado.iostream import StreamClosedError
from tornado.web import HTTPError, RedirectHandler, RequestHandler

from smsd.dev.hooks import Hooks
from smsd.dev.order import OrderError, parse_order, parse_pair
from smsd.dev.phone_page import Desk
from smsd.twilio.segments import segments

PAGE = Path(__file__).parent / "page"
FILES = {
    "index.html": "text/html; charset=utf-8",
    **dict.fromkeys(("style.css", "panels.css"), "text/css; charset=utf-8"),
    **dict.fromkeys(
        (
            "phone.js",
            "composer.js",
            "thread.js",
            "inspector.js",
            "wire.js",
            "state.js",
            "dom.js",
        ),
        "text/javascript; charset=utf-8",
    ),
    "icon.svg": "image/svg+xml",
}
LIVE_S = 60
T = TypeVar("T")
MOST_AHEAD_S = 21 * 86400  # signed cookies from further ahead are refused
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PROXY_HEADERS = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "Via")


def routes(hooks: Hooks) -> list[tuple[str, type[RequestHandler], dict[str, Any]]]:
    """The Tornado rules of the phone page, to be mounted as they are."""
    shared = {"desk": Desk(hooks)}
    return [
        (r"/", RedirectHandler, {"url": "/phone", "permanent": False}),
        (r"/phone/?", File, {**shared, "name": "index.html"}),
        *((rf"/phone/{name}", File, {**shared, "name": name}) for name in list(FILES)[1:]),
        (r"/phone/dev\.json", Developer, shared),
        (r"/phone/api/state", State, shared),
        (r"/phone/api/events", Events, shared),
        (r"/phone/api/segments", Count, shared),
        (r"/phone/api/messages", Messages, shared),
        (r"/phone/api/clear", Clear, shared),
        (r"/phone/api/clock", VirtualClock, shared),
        (r"/phone/api/store", StoreActions, shared),
    ]


class BadOrder(HTTPError):
    """An order that makes no sense: answered with 400, the problem and the field."""

    def __init__(self, error: OrderError) -> None:
        super().__init__(400)
        self.problem = str(error)
        self.field = error.field


class Guarded(RequestHandler):
    """A handler of the page, which refuses requests that do not come from this
    machine's own page."""

    desk: Desk

    def initialize(self, desk: Desk) -> None:
        """Take the desk, which all handlers share."""
        self.desk = desk

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
        if isinstance(error, BadOrder):
            self.finish({"error": error.problem, "field": error.field})
        else:
            self.finish({"error": self._reason})

    def json_body(self) -> Any:
        """The JSON body of the request."""
        try:
            return json.loads(self.request.body)
        except ValueError:
            raise HTTPError(400, reason="Not JSON") from None

    def order(self, parse: Callable[[object], T]) -> T:
        """The JSON body as `parse` reads it. What it refuses is answered with 400."""
        try:
            return parse(self.json_body())
        except OrderError as error:
            raise BadOrder(error) from None

    def send_json(self, value: object) -> None:
        """Answer with JSON."""
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps(value, ensure_ascii=False))


class File(Guarded):
    """A file of the page."""

    def initialize(self, desk: Desk, name: str = "") -> None:
        """Take the file's name as well."""
        super().initialize(desk)
        self.name = name

    def get(self) -> None:
        """Send the file."""
        self.set_header("Content-Type", FILES[self.name])
        self.finish((PAGE / self.name).read_bytes())


class Developer(Guarded):
    """What `smsd phone` needs to sign, for processes of this machine alone."""

    def get(self) -> None:
        """Send token, account, webhook URL and people."""
        loopback = ipaddress.ip_address(self.request.remote_ip or "0.0.0.0").is_loopback  # noqa: S104
        if (
            not loopback
            or "Origin" in self.request.headers
            or self.request.headers.get("X-Smsd-Phone") != "1"
        ):
            raise HTTPError(403, reason="This is for smsd phone only")
        people = dict(self.desk.hooks.people())
        about = {"account": self.desk.account_sid, "webhook": self.desk.webhook, "people": people}
        self.send_json({"token": self.desk.hooks.token, **about})


class State(Guarded):
    """The present state."""

    def get(self) -> None:
        """Send everything that the page needs to begin."""
        self.send_json(self.desk.state())


class Events(Guarded):
    """Server-sent events: whatever happens, as it happens."""

    async def get(self) -> None:
        """Send events for a minute, then end; the browser comes back and says which it
        had."""
        self.set_header("Content-Type", "text/event-stream")
        self._write_named("hello", self.desk.boot)
        self.write("retry: 500\n\n")
        with suppress(StreamClosedError):  # the page was closed
            await self.flush()
            await self._live(self._last_seen())

    async def _live(self, last_id: int) -> None:
        dialogue: object = None
        for _ in range(LIVE_S):
            for event in await self.desk.after(last_id, timeout_s=1.0):
                last_id = event["id"]
                self.write(f"id: {last_id}\ndata: {json.dumps(event)}\n\n")
            if dialogue != (dialogue := self.desk.dialogue()):
                self._write_named("dialogue", json.dumps(dialogue))
            if self.desk.hooks.stopping():
                return
            await self.flush()

    def _write_named(self, name: str, data: str) -> None:
        self.write(f"event: {name}\ndata: {data}\n\n")

    def _last_seen(self) -> int:
        given = self.request.headers.get("Last-Event-ID") or self.get_query_argument("after", "0")
        return int(given) if given.isdecimal() and len(given) < 16 else 0


class Count(Guarded):
    """How many segments a text needs."""

    def post(self) -> None:
        """Count encoding, units and segments of `{"body": …}`."""
        body = self.json_body()
        counted = segments(str(body.get("body", "")) if isinstance(body, dict) else "")
        self.send_json(
            {"encoding": counted.encoding, "units": counted.units, "count": counted.count}
        )


class Messages(Guarded):
    """Texts the service."""

    async def post(self) -> None:
        """Send one message as Twilio would; answers with what became of it."""
        order = self.order(parse_order)
        self.send_json(await self.desk.send(order, self._own_address()))

    def _own_address(self) -> str:
        """Where this listener listens: the address that the browser itself has reached."""
        stream = cast("HTTP1Connection", self.request.connection).stream
        host, port, *_ = stream.socket.getsockname()
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Clear(Guarded):
    """Clears a thread."""

    def post(self) -> None:
        """Forget the messages between `{"from": …, "to": …}`."""
        from_, to = self.order(parse_pair)
        self.send_json(self.desk.clear(from_, to))


class VirtualClock(Guarded):
    """Lets time pass, and takes it back."""

    def post(self) -> None:
        """Put the clocks forward by `{"seconds": …}`, or back to the present by
        `{"seconds": null}`."""
        body = self.json_body()
        if body == {"seconds": None}:
            self.send_json(self.desk.return_to_present())
            return
        seconds = body.get("seconds") if isinstance(body, dict) else None
        if not isinstance(seconds, (int, float)) or not 0 < seconds <= 7 * 86400:
            raise HTTPError(400, reason="seconds must be more than 0 and at most a week")
        if self.desk.ahead_s + seconds > MOST_AHEAD_S:
            raise HTTPError(400, reason="The clock is three weeks ahead: take it back first")
        self.send_json(self.desk.advance(seconds))


class StoreActions(Guarded):
    """Empties the store, takes it down, or brings it back."""

    async def post(self) -> None:
        """Do what `{"action": "flush" | "down" | "up"}` says."""
        body = self.json_body()
        action = body.get("action") if isinstance(body, dict) else None
        if action == "flush":
            self.send_json(await self.desk.flush())
        elif action in ("down", "up"):
            self.send_json(self.desk.set_store_up(action == "up"))
        else:
            raise HTTPError(400, reason="action must be flush, down or up")


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
