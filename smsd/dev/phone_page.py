"""The phone page of `serve --dev`, as a model: its own Twilio, which sends the texts, and
what happened, for every page that is open.

It texts the service of its own process over a real socket, as Twilio would. HTTP of the
page is the business of `smsd.dev.page_handlers`.

The idea: whatever happens is an event with a growing id. A text is one event that is
published again, under the same `key`, whenever more is known of it: when it is sent,
when a first reply arrives, when Twilio is asked to come again, and when it is over. So
a page that is opened in the middle sees the same as one that was there from the start.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any
from urllib.parse import parse_qsl

from smsd.dev.dev_service import DevService
from smsd.dev.failures import problem_json
from smsd.dev.verdict import Facts, judge
from smsd.simulator.client import Client
from smsd.simulator.edge import DEFAULT_SID, DEFAULT_TO
from smsd.simulator.twilio import JAR, LOST, STALE, Clock, Cookies, Twilio, new_token
from smsd.simulator.values import Attempt, Inbound, Outbound, Outcome, Response
from smsd.simulator.webhook import Account
from smsd.twilio.segments import segments

MOST_EVENTS = 300
COOKIES: Mapping[str, Cookies] = {"jar": JAR, "lost": LOST, "stale": STALE}
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Draft:
    """A text to be sent, and how.

    deliveries  how often Twilio delivers it
    cookie      which cookie it carries, a key of COOKIES
    forged      signed with a wrong token
    ticket      the page's own name for it
    """

    from_: str
    to: str
    body: str
    deliveries: int = 1
    cookie: str = "jar"
    forged: bool = False
    ticket: str = ""


class PhonePage:
    """Everything that happened, in order, and who waits for more."""

    def __init__(self, dev: DevService) -> None:
        self.dev = dev
        self.clock = Clock()
        self.twilio = Twilio(self.clock)
        self.ahead_s = 0.0
        self.boot = new_token(self.twilio.random)  # tells a page that the process is another one
        self._events: dict[int, Json] = {}
        """The last events by `key`, in the order in which they were first published."""
        self._last_id = 0
        self._news = asyncio.Event()

    @property
    def account(self) -> Account:
        """The account that texts, with the URL that it signs."""
        settings = self.dev.settings
        return Account(
            settings.account_sid or DEFAULT_SID,
            settings.auth_token.reveal().decode(),
            settings.public_url.rstrip("/") + "/sms",
        )

    def state(self) -> Json:
        """Everything that a page needs to begin."""
        people = self.dev.settings.people
        return {
            "people": [{"number": number, "name": name} for number, name in people.items()],
            "to": DEFAULT_TO,
            "account": self.account.sid,
            "webhook": self.account.url,
            "dialogue": self.dialogue(),
            "store_up": self.dev.is_store_up,
            "ahead_s": self.ahead_s,
            "boot": self.boot,
            "events": list(self._events.values()),
        }

    def dialogue(self) -> Json:
        """Which dialogue answers, since when, and why a newer version was refused."""
        live_reload = self.dev.live_reload
        return {
            "name": self.dev.settings.dialogue,
            "loaded_at": live_reload.loaded_ms / 1000,
            "refused": live_reload.refused,
        }

    async def send(self, draft: Draft, address: str) -> Json:
        """Text the service that listens at `address` (host:port); returns the last
        event of it."""
        account = replace(self.account, token="forged") if draft.forged else self.account  # noqa: S106
        client = Client(account=account, twilio=self.twilio, connect_to=address)
        message = client.compose(
            draft.body, from_=draft.from_, to=draft.to, segments=segments(draft.body).count
        )
        record_before = await self.dev.record(message.pair)
        event = self.publish(_sending(draft, message))
        with self.dev.following(message.sid) as counted:
            async with client:
                outcomes = [
                    await self._deliver(client, message, draft, event)
                    for _ in range(draft.deliveries)
                ]
        deliveries = [self._delivery(outcome) for outcome in outcomes]
        error = next((each.error for each in counted if each.error), None)
        problem = problem_json(error) if error else None
        facts = Facts(
            outcomes,
            counted,
            forged=draft.forged,
            cookie=draft.cookie,
            cookie_count=_count(deliveries[0]["cookie_sent"]),
            record_count=_count(record_before),
            is_store_up=self.dev.is_store_up,
            problem=problem["text"] if problem else "",
        )
        return self.publish(
            {
                **event,
                "pending": False,
                "verdict": asdict(judge(facts)),
                "problem": problem,
                "deliveries": deliveries,
                "record": await self.dev.record(message.pair),
            }
        )

    async def _deliver(
        self, client: Client, message: Inbound, draft: Draft, event: Json
    ) -> Outcome:
        """Deliver a text once, and publish its event again whenever a reply arrives or
        Twilio is asked to come again."""

        def publish(**changes: object) -> None:
            nonlocal event
            event = self.publish({**event, **changes})

        return await client.deliver(
            message,
            cookies=COOKIES[draft.cookie],
            on_reply=lambda reply: publish(replies=[*event["replies"], reply_json(reply)]),
            on_hop=lambda hops: publish(hops=hops),
        )

    def clear(self, from_: str, to: str) -> Json:
        """Forget the messages of a thread here; the conversation itself goes on."""
        self._events = {
            key: event
            for key, event in self._events.items()
            if (event.get("from"), event.get("to")) != (from_, to)
        }
        return self.publish({"kind": "clear", "from": from_, "to": to})

    def advance(self, seconds: float) -> Json:
        """Let time pass, here and in the service."""
        return self._set_clock(self.ahead_s + seconds, what="time", seconds=seconds)

    def return_to_present(self) -> Json:
        """Put the clocks back to the real time."""
        return self._set_clock(0.0, what="present", seconds=-self.ahead_s)

    def _set_clock(self, ahead_s: float, **note: object) -> Json:
        self.clock.advance(ahead_s - self.ahead_s)
        self.dev.advance(ahead_s - self.ahead_s)
        self.ahead_s = ahead_s
        return self.publish({"kind": "note", "ahead_s": ahead_s, **note})

    async def flush(self) -> Json:
        """Empty the store."""
        await self.dev.flush()
        return self.publish({"kind": "note", "what": "flush"})

    def set_store_up(self, up: bool) -> Json:
        """Take the store down, or up again."""
        self.dev.set_store_up(up)
        what = "up" if up else "down"
        return self.publish({"kind": "note", "what": what, "store_up": self.dev.is_store_up})

    def publish(self, event: Json) -> Json:
        """Number the event, keep it in place of an earlier one of the same key, and
        wake who waits."""
        self._last_id += 1
        event = {"key": self._last_id, "at": self.clock(), **event, "id": self._last_id}
        self._events[event["key"]] = event
        if len(self._events) > MOST_EVENTS:
            del self._events[next(iter(self._events))]
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
        newer = [event for event in self._events.values() if event["id"] > last_id]
        return sorted(newer, key=lambda event: int(event["id"]))

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
        return value and self.dev.open_cookie(value, outcome.message.pair)


def _sending(draft: Draft, message: Inbound) -> Json:
    """The event of a text that is on its way."""
    return {
        "kind": "exchange",
        "pending": True,
        "ticket": draft.ticket,
        "sid": message.sid,
        "from": message.from_,
        "to": message.to,
        "body": message.body,
        "segments": asdict(segments(message.body)),
        "cookie": draft.cookie,
        "forged": draft.forged,
        "twice": draft.deliveries > 1,
        "hops": 0,
        "replies": [],
    }


def cookie_value(header: str | None) -> str | None:
    """The value of smsd's cookie in a Cookie or Set-Cookie header."""
    pairs = (part.strip().partition("=") for part in (header or "").split(";"))
    return next((value for key, _, value in pairs if key == "smsd"), None)


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
