"""X-Twilio-Signature: what is signed, with which keys, and whether a signature is good.

It must not decode, strip or drop anything: Twilio signed the raw bytes. It must not try
a key with another hash function than its own.

The rule (twilio.com/docs/usage/security): append every form field, sorted by name, to
the URL as requested, name and value with nothing between them; take the HMAC with the
account's secret; encode it in base64.
"""

import hmac
import re
from binascii import b2a_base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol
from urllib.parse import urlsplit

Params = Mapping[str, Sequence[bytes]]
"""A form as Tornado's `request.body_arguments` gives it: name (bytes read as Latin-1)
to raw values."""

ALGORITHMS = {"HMAC_SHA1": "sha1", "HMAC_SHA256": "sha256"}
"""Twilio's names of the hash functions, and hashlib's."""

DEFAULT_PORTS = {"https": 443, "http": 80}

_SETTINGS_HEADER = re.compile(r"\s*key=([^\s,=]{1,256})\s*,\s*algorithm=(HMAC_SHA1|HMAC_SHA256)\s*")


@dataclass(frozen=True, slots=True)
class Key:
    """One secret that may sign. `label` is a value of `smsd_signatures_total{key}`."""

    secret: bytes = field(repr=False)
    label: str  # primary | secondary | account | shared
    algorithm: str = "sha1"  # sha1 | sha256
    begun: hmac.HMAC = field(init=False, repr=False, compare=False)
    """The HMAC before the first byte. Copying it is cheaper than setting up the key
    again."""

    def __post_init__(self) -> None:
        if not self.secret:
            raise ValueError(f"the {self.label} key is empty: anybody could sign with it")
        object.__setattr__(self, "begun", hmac.new(self.secret, digestmod=self.algorithm))


class SecretLike(Protocol):
    """A secret that shows itself only when asked."""

    def reveal(self) -> bytes: ...


class SharedKeyLike(Protocol):
    """A secret for webhooks only; `algorithm` is sha1 or sha256."""

    @property
    def secret(self) -> SecretLike: ...
    @property
    def algorithm(self) -> str: ...


class AccountKeysLike(Protocol):
    """What may sign for one account."""

    @property
    def tokens(self) -> Sequence[SecretLike]: ...
    @property
    def shared_keys(self) -> Mapping[str, SharedKeyLike]: ...


def signed_string(url: bytes, params: Params) -> bytes:
    """The bytes that are signed: `url`, then the fields in byte order of their names.

    A repeated name is written before each of its distinct values, in their byte order.
    """
    names, template = _layout(tuple(params))
    pieces = list(template)
    try:
        pieces[1::2] = [value for (value,) in map(params.__getitem__, names)]
    except ValueError:  # a repeated name
        pieces = [
            piece
            for name in names
            for value in sorted(set(params[name]))
            for piece in (_raw(name), value)
        ]
    return url + b"".join(pieces)


def sign(key: Key, url: str, params: Params) -> str:
    """The value of X-Twilio-Signature."""
    return mac(key, signed_string(octets(url), params)).decode("ascii")


def verify(keys: Sequence[Key], urls: Sequence[str], params: Params, signature: str) -> Key | None:
    """The first key that signed one of `urls` with `params`, or None. Compares in
    constant time."""
    expected = signature.encode("latin-1", "replace")
    fields = signed_string(b"", params)
    for key in keys:
        for url in urls:
            if hmac.compare_digest(mac(key, octets(url) + fields), expected):
                return key
    return None


@lru_cache(maxsize=64)
def candidate_urls(public_url: str, target: str) -> tuple[str, ...]:
    """The URLs that Twilio may have signed.

    `target` is "/sms?query" as received, below the path of the public URL.
    """
    if not target.isascii():
        target = from_wire(target)
    return tuple([origin + target for origin in origins(public_url)])


def from_wire(text: str) -> str:
    """Undo Tornado, which reads request lines as Latin-1: most likely UTF-8 was signed."""
    return text.encode("latin-1", "replace").decode("utf-8", "surrogateescape")


