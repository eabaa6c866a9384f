"""The two webhooks, /sms and /sms/status, as handlers of a Tornado application.

They turn domain errors into HTTP statuses, count what happened, and log it. A request
that is refused gets an empty body. Of a request, the log gets the MessageSid only, and
only after the signature was checked.

The signature covers the form as it was sent. So the form is read as raw bytes, from
`request.body_arguments`; Tornado's `get_body_argument` decodes and strips.
"""

import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal

from tornado.routing import Rule
from tornado.web import Application, HTTPError, RequestHandler

from smsd.errors import (
    Malformed,
    Rejected,
    SignatureMismatch,
    SignatureMissing,
    TooLarge,
    WrongAccount,
)
from smsd.exchange.events import CookieState
from smsd.exchange.exchange import Exchange
from smsd.telemetry import logs
from smsd.telemetry.metrics import Metrics
from smsd.twilio.delivery import Delivery
from smsd.twilio.diagnosis import ADVICE
from smsd.twilio.markup import Part, Redirect, twiml_of
from smsd.twilio.message import FetchMedia, Message
from smsd.twilio.reply import Reply
from smsd.twilio.signature import Params
from smsd.web import cookies, pages, refusals
from smsd.web.admission import Admission
from smsd.web.gate import Gate, hop_of
from smsd.web.refusals import RefusalKind, Refusals

log = logging.getLogger("smsd.http")

FORM = "application/x-www-form-urlencoded"

REFUSED: Mapping[type[Rejected], tuple[int, RefusalKind]] = {
    SignatureMissing: (403, "signature_missing"),
    WrongAccount: (403, "account"),
    TooLarge: (413, "too_large"),
}
"""The status of a refusal, and its kind."""


class WebhookHandler(RequestHandler):
    """What both webhooks share: only requests that Twilio signed get through."""

    label: Literal["sms", "status"]
    """The label `handler` of smsd_request_duration_seconds."""

    media_type: str
    """Of the body, in lower case and without parameters."""

    def initialize(
        self, gate: Gate, metrics: Metrics, refusals: Refusals, admission: Admission
    ) -> None:
        """The request has arrived completely. Tornado calls this from `__init__`."""
        self.gate = gate
        self.metrics = metrics
        self.refusals = refusals
        self._admission = admission
        self._arrived_s = time.monotonic()
        self._is_shed = admission.is_late
        admission.arrive()
        self._prepare_form()

    def _prepare_form(self) -> None:
        """Have Tornado read what is a form, however its media type is written, and
        nothing else: Twilio sends no multipart, and what is shed is not worth the time.
        """
        headers = self.request.headers
        content_type = headers.get("Content-Type", "")
        # If the header came twice, the first one counts.
        self.media_type = content_type.partition(",")[0].partition(";")[0].strip().lower()
        is_form = self.media_type == FORM and not self._is_shed
        if is_form != content_type.startswith((FORM, "multipart/form-data")):
            headers["Content-Type"] = FORM if is_form else ""

    def prepare(self) -> Awaitable[None] | None:
        """Wait until the request may begin, or shed it."""
        return self._shed() if self._is_shed else self._admission.turn()

    async def _shed(self) -> None:
        """Answer 503 at once, so that Twilio uses the fallback URL instead of waiting.
        Until the answer is finished, Tornado reads nothing more from the connection.
        """
        self.set_status(503)
        self.set_header("Content-Length", "0")
        self.flush()
        self._count_request()
        await self._admission.hold()
        self.finish()

    async def post(self) -> None:
        """Serve the request if Twilio signed it."""
        try:
            self._check_signature()
            await self.serve()
        except SignatureMismatch:
            self._explain()
            self.set_status(403)
        except Malformed:
            self._refuse(400, self.kind_of_form())
        except Rejected as rejected:
            self._refuse(*REFUSED[type(rejected)])

    async def serve(self) -> None:
        """Answer a request that Twilio signed, or raise `Rejected`."""
        raise NotImplementedError

    def kind_of_form(self) -> RefusalKind:
        """What a signed form is that cannot be served here."""
        raise NotImplementedError

    @property
    def form(self) -> Params:
        """Names, read as Latin-1, to raw values. Empty unless the body is a form."""
        return self.request.body_arguments

    @property
    def target(self) -> str:
        """Path and query, as they were sent."""
        return self.request.uri or ""

    def header(self, name: str, separator: str = ",") -> str:
        """All values of a header of the request, joined; "" if there is none."""
        return separator.join(self.request.headers.get_list(name))

    def _check_signature(self) -> None:
        key = self.gate.check(
            self.target,
            self.request.body,
            self.form,
            self._signature,
            self.header("X-Twilio-Webhooks-Signature-Settings"),
        )
        self.metrics.signed(key)

    @property
    def _signature(self) -> str:
        """X-Twilio-Signature; once, if a proxy sent the same one twice."""
        values = self.request.headers.get_list("X-Twilio-Signature")
        if len(values) == 1 and "," not in values[0]:
            return values[0]
        return ",".join(dict.fromkeys(",".join(values).replace(" ", "").split(",")))

    def _explain(self) -> None:
        self.refusals.count("signature_mismatch")
        cause = self.gate.explain(self.target, self.form, self.request.headers)
        self.metrics.mismatches.labels(cause or "unknown").inc()
        if cause:
            logs.event(
                log, logging.WARNING, "signature mismatch", cause=cause, advice=ADVICE[cause]
            )

    def _refuse(self, status: int, kind: RefusalKind) -> None:
        self.refusals.refuse(kind)
        self.set_status(status)

    # --- what Tornado calls besides

    def set_default_headers(self) -> None:
        """Say no more than is needed."""
        self.clear_header("Server")
        self.clear_header("Content-Type")

    def write_error(self, status_code: int, **_: Any) -> None:
        """Answer what Tornado refuses, or a bug of ours, with an empty body."""
        if status_code == 405:
            self.set_header("Allow", "POST")
            is_signed = bool(self._signature)
            self.refusals.refuse(
                refusals.kind_of_method(is_signed=is_signed, query=self.request.query)
            )
        elif status_code == 400:  # a form that Tornado cannot read
            self.refusals.refuse("not_http")
        self.finish()

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:  # noqa: ARG002 - Tornado's names
        """Tornado would log the request with its headers and the client's address."""
        if not isinstance(value, HTTPError):
            logs.event(log, logging.ERROR, "request failed", handler=self.label, error=value)

    def on_finish(self) -> None:
        """The answer is written."""
        self._admission.leave()
        if not self._is_shed:
            self._admission.release_two()
            self._count_request()

    def _count_request(self) -> None:
        self.metrics.took(self.label, self.get_status(), time.monotonic() - self._arrived_s)


