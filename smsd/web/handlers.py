"""HTTP: the only file that says a status. The public listener's two webhooks, the admin listener's four
pages.

An answer to a request that is refused has an empty body. Nothing of a request gets into a log from here but
its MessageSid, once its signature was checked.
"""

import logging
from collections.abc import Callable
from typing import Any

import msgspec
from tornado.httputil import parse_cookie
from tornado.routing import Rule
from tornado.web import Application, HTTPError, RequestHandler

from smsd.conversation import cookie
from smsd.errors import (
    Malformed,
    Rejected,
    SignatureMismatch,
    SignatureMissing,
    TooLarge,
    WrongAccount,
)
from smsd.exchange.exchange import Answer, Exchange
from smsd.telemetry import logs
from smsd.telemetry.metrics import Metrics
from smsd.twilio.diagnosis import ADVICE
from smsd.twilio.message import Delivery, Message
from smsd.web.gate import MAX_BODY_BYTES, Gate
from smsd.web.listener import Listener, Request, Response

log = logging.getLogger("smsd.http")

IDLE_CONNECTION_S = 75.0
SLOW_BODY_S = 15.0  # Twilio gives up after 15 s
PATIENCE_S = 2.0
"""Beyond capacity messages wait in a queue; while the first of it waits longer, new ones are shed."""

STATUS: dict[type[Rejected], int] = {
    SignatureMissing: 403,
    SignatureMismatch: 403,
    WrongAccount: 403,
    Malformed: 400,
    TooLarge: 413,
}


class _Silent(RequestHandler):
    """No body in an error, whatever went wrong; 405 with Allow; every request timed."""

    handler = "other"
    allow = "POST"
    metrics: Metrics

    def begin(self, metrics: Metrics) -> None:
        """To be called by `initialize`: `prepare` is left out for a method or a body that Tornado refuses."""
        self.metrics = metrics
        metrics.under_way += 1

    def write_error(self, status_code: int, **_: Any) -> None:
        self.clear()
        self.set_status(status_code)
        if status_code == 405:
            self.set_header("Allow", self.allow)
        self.finish()

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:  # noqa: ARG002 - Tornado names them
        """Tornado would log the request with its headers and the client's address."""
        if not isinstance(value, HTTPError):
            logs.event(log, logging.ERROR, "request failed", handler=self.handler, error=value)

    def on_finish(self) -> None:
        self.metrics.under_way -= 1
        self.metrics.took(self.handler, self.get_status(), self.request.request_time())


class _Nothing(_Silent):
    """Every path that is not ours."""

    def initialize(self, metrics: Metrics) -> None:
        self.begin(metrics)

    def prepare(self) -> None:
        raise HTTPError(404)


class _Webhook:
    """What both webhooks share: only what Twilio signed passes; no body in an error; every request timed."""

    handler: str

    def __init__(self, gate: Gate, exchange: Exchange, metrics: Metrics) -> None:
        self.gate = gate
        self.exchange = exchange
        self.metrics = metrics

    async def serve(self, request: Request) -> Response:
        """The answer, whatever happens."""
        try:
            response = await self._response(request)
        except Exception as error:  # noqa: BLE001 - our own mistake: Twilio is told at once, and we in the log
            logs.event(log, logging.ERROR, "request failed", handler=self.handler, error=error)
            response = Response(500)
        self.metrics.took(self.handler, response.status, request.age_s())
        return response

    def shed(self, request: Request) -> Response:
        """503 now: Twilio goes to the fallback URL, and does not wait for an answer that comes too late."""
        self.metrics.took(self.handler, 503, request.age_s())
        return Response(503)

    async def _response(self, request: Request) -> Response:
        if request.method != "POST":
            return Response(405, {"Allow": "POST"})
        try:
            self._check_signature(request)
            return await self.post(request)
        except Rejected as rejected:
            self.metrics.rejected.labels(rejected.reason).inc()
            return Response(STATUS[type(rejected)])

    async def post(self, request: Request) -> Response:
        """The answer to a request that Twilio signed, or `Rejected`."""
        raise NotImplementedError

    def _check_signature(self, request: Request) -> None:
        try:
            key = self.gate.check(
                request.target,
                request.body,
                request.form,
                request.header("X-Twilio-Signature"),
                request.header("X-Twilio-Webhooks-Signature-Settings"),
            )
        except SignatureMismatch:
            self._explain(request)
            raise
        self.metrics.signed(key)

    def _explain(self, request: Request) -> None:
        cause = self.gate.explain(request.target, request.form, request.headers)
        self.metrics.mismatches.labels(cause or "unknown").inc()
        if cause:
            logs.event(
                log, logging.WARNING, "signature mismatch", cause=cause, advice=ADVICE[cause]
            )


