"""Builds the forms that Twilio posts: for an inbound SMS, MMS or WhatsApp message, and
for a status.

Pure: randomness is an argument.
"""

import json
from collections.abc import Mapping, Sequence
from random import Random

from smsd.simulator.values import Inbound

_PLACES = {  # area code: city, state, zip
    "+1415": ("SAN FRANCISCO", "CA", "94105"),
    "+1212": ("NEW YORK", "NY", "10001"),
    "+1312": ("CHICAGO", "IL", "60601"),
}


def new_sid(prefix: str, random: Random) -> str:
    """A new id as Twilio makes them: two letters and 32 hexadecimal digits."""
    return f"{prefix}{random.getrandbits(128):032x}"


def build(
    account_sid: str,
    body: str,
    from_: str,
    to: str,
    random: Random,
    *,
    sid: str | None = None,
    media: Sequence[tuple[str, str]] = (),
    opt_out_type: str | None = None,
    segments: int = 1,
    extra: Mapping[str, str] | None = None,
) -> Inbound:
    """Build a message. `media` holds (URL, content type); `extra` adds or replaces
    parameters."""
    sid = sid or new_sid("MM" if media else "SM", random)
    fields = {
        **_geography("To", to),
        "SmsMessageSid": sid,
        "NumMedia": str(len(media)),
        **_geography("From", from_),
        "SmsSid": sid,
        "SmsStatus": "received",
        "Body": body,
        "To": to,
        "NumSegments": str(segments),
        "MessageSid": sid,
        "AccountSid": account_sid,
        "From": from_,
        "ApiVersion": "2010-04-01",
    }
    for index, (url, content_type) in enumerate(media):
        fields |= {f"MediaUrl{index}": url, f"MediaContentType{index}": content_type}
    if opt_out_type:
        fields["OptOutType"] = opt_out_type
    if from_.startswith("whatsapp:"):
        fields |= _whatsapp(from_, bool(media))
    fields |= extra or {}
    return Inbound(
        fields["AccountSid"], fields["From"], fields["To"], body, sid, tuple(fields.items())
    )


def _geography(side: str, number: str) -> dict[str, str]:
    """The geography parameters of one side. Twilio sends and signs them even where they
    are blank.

    Channels other than SMS have none.
    """
    if not number.startswith("+") and ":" in number:
        return {}
    city, state, code = _PLACES.get(number[:5], ("", "", ""))
    country = "US" if number.startswith("+1") else ""
    return {
        f"{side}Country": country,
        f"{side}State": state,
        f"{side}City": city,
        f"{side}Zip": code,
    }


def _whatsapp(from_: str, media: bool) -> dict[str, str]:
    wa_id = from_.removeprefix("whatsapp:+")
    name = "Simulated Sender"
    context = {"type": "whatsapp", "data": {"context": {"ProfileName": name, "WaId": wa_id}}}
    return {
        "ProfileName": name,
        "WaId": wa_id,
        "MessageType": "image" if media else "text",
        "ChannelMetadata": json.dumps(context, separators=(",", ":")),
    }


def status_form(
    inbound: Inbound, sid: str, status: str, error_code: int | None = None
) -> list[tuple[str, str]]:
    """The form of a status callback for the reply `sid` to this message."""
    form = {
        "ApiVersion": "2010-04-01",
        "MessageStatus": status,
        "SmsSid": sid,
        "SmsStatus": status,
        "To": inbound.from_,
    }
    form |= {"From": inbound.to, "MessageSid": sid, "AccountSid": inbound.account_sid}
    if error_code is not None:
        form["ErrorCode"] = str(error_code)
    if status in {"delivered", "undelivered"} and ":" not in inbound.to:
        form["RawDlrDoneDate"] = "2601011200"
    return list(form.items())
