"""How many SMS segments a text takes, which is what Twilio charges.

It must not guess what Twilio's Smart Encoding does, which replaces look-alike characters
only where a Messaging Service has it turned on.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Segments:
    """How a text travels and is charged.

    encoding  "GSM-7" or "UCS-2"
    units     septets of GSM-7, or UTF-16 units of UCS-2
    count     segments
    """

    encoding: str
    units: int
    count: int


_GSM = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_GSM_EXTENSION = frozenset("\f^{}\\[~]|€")  # sent as two septets, escape and character
_GSM_ALL = _GSM | _GSM_EXTENSION
_GSM_ASCII = "".join(sorted(_GSM)).encode("ascii", "ignore")


def segments(text: str) -> Segments:
    """The encoding, length and number of segments of a text, by 3GPP TS 23.038 and
    23.040.

    A character is never split over two segments, so a segment may end one unit early.
    An empty text counts as one segment.

    >>> segments("See you at 8")
    Segments(encoding='GSM-7', units=12, count=1)
    >>> segments("See you at 8 \N{WAVING HAND SIGN}")
    Segments(encoding='UCS-2', units=15, count=1)
    """
    if len(text) <= 160 and text.isascii() and not text.encode().translate(None, _GSM_ASCII):
        return Segments("GSM-7", len(text), 1)  # most texts: the metric counts every reply
    if _GSM_ALL.issuperset(text):
        return _segments("GSM-7", [2 if char in _GSM_EXTENSION else 1 for char in text], 160, 153)
    return _segments("UCS-2", [2 if char > "\uffff" else 1 for char in text], 70, 67)


def _segments(encoding: str, widths: Sequence[int], single: int, part: int) -> Segments:
    units = sum(widths)
    if units <= single:
        return Segments(encoding, units, 1)
    count, used = 1, 0
    for width in widths:
        if used + width > part:
            count, used = count + 1, 0
        used += width
    return Segments(encoding, units, count)
