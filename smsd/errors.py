"""Every error that smsd raises itself, in one tree.

No error's text contains a phone number, a message or a secret. Each docstring says what
happened, who raises the error, and who catches it.
"""

from typing import Literal


class SmsdError(Exception):
    """The root of the tree: `except SmsdError` catches whatever smsd raises on purpose."""


class SettingsError(SmsdError):
    """The operator's settings cannot be used.

    Raised by `settings` and by the loading of a dialogue. Caught by the commands, which
    exit with 2, and by the reload, which keeps the old settings.

    problems  one line each, beginning with the name of a setting
    hint      what helps with all of them, or ""
    """

    def __init__(self, *problems: str, hint: str = "") -> None:
        super().__init__("; ".join(problems))
        self.problems = problems
        self.hint = hint


class Rejected(SmsdError):
    """A request is refused and changes nothing.

    Raised by `web.gate` and `twilio.message`. Caught by `web.handlers`, which chooses
    the HTTP status.
    """


class SignatureMissing(Rejected):
    """There is no X-Twilio-Signature: Twilio did not send it, or a proxy removed the
    header."""


class SignatureMismatch(Rejected):
    """X-Twilio-Signature does not fit: Twilio did not send it, or URL or token differ."""


class WrongAccount(Rejected):
    """The signature is good, but the account is not served."""


class Malformed(Rejected):
    """The signature is good, but the form is not a message as Twilio documents it."""


class TooLarge(Rejected):
    """The body has more than 64 KiB or more than 1,000 fields."""


class CookieError(SmsdError):
    """A cookie cannot be used.

    Raised by `conversation.copy`. Caught by `exchange`, which answers without it.
    """

    state: Literal["expired", "foreign", "forged"]  # the label of smsd_cookies_total


class CookieExpired(CookieError):
    """The cookie is older than SMSD_SESSION_TTL: its conversation has ended."""

    state = "expired"


class CookieForeign(CookieError):
    """smsd signed the cookie, but for another conversation."""

    state = "foreign"


class CookieForged(CookieError):
    """No key of ours signed the cookie, or it cannot be read: forged, truncated, or
    newer."""

    state = "forged"


class RecordError(SmsdError):
    """Stored bytes are not a record of this version.

    Raised by `conversation`. Caught by the stores, which treat the record as lost.
    """


class SaveUnsettled(SmsdError):
    """The connection ended before a save was answered: perhaps it was carried out.

    Raised by stores. Caught by the overlay, which reads what is there.
    """


class StoreUnavailable(SmsdError):
    """A store did not answer in time, or not usefully.

    Raised by stores. Caught by the overlay, which takes the store's place.

    node  the node's name, as the settings have it
    kind  a value of the label `kind` of smsd_store_errors_total
    """

    def __init__(self, node: str, kind: str) -> None:
        super().__init__(f"{node}: {kind}")
        self.node = node
        self.kind = kind


class ReplyError(SmsdError):
    """A reply exceeds Twilio's limits.

    Raised by `Reply`. Caught by `exchange`, which sends the apology.
    """


class DataError(SmsdError):
    """`session.data` is not a JSON object, or is too large.

    Raised by `session`. Caught by `exchange`, which sends the apology.
    """


class DialogueTimeout(SmsdError):
    """The dialogue did not return within SMSD_DIALOGUE_TIMEOUT.

    Raised and caught by `exchange`, which sends the apology.
    """


class UserCodeError(SmsdError):
    """User code raised something else than an `Exception`, such as SystemExit.

    The original is its `__cause__`. Raised by `dialogues`. Caught by `exchange`.
    """


class RouteError(SmsdError):
    """Two routes take the same messages, or one can never be reached.

    Raised by `Router` while routes are registered. The text names both, with file and
    line.
    """


class MediaError(SmsdError):
    """A file cannot be downloaded. The text says why, without the URL.

    Raised by `Media.read`.

    status  the HTTP status, or None if no answer came
    """

    def __init__(self, text: str, status: int | None = None) -> None:
        super().__init__(text)
        self.status = status


class TooManyWaiting(SmsdError):
    """Too many messages of the conversation wait for their turn. The apology is sent."""


class TooManyHops(SmsdError):
    """There was still no reply after the last redirect. The apology is sent."""


class DialogueKilledProcess(SmsdError):
    """Every process that ran the dialogue for this message died. The apology is sent."""
