"""What Twilio posts to /sms, as a Python object: `Message`.

The signature is checked before: this module takes the form as raw bytes. It must not
count or answer anything.

Only what every message needs is read at once; the rest is read when somebody asks for
it. The `repr` of a message shows its SID alone, so that no number and no text gets into
a log.

Fields: twilio.com/docs/messaging/guides/webhook-request.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from types import MappingProxyType

import msgspec

from smsd.errors import Malformed
from smsd.twilio import fields
from smsd.twilio.delivery import is_status_callback
from smsd.twilio.media import Media
from smsd.twilio.signature import Params

ADDRESS_LIMIT = 256
"""Characters of From and To. Twilio gives no limit; no address it documents comes near.
"""

OPT_OUT_WORDS = frozenset({
    "STOP", "STOPALL", "UNSUBSCRIBE", "CANCEL", "END", "QUIT", "REVOKE", "OPTOUT",
    "START", "UNSTOP", "HELP", "INFO",
})  # fmt: skip
"""Messages that are one of these words are answered by Twilio itself, in
OPT_OUT_CHANNELS.
"""

OPT_OUT_CHANNELS = frozenset({"sms", "rcs"})

_MOST_MEDIA = 100  # far beyond what a message carries
_ADDRESS = re.compile(rf"(?=.*\S)[^\x00-\x1f\x7f-\x9f]{{1,{ADDRESS_LIMIT}}}")
_CHANNEL = re.compile(r"([A-Za-z][A-Za-z0-9_.-]*):")
_SHORT_CODE = re.compile(r"[0-9]{3,8}")

FetchMedia = Callable[[str, int, str], Awaitable[bytes]]
"""Downloads (URL, most bytes, AccountSid of the message). Raises MediaError."""


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


@dataclass(frozen=True, slots=True)
class Button:
    """A button that was tapped. Added in 0.2.

    text     what the button says
    payload  what the program gave it when it sent the buttons, or ""
    """

    text: str
    payload: str


@dataclass(frozen=True, slots=True)
class Location:
    """A place that was shared in WhatsApp. Added in 0.2.

    latitude, longitude  degrees
    address, label       as the sender's phone gives them, or ""
    """

    latitude: float
    longitude: float
    address: str
    label: str


class Message(msgspec.Struct, frozen=True, dict=True, eq=False):
    """One inbound message.

    sid          Twilio's name for it, such as "SM0123…"
    account_sid  the account that received it
    from_        who sent it: a number such as "+14158675309", a short code, or an
                 address with a channel before it, such as "whatsapp:+14158675309"
    to           the number that was texted, written in the same way
    body         its text, as received: it may be empty, and have blanks around it
    form         the form as raw bytes; `params` has it decoded

    >>> message = Message.from_params({
    ...     "MessageSid": [b"SM0123456789abcdef0123456789abcdef"],
    ...     "AccountSid": [b"AC0123456789abcdef0123456789abcdef"],
    ...     "From": [b"whatsapp:+14158675309"],
    ...     "To": [b"whatsapp:+14158141829"],
    ...     "Body": [b"Yes"],
    ...     "ProfileName": [b"Rey"],
    ...     "ButtonText": [b"Yes"],
    ...     "ButtonPayload": [b"confirm-7"],
    ...     "MediaUrl0": [b"https://example.com/a.png"],
    ...     "MediaContentType0": [b"image/png"],
    ...     "FromCountry": [b"US"],
    ... })
    >>> message.channel, message.body, message.profile_name, message.geography.from_country
    ('whatsapp', 'Yes', 'Rey', 'US')
    >>> message.button
    Button(text='Yes', payload='confirm-7')
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
    fetch_media: FetchMedia | None = None
    """Set by smsd: downloads the media."""

    def __repr__(self) -> str:
        return f"Message(sid={self.sid!r})"

    @classmethod
    def from_params(cls, params: Params, fetch_media: FetchMedia | None = None) -> "Message":
        """The message in a signed form.

        Raises `Malformed` if it is none, or if it tells of another message's delivery.
        """
        if is_status_callback(params):
            raise Malformed("a status callback, not an inbound message")
        return cls(
            fields.required(params, "MessageSid", fields.MESSAGE_SID),
            fields.required(params, "AccountSid", fields.ACCOUNT_SID),
            fields.required(params, "From", _ADDRESS),
            fields.required(params, "To", _ADDRESS),
            fields.text(params, "Body"),
            params,
            fetch_media,
        )

    @property
    def channel(self) -> str:
        """`sms` (also for MMS), `whatsapp`, `rcs` …: what stands before the sender's
        address.
        """
        prefix = _CHANNEL.match(self.from_)
        return prefix[1].lower() if prefix else "sms"

    @property
    def profile_name(self) -> str:
        """The name that a WhatsApp sender chose, or ""."""
        return fields.text(self.form, "ProfileName")

    @property
    def external_user_id(self) -> str:
        """The business-scoped id of a WhatsApp sender, or "". Added in 0.2.

        WhatsApp may send one person's messages from a number or, with a user name, from
        such an id (`from_` is then like "whatsapp:US.1234"). Without a hook these are
        two conversations; a dialogue's `conversation_key` can make them one.
        """
        return fields.text(self.form, "ExternalUserId")

    @property
    def button(self) -> Button | None:
        """The button that was tapped to send this message, or None. Added in 0.2."""
        text, payload = (
            fields.text(self.form, "ButtonText"),
            fields.text(self.form, "ButtonPayload"),
        )
        return Button(text, payload) if text or payload else None

    @property
    def location(self) -> Location | None:
        """The place that a WhatsApp sender shared, or None. Added in 0.2."""
        latitude, longitude = (
            fields.degrees(self.form, name) for name in ("Latitude", "Longitude")
        )
        if latitude is None or longitude is None:
            return None
        return Location(
            latitude, longitude, fields.text(self.form, "Address"), fields.text(self.form, "Label")
        )

    @property
    def reply_to(self) -> str | None:
        """The SID of the message that this one replies to in WhatsApp, or None. Added
        in 0.2.

        Twilio knows it for seven days.
        """
        return fields.text(self.form, "OriginalRepliedMessageSid") or None

    @cached_property
    def media(self) -> tuple[Media, ...]:
        """The files that came with the text, in order. See `Media.read` for their
        content.
        """
        fetch = self.fetch_media and partial(_fetch, self.fetch_media, self.account_sid)
        media: list[Media] = []
        while len(media) < _MOST_MEDIA and (url := fields.text(self.form, f"MediaUrl{len(media)}")):
            media.append(Media(url, fields.text(self.form, f"MediaContentType{len(media)}"), fetch))
        return tuple(media)

    @cached_property
    def geography(self) -> Geography:
        """Where Twilio believes both numbers to be."""
        return Geography(
            *[
                fields.text(self.form, side + part)
                for side in ("From", "To")
                for part in ("City", "State", "Zip", "Country")
            ]
        )

    @cached_property
    def params(self) -> Mapping[str, str]:
        """Everything as received: the first value of each name, bytes that are not
        UTF-8 as U+FFFD.
        """
        return MappingProxyType(
            {
                name.encode("latin-1", "replace").decode("utf-8", "replace"): fields.text(
                    self.form, name
                )
                for name in self.form
            }
        )

    @property
    def is_opt_out(self) -> bool:
        """Whether Twilio answers this message itself.

        It does if Advanced Opt-Out marked the message, on every channel. Otherwise it
        does for a word such as STOP or HELP alone, sent by SMS or RCS to a long code or
        a toll-free number. On WhatsApp and Messenger, and to short codes, such a word
        is a message like any other.
        """
        if fields.text(self.form, "OptOutType"):
            return True
        word = self.body.strip()
        return (
            word.isascii()
            and word.upper() in OPT_OUT_WORDS
            and self.channel in OPT_OUT_CHANNELS
            and not _SHORT_CODE.fullmatch(address_without_channel(self.to))
        )

    @property
    def error_code(self) -> str | None:
        """Why Twilio came to the fallback URL: five digits, "other", or None if it did
        not.

        Fit for a label.
        """
        return fields.error_code(self.form) or None


def address_without_channel(address: str) -> str:
    """The number alone; other addresses as they are.

    >>> address_without_channel("whatsapp:+14155550100")
    '+14155550100'
    """
    prefix = _CHANNEL.match(address)
    return address[prefix.end() :] if prefix else address


async def _fetch(fetch_media: FetchMedia, account_sid: str, url: str, limit: int) -> bytes:
    return await fetch_media(url, limit, account_sid)
