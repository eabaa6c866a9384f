"""From text to value: one function for each kind of setting. Reads no environment and no file.

A cast raises `Invalid` with what is wrong, in words that never quote the value: it may be a secret,
or a secret that was pasted into the wrong variable.
"""

import hmac
import re
import string
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit


class Invalid(Exception):
    """One or more problems of one setting. Raised by the casts, caught by `settings.load`."""

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class Secret:
    """A text that shows itself only to `reveal()`: neither repr, str nor format does."""

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
    """`kind`: "memory", "cookie" or "memcached". `nodes` of memcached: "host:port", IPv6 in brackets."""

    kind: str
    nodes: tuple[str, ...] = ()


ACCOUNT_SID = re.compile(r"AC[0-9a-fA-F]{32}")
TEMPLATE_FIELDS = ("name", "from", "to", "count")
_NUMBER = re.compile(r"[0-9]{1,9}(\.[0-9]{0,9})?|\.[0-9]{1,9}")
_SERVICE_LINK = re.compile(r"(tcp|udp|sctp)://")
_SWITCH = dict.fromkeys(("on", "true", "yes", "1"), True) | dict.fromkeys(
    ("off", "false", "no", "0"), False
)


def text(value: str) -> str:
    """Any text, as it is."""
    return value


def secret(value: str, *, at_least: int = 1) -> Secret:
    """A secret without blanks. Those around it do not count: mounted secrets often end in a line break."""
    value = value.strip()
    if not value.isprintable() or " " in value:
        raise Invalid("holds a blank, a line break or a control character")
    if len(value) < at_least:
        raise Invalid(f"must have at least {at_least} characters; `smsd keys` makes fresh ones")
    if value[0] in "\"'" and value[0] == value[-1]:
        raise Invalid("stands in quotes: leave them away, they would be part of the secret")
    return Secret(value)


def key(value: str) -> Secret:
    """A key of smsd's own: at least 32 characters."""
    return secret(value, at_least=32)


def cookie_keys(value: str) -> dict[int, Secret]:
    """`2:secret,1:secret`: version to secret in the given order; the first signs."""
    keys: dict[int, Secret] = {}
    for place, item in enumerate(value.split(","), 1):
        version, colon, rest = item.strip().partition(":")
        if not colon or not re.fullmatch(r"[0-9]{1,9}", version):
            raise Invalid(
                f"key {place} must read VERSION:SECRET, such as 2:…,1:…, and hold no comma"
            )
        if int(version) in keys:
            raise Invalid(f"key {place} has the version of an earlier one")
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


def public_url(value: str) -> str:
    """What Twilio calls, without slash at the end. Whether http will do is for `settings.load` to say."""
    try:
        url = urlsplit(value)
        port_ok = url.port != 0  # raises if it is no number up to 65535
    except ValueError:
        raise Invalid("is no URL") from None
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
    """`memory://`, `cookie://` or `memcached://host:port,host:port`."""
    kind, separator, rest = value.partition("://")
    if separator and kind in ("memory", "cookie") and not rest:
        return StoreUrl(kind)
    if not separator or kind != "memcached":
        raise Invalid("must be memory://, cookie:// or memcached://host:port,host:port")
    nodes = tuple(
        _node(place, node) for place, node in enumerate(rest.removesuffix("/").split(","), 1)
    )
    if len(set(nodes)) < len(nodes):
        raise Invalid("names a node twice")
    return StoreUrl("memcached", nodes)


def _node(place: int, value: str) -> str:
    found = re.fullmatch(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?", value.strip())
    if not found or not 1 <= int(found[2] or 11211) <= 65535:
        raise Invalid(f"node {place} must be host:port, an IPv6 address in brackets")
    return f"{found[1].lower()}:{int(found[2] or 11211)}"


def whole(low: int, high: int) -> Callable[[str], int]:
    """A whole number in a range, ends included."""

    def cast(value: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", value) or not low <= int(value) <= high:
            raise Invalid(f"must be a whole number from {low} to {high}")
        return int(value)

    return cast


def number(low: float, high: float) -> Callable[[str], float]:
    """A number in a range, ends included; no exponent, no unit."""

    def cast(value: str) -> float:
        if not _NUMBER.fullmatch(value) or not low <= float(value) <= high:
            raise Invalid(f"must be a number from {low:g} to {high:g}, without unit")
        return float(value)

    return cast


def port(value: str) -> int:
    """0 to 65535; 0 takes any free port."""
    if _SERVICE_LINK.match(value):
        raise Invalid(
            "is a Kubernetes service link, made for a Service of this name: "
            "set enableServiceLinks: false in the pod's spec, or set the port there"
        )
    return whole(0, 65535)(value)


def host(value: str) -> str:
    """A name or an address to listen on."""
    if not re.fullmatch(r"[A-Za-z0-9._:%-]+", value):
        raise Invalid("must be a host name or an address without brackets and port")
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
    """The shape `module:callable`; whether it can be imported is for `app` to say."""
    module, _, name = value.partition(":")
    if not name.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
        raise Invalid("must read module:callable, such as mypackage.dialogue:reply")
    return value


def template(value: str) -> str:
    """A text with {name}, {from}, {to} and {count}, plain: no attribute, index, conversion or format."""
    try:
        parts = list(string.Formatter().parse(value))
    except ValueError:
        raise Invalid(
            "has a brace too many or too few; write {{ or }} for one that is meant"
        ) from None
    for _, field, spec, conversion in parts:
        if field is not None and (field not in TEMPLATE_FIELDS or spec or conversion):
            raise Invalid("may hold {name}, {from}, {to} and {count}, and nothing else in braces")
    return value
