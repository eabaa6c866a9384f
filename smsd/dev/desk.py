"""What the phone page shows: what happened, and the exchange behind each bubble. No HTTP handlers here.

A `Desk` lives in the process of `serve --dev`. It texts that service over a real socket, as Twilio would.
"""

import asyncio
import json
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol
from urllib.parse import parse_qsl

from smsd.simulator.client import DEFAULT_SID, DEFAULT_TO, Client
from smsd.simulator.twilio import JAR, LOST, STALE, Clock, Cookies, Twilio, new_token
from smsd.simulator.values import Answer, Attempt, Inbound, Outcome, Reply
from smsd.simulator.webhook import Account
from smsd.twilio.segments import segments

MOST_EVENTS = 300
COOKIES: Mapping[str, Cookies] = {"jar": JAR, "lost": LOST, "stale": STALE}
Json = dict[str, Any]


class Workbench(Protocol):
    """The hooks into the running service. `serve --dev` implements them; the page has no other way in."""

    @property
    def token(self) -> str:
        """The auth token that signs."""

    @property
    def account_sid(self) -> str | None:
        """The one account that is accepted, or None for any."""

    @property
    def public_url(self) -> str:
        """SMSD_PUBLIC_URL, without /sms."""

    def people(self) -> Mapping[str, str]:
        """Number to name."""

    def open_cookie(self, value: str, account: str, to: str, from_: str) -> object:
        """What a cookie's value holds, as JSON can say it; why not, if it cannot be opened. Never raises."""

    async def record(self, account: str, to: str, from_: str) -> object | None:
        """The record in the store, as JSON can say it; None if there is none or the store is down."""

    async def flush(self) -> None:
        """Empty the store."""

    def set_store_up(self, up: bool) -> None:
        """Take the store down, or up again."""

    def store_up(self) -> bool:
        """Whether the store is up."""

    def advance(self, seconds: float) -> None:
        """Put the service's clock forward."""

    def stopping(self) -> bool:
        """Whether the process is on its way out: live updates end then."""


@dataclass(frozen=True, slots=True)
class Order:
    """What the page asks to be sent."""

    from_: str
    to: str
    body: str
    deliveries: int = 1
    cookie: str = "jar"
    forged: bool = False


