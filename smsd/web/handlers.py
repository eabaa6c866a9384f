"""The two webhooks of the public listener: /sms and /sms/status.

They turn domain errors into HTTP statuses, count what happened, and log it. A request
that is refused gets an empty body. Of a request, the log gets the MessageSid only, and
only after the signature was checked.
"""

import logging
from collections.abc import Callable
from typing import Any

from tornado.routing import Rule

from smsd.errors import (
    Malformed,
    Rejected,
    SignatureMismatch,
    SignatureMissing,
    TooLarge,
    WrongAccount,
)
from smsd.exchange.exchange import Exchange
from smsd.telemetry import logs
from smsd.telemetry.metrics import Metrics
from smsd.twilio.delivery import Delivery
from smsd.twilio.diagnosis import ADVICE
from smsd.twilio.markup import Part, Redirect, twiml_of
from smsd.twilio.message import FetchMedia, Message
from smsd.twilio.reply import Reply
from smsd.web import cookies, pages, refusals
from smsd.web.gate import Gate, hop_of
from smsd.web.listener import Listener, WebhookRequest, WebhookResponse
from smsd.web.refusals import Refusals

log = logging.getLogger("smsd.http")

STATUS: dict[type[Rejected], int] = {
    SignatureMissing: 403,
    SignatureMismatch: 403,
    WrongAccount: 403,
    Malformed: 400,
    TooLarge: 413,
}


class _SignedWebhook:
    """What both webhooks share: only requests that Twilio signed get through."""

    handler: str

    def __init__(
        self, gate: Gate, exchange: Exchange, metrics: Metrics, refusals: Refusals
    ) -> None:
        self.gate = gate
        self.exchange = exchange
        self.metrics = metrics
        self.refusals = refusals

    async def serve(self, request: WebhookRequest) -> WebhookResponse:
        """Answer, whatever happens."""
        try:
            response = await self._response(request)
        except Exception as error:  # noqa: BLE001 - a bug of ours: answer Twilio at once, and log it
            logs.event(log, logging.ERROR, "request failed", handler=self.handler, error=error)
            response = WebhookResponse(500)
        self.metrics.took(self.handler, response.status, request.age_s())
        return response

    def shed(self, request: WebhookRequest) -> WebhookResponse:
        """Answer 503 at once, so that Twilio uses the fallback URL instead of waiting."""
        self.metrics.took(self.handler, 503, request.age_s())
        return WebhookResponse(503)

    async def post(self, request: WebhookRequest) -> WebhookResponse:
        """Answer a request that Twilio signed, or raise `Rejected`."""
        raise NotImplementedError

    def kind_of(self, request: WebhookRequest) -> str:
        """What a signed request is that cannot be served here; a key of
        `refusals.ADVICE`."""
        raise NotImplementedError

    async def _response(self, request: WebhookRequest) -> WebhookResponse:
        signature = _signature(request)
        if request.method != "POST":
            query = request.target.partition("?")[2]
            self.refusals.refuse(refusals.kind_of_method(is_signed=bool(signature), query=query))
            return WebhookResponse(405, {"Allow": "POST"})
        try:
            self._check_signature(request, signature)
            return await self.post(request)
        except SignatureMismatch as rejected:
            self._explain(request)
            return WebhookResponse(STATUS[type(rejected)])
        except Malformed:
            self.refusals.refuse(self.kind_of(request))
            return WebhookResponse(STATUS[Malformed])
        except Rejected as rejected:
            self.refusals.refuse(rejected.reason)
            return WebhookResponse(STATUS[type(rejected)])

    def _check_signature(self, request: WebhookRequest, signature: str) -> None:
        key = self.gate.check(
            request.target,
            request.body,
            request.form,
            signature,
            request.header("X-Twilio-Webhooks-Signature-Settings"),
        )
        self.metrics.signed(key)

    def _explain(self, request: WebhookRequest) -> None:
        self.refusals.count(SignatureMismatch.reason)
        cause = self.gate.explain(request.target, request.form, request.headers)
        self.metrics.mismatches.labels(cause or "unknown").inc()
        if cause:
            logs.event(
                log, logging.WARNING, "signature mismatch", cause=cause, advice=ADVICE[cause]
            )


