"""What Twilio saw, and whether it keeps the promises: a recorder around the offline
Twilio, and a checker.

The checker knows nothing of how smsd works. It reads only what came over HTTP.
"""

import re
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Self

from smsd.simulator import JAR, Client, Cookies, Inbound, Twilio
from tests.processes import ACCOUNT, PUBLIC_URL, TOKEN, Smsd

TO = "+14158141829"
REPLY = re.compile(rb"<Message>(.*?(\d+) times)</Message>")


@dataclass(frozen=True)
class Delivery:
    """One delivery of one message. Times in seconds on the monotonic clock."""

    conversation: str
    sid: str
    start_s: float
    end_s: float
    status: int | None
    """None if no answer came."""
    reply: bytes
    """The TwiML received."""
    count: int | None
    """The number in the reply."""
    replica: str

    @property
    def took_s(self) -> float:
        return self.end_s - self.start_s


class Recorder:
    """The offline Twilio, writing down every delivery. A replica that is not named is
    drawn."""

    def __init__(
        self, replicas: Sequence[Smsd], *, seed: int = 1, url: str = f"{PUBLIC_URL}/sms"
    ) -> None:
        self.replicas = replicas
        self.random = Random(seed)
        self.history: list[Delivery] = []
        self.client = Client(
            url, token=TOKEN, sid=ACCOUNT, twilio=Twilio(random=self.random), to=TO
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.client.close()

    def compose(self, from_: str, body: str = "hi") -> Inbound:
        """A message to deliver later."""
        return self.client.compose(body, from_=from_)

    async def text(
        self, from_: str, replica: Smsd | None = None, cookies: Cookies = JAR
    ) -> Delivery:
        """A new message, delivered once."""
        return await self.deliver(self.compose(from_), replica, cookies)

    async def deliver(
        self, message: Inbound, replica: Smsd | None = None, cookies: Cookies = JAR
    ) -> Delivery:
        """A delivery of a message, perhaps not the first."""
        address = (replica or self.random.choice(self.replicas)).address
        start_s = time.monotonic()
        outcome = await self.client.deliver(message, cookies=cookies, connect_to=address)
        found = REPLY.search(outcome.twiml)
        delivery = Delivery(
            message.from_,
            message.sid,
            start_s,
            time.monotonic(),
            outcome.status,
            outcome.twiml,
            int(found[2]) if found else None,
            address,
        )
        self.history.append(delivery)
        return delivery

    def violations(self, *, gapless: bool = True) -> list[str]:
        """Whatever of this history breaks a promise."""
        return violations(self.history, gapless=gapless)


def violations(history: Iterable[Delivery], *, gapless: bool = True) -> list[str]:
    """Each broken promise in a sentence; none for a good history. Conversations are
    taken to begin at 1."""
    found = []
    by_conversation: dict[str, dict[str, list[Delivery]]] = defaultdict(lambda: defaultdict(list))
    for delivery in history:
        by_conversation[delivery.conversation][delivery.sid].append(delivery)
    for conversation, messages in by_conversation.items():
        for rule in (_unanswered, _answered_twice, _counted_double, _goes_back):
            found += [f"{conversation}: {problem}" for problem in rule(messages)]
        if gapless:
            found += [f"{conversation}: {problem}" for problem in _gaps(messages)]
    return found


_Messages = dict[str, list[Delivery]]


def _unanswered(messages: _Messages) -> Iterable[str]:
    for sid, deliveries in messages.items():
        for delivery in deliveries:
            if delivery.status != 200:
                yield f"{sid} was answered with {delivery.status} by {delivery.replica}"
            elif delivery.count is None:
                yield f"{sid} got a reply without a count: {delivery.reply!r}"


def _answered_twice(messages: _Messages) -> Iterable[str]:
    for sid, deliveries in messages.items():
        replies = {delivery.reply for delivery in deliveries if delivery.status == 200}
        if len(replies) > 1:
            yield f"{sid} got {len(replies)} replies: {sorted(replies)}"


def _counted_double(messages: _Messages) -> Iterable[str]:
    owners: dict[int, set[str]] = defaultdict(set)
    for count, sid in _counts(messages):
        owners[count].add(sid)
    for count, sids in owners.items():
        if len(sids) > 1:
            yield f"{count} was given to {sorted(sids)}"


def _gaps(messages: _Messages) -> Iterable[str]:
    counts = {count for count, _ in _counts(messages)}
    missing = sorted(set(range(1, max(counts, default=0) + 1)) - counts)
    if missing:
        yield f"nobody got {missing}"


def _goes_back(messages: _Messages) -> Iterable[str]:
    """A message first sent after another was first answered has the larger count."""
    spans = []
    for sid, deliveries in messages.items():
        answered = [delivery for delivery in deliveries if delivery.count is not None]
        if answered:
            start_s = min(delivery.start_s for delivery in deliveries)
            end_s = min(delivery.end_s for delivery in answered)
            spans.append((start_s, end_s, answered[0].count or 0, sid))
    for start_s, _, count, sid in spans:
        for _, end_s, earlier, other in spans:
            if end_s < start_s and earlier > count:
                yield f"{other} got {earlier}, and {sid} after it {count}"


def _counts(messages: _Messages) -> list[tuple[int, str]]:
    return [
        (delivery.count, sid)
        for sid, deliveries in messages.items()
        for delivery in deliveries
        if delivery.count is not None
    ]
