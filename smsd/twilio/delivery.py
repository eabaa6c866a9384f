"""What Twilio posts to /sms/status: `Delivery`, what became of a message that was sent.

A delivery holds no number and no text, because metrics and log lines show deliveries.

Fields: twilio.com/docs/messaging/guides/track-outbound-message-status.
"""

from dataclasses import dataclass

from smsd.twilio.fields import ACCOUNT_SID, MESSAGE_SID, error_code, required, text
from smsd.twilio.signature import Params

DELIVERY_STATUSES = (
    "accepted", "scheduled", "queued", "sending", "sent", "failed", "delivered", "undelivered", "read",
    "canceled", "partially_delivered", "receiving", "received", "other", )  # fmt: skip
"""Every value of `Delivery.status`."""

_INBOUND_STATUSES = ("", "received", "receiving")


@dataclass(frozen=True, slots=True)
class Delivery:
    """What became of a message that was sent. Status and error code are fit for labels."""

    sid: str
    account_sid: str
    status: str  # one of DELIVERY_STATUSES
    error_code: str  # five digits, "other", or "" if there is none

    @classmethod
    def from_params(cls, params: Params) -> "Delivery":
        """The delivery in a signed form. Raises `Malformed` if it names no message or
        no account.
        """
        status = text(params, "MessageStatus") or text(params, "SmsStatus")
        return cls(
            required(params, "MessageSid", MESSAGE_SID),
            required(params, "AccountSid", ACCOUNT_SID),
            status if status in DELIVERY_STATUSES else "other",
            error_code(params),
        )


def is_status_callback(params: Params) -> bool:
    """Whether a form tells of a delivery.

    Operators paste one URL into both fields of the console; such a form must not count
    as a message.
    """
    return not (
        text(params, "MessageStatus") in _INBOUND_STATUSES
        and text(params, "SmsStatus") in _INBOUND_STATUSES
    )