class MessageWebhook(_SignedWebhook):
    """POST /sms: takes a message, answers with TwiML and a cookie."""

    handler = "sms"

    def __init__(
        self,
        gate: Gate,
        exchange: Exchange,
        metrics: Metrics,
        refusals: Refusals,
        fetch_media: FetchMedia,
    ) -> None:
        super().__init__(gate, exchange, metrics, refusals)
        self._fetch_media = fetch_media

    async def post(self, request: WebhookRequest) -> WebhookResponse:
        message = Message.from_params(request.form, self._fetch_media)
        self.gate.check_account(message.account_sid)
        if message.error_code:
            self.metrics.fallbacks.labels(message.error_code).inc()
        conversation = self.exchange.identify(message)
        cookie = self._cookie(request, conversation)
        hop = hop_of(request.target)
        answer = await self.exchange.answer(message, cookie, hop, conversation)
        twiml = answer.twiml
        if answer.come_again:
            self.metrics.redirected()
            url = self.gate.hop_url(request.target, hop + 1)
            parts = [Part(text) for text in Reply(answer.say).messages]
            twiml = twiml_of(parts, Redirect(url, {"method": "POST"}))
        headers = {"Content-Type": "text/xml; charset=utf-8", "Set-Cookie": answer.set_cookie}
        return WebhookResponse(200, headers, twiml)

    def kind_of(self, request: WebhookRequest) -> str:
        return refusals.kind_of_form(request.form, request.media_type)

    def _cookie(self, request: WebhookRequest, conversation: bytes) -> str | None:
        header = request.header("Cookie", "; ")
        return cookies.choose(header, self.exchange.cookies, conversation) if header else None


class StatusWebhook(_SignedWebhook):
    """POST /sms/status: takes the news about a message that was sent."""

    handler = "status"

    async def post(self, request: WebhookRequest) -> WebhookResponse:
        if refusals.is_inbound_message(request.form):
            raise Malformed("an inbound message, not a status callback")
        delivery = Delivery.from_params(request.form)
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
        return WebhookResponse(204)

    def kind_of(self, request: WebhookRequest) -> str:
        kind = refusals.kind_of_form(request.form, request.media_type)
        if kind not in ("malformed", "status_callback"):
            return kind
        return "inbound_message" if refusals.is_inbound_message(request.form) else "malformed"


def public_listener(
    gate: Gate,
    exchange: Exchange,
    metrics: Metrics,
    *,
    prefix: str,
    refused: Refusals,
    fetch_media: FetchMedia,
    extra: list[Rule | tuple[Any, ...]],
    is_ready: Callable[[], bool],
) -> Listener:
    """The public listener.

    `fetch_media` downloads what came with a message; `extra` are the development
    server's pages.
    """
    message = MessageWebhook(gate, exchange, metrics, refused, fetch_media)
    status = StatusWebhook(gate, exchange, metrics, refused)
    webhooks: dict[str, _SignedWebhook] = {}
    health: dict[str, pages.Page] = {}
    for path in (prefix, ""):  # an ingress may strip the prefix or not
        webhooks |= dict.fromkeys((f"{path}/sms", f"{path}/sms/"), message)
        webhooks |= dict.fromkeys((f"{path}/sms/status", f"{path}/sms/status/"), status)
        health[f"{path}/healthz"] = pages.readiness(is_ready)
    others = pages.application(health, metrics, refused, extra)
    return Listener(webhooks, others)


def _signature(request: WebhookRequest) -> str:
    """X-Twilio-Signature; once, if a proxy sent the same one twice."""
    values = request.headers.get_list("X-Twilio-Signature")
    if len(values) == 1 and "," not in values[0]:
        return values[0]
    return ",".join(dict.fromkeys(",".join(values).replace(" ", "").split(",")))
