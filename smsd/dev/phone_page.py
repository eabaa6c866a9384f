"""The phone page's own Twilio: sends the texts and keeps what happened, for every open
page.

Handles no HTTP of the page; that is `smsd.dev.page_handlers`. A `Desk` lives in the process of
`serve --dev` and texts that service over a real socket, as Twilio would.

The idea: whatever happens is an event with a growing id. A text is one event that is
published again, under the same `key`, whenever more is known of it: when it is sent,
when a first reply arrives, when Twilio is asked to come again, and when it is over. So
a page that is opened in the middle sees the same as one that was there from the start.
"""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any
from urllib.parse import parse_qsl

from smsd.dev.hooks import Counting, Hooks
from smsd.dev.order import COOKIES, Order
from smsd.dev.verdict import Facts, judge
from smsd.simulator.client import Client
from smsd.simulator.edge import DEFAULT_SID, DEFAULT_TO
from smsd.simulator.twilio import Clock, Twilio, new_token
from smsd.simulator.values import Attempt, Inbound, Outbound, Outcome, Response
from smsd.simulator.webhook import Account
from smsd.twilio.segments import segments

MOST_EVENTS = 300
Json = dict[str, Any]


class Desk:
    """Everything that happened, in order, and who waits for more."""

    def __init__(self, hooks: Hooks) -> None:
        self.hooks = hooks
        self.clock = Clock()
        self.twilio = Twilio(self.clock)
        self.ahead_s = 0.0
        self.boot = new_token(self.twilio.random)  # tells a page that the process is another one
        self.events: deque[Json] = deque(maxlen=MOST_EVENTS)
        self._last_id = 0
        self._news = asyncio.Event()

    @property
    def account_sid(self) -> str:
        """The account that texts."""
        return self.hooks.account_sid or DEFAULT_SID

    @property
    def webhook(self) -> str:
        """The URL that is signed."""
        return self.hooks.public_url.rstrip("/") + "/sms"

    def state(self) -> Json:
        """Everything that a page needs to begin."""
        return {
            "people": [
                {"number": number, "name": name} for number, name in self.hooks.people().items()
            ],
            "to": DEFAULT_TO,
            "account": self.account_sid,
            "webhook": self.webhook,
            "dialogue": self.dialogue(),
            "store_up": self.hooks.store_up(),
            "ahead_s": self.ahead_s,
            "boot": self.boot,
            "events": list(self.events),
        }

    def dialogue(self) -> Json:
        """Which dialogue answers, and whether a newer version was refused."""
        return asdict(self.hooks.dialogue())

    async def send(self, order: Order, address: str) -> Json:
        """Text the service that listens at `address` (host:port); returns the last
        event of it."""
        token = "forged" if order.forged else self.hooks.token
        account = Account(self.account_sid, token, self.webhook)
        client = Client(account=account, twilio=self.twilio, connect_to=address)
        message = client.compose(
            order.body, from_=order.from_, to=order.to, segments=segments(order.body).count
        )
        record_before = await self.hooks.record(*message.pair)
        event = self.publish(_sending(order, message))
        outcomes: list[Outcome] = []
        countings: list[Counting | None] = []
        async with client:
            for _ in range(order.deliveries):
                progress = _Progress(self, event)
                outcome = await client.deliver(
                    message,
                    cookies=COOKIES[order.cookie],
                    on_reply=progress.reply,
                    on_hop=progress.hop,
                )
                outcomes.append(outcome)
                countings.append(self._counting(outcome))
        problem = self.hooks.problem(message.sid)
        facts = Facts(
            outcomes,
            countings,
            forged=order.forged,
            cookie=order.cookie,
            cookie_count=_count(self._opened(outcomes[0], outcomes[0].cookie_sent)),
            record_count=_count(record_before),
            store_up=self.hooks.store_up(),
            problem=problem,
        )
        return self.publish(
            {
                **event,
                "pending": False,
                "verdict": asdict(judge(facts)),
                "problem": problem and asdict(problem),
                "deliveries": [self._delivery(outcome) for outcome in outcomes],
                "record": await self.hooks.record(*message.pair),
            }
        )

    def clear(self, from_: str, to: str) -> Json:
        """Forget the messages of a thread here; the conversation itself goes on."""
        gone = [e for e in self.events if (e.get("from"), e.get("to")) == (from_, to)]
        for event in gone:
            self.events.remove(event)
        return self.publish({"kind": "clear", "from": from_, "to": to})

    def advance(self, seconds: float) -> Json:
        """Let time pass, here and in the service."""
        return self._set_clock(self.ahead_s + seconds, what="time", seconds=seconds)

    def return_to_present(self) -> Json:
        """Put the clocks back to the real time."""
        return self._set_clock(0.0, what="present", seconds=-self.ahead_s)

    def _set_clock(self, ahead_s: float, **note: object) -> Json:
        self.clock.advance(ahead_s - self.ahead_s)
        self.hooks.advance(ahead_s - self.ahead_s)
        self.ahead_s = ahead_s
        return self.publish({"kind": "note", "ahead_s": ahead_s, **note})

    async def flush(self) -> Json:
        """Empty the store."""
        await self.hooks.flush()
        return self.publish({"kind": "note", "what": "flush"})

    def set_store_up(self, up: bool) -> Json:
        """Take the store down, or up again."""
        self.hooks.set_store_up(up)
        what = "up" if up else "down"
        return self.publish({"kind": "note", "what": what, "store_up": self.hooks.store_up()})

    def publish(self, event: Json) -> Json:
        """Number the event, keep it in place of an earlier one of the same key, and
        wake who waits."""
        self._last_id += 1
        event = {"key": self._last_id, "at": self.clock(), **event, "id": self._last_id}
        places = [place for place, one in enumerate(self.events) if one["key"] == event["key"]]
        if places:
            self.events[places[0]] = event
        else:
            self.events.append(event)
        news, self._news = self._news, asyncio.Event()
        news.set()
        return event

    async def after(self, last_id: int, timeout_s: float) -> Sequence[Json]:
        """The events after that one, by id; waits for the first. Empty if none came in
        time."""
        if self._last_id <= last_id:
            try:
                async with asyncio.timeout(timeout_s):
                    await self._news.wait()
            except TimeoutError:
                return []
        newer = [event for event in self.events if event["id"] > last_id]
        return sorted(newer, key=lambda event: int(event["id"]))

    def _counting(self, outcome: Outcome) -> Counting | None:
        """How the service counted it; without its log, as the cookie that came back
        says."""
        number = _count(self._opened(outcome, outcome.cookie))
        return self.hooks.counting(outcome.message.sid) or (
            None if number is None else Counting("", number)
        )

    def _delivery(self, outcome: Outcome) -> Json:
        return {
            "replies": [reply_json(reply) for reply in outcome.replies],
            "automatic": outcome.automatic,
            "errors": [asdict(notice) for notice in outcome.errors],
            "status": outcome.status,
            "hops": outcome.hops,
            "milliseconds": round(outcome.elapsed_s * 1000, 2),
            "attempts": [_attempt(attempt) for attempt in outcome.attempts],
            "twiml": outcome.twiml.decode("utf-8", "replace"),
            "cookie": outcome.cookie,
            "cookie_sent": self._opened(outcome, outcome.cookie_sent),
            "cookie_received": self._opened(outcome, outcome.cookie),
        }

    def _opened(self, outcome: Outcome, header: str | None) -> object:
        value = cookie_value(header)
        return value and self.hooks.open_cookie(value, *outcome.message.pair)


