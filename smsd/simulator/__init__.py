"""The offline Twilio: texts a messaging webhook as Twilio would, without a number or a
network.

Use it to test a service on real sockets, or to try one at a prompt. It must import
nothing of the service under test, and production must never import it.

The idea: `Twilio` is a pure engine. It decides what to request, what an answer means,
what the sender gets and which of Twilio's error codes appear. `Client` and
`BlockingClient` perform its requests on sockets; a test may perform them in virtual
time instead.

    from smsd.simulator import Client

    async with Client("https://sms.example.com/sms", token=TOKEN, connect_to="127.0.0.1:8080") as client:
        outcome = await client.text("hi", from_="+14158675309", to="+14158141829")
        assert outcome.text == "Thanks for the new message! Rey has messaged +14158141829 1 times"

What came of a message stands in the `Outcome`: `.text` (replies joined by newlines,
None without any), `.replies`, `.status`, `.errors` and `.codes` (Twilio's error codes),
`.attempts` (each request with its result and times), `.twiml`, `.cookie` (received),
`.cookie_sent`, `.automatic` (Twilio's own answer to STOP and the like), `.hops`
(`<Redirect>` verbs followed), `.waited_s` (until the last reply), `.elapsed_s`,
`.message`.

- Another sender, number or kind of message: `text("hi", from_=…, to=…, sid="SM…",
  media=[(url, type)], extra={"Foo": ""})`; WhatsApp by `from_="whatsapp:+1415…"`.
- Later, twice, in another order, to several replicas: `message = client.compose("hi")`,
  then `await client.deliver(message)` as often as you like, or
  `await client.everywhere(message, ["127.0.0.1:8081", "127.0.0.1:8082"])`.
- Cookies: `text("hi", cookies=LOST)` sends none, `STALE` the one before the last,
  `FORGETFUL` keeps no new one, `Cookies(send="smsd=…")` sends any other, `Cookies(back=3)`
  the one of three answers ago. The jar is `client.twilio.jar`.
- Redirects: every document of a `<Redirect>` chain has its own time-outs and retries, and
  its texts are sent when it is reached. `text("hi", on_reply=print, on_hop=print)` shows
  replies and redirects as they happen. Connection overrides (`#rc=2&rp=all`) belong to the
  URL that carries them; a `<Redirect>` without any gets Twilio's defaults.
- Time: `clock = Clock(); Client(…, twilio=Twilio(clock)); clock.advance(hours=4)`. The
  other reading of Twilio's four-hour rule for cookies: `Twilio(clock, reading="inactivity")`.
- Retries and time-outs stand after the `#` of the URL: `https://…/sms#ct=500&rt=2000&rc=2&rp=all`.
- Fallback URL, shared keys, sub-accounts, unsigned requests:
  `Client(account=Account(sid, token, url, fallback_url=…, shared_key=SharedKey("id", "secret"), signed=False))`.
- Status callbacks: `await client.status(outcome, "delivered", url="https://sms.example.com/sms/status")`.
- Any bytes: `await client.raw(b"GET / HTTP/1.1\\r\\n…")`; a changed request:
  `await client.perform(dataclasses.replace(outcome.attempts[0].request, body=b"…"))`.
- In threads and scripts: `BlockingClient(…).text("hi")`, same arguments, same outcome.
- Without sockets: `perform_all(twilio.deliver(account, message), perform)` with a function
  from `Request` to `Response` or `Failure`. In virtual time, that function puts the clock
  forward by what the request took.

- A text that Twilio takes for a machine's (30039): `text("hi", is_machine_made=True)`.

Added in 0.1. New in 0.2: `hops`, `waited_s`, `on_reply`, `on_hop`, `action`,
`is_machine_made`; and `Answer`, `Reply` and `Webhook` are called `Response`, `Outbound`
and `WebhookUrl`, because the service has things of the old names.
"""

import warnings

from smsd.simulator.blocking import BlockingClient
from smsd.simulator.client import Client
from smsd.simulator.jar import Jar
from smsd.simulator.optout import keyword
from smsd.simulator.twilio import (
    FORGETFUL,
    JAR,
    LOST,
    STALE,
    Clock,
    Cookies,
    Twilio,
    perform_all,
)
from smsd.simulator.values import (
    Attempt,
    Failure,
    Flow,
    Inbound,
    Notice,
    Outbound,
    Outcome,
    Request,
    Response,
)
from smsd.simulator.webhook import Account, SharedKey, WebhookUrl

__all__ = [
    "FORGETFUL",
    "JAR",
    "LOST",
    "STALE",
    "Account",
    "Attempt",
    "BlockingClient",
    "Client",
    "Clock",
    "Cookies",
    "Failure",
    "Flow",
    "Inbound",
    "Jar",
    "Notice",
    "Outbound",
    "Outcome",
    "Request",
    "Response",
    "SharedKey",
    "Twilio",
    "WebhookUrl",
    "keyword",
    "perform_all",
]


_RENAMED = {"Answer": "Response", "Reply": "Outbound", "Webhook": "WebhookUrl"}


def __getattr__(name: str) -> object:
    """The names of 0.1, which collided with the service's own."""
    if name not in _RENAMED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn(
        f"smsd.simulator.{name} is now called {_RENAMED[name]}", DeprecationWarning, stacklevel=2
    )
    return globals()[_RENAMED[name]]
