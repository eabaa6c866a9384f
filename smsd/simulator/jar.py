"""Twilio's cookie jar: cookies for each (AccountSid, To, From), none older than four
hours.

Does no IO. Ignores Path, Domain, Secure and quotes: nobody outside Twilio knows whether
they count.

Twilio's documentation can be read in two ways: a cookie is dropped four hours after it
was set, or four hours after it was last used. `reading` chooses between "set" and
"inactivity".
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Literal

FOUR_HOURS_S = 4 * 3600
Pair = tuple[str, str, str]
Reading = Literal["set", "inactivity"]


@dataclass(slots=True)
class _Cookie:
    value: str
    expires_s: float
    own_expiry: bool


class Jar:
    """The cookies of each pair of numbers, and those it held before."""

    def __init__(self, clock: Callable[[], float], reading: Reading = "set") -> None:
        self.clock = clock
        self.reading = reading
        self._cookies: dict[Pair, dict[str, _Cookie]] = {}
        self._past: dict[Pair, deque[str]] = {}

    def header(self, pair: Pair) -> str | None:
        """The Cookie header for this pair's next request; None without cookies."""
        now = self.clock()
        alive = {name: c for name, c in self._cookies.get(pair, {}).items() if c.expires_s > now}
        self._cookies[pair] = alive
        if self.reading == "inactivity":
            for cookie in alive.values():
                cookie.expires_s = cookie.expires_s if cookie.own_expiry else now + FOUR_HOURS_S
        return "; ".join(f"{name}={cookie.value}" for name, cookie in alive.items()) or None

    def store(self, pair: Pair, set_cookies: Iterable[str], *, same_call: bool = False) -> None:
        """Keep the cookies of an answer's Set-Cookie headers; each replaces the one of
        its name.

        `same_call` says that the same call has stored cookies before, as in a
        `<Redirect>` chain. What it replaces then was never sent with a new message, so
        `stale` skips it.
        """
        kept = self._cookies.setdefault(pair, {})
        before = "; ".join(f"{name}={cookie.value}" for name, cookie in kept.items())
        for line in set_cookies:
            name, cookie = self._parse(line)
            if cookie.expires_s > self.clock():
                kept[name] = cookie
            else:
                kept.pop(name, None)
        after = "; ".join(f"{name}={cookie.value}" for name, cookie in kept.items())
        if before and before != after and not same_call:
            self._past.setdefault(pair, deque(maxlen=64)).append(before)

    def stale(self, pair: Pair, back: int = 1) -> str | None:
        """The Cookie header as it was `back` messages ago, as of a request that started
        too early.

        None if the pair had no cookie then.
        """
        past = self._past.get(pair, ())
        return past[-back] if len(past) >= back else None

    def drop(self, pair: Pair) -> None:
        """Forget the cookies of this pair."""
        self._cookies.pop(pair, None)

    def _parse(self, line: str) -> tuple[str, _Cookie]:
        first, *attributes = line.split(";")
        name, _, value = first.partition("=")
        given = {
            key.strip().lower(): text.strip()
            for key, _, text in (a.partition("=") for a in attributes)
        }
        lifetime_s = _lifetime(given, self.clock())
        expires_s = self.clock() + min(
            FOUR_HOURS_S if lifetime_s is None else lifetime_s, FOUR_HOURS_S
        )
        return name.strip(), _Cookie(value.strip(), expires_s, lifetime_s is not None)


def _lifetime(attributes: dict[str, str], now: float) -> float | None:
    """The cookie's lifetime in seconds: Max-Age, or else Expires; None without either."""
    age = attributes.get("max-age", "")
    if age.removeprefix("-").isdecimal():
        return int(age)
    try:
        return parsedate_to_datetime(attributes["expires"]).timestamp() - now
    except (KeyError, ValueError):
        return None


def violates_http(set_cookie: str) -> bool:
    """Whether Twilio discards the answer because of this header (11206).

    It does if the cookie has no name, or contains a tab or a line break.
    """
    name = (
        set_cookie.partition(";")[0].partition("=")[0].strip()
        if "=" in set_cookie.partition(";")[0]
        else ""
    )
    return not name or any(char in set_cookie for char in "\t\r\n\v\f")