class _Progress:
    """Publishes a text again whenever a reply arrives or Twilio is asked to come again."""

    def __init__(self, desk: Desk, event: Json) -> None:
        self._desk = desk
        self._event = event

    def reply(self, reply: Outbound) -> None:
        self._publish(replies=[*self._event["replies"], reply_json(reply)])

    def hop(self, hops: int) -> None:
        self._publish(hops=hops)

    def _publish(self, **changes: object) -> None:
        self._event = self._desk.publish({**self._event, **changes})


def _sending(order: Order, message: Inbound) -> Json:
    """The event of a text that is on its way."""
    return {
        "kind": "exchange",
        "pending": True,
        "ticket": order.ticket,
        "sid": message.sid,
        "from": message.from_,
        "to": message.to,
        "body": message.body,
        "segments": asdict(segments(message.body)),
        "cookie": order.cookie,
        "forged": order.forged,
        "twice": order.deliveries > 1,
        "hops": 0,
        "replies": [],
    }


def cookie_value(header: str | None, name: str = "smsd") -> str | None:
    """The value of the cookie of that name in a Cookie or Set-Cookie header."""
    pairs = (part.strip().partition("=") for part in (header or "").split(";"))
    return next((value for key, _, value in pairs if key == name), None)


def _count(opened: object) -> int | None:
    """The count in an opened cookie or a record."""
    return opened.get("count") if isinstance(opened, Mapping) else None


def reply_json(reply: Outbound) -> Json:
    """A reply, and how many segments it has."""
    return {**asdict(reply), "segments": asdict(segments(reply.body))}


def _attempt(attempt: Attempt) -> Json:
    request, result = attempt.request, attempt.result
    return {
        "method": request.method,
        "url": request.url,
        "headers": list(request.headers),
        "form": parse_qsl(request.body.decode(), keep_blank_values=True),
        "status": result.status if isinstance(result, Response) else None,
        "failure": None if isinstance(result, Response) else result.kind,
        "milliseconds": round((attempt.ended_s - attempt.began_s) * 1000, 2),
    }
