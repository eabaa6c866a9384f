"""What the phone page asks to be sent, checked. No IO."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from smsd.simulator.twilio import JAR, LOST, STALE, Cookies

COOKIES: Mapping[str, Cookies] = {"jar": JAR, "lost": LOST, "stale": STALE}
MOST_CHARACTERS = 1600
ADDRESS = re.compile(r"\+?[1-9][0-9]{2,14}|[a-z][a-z0-9_.-]*:[^\s:][^\s]{0,79}")
"""A number in international form, a short code, or a channel's address. The page has
the same pattern."""


class OrderError(ValueError):
    """What is wrong with an order; `field` names the part of it that is wrong."""

    def __init__(self, problem: str, field: str = "body") -> None:
        super().__init__(problem)
        self.field = field


@dataclass(frozen=True, slots=True)
class Order:
    """A message to send, and how. `ticket` is the page's own name for it."""

    from_: str
    to: str
    body: str
    deliveries: int = 1
    cookie: str = "jar"
    forged: bool = False
    ticket: str = ""


def parse_order(given: object) -> Order:
    """The order in a JSON body. Raises OrderError."""
    if not isinstance(given, dict):
        raise OrderError("a JSON object is expected")
    order = Order(
        from_=_address(given, "from"),
        to=_address(given, "to"),
        body=str(given.get("body", "")),
        deliveries=2 if given.get("twice") else 1,
        cookie=str(given.get("cookie", "jar")),
        forged=bool(given.get("forged")),
        ticket=str(given.get("ticket", ""))[:80],
    )
    if order.cookie not in COOKIES:
        raise OrderError(f"cookie is one of {', '.join(COOKIES)}", "cookie")
    if len(order.body) > MOST_CHARACTERS:
        raise OrderError(f"a message has {MOST_CHARACTERS} characters at most")
    return order


def parse_pair(given: object) -> tuple[str, str]:
    """From and To in a JSON body. Raises OrderError."""
    if not isinstance(given, dict):
        raise OrderError("a JSON object is expected")
    return _address(given, "from"), _address(given, "to")


def _address(given: Mapping[str, object], name: str) -> str:
    text = str(given.get(name, "")).strip()
    if ADDRESS.fullmatch(text):
        return text
    what = f"“{text[:40]}” is no phone number" if text else "a number is missing"
    label = name.capitalize()
    raise OrderError(
        f"{label}: {what}. Use +14158675309, a short code such as 12345, or whatsapp:+14158675309.",
        name,
    )
