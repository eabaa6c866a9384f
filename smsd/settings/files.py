"""Reads the files that settings name, and casts their text: TOML tables and
certificates.

Reads no environment. Like the other casts, those here raise `Invalid` and never quote
the file: it contains phone numbers or secrets.
"""

import os
import re
import ssl
import stat
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from smsd.settings.casts import Invalid, Secret, account_sid, secret

MAX_FILE_BYTES = 1_000_000
_ALGORITHMS = {"HMAC_SHA1": "sha1", "HMAC_SHA256": "sha256"}


@dataclass(frozen=True, slots=True)
class WebhookKey:
    """A shared key that signs webhooks, and its only hash function: "sha1" or "sha256"."""

    secret: Secret
    algorithm: str


@dataclass(frozen=True, slots=True)
class AccountKeys:
    """What may sign for one account: auth tokens, and shared keys by id."""

    tokens: tuple[Secret, ...]
    shared_keys: Mapping[str, WebhookKey]


@dataclass(frozen=True, slots=True)
class Person:
    """One entry of the directory. What the file leaves out is empty."""

    name: str
    phone: str = ""
    email: str = ""
    picture: str = ""


def read(path: str) -> str:
    """The text of a regular file, without its last line break."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise Invalid("its file is not a regular file")
        with open(path, "rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a path that contains NUL
        raise Invalid(
            f"its file cannot be read: {getattr(error, 'strerror', 'not a path')}"
        ) from None
    if len(content) > MAX_FILE_BYTES:
        raise Invalid(f"its file has more than {MAX_FILE_BYTES:,} bytes")
    try:
        return content.decode("utf-8-sig").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise Invalid("its file is not UTF-8 text") from None


def sample(name: str | None) -> str:
    """The text of a file that comes with smsd, or "" for none."""
    return (files("smsd") / "dialogues" / name).read_text("utf-8") if name else ""


def toml(content: str) -> dict[str, Any]:
    """Parse TOML. An error names the place only: the parser's own text may quote the
    file."""
    try:
        return tomllib.loads(content)
    except tomllib.TOMLDecodeError as error:
        place = re.search(r"\(at (line [0-9]+, column [0-9]+|end of document)\)$", str(error))
        raise Invalid(f"its file is not TOML {place[0] if place else ''}".rstrip()) from None


def people(content: str) -> dict[str, str]:
    """Number to name, from TOML.

    Blanks, hyphens, dots, parentheses and the channel prefix of a number are dropped.
    """
    names: dict[str, str] = {}
    problems = []
    for place, (raw, name) in enumerate(toml(content).items(), 1):
        number = _number(raw)
        if not isinstance(name, str) or not name.strip():
            problems.append(f'entry {place} must be "+14155550123" = "Name"')
        elif re.fullmatch(r"[0-9]{9,}", number):
            problems.append(
                f"entry {place}: a number of this length must begin with + and the country code"
            )
        elif number in names:
            problems.append(f"entry {place} has the number of an earlier one; remove one of them")
        names[number] = name
    if problems:
        raise Invalid(*problems)
    return names


def _number(raw: str) -> str:
    address = raw.rpartition(":")[2].strip()
    digits = re.sub(r"[ ().-]", "", address)
    return digits if re.fullmatch(r"\+?[0-9]+", digits) else address


def directory(content: str) -> tuple[Person, ...]:
    """The `[[person]]` tables, in the order of the file."""
    table = toml(content)
    persons = table.get("person")
    if set(table) != {"person"} or not isinstance(persons, list):
        raise Invalid("must contain [[person]] tables and nothing else")
    problems = [
        f"person {place} {said}"
        for place, person in enumerate(persons, 1)
        for said in _person_problems(person)
    ]
    if problems:
        raise Invalid(*problems)
    return tuple(Person(**person) for person in persons)


def _person_problems(person: object) -> Iterator[str]:
    if not isinstance(person, dict) or not all(isinstance(value, str) for value in person.values()):
        yield "may hold only texts in quotes"
        return
    if set(person) - set(Person.__slots__):
        yield "has an unknown key; use name, phone, email and picture"
    if not person.get("name", "").strip():
        yield 'has no name; add name = "…"'
    picture = person.get("picture", "https://example.com")
    if not (re.fullmatch(r"https?://[^/\s]+\S*", picture) and picture.isprintable()):
        yield "has a picture that is not a URL; write https://…"


def accounts(content: str) -> dict[str, AccountKeys]:
    """AccountSid to what may sign for it, from TOML."""
    found = {}
    problems = []
    for place, (sid, entry) in enumerate(toml(content).items(), 1):
        try:
            found[account_sid(sid)] = _account(entry)
        except Invalid as problem:
            problems.append(f"account {place}: {problem}")
    if problems:
        raise Invalid(*problems)
    return found


def _account(entry: object) -> AccountKeys:
    if not isinstance(entry, dict) or not entry or set(entry) - {"tokens", "shared_keys"}:
        raise Invalid("must be a table with tokens, shared_keys or both")
    tokens, shared_keys = entry.get("tokens", []), entry.get("shared_keys", {})
    if not isinstance(tokens, list) or not isinstance(shared_keys, dict):
        raise Invalid("tokens must be a list of texts, shared_keys a table")
    return AccountKeys(
        tuple(_entry_secret(token) for token in tokens),
        {name: _shared_key(name, shared) for name, shared in shared_keys.items()},
    )


def _shared_key(name: str, entry: object) -> WebhookKey:
    complete = isinstance(entry, dict) and set(entry) == {"secret", "algorithm"}
    if not isinstance(entry, dict) or not complete or not re.fullmatch(r"[^\s,=]+", name):
        raise Invalid("a shared key must be KEYID = { secret = …, algorithm = … }")
    if entry["algorithm"] not in _ALGORITHMS:
        raise Invalid("the algorithm of a shared key must be HMAC_SHA256 or HMAC_SHA1")
    return WebhookKey(_entry_secret(entry["secret"]), _ALGORITHMS[entry["algorithm"]])


def _entry_secret(value: object) -> Secret:
    if not isinstance(value, str) or not value.strip():
        raise Invalid("a token or secret must be a non-empty text")
    return secret(value)


def authorities(content: str) -> str | None:
    """The certificates of a PEM file, as text that `ssl` accepts; None if there are
    none."""
    if not content.strip():
        return None
    try:
        ssl.create_default_context(cadata=content)
    except (ssl.SSLError, TypeError):  # TypeError: not ASCII
        raise Invalid("its file is not a PEM file of certificates") from None
    return content