class MessageHandler(WebhookHandler):
    """POST /sms: takes a message, answers with TwiML and a cookie."""

    label = "sms"

    def initialize(  # type: ignore[override]
        self, *, exchange: Exchange, fetch_media: FetchMedia, ttl_s: int, **shared: Any
    ) -> None:
        """See `WebhookHandler.initialize`."""
        super().initialize(**shared)
        self._exchange = exchange
        self._fetch_media = fetch_media
        self._ttl_s = ttl_s

    async def serve(self) -> None:
        message = Message.from_params(self.form, self._fetch_media)
        self.gate.check_account(message.account_sid)
        if message.error_code:
            self.metrics.fallbacks.labels(message.error_code).inc()
        hop = hop_of(self.target)
        answer = await self._exchange.answer(message, *self._received_copies(), hop)
        twiml = answer.twiml
        if answer.come_again:
            self.metrics.redirected()
            url = self.gate.hop_url(self.target, hop + 1)
            parts = [Part(text) for text in Reply(answer.say).messages]
            twiml = twiml_of(parts, Redirect(url, {"method": "POST"}))
        self.set_header("Content-Type", "text/xml; charset=utf-8")
        signed_value = self.create_signed_value(cookies.NAME, answer.copy, version=2)
        self.set_header("Set-Cookie", cookies.set_cookie_line(signed_value, self._ttl_s))
        self.finish(twiml)

    def kind_of_form(self) -> RefusalKind:
        return refusals.kind_of_form(self.form, self.media_type)

    def _received_copies(self) -> tuple[list[bytes], CookieState]:
        """The payloads of all cookies of ours whose signature is good; and what to say
        of the cookies if none of the payloads is of use.
        """
        values = cookies.values(self.header("Cookie", "; "))
        copies = [self.get_signed_cookie(cookies.NAME, each, **cookies.READING) for each in values]
        return [copy for copy in copies if copy], "forged" if values else "absent"


class StatusHandler(WebhookHandler):
    """POST /sms/status: takes the news about a message that was sent."""

    label = "status"

    async def serve(self) -> None:
        if refusals.is_inbound_message(self.form):
            raise Malformed("an inbound message, not a status callback")
        delivery = Delivery.from_params(self.form)
        self.gate.check_account(delivery.account_sid)
        self.metrics.deliveries.labels(delivery.status, delivery.error_code).inc()
        logs.event(
            log,
            logging.INFO,
            "delivery",
            sid=delivery.sid,
            status=delivery.status,
            error_code=delivery.error_code,
        )
        self.set_status(204)

    def kind_of_form(self) -> RefusalKind:
        kind = refusals.kind_of_form(self.form, self.media_type)
        if kind not in ("malformed", "status_callback"):
            return kind
        return "inbound_message" if refusals.is_inbound_message(self.form) else "malformed"


def public_application(
    gate: Gate,
    exchange: Exchange,
    metrics: Metrics,
    *,
    prefix: str,
    ttl_s: int,
    refused: Refusals,
    admission: Admission,
    fetch_media: FetchMedia,
    extra: list[Rule | tuple[Any, ...]],
    is_ready: Callable[[], bool],
    **signing_settings: Any,
) -> Application:
    """The application of the public listener.

    ttl_s             seconds from the last message until the conversation is over
    fetch_media       downloads what came with a message
    extra             the development server's pages
    signing_settings  `cookies.signing_settings`, which may change while smsd runs
    """
    shared = {"gate": gate, "metrics": metrics, "refusals": refused, "admission": admission}
    of_message = {"exchange": exchange, "fetch_media": fetch_media, "ttl_s": ttl_s, **shared}
    base = f"(?:{re.escape(prefix)})?"  # an ingress may strip the prefix or not
    return pages.application(
        {f"{base}/healthz": pages.readiness(is_ready)},
        metrics,
        refused,
        admission,
        [
            (f"{base}/sms/?", MessageHandler, of_message),
            (f"{base}/sms/status/?", StatusHandler, shared),
            *extra,
        ],
        **signing_settings,
    )