@lru_cache(maxsize=64)
def origins(public_url: str) -> tuple[str, ...]:
    """`public_url` as configured, with its port added or dropped, and in lower case.

    Twilio is not consistent about ports, and signs the host as it is typed in the
    console. It signs no `user:password@`. A slash at the end is dropped: the target
    begins with one.
    """
    url = urlsplit(public_url)
    netloc = url.netloc.rpartition("@")[2]
    if url.port is None:
        other = f"{netloc}:{DEFAULT_PORTS[url.scheme]}" if url.scheme in DEFAULT_PORTS else netloc
    else:
        other = netloc.rpartition(":")[0]
    path = url.path.rstrip("/")
    hosts = dict.fromkeys((netloc, other, netloc.lower(), other.lower()))
    return tuple(f"{url.scheme}://{host}{path}" for host in hosts)


def key_named(header: str) -> tuple[str, str] | None:
    """Id and algorithm (sha1 | sha256) in X-Twilio-Webhooks-Signature-Settings, or
    None.

    Twilio's SDK skips what it does not know. This is stricter: a header in another form
    names no key.
    """
    match = _SETTINGS_HEADER.fullmatch(header)
    return (match[1], ALGORITHMS[match[2]]) if match else None


class KeyRing:
    """All secrets that may sign. After a reload of the settings, a new one replaces it.

    The AccountSid of the form selects the account's tokens and shared keys. It need not
    be verified first: it is one of the signed fields, so the keys of one account cannot
    sign for another. A shared key signs for its own account only, and only with its
    algorithm.
    """

    def __init__(
        self,
        primary: SecretLike,
        secondary: SecretLike | None = None,
        accounts: Mapping[str, AccountKeysLike] | None = None,
    ) -> None:
        second = (Key(secondary.reveal(), "secondary"),) if secondary else ()
        self._general: tuple[Key, ...] = (Key(primary.reveal(), "primary"), *second)
        self._own: dict[str, tuple[Key, ...]] = {}
        self._tokens: dict[str, tuple[Key, ...]] = {}
        self._shared: dict[str, dict[str, Key]] = {}
        for account_sid, account in (accounts or {}).items():
            own = tuple(Key(token.reveal(), "account") for token in account.tokens)
            self._own[account_sid] = own
            self._tokens[account_sid] = own + self._general
            self._shared[account_sid] = {
                key_id: Key(shared.secret.reveal(), "shared", shared.algorithm)
                for key_id, shared in account.shared_keys.items()
            }

    def keys_for(self, account_sid: str, settings_header: str | None) -> Sequence[Key]:
        """The keys that may have signed a form with this AccountSid.

        With the settings header: the shared key that it names, if the algorithm is the
        registered one. Without it: the account's own tokens, then primary and
        secondary, since the token of a parent account may sign for a sub-account.
        """
        if not settings_header:
            return self._tokens.get(account_sid, self._general)
        named = key_named(settings_header)
        if named is None:
            return ()
        key = self._shared.get(account_sid, {}).get(named[0])
        return (key,) if key is not None and key.algorithm == named[1] else ()

    def __iter__(self) -> Iterator[Key]:
        """Every key, for the diagnosis. Never use this to accept a request."""
        yield from self._general
        for account_sid, own in self._own.items():
            yield from own
            yield from self._shared[account_sid].values()


@lru_cache(maxsize=32)
def _layout(names: tuple[str, ...]) -> tuple[list[str], tuple[bytes, ...]]:
    """The sorted names, and the pieces of the signed string without the values.

    Forms have few shapes, and sorting is expensive.
    """
    ordered = sorted(names)
    return ordered, tuple(piece for name in ordered for piece in (_raw(name), b""))


def _raw(name: str) -> bytes:
    return name.encode("latin-1", "replace")


def mac(key: Key, signed: bytes) -> bytes:
    """The signature of `signed`, in base64."""
    made = key.begun.copy()
    made.update(signed)
    return b2a_base64(made.digest(), newline=False)


def octets(url: str) -> bytes:
    """The bytes of a URL, also of one from `from_wire`."""
    return url.encode("utf-8", "surrogateescape")
