"""The offline Twilio: behaves as Twilio's messaging webhook client does, without a number or a network.

It is the tests' client, the engine of `smsd phone` and of the phone page. Production never imports it.

    from smsd.simulator import Client

    async with Client("https://sms.example.com/sms", token=TOKEN, connect_to="127.0.0.1:8080") as client:
        outcome = await client.text("hi", from_="+14158675309", to="+14158141829")
        assert outcome.text == "Thanks for the new message! Rey has messaged +14158141829 1 times"

`Outcome` has `.text` (replies joined by newlines, None without any), `.replies`, `.status`, `.codes` and
`.errors` (Twilio's error codes), `.attempts` (each with `.request`, `.result`, times), `.twiml`, `.cookie`
(Set-Cookie received), `.cookie_sent`, `.automatic` (Twilio's own answer to STOP …), `.hops` (`<Redirect>` verbs
followed), `.waited_s` (until the last reply), `.elapsed_s`, `.message`.

- Another person, number, kind of message: `text("hi", from_=…, to=…, sid="SM…", media=[(url, type)],
  extra={"Foo": ""})`; WhatsApp by `from_="whatsapp:+1415…", to="whatsapp:+1415…"`.
- Deliver later, twice, in another order, to several replicas: `message = client.compose("hi")`, then
  `await client.deliver(message)` as often as you like, or
  `await client.everywhere(message, ["127.0.0.1:8081", "127.0.0.1:8082"])`.
- Cookies: `text("hi", cookies=LOST)` sends none, `STALE` the one before the last, `FORGETFUL` keeps no
  new one, `Cookies(send="smsd=…")` any other, `Cookies(back=3)` the one of three answers ago.
  The jar is `client.twilio.jar`.
- Redirects: every document of a `<Redirect>` chain has its own time-outs, and its texts are sent when it is
  reached: `text("hi", on_reply=print)` shows them as they come, `on_hop=print` the redirects. Overrides after `#` belong to the URL that carries
  them: a `<Redirect>` without any has Twilio's defaults.
- Time: `clock = Clock(); Client(…, twilio=Twilio(clock)); clock.advance(hours=4)`. The other reading of
  Twilio's four-hour rule: `Twilio(clock, reading="inactivity")`.
- Retries and time-outs stand after `#` of the URL as with Twilio: `https://…/sms#ct=500&rt=2000&rc=2&rp=all`.
- Fallback URL, shared keys, sub-accounts, unsigned requests: `Client(account=Account(sid, token, url,
  fallback_url=…, shared_key=SharedKey("id", "secret"), signed=False))`.
- Status callbacks: `await client.status(outcome, "delivered", url="https://sms.example.com/sms/status")`.
- Any bytes: `await client.raw(b"GET / HTTP/1.1\\r\\n…")`; a tampered request:
  `await client.perform(dataclasses.replace(outcome.attempts[0].request, body=b"…"))`.
- In threads: `BlockingClient(…).text("hi")`, same arguments, same outcome.
- Without sockets: `perform_all(twilio.deliver(account, message), perform)` with a function from `Request` to
  `Answer` or `Failure`.
"""

from smsd.simulator.client import BlockingClient, Client
from smsd.simulator.jar import Jar
from smsd.simulator.twilio import (
    FORGETFUL,
    JAR,
    LOST,
    STALE,
    Clock,
    Cookies,
    Twilio,
    keyword,
    perform_all,
)
from smsd.simulator.values import (
    Answer,
    Attempt,
    Failure,
    Flow,
    Inbound,
    Notice,
    Outcome,
    Reply,
    Request,
)
from smsd.simulator.webhook import Account, SharedKey, Webhook

__all__ = [
    "FORGETFUL",
    "JAR",
    "LOST",
    "STALE",
    "Account",
    "Answer",
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
    "Outcome",
    "Reply",
    "Request",
    "SharedKey",
    "Twilio",
    "Webhook",
    "keyword",
    "perform_all",
]
