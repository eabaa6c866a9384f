"""What a Twilio account configures: the webhook's URLs with their overrides, and the
keys that sign.

Signs with the validator of Twilio's SDK, on purpose: the service's own verification
must agree with code that somebody else wrote.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

from twilio.request_validator import HMAC_SHA1, RequestValidator

from smsd.simulator.values import Params

CLASSES = ("4xx", "5xx", "ct", "rt")
_RANGES = {"ct": (100, 10000), "rt": (100, 15000), "tt": (100, 15000), "rc": (0, 5)}


@dataclass(frozen=True, slots=True)
class WebhookUrl:
    """A webhook URL taken apart, with the connection overrides after its `#`.

    url                what Twilio requests and signs: without fragment and credentials
    credentials        user and password, if the URL has them
    connect_timeout_s  `ct`, in seconds
    read_timeout_s     `rt`
    total_timeout_s    `tt`: for one document, retries included
    retries            `rc`
    retried            `rp`: which results are retried, of 4xx, 5xx, ct, rt, all

    Called `Webhook` before 0.2.
    """

    url: str
    credentials: tuple[str, str] | None = None
    connect_timeout_s: float = 5.0
    read_timeout_s: float = 15.0
    total_timeout_s: float = 15.0
    retries: int = 1
    retried: frozenset[str] = frozenset({"ct"})

    @classmethod
    def parse(cls, url: str) -> "WebhookUrl":
        """Read `https://user:password@host/path?query#ct=…&rt=…&tt=…&rc=…&rp=…`.

        Raises ValueError for what Twilio's console would refuse (error 11100).
        """
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("11100: a webhook needs an absolute http or https URL")
        bare = urlunsplit(
            (parts.scheme, parts.netloc.rpartition("@")[2], parts.path or "/", parts.query, "")
        )
        bare += (
            "?" if url.partition("#")[0].endswith("?") else ""
        )  # a bare "?" is part of what is signed
        given = dict(parse_qsl(parts.fragment))
        number = {key: _ranged(key, given[key]) for key in _RANGES if key in given}
        return cls(
            url=bare,
            credentials=(unquote(parts.username), unquote(parts.password or ""))
            if parts.username
            else None,
            connect_timeout_s=number.get("ct", 5000) / 1000,
            read_timeout_s=number.get("rt", 15000) / 1000,
            total_timeout_s=number.get("tt", 15000) / 1000,
            retries=number.get("rc", 1),
            retried=_classes(given.get("rp", "ct")),
        )


def _ranged(key: str, value: str) -> int:
    low, high = _RANGES[key]
    if not value.isdecimal() or not low <= int(value) <= high:
        raise ValueError(f"11100: #{key} must be {low} to {high}")
    return int(value)


def _classes(value: str) -> frozenset[str]:
    names = frozenset(value.split(","))
    if not names <= {*CLASSES, "all"}:
        raise ValueError("11100: #rp must be 4xx, 5xx, ct, rt or all")
    return frozenset(CLASSES) | {"all"} if "all" in names else names


@dataclass(frozen=True, slots=True)
class SharedKey:
    """A signing secret of its own, which Twilio uses instead of the account's token."""

    key_id: str
    secret: str
    algorithm: str = "HMAC_SHA256"


@dataclass(frozen=True, slots=True)
class Account:
    """A Twilio account and the webhook of its numbers.

    sid               AccountSid
    token             the auth token that signs
    url               what is called for a message, with overrides after `#`
    fallback_url      what is called when a document fails
    status_url        where delivery statuses go unless a `<Message>` says otherwise
    shared_key        signs instead of the token
    advanced_opt_out  whether requests carry OptOutType
    signed            False: requests carry no X-Twilio-Signature, as a stranger's would
    """

    sid: str
    token: str
    url: str
    fallback_url: str | None = None
    status_url: str | None = None
    shared_key: SharedKey | None = None
    advanced_opt_out: bool = False
    signed: bool = True


class _Multi:
    """Form parameters as the SDK's validator reads them: a name may stand more than
    once."""

    def __init__(self, params: Params) -> None:
        self._params = params

    def __iter__(self) -> Iterator[str]:
        return iter({name for name, _ in self._params})

    def __len__(self) -> int:
        return len(self._params)

    def getall(self, name: str) -> list[str]:
        return [value for key, value in self._params if key == name]


def signature_headers(account: Account, url: str, params: Params) -> list[tuple[str, str]]:
    """The headers that sign a request for this URL with these form parameters (none for
    GET)."""
    if not account.signed:
        return []
    key = account.shared_key
    algorithm = key.algorithm if key else HMAC_SHA1
    validator = RequestValidator(key.secret if key else account.token)
    signature = str(validator.compute_signature(url, _Multi(params), algorithm))
    headers = [("X-Twilio-Signature", signature)]
    if key:
        headers.append(
            ("X-Twilio-Webhooks-Signature-Settings", f"key={key.key_id},algorithm={key.algorithm}")
        )
    return headers