class Desk:
    """Everything that happened, in order, and who waits for more."""

    def __init__(self, bench: Workbench) -> None:
        self.bench = bench
        self.clock = Clock()
        self.twilio = Twilio(self.clock)
        self.ahead_s = 0.0
        self.boot = new_token(self.twilio.random)  # tells a page that the process is another one
        self.events: deque[Json] = deque(maxlen=MOST_EVENTS)
        self._last_id = 0
        self._news = asyncio.Condition()

    @property
    def account_sid(self) -> str:
        """The account that texts."""
        return self.bench.account_sid or DEFAULT_SID

    def state(self) -> Json:
        """All that a page needs to begin."""
        return {
            "people": [
                {"number": number, "name": name} for number, name in self.bench.people().items()
            ],
            "to": DEFAULT_TO,
            "account": self.account_sid,
            "webhook": self.webhook,
            "store_up": self.bench.store_up(),
            "ahead_s": self.ahead_s,
            "boot": self.boot,
            "events": list(self.events),
        }

    @property
    def webhook(self) -> str:
        """The URL that is signed."""
        return self.bench.public_url.rstrip("/") + "/sms"

    async def send(self, order: Order, address: str) -> Json:
        """Text the service that listens at `address` (host:port); returns the event that everybody gets."""
        token = "forged" if order.forged else self.bench.token
        account = Account(self.account_sid, token, self.webhook)
        client = Client(account=account, twilio=self.twilio, connect_to=address)
        message = client.compose(
            order.body, from_=order.from_, to=order.to, segments=segments(order.body).count
        )
        async with client:
            outcomes = [
                await client.deliver(message, cookies=COOKIES[order.cookie])
                for _ in range(order.deliveries)
            ]
        event = await self._exchange(message, outcomes)
        return await self.publish({**event, "forged": order.forged})

    async def advance(self, seconds: float) -> Json:
        """Let time pass, here and in the service."""
        self.clock.advance(seconds)
        self.bench.advance(seconds)
        self.ahead_s += seconds
        return await self.publish(
            {"kind": "note", "what": "time", "seconds": seconds, "ahead_s": self.ahead_s}
        )

    async def flush(self) -> Json:
        """Empty the store."""
        await self.bench.flush()
        return await self.publish({"kind": "note", "what": "flush"})

    async def set_store_up(self, up: bool) -> Json:
        """Take the store down, or up again."""
        self.bench.set_store_up(up)
        return await self.publish(
            {"kind": "note", "what": "up" if up else "down", "store_up": self.bench.store_up()}
        )

    async def publish(self, event: Json) -> Json:
        """Number the event, keep it, and wake who waits."""
        self._last_id += 1
        event = {"id": self._last_id, "at": self.clock(), **event}
        self.events.append(event)
        async with self._news:
            self._news.notify_all()
        return event

    async def after(self, last_id: int, timeout_s: float) -> Sequence[Json]:
        """The events after that one; waits for the first. Empty if none came in time."""
        try:
            async with asyncio.timeout(timeout_s), self._news:
                await self._news.wait_for(lambda: self._last_id > last_id)
        except TimeoutError:
            return []
        return [event for event in self.events if event["id"] > last_id]

    async def _exchange(self, message: Inbound, outcomes: Sequence[Outcome]) -> Json:
        return {
            "kind": "exchange",
            "sid": message.sid,
            "from": message.from_,
            "to": message.to,
            "body": message.body,
            "segments": asdict(segments(message.body)),
            "deliveries": [self._delivery(outcome) for outcome in outcomes],
            "record": await self.bench.record(*message.pair),
        }

    def _delivery(self, outcome: Outcome) -> Json:
        return {
            "replies": [_reply(reply) for reply in outcome.replies],
            "automatic": outcome.automatic,
            "errors": [asdict(notice) for notice in outcome.errors],
            "status": outcome.status,
            "milliseconds": round(outcome.elapsed_s * 1000, 2),
            "attempts": [_attempt(attempt) for attempt in outcome.attempts],
            "twiml": outcome.twiml.decode("utf-8", "replace"),
            "cookie": outcome.cookie,
            "cookie_sent": self._opened(outcome, outcome.cookie_sent),
            "cookie_received": self._opened(outcome, outcome.cookie),
        }

    def _opened(self, outcome: Outcome, header: str | None) -> object:
        value = cookie_value(header)
        return value and self.bench.open_cookie(value, *outcome.message.pair)


def cookie_value(header: str | None, name: str = "smsd") -> str | None:
    """The value of the cookie of that name in a Cookie or Set-Cookie header."""
    pairs = (part.strip().partition("=") for part in (header or "").split(";"))
    return next((value for key, _, value in pairs if key == name), None)


def _reply(reply: Reply) -> Json:
    return {**asdict(reply), "segments": asdict(segments(reply.body))}


def _attempt(attempt: Attempt) -> Json:
    request, result = attempt.request, attempt.result
    return {
        "method": request.method,
        "url": request.url,
        "headers": list(request.headers),
        "form": parse_qsl(request.body.decode(), keep_blank_values=True),
        "status": result.status if isinstance(result, Answer) else None,
        "failure": None if isinstance(result, Answer) else result.kind,
        "milliseconds": round((attempt.ended_s - attempt.began_s) * 1000, 2),
    }


def parse_order(given: object) -> Order:
    """The order in a JSON body; ValueError or TypeError says what is wrong with it."""
    if not isinstance(given, dict):
        raise TypeError("a JSON object is expected")
    order = Order(
        from_=_line(given, "from"),
        to=_line(given, "to"),
        body=str(given.get("body", "")),
        deliveries=2 if given.get("twice") else 1,
        cookie=str(given.get("cookie", "jar")),
        forged=bool(given.get("forged")),
    )
    if order.cookie not in COOKIES or len(order.body) > 1600:
        raise ValueError(
            f"cookie is one of {json.dumps(list(COOKIES))}, body at most 1600 characters"
        )
    return order


def _line(given: Mapping[str, object], name: str) -> str:
    text = str(given.get(name, "")).strip()
    if not text or len(text) > 80 or not text.isprintable():
        raise ValueError(f"{name}: a number such as +14158675309 is expected")
    return text
