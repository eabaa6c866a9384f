"""Every setting: its name, default, meaning and cast.

This is the only module that reads settings from an environment. `load` takes the
environment as a mapping, checks everything, and reports every problem at once, never
the value of a setting. Code that uses a setting must not call `load`: `app` passes each
value on as a constructor argument.

To add a setting, add a row to `SETTINGS` and a field to `typed.Settings`, in the same
place.
"""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from smsd.errors import SettingsError
from smsd.settings import casts as cast
from smsd.settings import consistency, files
from smsd.settings.casts import Invalid, Secret, StoreUrl
from smsd.settings.files import AccountKeys, Person, WebhookKey
from smsd.settings.typed import Settings

__all__ = [
    "SETTINGS",
    "AccountKeys",
    "Person",
    "Secret",
    "Settings",
    "StoreUrl",
    "WebhookKey",
    "load",
    "paths",
]

THANKS = "Thanks for the new message! "
HINT = (
    "`smsd keys --output smsd.env` makes SMSD_COOKIE_KEYS and SMSD_HASH_KEY, once; "
    "`smsd serve --dev` needs no settings at all"
)
"""Added to the problems if a required setting is missing."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table.

    default   the text that is cast if the setting is not given; for a file, the name of
              one in smsd/dialogues
    live      a new value takes effect without a restart
    file      the value is the path of a file, also under NAME_FILE, and `cast` gets the
              file's text
    """

    name: str
    field: str
    default: str | None
    cast: Callable[[str], object]
    meaning: str
    required: bool = False
    secret: bool = False
    live: bool = False
    file: bool = False


SETTINGS: tuple[Setting, ...] = (
    Setting("TWILIO_AUTH_TOKEN", "auth_token", None, cast.secret,
            "the auth token in Twilio's console; it signs the webhooks",
            required=True, secret=True, live=True),
    Setting("TWILIO_AUTH_TOKEN_SECONDARY", "auth_token_secondary", None, cast.secret,
            "accepted too, while tokens rotate", secret=True, live=True),
    Setting("TWILIO_ACCOUNT_SID", "account_sid", None, cast.account_sid,
            "if set, other accounts are refused (403)", live=True),
    Setting("TWILIO_API_KEY", "api_key", None, cast.api_key,
            "downloads media instead of the auth token; SK and 32 hexadecimal digits",
            secret=True, live=True),
    Setting("TWILIO_API_SECRET", "api_secret", None, cast.secret,
            "the secret of TWILIO_API_KEY", secret=True, live=True),
    Setting("SMSD_ACCOUNTS", "accounts", None, files.accounts,
            "TOML file of sub-accounts: their tokens and shared keys",
            secret=True, live=True, file=True),
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
            "memory:// (one process), cookie:// (state only in the cookie), "
            "memcached://host:port,host:port, or memcacheds:// for the same over TLS"),
    Setting("SMSD_STORE_CA", "store_ca", None, files.authorities,
            "PEM file of the authorities that memcacheds:// trusts; the system's if not set",
            file=True),
    Setting("SMSD_STORE_FORMER", "store_former", None, cast.nodes,
            "after a change of the nodes in SMSD_STORE: those of before, host:port,host:port; "
            "they are still read"),
    Setting("SMSD_STORE_TIMEOUT", "store_timeout_s", "0.25", cast.number(0.01, 5),
            "seconds for one store operation; 0.01 to 5"),
    Setting("SMSD_SESSION_TTL", "session_ttl_s", "14400", cast.whole(1, 2_591_000),
            "seconds from its last message until a conversation ends; 1 to 14400, "
            "with memcached up to 2591000"),
    Setting("SMSD_DIALOGUE", "dialogue", "smsd.dialogues.greeting:reply", cast.dialogue,
            "module:callable that answers"),
    Setting("SMSD_DIALOGUE_TIMEOUT", "dialogue_timeout_s", "10", cast.number(0.1, 300),
            "seconds for one run of the dialogue, then the apology is sent; 0.1 to 300"),
    Setting("SMSD_ANSWER_WITHIN", "answer_within_s", "12", cast.number(1, 14),
            "seconds that a request waits for its reply before Twilio is asked to come "
            "again; 1 to 14"),
    Setting("SMSD_ONE_MOMENT", "one_moment", "", cast.text,
            "text sent when Twilio is asked to come again for the first time; empty for none",
            live=True),
    Setting("SMSD_APOLOGY", "apology", "Sorry, something went wrong on our side. Please try again soon.",
            cast.text, "sent when the dialogue fails or is late; empty for silence", live=True),
    Setting("SMSD_PEOPLE", "people", "people.toml", files.people,
            "TOML file, number = name", live=True, file=True),
    Setting("SMSD_GREETING", "greeting", "{name} has messaged {to} {count} times", cast.template,
            "the greeting; fields name, from, to, count, times", live=True),
    Setting("SMSD_GREETING_FIRST", "greeting_first", None, cast.template,
            f"the greeting of a first message; if not set, `{THANKS}` and SMSD_GREETING", live=True),
    Setting("SMSD_DIRECTORY", "directory", "directory.toml", files.directory,
            "TOML file for the directory dialogue", live=True, file=True),
    Setting("SMSD_HISTORY", "history", "0", cast.whole(0, 32),
            "so many messages of a conversation keep their text for session.history; 0 to 32"),
    Setting("SMSD_LOOP_LIMIT", "loop_limit", "20", cast.whole(0, 29),
            "replies in one conversation within 30 s, beyond it silence; 0 turns it off"),
    Setting("SMSD_OPT_OUT", "opt_out", "on", cast.switch,
            "leave STOP, START, HELP and the like to Twilio: on or off"),
    Setting("SMSD_HOST", "host", cast.ALL_ADDRESSES, cast.host,
            "address of both listeners; * for all, IPv4 and IPv6"),
    Setting("SMSD_PORT", "port", "8080", cast.port, "public listener"),
    Setting("SMSD_ADMIN_PORT", "admin_port", "9090", cast.port,
            "admin listener, never routed by the ingress"),
    Setting("SMSD_DRAIN_DELAY", "drain_delay_s", "5", cast.number(0, 300),
            "seconds between failing readiness and closing the listener"),
    Setting("SMSD_LOG_FORMAT", "log_format", "json", cast.choice("json", "text", "pretty"),
            "json, text, or pretty (for a terminal)"),
    Setting("SMSD_LOG_LEVEL", "log_level", "info", cast.choice("debug", "info", "warning", "error"),
            "debug, info, warning or error"),
)  # fmt: skip


