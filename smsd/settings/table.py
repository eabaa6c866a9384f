"""Every setting: its name, its default, its meaning, its cast. The only file that reads the environment.

`load` takes a mapping and says everything that is wrong at once, never the value of anything.
It must not be called again by those who use the settings: they get them as constructor arguments.
"""

import difflib
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from smsd.errors import SettingsError
from smsd.settings import casts as cast
from smsd.settings import files as table
from smsd.settings.casts import Invalid, Secret, StoreUrl
from smsd.settings.files import Account, Person, SharedKey

__all__ = [
    "SETTINGS",
    "Account",
    "Person",
    "Secret",
    "Settings",
    "SharedKey",
    "StoreUrl",
    "load",
    "paths",
]

THANKS = "Thanks for the new message! "
_SERVICE_LINKS = re.compile(
    r"SMSD_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table of settings. `default` is the text that is cast when nothing is given.

    `live`: a new value takes effect without a restart. `file`: the value is the path of a TOML file,
    also under NAME_FILE; `default` is then the name of a file in smsd/dialogues.
    """

    name: str
    field: str
    default: str | None
    cast: Callable[[Any], object]
    meaning: str
    required: bool = False
    secret: bool = False
    live: bool = False
    file: bool = False


SETTINGS: tuple[Setting, ...] = (
    Setting("TWILIO_AUTH_TOKEN", "auth_token", None, cast.secret, "signs the webhooks",
            required=True, secret=True, live=True),
    Setting("TWILIO_AUTH_TOKEN_SECONDARY", "auth_token_secondary", None, cast.secret,
            "accepted too, while tokens rotate", secret=True, live=True),
    Setting("TWILIO_ACCOUNT_SID", "account_sid", None, cast.account_sid,
            "if set, other accounts are refused (403)", live=True),
    Setting("SMSD_ACCOUNTS", "accounts", None, table.accounts,
            "TOML file of sub-accounts: their tokens and shared keys", secret=True, live=True, file=True),
    Setting("SMSD_PUBLIC_URL", "public_url", None, cast.public_url,
            "what Twilio calls, such as https://sms.example.com", required=True),
    Setting("SMSD_COOKIE_KEYS", "cookie_keys", None, cast.cookie_keys,
            "2:secret,1:secret; the first signs, all verify; at least 32 characters each",
            required=True, secret=True, live=True),
    Setting("SMSD_HASH_KEY", "hash_key", None, cast.key,
            "at least 32 characters; keys the hash that stands for a pair of numbers; "
            "changing it ends all conversations",
            required=True, secret=True),
    Setting("SMSD_STORE", "store", "memory://", cast.store,
            "memory:// (one process), cookie:// (state only in the cookie), memcached://host:port,host:port"),
    Setting("SMSD_STORE_TIMEOUT", "store_timeout_s", "0.25", cast.number(0.01, 5),
            "seconds for one store operation"),
    Setting("SMSD_SESSION_TTL", "session_ttl_s", "14400", cast.whole(1, 14400),
            "seconds after its last message that a conversation ends; 1 to 14400"),
    Setting("SMSD_DIALOGUE", "dialogue", "smsd.dialogues.greeting:reply", cast.dialogue,
            "module:callable that answers"),
    Setting("SMSD_DIALOGUE_TIMEOUT", "dialogue_timeout_s", "10", cast.number(0.1, 14),
            "seconds; then the apology is sent"),
    Setting("SMSD_APOLOGY", "apology", "Sorry, something went wrong on our side. Please try again soon.",
            cast.text, "sent when the dialogue fails or is late; empty for silence", live=True),
    Setting("SMSD_PEOPLE", "people", "people.toml", table.people,
            "TOML file, number = name", live=True, file=True),
    Setting("SMSD_GREETING", "greeting", "{name} has messaged {to} {count} times", cast.template,
            "the greeting; fields name, from, to, count", live=True),
    Setting("SMSD_GREETING_FIRST", "greeting_first", None, cast.template,
            f"the greeting of a first message; if not set, `{THANKS}` and SMSD_GREETING", live=True),
    Setting("SMSD_DIRECTORY", "directory", "directory.toml", table.directory,
            "TOML file for the directory dialogue", live=True, file=True),
    Setting("SMSD_LOOP_LIMIT", "loop_limit", "20", cast.whole(0, 29),
            "replies in one conversation within 30 s, beyond it silence; 0 turns it off"),
    Setting("SMSD_OPT_OUT", "opt_out", "on", cast.switch,
            "leave STOP, START, HELP and their like to Twilio: on or off"),
    Setting("SMSD_HOST", "host", "0.0.0.0", cast.host,  # noqa: S104 - it is a server
            "address of both listeners"),
    Setting("SMSD_PORT", "port", "8080", cast.port, "public listener"),
    Setting("SMSD_ADMIN_PORT", "admin_port", "9090", cast.port,
            "admin listener, never routed by the ingress"),
    Setting("SMSD_DRAIN_DELAY", "drain_delay_s", "5", cast.number(0, 300),
            "seconds between readiness failing and the listener closing"),
    Setting("SMSD_LOG_FORMAT", "log_format", "json", cast.choice("json", "text"), "json or text"),
    Setting("SMSD_LOG_LEVEL", "log_level", "info", cast.choice("debug", "info", "warning", "error"),
            "debug, info, warning or error"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings, cast and checked. Secrets and phone numbers do not show in its repr."""

    auth_token: Secret
    auth_token_secondary: Secret | None
    account_sid: str | None
    accounts: Mapping[str, Account] = field(repr=False)
    public_url: str  # without slash at the end
    cookie_keys: Mapping[int, Secret]  # the first signs
    hash_key: Secret
    store: StoreUrl
    store_timeout_s: float
    session_ttl_s: int
    dialogue: str
    dialogue_timeout_s: float
    apology: str
    people: Mapping[str, str] = field(repr=False)  # number without channel prefix -> name
    greeting: str  # for str.format_map with name, from, to, count
    greeting_first: str
    directory: tuple[Person, ...] = field(repr=False)
    loop_limit: int
    opt_out: bool
    host: str
    port: int
    admin_port: int
    drain_delay_s: float
    log_format: str
    log_level: str
    given: frozenset[str]  # names of the settings that were given, not taken from defaults
    warnings: tuple[str, ...]  # what looks like a mistake but is none for sure, a line each

    @property
    def prefix(self) -> str:
        """The path of `public_url`: "" or such as "/texts"."""
        return urlsplit(self.public_url).path


def load(
    environ: Mapping[str, str],
    *,
    dev: bool = False,
    token: Callable[[], str] = secrets.token_hex,
    dev_defaults: Mapping[str, str] | None = None,
) -> Settings:
    """The settings, or `SettingsError` with every problem.

    With `dev`, what is not given comes from `dev_defaults` (texts by name), or else from `throw_away`;
    `token` gives at least 32 random characters.
    """
    defaults = {**throw_away(token), **(dev_defaults or {})} if dev else {}
    problems: list[str] = []
    values: dict[str, Any] = {}
    for setting in SETTINGS:
        try:
            values[setting.field] = _value(setting, environ, defaults)
        except Invalid as found:
            problems += [f"{setting.name}: {problem}" for problem in found.problems]
    _derive(values, dev=dev)
    problems += _contradictions(values, dev=dev)
    if problems:
        raise SettingsError(*problems)
    given = frozenset(setting.name for setting in SETTINGS if _source(setting, environ))
    return Settings(**values, given=given, warnings=tuple(_warnings(values, environ, dev=dev)))


def throw_away(token: Callable[[], str]) -> dict[str, str]:
    """What `serve --dev` takes for settings that are not given: fresh secrets, this machine only."""
    return {
        "TWILIO_AUTH_TOKEN": token(),
        "SMSD_COOKIE_KEYS": f"1:{token()}",
        "SMSD_HASH_KEY": token(),
        "SMSD_HOST": "127.0.0.1",
        "SMSD_DRAIN_DELAY": "0",
        "SMSD_LOG_FORMAT": "text",
    }


def paths(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Every file that `load` reads for this environment."""
    found = ((setting, _source(setting, environ)) for setting in SETTINGS)
    return tuple(
        environ[name] for setting, name in found if name and (setting.file or name != setting.name)
    )


def _source(setting: Setting, environ: Mapping[str, str]) -> str | None:
    """Which variable gives it. One that is set but empty gives nothing, except where silence can be meant."""
    empty_counts = setting.cast is cast.text
    names = (
        [setting.name]
        if environ.get(setting.name) or (empty_counts and setting.name in environ)
        else []
    )
    if environ.get(f"{setting.name}_FILE"):
        names.append(f"{setting.name}_FILE")
    return names[-1] if names else None


def _value(setting: Setting, environ: Mapping[str, str], defaults: Mapping[str, str]) -> object:
    if environ.get(setting.name) and environ.get(f"{setting.name}_FILE"):
        raise Invalid(f"is given twice, also as {setting.name}_FILE")
    name = _source(setting, environ)
    if setting.file:
        content = table.read(environ[name]) if name else table.sample(setting.default)
        return setting.cast(table.toml(content))
    given = (
        _clean(setting, environ[name] if name == setting.name else table.read(environ[name]))
        if name
        else ""
    )
    if given or (name and setting.cast is cast.text):
        return setting.cast(given)
    fallback = defaults.get(setting.name, setting.default)
    if fallback is not None:
        return setting.cast(fallback)
    if setting.required and not (defaults and setting.name == "SMSD_PUBLIC_URL"):
        raise Invalid("is empty, and required" if name else "is required")
    return None


def _clean(setting: Setting, given: str) -> str:
    try:
        given.encode()
    except UnicodeEncodeError:
        raise Invalid("is no UTF-8 text") from None
    return given if setting.cast in (cast.text, cast.template) else given.strip()


def _derive(values: dict[str, Any], *, dev: bool) -> None:
    if values.get("greeting_first", "") is None and "greeting" in values:
        values["greeting_first"] = THANKS + values["greeting"]
    if dev and values.get("public_url", "") is None and {"host", "port"} <= values.keys():
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(values["host"], values["host"])  # noqa: S104 - is replaced
        values["public_url"] = f"http://{f'[{host}]' if ':' in host else host}:{values['port']}"


def _contradictions(values: Mapping[str, Any], *, dev: bool) -> Iterator[str]:
    url = urlsplit(values.get("public_url") or "")
    if url.scheme == "http" and not dev and url.hostname not in ("localhost", "127.0.0.1", "::1"):
        yield "SMSD_PUBLIC_URL: must begin with https://"
    if values.get("port") and values.get("port") == values.get("admin_port"):
        yield "SMSD_ADMIN_PORT: must differ from SMSD_PORT"


def _warnings(values: Mapping[str, Any], environ: Mapping[str, str], *, dev: bool) -> Iterator[str]:
    if values["store"].kind == "memory" and not dev:
        yield "SMSD_STORE: memory:// serves one process only, and forgets when it ends"
    if values["public_url"].endswith("/sms"):
        yield "SMSD_PUBLIC_URL: ends in /sms, so the webhook is /sms/sms; leave it away unless that is meant"
    known = {name for setting in SETTINGS for name in (setting.name, f"{setting.name}_FILE")}
    for name in sorted(set(environ) - known):
        if (
            name.startswith("SMSD_")
            and not _SERVICE_LINKS.fullmatch(name)
            and "://" not in environ[name][:7]
        ):
            close = difflib.get_close_matches(name, known, 1)
            yield f"{name}: no such setting" + (f"; is {close[0]} meant?" if close else "")