class Inbound(_Webhook):
    """POST /sms: a message in, TwiML and a cookie out."""

    handler = "sms"

    async def post(self, request: Request) -> Response:
        message = Message.from_params(request.form)
        self.gate.check_account(message.account_sid)
        received = request.header("Cookie")
        answer = await self.exchange.answer(
            message, parse_cookie(received).get(cookie.NAME) if received else None
        )
        self._tell(message, answer, request.age_s())
        headers = {"Content-Type": "text/xml; charset=utf-8", "Set-Cookie": answer.set_cookie}
        return Response(200, headers, answer.twiml)

    def _tell(self, message: Message, answer: Answer, seconds: float) -> None:
        self.metrics.answered(answer)
        if message.channel == "sms":  # only there is charged by segments
            self.metrics.texted(answer.texts)
        if message.error_code:
            self.metrics.fallbacks.labels(message.error_code).inc()
        if answer.error:
            logs.event(log, logging.ERROR, "dialogue failed", sid=message.sid, error=answer.error)
        logs.event(
            log,
            logging.INFO,
            "message",
            conversation=answer.conversation.hex(),
            sid=message.sid,
            outcome=answer.outcome,
            count=answer.number,
            ms=round(seconds * 1000, 1),
        )


class Status(_Webhook):
    """POST /sms/status: what became of a message that was sent."""

    handler = "status"

    async def post(self, request: Request) -> Response:
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
        return Response(204)


def public_listener(
    gate: Gate,
    exchange: Exchange,
    metrics: Metrics,
    *,
    prefix: str,
    extra: list[Rule | tuple[Any, ...]],
) -> Listener:
    """The public listener. `extra` are the development server's pages."""
    inbound, status = Inbound(gate, exchange, metrics), Status(gate, exchange, metrics)
    webhooks: dict[str, _Webhook] = {}
    for path in (prefix, ""):  # an ingress may strip the prefix or not
        webhooks |= {f"{path}/sms": inbound, f"{path}/sms/status": status}
    others = Application(
        extra,
        default_handler_class=_Nothing,
        default_handler_args={"metrics": metrics},
        log_function=lambda _handler: None,  # every event is logged where it happens
    )

    def announced(length: str) -> None:
        """A body announced too large is refused by Tornado without a word to us."""
        if _too_large(length):
            metrics.rejected.labels(TooLarge.reason).inc()

    return Listener(
        webhooks,
        others,
        announced,
        idle_s=IDLE_CONNECTION_S,
        body_s=SLOW_BODY_S,
        patience_s=PATIENCE_S,
    )


def _too_large(length: str) -> bool:
    """Of a Content-Length as received: also thousands of digits, or "²", which is a digit and no number."""
    is_number = len(length) > 4 and length.isascii() and length.isdigit()
    return is_number and (len(length) > 9 or int(length) > MAX_BODY_BYTES)


class _Page(_Silent):
    handler = "admin"
    allow = "GET, HEAD"

    def initialize(self, page: "Callable[[RequestHandler], None]", metrics: Metrics) -> None:
        self.page = page
        self.metrics = metrics

    def get(self) -> None:
        self.set_header("Cache-Control", "no-store")
        self.page(self)

    head = get

    def compute_etag(self) -> None:
        """None: what is asked here is asked for its latest state."""

    def on_finish(self) -> None:
        """Scrapes and probes are not the service's requests."""


class AdminApplication(Application):
    """The admin listener: for Prometheus, the kubelet and people."""

    def __init__(
        self,
        metrics: Metrics,
        *,
        ready: Callable[[], bool],
        status: Callable[[], dict[str, object]],
    ) -> None:
        def expose(page: RequestHandler) -> None:
            text, content_type = metrics.expose(page.request.headers.get("Accept", ""))
            page.set_header("Content-Type", content_type)
            page.finish(text)

        def live(page: RequestHandler) -> None:
            page.finish("alive\n")

        def readiness(page: RequestHandler) -> None:
            page.set_status(200 if ready() else 503)
            page.finish("ready\n" if ready() else "draining\n")

        def tell_status(page: RequestHandler) -> None:
            page.set_header("Content-Type", "application/json")
            page.finish(msgspec.json.encode(status()) + b"\n")

        pages = {"/metrics": expose, "/livez": live, "/readyz": readiness, "/status": tell_status}
        super().__init__(
            [(path, _Page, {"page": page, "metrics": metrics}) for path, page in pages.items()],
            default_handler_class=_Nothing,
            default_handler_args={"metrics": metrics},
            log_function=lambda _handler: None,
        )
