"""HTTP: the only file that says a status. The public listener's two webhooks, the admin listener's four
pages.

An answer to a request that is refused has an empty body. Nothing of a request gets into a log from here but
its MessageSid, once its signature was checked.
"""

import logging
from collections.abc import Callable
from typing import Any

import msgspec
from tornado.httputil import HTTPServerRequest, parse_cookie
from tornado.routing import Rule
from tornado.web import Application, HTTPError, RequestHandler, _HandlerDelegate

from smsd import cookie, logs
from smsd.errors import Malformed, Rejected, SignatureMismatch, SignatureMissing, TooLarge, WrongAccount
from smsd.exchange import Answer, Exchange
from smsd.gate import MAX_BODY_BYTES, Gate
from smsd.message import Delivery, Message
from smsd.metrics import Metrics
from smsd.mismatch import ADVICE

log = logging.getLogger("smsd.http")

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

    def refuse(self, rejected: Rejected) -> None:
        self.metrics.rejected.labels(rejected.reason).inc()
        self.set_status(STATUS[type(rejected)])
        self.finish()


class _Nothing(_Silent):
    """Every path that is not ours."""

    def initialize(self, metrics: Metrics) -> None:
        self.begin(metrics)

    def prepare(self) -> None:
        raise HTTPError(404)


class _Webhook(_Silent):
    """What both webhooks share: only what Twilio signed passes."""

    def initialize(self, gate: Gate, exchange: Exchange, metrics: Metrics) -> None:
        self.begin(metrics)
        self.gate = gate
        self.exchange = exchange

    def check_signature(self) -> None:
        request = self.request
        try:
            key = self.gate.check(request.uri or "", request.body, request.body_arguments, request.headers)
        except SignatureMismatch:
            self._explain()
            raise
        self.metrics.signed(key)

    def _explain(self) -> None:
        cause = self.gate.explain(self.request.uri or "", self.request.body_arguments, self.request.headers)
        self.metrics.mismatches.labels(cause or "unknown").inc()
        if cause:
            logs.event(log, logging.WARNING, "signature mismatch", cause=cause, advice=ADVICE[cause])


class Inbound(_Webhook):
    """POST /sms: a message in, TwiML and a cookie out."""

    handler = "sms"

    async def post(self) -> None:
        try:
            self.check_signature()
            message = Message.from_params(self.request.body_arguments)
            self.gate.check_account(message.account_sid)
        except Rejected as rejected:
            self.refuse(rejected)
            return
        answer = await self.exchange.answer(message, self._cookie())
        self.set_header("Content-Type", "text/xml; charset=utf-8")
        self.set_header("Set-Cookie", answer.set_cookie)
        self.finish(answer.twiml)
        self._tell(message, answer)

    def _cookie(self) -> str | None:
        received = self.request.headers.get("Cookie")
        return parse_cookie(received).get(cookie.NAME) if received else None

    def _tell(self, message: Message, answer: Answer) -> None:
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
            ms=round(self.request.request_time() * 1000, 1),
        )


class Status(_Webhook):
    """POST /sms/status: what became of a message that was sent."""

    handler = "status"

    def post(self) -> None:
        try:
            self.check_signature()
            delivery = Delivery.from_params(self.request.body_arguments)
            self.gate.check_account(delivery.account_sid)
        except Rejected as rejected:
            self.refuse(rejected)
            return
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
        self.finish()


class PublicApplication(Application):
    """The public listener. `extra` are the development server's pages."""

    def __init__(
        self,
        gate: Gate,
        exchange: Exchange,
        metrics: Metrics,
        *,
        prefix: str,
        extra: list[Rule | tuple[Any, ...]],
    ) -> None:
        self.metrics = metrics
        parts = {"gate": gate, "exchange": exchange, "metrics": metrics}
        paths = {prefix, ""}  # an ingress may strip the prefix or not
        rules = [
            rule
            for path in sorted(paths)
            for rule in ((f"{path}/sms", Inbound, parts), (f"{path}/sms/status", Status, parts))
        ]
        super().__init__(
            [*rules, *extra],
            default_handler_class=_Nothing,
            default_handler_args={"metrics": metrics},
            log_function=lambda _handler: None,  # every event is logged where it happens
        )

    def find_handler(self, request: HTTPServerRequest, **kwargs: Any) -> _HandlerDelegate:
        """Called when the headers are there: a body announced too large is refused by Tornado without a word
        to us.
        """
        if _too_large(request.headers.get("Content-Length", "")):
            self.metrics.rejected.labels(TooLarge.reason).inc()
        return super().find_handler(request, **kwargs)


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
        self, metrics: Metrics, *, ready: Callable[[], bool], status: Callable[[], dict[str, object]]
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
