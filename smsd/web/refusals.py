"""Says why a request was refused: one log line that tells the operator what to change.

Anybody can cause a refusal, so each kind is logged once a second at most; the next line
says how many were left out. A line holds nothing of the request.

`smsd_rejected_total` has a label for each reason; kinds tell apart what has one reason
but different remedies. The causes of a wrong signature have a module of their own,
`smsd.twilio.diagnosis`.
"""

import logging
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, cast

from smsd.telemetry import logs
from smsd.telemetry.metrics import Metrics
from smsd.twilio.delivery import is_status_callback
from smsd.twilio.signature import Params

REPORT_EVERY_S = 1.0

log = logging.getLogger("smsd.http")

_ADVICE = """
signature_missing
    The request has no X-Twilio-Signature: Twilio did not send it, or a proxy removed the
    header. Have the proxy pass on all headers.
account
    Twilio signed a request of an account that is not served. Add it to SMSD_ACCOUNTS, or
    correct TWILIO_ACCOUNT_SID.
get_webhook
    Twilio sent GET. In Twilio's console, set the webhook's method to HTTP POST.
redirected
    A redirect (301 or 302) turned Twilio's POST into a GET without a message. In Twilio's
    console, enter the URL to which it redirects.
method
    This path does not serve this method: /sms takes POST, /healthz takes GET.
voice
    A voice webhook arrived here. In Twilio's console, enter this URL under Messaging only.
conversations
    A webhook of Twilio Conversations arrived here. Enter this URL as the messaging webhook
    of a number or of a Messaging Service.
json
    A JSON body arrived here, as another Twilio product sends it. Enter this URL as the
    messaging webhook only, which sends a form.
status_callback
    A status callback arrived at /sms. Set its URL to /sms/status.
inbound_message
    An inbound message arrived at /sms/status. In Twilio's console, set the URL for incoming
    messages to /sms.
malformed
    A signed form lacks MessageSid, AccountSid, From or To, or has one that is not of
    Twilio's form. Enter this URL as the messaging webhook only.
not_http
    What arrived is not a well-formed HTTP request, or not a well-formed form. Check what
    sent it, or the proxy in between.
too_large
    The body has more than 64 KiB or 1,000 fields, as no message from Twilio has.
not_found
    Nothing is served at this path. In Twilio's console, enter the URL that `smsd doctor`
    prints.
"""

RefusalKind = Literal[
    "signature_missing", "account", "get_webhook", "redirected", "method", "voice",
    "conversations", "json", "status_callback", "inbound_message", "malformed", "not_http",
    "too_large", "not_found",
]  # fmt: skip
"""What was refused, as the log names it."""

RefusalReason = Literal[
    "signature_missing", "signature_mismatch", "account", "malformed", "too_large", "method"
]
"""The label of smsd_rejected_total."""

ADVICE: Mapping[RefusalKind, str] = {
    cast("RefusalKind", kind): " ".join(text.split())
    for kind, text in re.findall(r"^(\w+)\n((?:    .*\n)+)", _ADVICE, re.MULTILINE)
}
"""Kind -> what the operator is told."""

_REASONS: Mapping[RefusalKind, RefusalReason] = {
    "signature_missing": "signature_missing",
    "account": "account",
    "too_large": "too_large",
    "get_webhook": "method",
    "redirected": "method",
    "method": "method",
}
"""The reason of a kind; that of all others is malformed."""


class Refusals:
    """Counts refusals and logs them.

    clock_s  a monotonic clock in seconds
    """

    def __init__(self, metrics: Metrics, clock_s: Callable[[], float]) -> None:
        self._metrics = metrics
        self._clock_s = clock_s
        self._logged_s: dict[RefusalKind, float] = {}
        self._left_out: dict[RefusalKind, int] = {}

    def refuse(self, kind: RefusalKind, *, level: int = logging.WARNING) -> None:
        """Count one refusal, and log it unless its kind was logged a moment ago."""
        if kind != "not_found":  # smsd_request_duration_seconds{handler="other"} counts it
            self._metrics.rejected.labels(_REASONS.get(kind, "malformed")).inc()
        now_s = self._clock_s()
        if 0 <= now_s - self._logged_s.get(kind, -math.inf) < REPORT_EVERY_S:
            self._left_out[kind] = self._left_out.get(kind, 0) + 1
            return
        self._logged_s[kind] = now_s
        fields: dict[str, Any] = {"kind": kind, "advice": ADVICE[kind]}
        if left_out := self._left_out.pop(kind, 0):
            fields["left_out"] = left_out
        logs.event(log, level, "request refused", **fields)

    def count(self, reason: RefusalReason) -> None:
        """Count a refusal that is logged elsewhere."""
        self._metrics.rejected.labels(reason).inc()


class TornadoRefusals(logging.Filter):
    """Reports what Tornado refuses by itself, which it says only on its own logger.

    Add it to the logger `tornado.general`, at level INFO.
    """

    def __init__(self, refusals: Refusals) -> None:
        super().__init__()
        self._refusals = refusals

    def filter(self, record: logging.LogRecord) -> bool:
        """Report it; let nothing below a warning through."""
        text = record.getMessage() if record.levelno == logging.INFO else ""
        if text.startswith("Malformed HTTP message"):
            is_too_large = text.endswith(("Content-Length too long", "chunked body too large"))
            self._refusals.refuse("too_large" if is_too_large else "not_http")
        elif text.startswith("Unsatisfiable read"):  # the head is too large
            self._refusals.refuse("not_http")
        return record.levelno >= logging.WARNING


def kind_of_method(*, is_signed: bool, query: str) -> RefusalKind:
    """Why a request came with another method than POST."""
    if not is_signed:
        return "method"
    return "get_webhook" if "Sid=" in query else "redirected"


def kind_of_form(form: Params, media_type: str) -> RefusalKind:
    """What a signed request at /sms is, if it is not a message."""
    if media_type.endswith("json"):
        return "json"
    if "CallSid" in form:
        return "voice"
    if "ConversationSid" in form:
        return "conversations"
    if is_status_callback(form):
        return "status_callback"
    return "malformed"


def is_inbound_message(form: Params) -> bool:
    """Whether a form at /sms/status is a message: status callbacks have a
    MessageStatus."""
    return "MessageStatus" not in form and "NumMedia" in form
