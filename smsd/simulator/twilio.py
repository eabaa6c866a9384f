"""The engine: Twilio's cookie jar, opt-outs, limits of replies, and faults on demand.

Does no IO; clock and randomness are arguments. One webhook call is `webhook_call`'s,
one document is `twiml`'s; what lasts longer than a call is kept here.
"""

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random, SystemRandom

from smsd.simulator import inbound as forms
from smsd.simulator.jar import Jar, Reading
from smsd.simulator.optout import AUTOMATIC, answered_keyword, keyword
from smsd.simulator.twiml import MAX_MESSAGES, Document, MessageVerb
from smsd.simulator.values import Failure, Flow, Inbound, Notice, Outbound, Outcome, Response
from smsd.simulator.webhook import Account, WebhookUrl
from smsd.simulator.webhook_call import WebhookCall

MAX_RUN = 30  # replies between two numbers, each less than 30 s after the previous one (14107)
RUN_GAP_S = 30.0


def ignore(_: object) -> None:
    """Do nothing: the default callback."""


class Clock:
    """A clock that can be moved. Calling it returns the time in seconds since the
    epoch.

    >>> clock = Clock(lambda: 1000.0)
    >>> clock.advance(hours=1)
    >>> clock()
    4600.0
    """

    def __init__(self, source: Callable[[], float] = time.time) -> None:
        self._source = source
        self._ahead_s = 0.0

    def __call__(self) -> float:
        """The time now."""
        return self._source() + self._ahead_s

    def advance(self, seconds: float = 0, *, hours: float = 0) -> None:
        """Move the clock forward, or back if the time is negative."""
        self._ahead_s += seconds + 3600 * hours


@dataclass(frozen=True, slots=True)
class Cookies:
    """Which cookie a delivery carries, and whether the jar keeps the one that comes
    back.

    send  the Cookie header to send; None for what the jar holds
    back  send the cookie from this many messages ago, as a request that started too early
    omit  send none
    keep  whether the answer's cookie reaches the jar

    `JAR` is the default. `LOST` sends none, `STALE` the one before the last,
    `FORGETFUL` does not keep what comes back.
    """

    send: str | None = None
    back: int = 0
    omit: bool = False
    keep: bool = True


JAR = Cookies()
LOST = Cookies(omit=True)  # Twilio: cookies are "occasionally absent"
STALE = Cookies(back=1)  # and "occasionally stale"
FORGETFUL = Cookies(keep=False)  # the answer's cookie never reaches the jar


