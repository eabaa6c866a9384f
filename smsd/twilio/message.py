"""What Twilio posts, as Python objects: `Message` for /sms, `Delivery` for /sms/status.

Takes the form as raw bytes, after its signature was checked, and holds no rule about counting or answering.
No network, no clock, no environment. Only what every message needs is read at once; the rest is read when
asked for. The `repr` of a message shows its SID alone, so that neither a number nor a text gets into a log.

Fields: twilio.com/docs/messaging/guides/webhook-request,
twilio.com/docs/messaging/guides/track-outbound-message-status.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

import msgspec

from smsd.errors import Malformed
from smsd.twilio.signature import Params

ADDRESS_LIMIT = 256
"""Characters of From and To. Twilio gives no limit; no address it documents comes near."""

OPT_OUT_WORDS = frozenset({
    "STOP", "STOPALL", "UNSUBSCRIBE", "CANCEL", "END", "QUIT", "REVOKE", "OPTOUT",
    "START", "UNSTOP", "HELP", "INFO",
})  # fmt: skip
"""Messages that are one of these words are answered by Twilio itself."""

DELIVERY_STATUSES = (
    "accepted", "scheduled", "queued", "sending", "sent", "failed", "delivered", "undelivered", "read",
    "canceled", "partially_delivered", "receiving", "received", "other", )  # fmt: skip
"""Every value of `Delivery.status`."""

_INBOUND_STATUSES = ("", "received", "receiving")
_MOST_MEDIA = 100  # far beyond what a message carries
_MESSAGE_SID = re.compile(r"(?:SM|MM)[0-9a-fA-F]{32}", re.ASCII)
_ACCOUNT_SID = re.compile(r"AC[0-9a-fA-F]{32}", re.ASCII)
_ADDRESS = re.compile(rf"(?=.*\S)[^\x00-\x1f\x7f-\x9f]{{1,{ADDRESS_LIMIT}}}")
_CHANNEL = re.compile(r"([A-Za-z][A-Za-z0-9_.-]*):")
_ERROR_CODE = re.compile(r"[0-9]{5}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Media:
    """A picture or another file that came with a message. Fetching it may need the account's credentials."""

    url: str
    content_type: str


@dataclass(frozen=True, slots=True)
class Geography:
    """Where Twilio believes both numbers to be; "" where it does not say."""

    from_city: str
    from_state: str
    from_zip: str
    from_country: str
    to_city: str
    to_state: str
    to_zip: str
    to_country: str


