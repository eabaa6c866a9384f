"""One function for each kind of setting that turns its text into a value.

A cast raises `Invalid` and says what is wrong without quoting the value: it may be a
secret, or a secret pasted into the wrong variable.
"""

import hmac
import re
import string
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit


class Invalid(Exception):
    """One or more problems with one setting. Raised by casts, caught by `table.load`."""

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class Secret:
    """A text that only `reveal()` shows; repr, str and format hide it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value.encode()

    def reveal(self) -> bytes:
        """The secret, in UTF-8."""
        return self._value

    def __repr__(self) -> str:
        return "Secret('…')"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._value, other._value)

    def __hash__(self) -> int:
        return hash(self._value)


@dataclass(frozen=True, slots=True)
class StoreUrl:
    """Where conversations are stored.

    kind   "memory", "cookie" or "memcached"
    nodes  of memcached: "host:port", with an IPv6 address in brackets
    tls    connect to the nodes over TLS (memcacheds://)
    """

    kind: str
    nodes: tuple[str, ...] = ()
    tls: bool = False


ACCOUNT_SID = re.compile(r"AC[0-9a-fA-F]{32}")
TEMPLATE_FIELDS = ("name", "from", "to", "count", "times")
ALL_ADDRESSES = "*"
LOOPBACK = {ALL_ADDRESSES: "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - keys
"""The address at which this machine reaches a listener that is bound to all addresses."""

_NUMBER = re.compile(r"[0-9]{1,9}(\.[0-9]{0,9})?|\.[0-9]{1,9}")
_SERVICE_LINK = re.compile(r"(tcp|udp|sctp)://")
_SWITCH = dict.fromkeys(("on", "true", "yes", "1"), True) | dict.fromkeys(
    ("off", "false", "no", "0"), False
)


def text(value: str) -> str:
    """Any text, as it is."""
    return value


def secret(value: str, *, at_least: int = 1) -> Secret:
    """A secret without blanks.

    Blanks around it are dropped: mounted secrets often end with a line break.
    """
    value = value.strip()
    if not value.isprintable() or " " in value:
        raise Invalid("contains a blank, a line break or a control character")
    if len(value) < at_least:
        raise Invalid(f"must have at least {at_least} characters; `smsd keys` makes fresh ones")
    if value[0] in "\"'" and value[0] == value[-1]:
        raise Invalid("is in quotes; remove them, or they become part of the secret")
    return Secret(value)


def key(value: str) -> Secret:
    """A key of smsd's own: at least 32 characters."""
    return secret(value, at_least=32)


def cookie_keys(value: str) -> dict[int, Secret]:
    """`2:secret,1:secret` as version to secret, in the given order; the first signs."""
    keys: dict[int, Secret] = {}
    for place, item in enumerate(value.split(","), 1):
        version, colon, rest = item.strip().partition(":")
        if not colon or not re.fullmatch(r"[0-9]{1,9}", version):
            raise Invalid(f"key {place} must be VERSION:SECRET, such as 2:…,1:…, without a comma")
        if int(version) in keys:
            raise Invalid(f"key {place} has the version of an earlier one; number the keys 1, 2, 3")
        try:
            keys[int(version)] = key(rest)
        except Invalid as problem:
            raise Invalid(f"key {place} {problem}") from None
    return keys


def account_sid(value: str) -> str:
    """AC and 32 hexadecimal digits."""
    if not ACCOUNT_SID.fullmatch(value):
        raise Invalid("must be AC and 32 hexadecimal digits, as Twilio's console shows it")
    return value


def api_key(value: str) -> Secret:
    """SK and 32 hexadecimal digits."""
    if not re.fullmatch(r"SK[0-9a-fA-F]{32}", value):
        raise Invalid("must be SK and 32 hexadecimal digits, as Twilio's console shows it")
    return Secret(value)


def public_url(value: str) -> str:
    """The URL that Twilio calls, without a slash at the end.

    `consistency.contradictions` decides whether http is allowed.
    """
    try:
        url = urlsplit(value)
        port_ok = url.port != 0  # raises if it is no number up to 65535
    except ValueError:
        raise Invalid("is not a URL such as https://sms.example.com") from None
    if url.scheme not in ("http", "https") or not url.hostname or not port_ok:
        raise Invalid("must be a URL such as https://sms.example.com")
    if "@" in url.netloc or "?" in value or "#" in value:
        raise Invalid("must have no user, password, query or fragment")
    if not re.fullmatch(r"[\w.:\[\]-]+", url.netloc, re.ASCII):
        raise Invalid("has a host name with other characters than a-z, 0-9, dot and hyphen")
    if not re.fullmatch(r"[\w/.~!$&'()*+,;=:@%-]*", url.path, re.ASCII):
        raise Invalid("has a path with characters that must be percent-encoded")
    return f"{url.scheme}://{url.netloc}{url.path.rstrip('/')}"


def store(value: str) -> StoreUrl:
    """`memory://`, `cookie://`, or `memcached://host:port,host:port`, also with
    `memcacheds`."""
    kind, separator, rest = value.partition("://")
    if separator and kind in ("memory", "cookie") and not rest:
        return StoreUrl(kind)
    if not separator or kind not in ("memcached", "memcacheds"):
        raise Invalid(
            "must be memory://, cookie://, memcached://host:port,host:port "
            "or memcacheds://host:port,host:port"
        )
    return StoreUrl("memcached", nodes(rest.removesuffix("/")), tls=kind == "memcacheds")


def nodes(value: str) -> tuple[str, ...]:
    """`host:port,host:port`."""
    found = tuple(_node(place, node) for place, node in enumerate(value.split(","), 1))
    if len(set(found)) < len(found):
        raise Invalid("names a node twice; list each node once")
    return found


def _node(place: int, value: str) -> str:
    found = re.fullmatch(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?", value.strip())
    if not found or not 1 <= int(found[2] or 11211) <= 65535:
        raise Invalid(f"node {place} must be host:port, with an IPv6 address in brackets")
    return f"{found[1].lower()}:{int(found[2] or 11211)}"


def whole(low: int, high: int) -> Callable[[str], int]:
    """A whole number from `low` to `high`."""

    def cast(value: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", value) or not low <= int(value) <= high:
            raise Invalid(f"must be a whole number from {low} to {high}")
        return int(value)

    return cast


def number(low: float, high: float) -> Callable[[str], float]:
    """A number from `low` to `high`, without exponent or unit."""

    def cast(value: str) -> float:
        if not _NUMBER.fullmatch(value) or not low <= float(value) <= high:
            raise Invalid(f"must be a number from {low:g} to {high:g}, without a unit")
        return float(value)

    return cast


def port(value: str) -> int:
    """0 to 65535; 0 takes any free port."""
    if _SERVICE_LINK.match(value):
        raise Invalid(
            "is a Kubernetes service link, which a Service of this name creates: "
            "set enableServiceLinks: false in the pod's spec, or set the port there"
        )
    return whole(0, 65535)(value)


def host(value: str) -> str:
    """A name or an address to listen on, or * for all."""
    if value != ALL_ADDRESSES and not re.fullmatch(r"[A-Za-z0-9._:%-]+", value):
        raise Invalid("must be *, or a host name or address without brackets and port")
    return value


def switch(value: str) -> bool:
    """on or off."""
    if value.lower() not in _SWITCH:
        raise Invalid("must be on or off")
    return _SWITCH[value.lower()]


def choice(*values: str) -> Callable[[str], str]:
    """One of a few words, in any case."""

    def cast(value: str) -> str:
        if value.lower() not in values:
            raise Invalid(f"must be {', '.join(values[:-1])} or {values[-1]}")
        return value.lower()

    return cast


def dialogue(value: str) -> str:
    """`module:callable`. Whether it can be imported is checked when it is loaded."""
    module, _, name = value.partition(":")
    if not name.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
        raise Invalid("must be module:callable, such as mypackage.dialogue:reply")
    return value


def template(value: str) -> str:
    """A text with the fields {name}, {from}, {to}, {count} and {times}.

    A field may have no attribute, index, conversion or format: they would let a
    template reach into objects, or print a gigabyte.
    """
    try:
        parts = list(string.Formatter().parse(value))
    except ValueError:
        raise Invalid("has unbalanced braces; write {{ or }} for a literal one") from None
    for _, field, spec, conversion in parts:
        if field is not None and (field not in TEMPLATE_FIELDS or spec or conversion):
            raise Invalid(
                "may contain {name}, {from}, {to}, {count} and {times}, and nothing else in braces"
            )
    return value