class Twilio:
    """Twilio's side of messaging. Several accounts may share it.

    clock    returns the time in seconds since the epoch; a `Clock` can be moved
    random   makes ids
    reading  how to read the four-hour rule for cookies; see `jar`
    """

    def __init__(
        self,
        clock: Callable[[], float] | None = None,
        random: Random | None = None,
        reading: Reading = "set",
    ) -> None:
        self.clock = clock or Clock()
        self.random = random or SystemRandom()
        self.jar = Jar(self.clock, reading)
        self.opted_out: set[tuple[str, str, str]] = set()
        self._runs: dict[tuple[str, str, str], tuple[int, float]] = {}

    def compose(
        self,
        account: Account,
        body: str,
        from_: str,
        to: str,
        *,
        sid: str | None = None,
        media: Sequence[tuple[str, str]] = (),
        segments: int = 1,
        extra: Mapping[str, str] | None = None,
        is_machine_made: bool = False,
    ) -> Inbound:
        """Compose a message that may be delivered now, later, twice, out of order, or
        never.

        account          whose number is texted
        body             the text
        from_, to        sender and number, with a channel prefix such as `whatsapp:`
        sid              its MessageSid; a new one by default
        media            (URL, content type) of each attachment
        segments         the value of NumSegments
        extra            parameters to add or replace
        is_machine_made  Twilio takes the text for a machine's, and does not call the webhook
        """
        kind = keyword(body) if account.advanced_opt_out else None
        more = {"media": media, "segments": segments, "opt_out_type": kind, "extra": extra}
        message = forms.build(account.sid, body, from_, to, self.random, sid=sid, **more)  # type: ignore[arg-type]
        return replace(message, is_machine_made=is_machine_made)

    def deliver(
        self,
        account: Account,
        message: Inbound,
        cookies: Cookies = JAR,
        on_reply: Callable[[Outbound], None] = ignore,
        on_hop: Callable[[int], None] = ignore,
    ) -> Flow:
        """Deliver a message once: a generator of requests to perform.

        `on_reply` is called for each reply at the moment when it is sent, which for a
        text before a `<Redirect>` is long before the end; `on_hop` with the number of
        each `<Redirect>`, from 1, before Twilio follows it. Returns the `Outcome`.
        """
        if message.is_machine_made:
            notice = Notice(30039, "looks machine-made: the webhook is not called", warning=True)
            return Outcome(message, errors=(notice,))
        began_s = self.clock()
        call = WebhookCall(
            account,
            self.clock,
            new_token(self.random),
            cookies=self._cookie_header(message, cookies),
            jar=self.jar if cookies.keep else None,
            pair=message.pair,
        )
        automatic = self._opt_out(message)
        replies: list[Outbound] = []
        notices: list[Notice] = []
        positions = itertools.count()  # of the messages of all documents

        def receive(document: Document) -> None:
            notices.extend(document.notices)
            after_s = self._since(began_s)
            for one in document.messages:
                sent = self._send(message, one, next(positions), after_s)
                if isinstance(sent, Notice):
                    notices.append(sent)
                    continue
                replies.append(sent)
                on_reply(sent)

        hops = yield from call.message(message, receive, on_hop)
        elapsed_s = self._since(began_s)
        return Outcome(
            message,
            tuple(replies),
            tuple(notices),
            tuple(call.attempts),
            automatic,
            hops=hops,
            waited_s=replies[-1].after_s if replies else elapsed_s,
            elapsed_s=elapsed_s,
        )

    def status(
        self,
        account: Account,
        message: Inbound,
        reply_sid: str,
        status: str,
        error_code: int | None = None,
        *,
        url: str | None = None,
    ) -> Flow:
        """Post one status callback for a reply: a generator, as `deliver`.

        url  where to; by default the account's `status_url`

        Carries no cookies: Twilio documents none for status callbacks. Raises
        ValueError if there is no URL.
        """
        params = forms.status_form(message, reply_sid, status, error_code)
        call = WebhookCall(account, self.clock, new_token(self.random))
        target = url or account.status_url
        if target is None:
            raise ValueError("neither a statusCallback nor the account's status URL is known")
        began_s = self.clock()
        document = yield from call.document(WebhookUrl.parse(target), params)
        elapsed_s = self._since(began_s)
        return Outcome(
            message,
            errors=tuple(document.notices),
            attempts=tuple(call.attempts),
            waited_s=elapsed_s,
            elapsed_s=elapsed_s,
        )

    def statuses(self, *, delivered: bool = True) -> list[str]:
        """The statuses of one reply, in a random order: Twilio guarantees none."""
        order = ["queued", "sent", "delivered" if delivered else "undelivered"]
        self.random.shuffle(order)
        return order

    def _since(self, began_s: float) -> float:
        """Seconds since then, without the noise that subtracting two dates leaves
        behind."""
        return round(self.clock() - began_s, 4)

    def _cookie_header(self, message: Inbound, cookies: Cookies) -> str | None:
        if cookies.omit:
            return None
        if cookies.send is not None:
            return cookies.send
        return (
            self.jar.stale(message.pair, cookies.back)
            if cookies.back
            else self.jar.header(message.pair)
        )

    def _opt_out(self, message: Inbound) -> str | None:
        """Opt the sender out or in if the body says so; returns Twilio's own answer."""
        kind = answered_keyword(message)
        if kind is None:
            return None
        if kind == "STOP":
            self.opted_out.add(message.pair)
        elif kind == "START":
            self.opted_out.discard(message.pair)
        return AUTOMATIC[kind]

    def _send(
        self, message: Inbound, one: MessageVerb, position: int, after_s: float
    ) -> Outbound | Notice:
        """Send one `<Message>`, or say why Twilio does not."""
        if position >= MAX_MESSAGES:
            return Notice(14109, "more than 10 messages in answer to one")
        if message.pair in self.opted_out:
            return Notice(21610, "the recipient has opted out")
        if not self._within_run(message.pair):
            return Notice(14107, "more than 30 replies, each less than 30 s after the previous one")
        sid = forms.new_sid("MM" if one.media else "SM", self.random)
        to, from_ = one.to or message.from_, one.from_ or message.to
        return Outbound(
            sid, from_, to, one.body, one.media, one.status_callback, one.action, after_s
        )

    def _within_run(self, pair: tuple[str, str, str]) -> bool:
        count, last_s = self._runs.get(pair, (0, float("-inf")))
        now = self.clock()
        count = count + 1 if now - last_s < RUN_GAP_S else 1
        if count > MAX_RUN:
            return False
        self._runs[pair] = count, now
        return True


def new_token(random: Random) -> str:
    """A new value for I-Twilio-Idempotency-Token."""
    return f"{random.getrandbits(128):032x}"


def perform_all(flow: Flow, perform: Callable[..., Response | Failure]) -> Outcome:
    """Run a flow to its end with a function that performs one request; returns the
    outcome."""
    try:
        request = next(flow)
        while True:
            request = flow.send(perform(request))
    except StopIteration as stop:
        outcome: Outcome = stop.value
        return outcome