class Message(msgspec.Struct, frozen=True, dict=True, eq=False):
    """One inbound message. Addresses are as received, with a channel prefix such as `whatsapp:` if there is
    one.

    >>> message = Message.from_params({
    ...     "MessageSid": [b"SM0123456789abcdef0123456789abcdef"],
    ...     "AccountSid": [b"AC0123456789abcdef0123456789abcdef"],
    ...     "From": [b"whatsapp:+14158675309"],
    ...     "To": [b"whatsapp:+14158141829"],
    ...     "Body": [b"Look"],
    ...     "ProfileName": [b"Rey"],
    ...     "MediaUrl0": [b"https://example.com/a.png"],
    ...     "MediaContentType0": [b"image/png"],
    ...     "FromCountry": [b"US"],
    ... })
    >>> message.channel, message.body, message.profile_name, message.geography.from_country
    ('whatsapp', 'Look', 'Rey', 'US')
    >>> message.media
    (Media(url='https://example.com/a.png', content_type='image/png'),)
    >>> message.params["FromCountry"]
    'US'
    >>> message
    Message(sid='SM0123456789abcdef0123456789abcdef')
    """

    sid: str
    account_sid: str
    from_: str
    to: str
    body: str
    form: Params = {}

    def __repr__(self) -> str:
        return f"Message(sid={self.sid!r})"

    @classmethod
    def from_params(cls, params: Params) -> "Message":
        """The message in a signed form. Raises `Malformed` if it is none, or tells of another message's
        delivery.
        """
        if is_status_callback(params):
            raise Malformed("a status callback, not an inbound message")
        return cls(
            _required(params, "MessageSid", _MESSAGE_SID),
            _required(params, "AccountSid", _ACCOUNT_SID),
            _required(params, "From", _ADDRESS),
            _required(params, "To", _ADDRESS),
            _text(params, "Body"),
            params,
        )

    @property
    def channel(self) -> str:
        """`sms` (also for MMS), `whatsapp`, `rcs` …: what stands before the sender's address."""
        prefix = _CHANNEL.match(self.from_)
        return prefix[1].lower() if prefix else "sms"

    @property
    def profile_name(self) -> str:
        """The name that a WhatsApp sender gave, or ""."""
        return _text(self.form, "ProfileName")

    @cached_property
    def media(self) -> tuple[Media, ...]:
        """What came with the text, in order."""
        media: list[Media] = []
        while len(media) < _MOST_MEDIA and (url := _text(self.form, f"MediaUrl{len(media)}")):
            media.append(Media(url, _text(self.form, f"MediaContentType{len(media)}")))
        return tuple(media)

    @cached_property
    def geography(self) -> Geography:
        return Geography(
            *[
                _text(self.form, side + part)
                for side in ("From", "To")
                for part in ("City", "State", "Zip", "Country")
            ]
        )

    @cached_property
    def params(self) -> Mapping[str, str]:
        """Everything as received: the first value of each name, bytes that are not UTF-8 as U+FFFD."""
        return MappingProxyType(
            {
                name.encode("latin-1", "replace").decode("utf-8", "replace"): _text(self.form, name)
                for name in self.form
            }
        )

    @property
    def is_opt_out(self) -> bool:
        """Twilio answers this message itself: a word such as STOP or HELP alone, or marked by Advanced
        Opt-Out.
        """
        word = self.body.strip()
        return (word.isascii() and word.upper() in OPT_OUT_WORDS) or bool(
            _text(self.form, "OptOutType")
        )

    @property
    def error_code(self) -> str | None:
        """Why Twilio came to the fallback URL: five digits, "other", or None if it did not. Fit for a
        label.
        """
        return _error_code(self.form) or None


@dataclass(frozen=True, slots=True)
class Delivery:
    """What became of a message that was sent. Status and error code are fit for labels."""

    sid: str
    account_sid: str
    status: str  # one of DELIVERY_STATUSES
    error_code: str  # five digits, "other", or "" if there is none

    @classmethod
    def from_params(cls, params: Params) -> "Delivery":
        """The delivery in a signed form. Raises `Malformed` if it names no message or no account."""
        status = _text(params, "MessageStatus") or _text(params, "SmsStatus")
        return cls(
            _required(params, "MessageSid", _MESSAGE_SID),
            _required(params, "AccountSid", _ACCOUNT_SID),
            status if status in DELIVERY_STATUSES else "other",
            _error_code(params),
        )


def is_status_callback(params: Params) -> bool:
    """Operators paste one URL into both fields of the console: such a form would count as a message."""
    return not (
        _text(params, "MessageStatus") in _INBOUND_STATUSES
        and _text(params, "SmsStatus") in _INBOUND_STATUSES
    )


def address_without_channel(address: str) -> str:
    """The number alone; other addresses as they are.

    >>> address_without_channel("whatsapp:+14155550100")
    '+14155550100'
    """
    prefix = _CHANNEL.match(address)
    return address[prefix.end() :] if prefix else address


def _required(params: Params, name: str, form: re.Pattern[str]) -> str:
    values = params.get(name, ())
    if len(values) == 1:
        try:
            value = values[0].decode()
        except UnicodeDecodeError:
            value = ""
        if form.fullmatch(value):
            return value
    raise Malformed(f"{name}: missing, repeated or of another form than Twilio's")


def _text(params: Params, name: str) -> str:
    values = params.get(name)
    return values[0].decode("utf-8", "replace") if values else ""


def _error_code(params: Params) -> str:
    code = _text(params, "ErrorCode")
    return code if not code or _ERROR_CODE.fullmatch(code) else "other"