def load(
    environ: Mapping[str, str],
    *,
    dev: bool = False,
    token: Callable[[], str] = secrets.token_hex,
    dev_defaults: Mapping[str, str] | None = None,
) -> Settings:
    """Load and check the settings. Raises `SettingsError` with every problem.

    environ       the variables, such as `os.environ`
    dev           take what is not given from `dev_defaults`, then from `throw_away`
    token         returns at least 32 random characters
    dev_defaults  texts by the setting's name
    """
    defaults = {**throw_away(token), **(dev_defaults or {})} if dev else {}
    problems: list[str] = []
    values: dict[str, Any] = {}
    is_missing = False
    for setting in SETTINGS:
        try:
            values[setting.field] = _value(setting, environ, defaults)
        except _Missing as missing:
            is_missing = True
            problems.append(f"{setting.name}: {missing}")
        except Invalid as invalid:
            problems += [f"{setting.name}: {problem}" for problem in invalid.problems]
    _derive(values, dev=dev)
    problems += consistency.contradictions(values, dev=dev)
    if problems:
        raise SettingsError(*problems, hint=HINT if is_missing else "")
    given = frozenset(setting.name for setting in SETTINGS if _source(setting, environ))
    known = {name for setting in SETTINGS for name in (setting.name, f"{setting.name}_FILE")}
    warnings = consistency.warnings(values, given, environ, known=known, dev=dev)
    return Settings(**values, given=given, warnings=tuple(warnings))


def value_of(name: str, environ: Mapping[str, str]) -> Any:
    """One setting on its own, cast; `SettingsError` if it is wrong."""
    (setting,) = (setting for setting in SETTINGS if setting.name == name)
    try:
        return _value(setting, environ, {})
    except Invalid as found:
        raise SettingsError(*(f"{name}: {problem}" for problem in found.problems)) from None


def throw_away(token: Callable[[], str]) -> dict[str, str]:
    """The defaults of `serve --dev`: fresh secrets, and this machine only."""
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
    sources = ((setting, _source(setting, environ)) for setting in SETTINGS)
    return tuple(
        environ[name]
        for setting, name in sources
        if name and (setting.file or name != setting.name)
    )


class _Missing(Exception):
    """A required setting is not given."""


def _source(setting: Setting, environ: Mapping[str, str]) -> str | None:
    """The name of the variable that gives the setting.

    An empty variable counts as not given, except for a text, where empty means silence.
    """
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
        return setting.cast(files.read(environ[name]) if name else files.sample(setting.default))
    given = (
        _clean(setting, environ[name] if name == setting.name else files.read(environ[name]))
        if name
        else ""
    )
    if given or (name and setting.cast is cast.text):
        return setting.cast(given)
    fallback = defaults.get(setting.name, setting.default)
    if fallback is not None:
        return setting.cast(fallback)
    if setting.required and not (defaults and setting.name == "SMSD_PUBLIC_URL"):
        raise _Missing("is empty, and required" if name else "is required")
    return None


def _clean(setting: Setting, given: str) -> str:
    try:
        given.encode()
    except UnicodeEncodeError:
        raise Invalid("is not UTF-8 text") from None
    return given if setting.cast in (cast.text, cast.template) else given.strip()


def _derive(values: dict[str, Any], *, dev: bool) -> None:
    if values.get("greeting_first", "") is None and "greeting" in values:
        values["greeting_first"] = THANKS + values["greeting"]
    if dev and values.get("public_url", "") is None and {"host", "port"} <= values.keys():
        host = cast.LOOPBACK.get(values["host"], values["host"])
        values["public_url"] = f"http://{f'[{host}]' if ':' in host else host}:{values['port']}"
