"""The settings as the rest of smsd gets them: cast and checked. Reads nothing."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from smsd.settings.casts import Secret, StoreUrl
from smsd.settings.files import AccountKeys, Person


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings, cast and checked. Its repr shows no secret and no phone number."""

    auth_token: Secret
    auth_token_secondary: Secret | None
    account_sid: str | None
    api_key: Secret | None
    api_secret: Secret | None
    accounts: Mapping[str, AccountKeys] = field(repr=False)
    public_url: str  # without a slash at the end
    cookie_keys: Mapping[int, Secret]  # the first signs
    hash_key: Secret
    store: StoreUrl
    store_ca: str | None = field(repr=False)  # PEM text; None for the system's authorities
    store_former: tuple[str, ...] | None
    store_timeout_s: float
    session_ttl_s: int
    dialogue: str
    dialogue_timeout_s: float
    answer_within_s: float
    one_moment: str
    apology: str
    people: Mapping[str, str] = field(repr=False)  # number without channel prefix -> name
    greeting: str  # for str.format_map with name, from, to, count, times
    greeting_first: str
    directory: tuple[Person, ...] = field(repr=False)
    history: int
    loop_limit: int
    opt_out: bool
    host: str
    port: int
    admin_port: int
    drain_delay_s: float
    log_format: str
    log_level: str
    given: frozenset[str]  # names of the settings that were given, not taken from defaults
    warnings: tuple[str, ...]  # likely mistakes, one line each

    @property
    def prefix(self) -> str:
        """The path of `public_url`: "", or for example "/texts"."""
        return urlsplit(self.public_url).path
