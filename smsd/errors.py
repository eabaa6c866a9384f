"""Every error smsd raises itself, in one tree. No text of an error holds a number, a body or a secret.

Each docstring says who raises, whose fault it is, and who catches.
"""


class SmsdError(Exception):
    """The root: `except SmsdError` catches whatever smsd raises on purpose."""


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
    """A request that changes nothing. Raised by the checks below, caught by `handlers`, which chooses the
    status.
    """

    reason: str  # the label of smsd_rejected_total


class SignatureMissing(Rejected):
    """No X-Twilio-Signature: not Twilio, or a proxy that strips headers."""

    reason = "signature_missing"


class SignatureMismatch(Rejected):
    """X-Twilio-Signature does not fit: not Twilio, or a URL or a token that differs from Twilio's."""

    reason = "signature_mismatch"


class WrongAccount(Rejected):
    """A good signature of another account than TWILIO_ACCOUNT_SID."""

    reason = "account"


class Malformed(Rejected):
    """A good signature over parameters that are no message: one is missing or has not the form Twilio
    documents.
    """

    reason = "malformed"


class TooLarge(Rejected):
    """A body of more than 64 KiB or more than 1,000 fields."""

    reason = "too_large"


class CookieError(SmsdError):
    """A cookie that is of no use. Raised by `cookie`, caught by `exchange`: the message is answered without
    it.
    """

    state: str  # the label of smsd_cookies_total


class CookieExpired(CookieError):
    """Older than the session lifetime; the conversation it tells of is over."""

    state = "expired"


class CookieForeign(CookieError):
    """Signed by us, for another conversation."""

    state = "foreign"


class CookieForged(CookieError):
    """Not signed by any of our keys, or not readable: forged, truncated, garbage or of a later version."""

    state = "forged"


class RecordError(SmsdError):
    """Raised by `conversation`: bytes that are no record of this version. Caught by the stores, which treat
    it as lost.
    """


class StoreUnavailable(SmsdError):
    """Raised by stores: no answer in time, or none of use. Caught by `exchange`, which goes on with the
    overlay.
    """

    def __init__(self, node: str, kind: str) -> None:
        super().__init__(f"{node}: {kind}")
        self.node = node
        self.kind = kind


class ReplyError(SmsdError):
    """Raised by `Reply`: more than Twilio takes. The dialogue's fault; `exchange` sends the apology."""


class DataError(SmsdError):
    """Raised by `exchange`: `session.data` is no JSON object or too large. The dialogue's fault; the apology
    is sent.
    """


class DialogueTimeout(SmsdError):
    """Raised and caught by `exchange`: the dialogue did not return within SMSD_DIALOGUE_TIMEOUT."""


class UserCodeError(SmsdError):
    """Stands for what user code raised that is no ordinary exception, such as SystemExit or
    CancelledError; the original is its `__cause__`. Raised by `dialogues`, caught by `exchange`.
    """


class RouteError(SmsdError):
    """Raised by `Router` while routes are registered: two routes take the same messages, or one
    can never be reached. The text names both with file and line.
    """


class MediaError(SmsdError):
    """Raised by `Media.read`: the file cannot be downloaded. The text says why and never holds
    the URL. `status` is the HTTP status, or None if no answer came.
    """

    def __init__(self, text: str, status: int | None = None) -> None:
        super().__init__(text)
        self.status = status


class TooManyWaiting(SmsdError):
    """As many messages of the conversation wait as smsd lets wait. The apology is sent."""


class TooManyHops(SmsdError):
    """There was no reply when Twilio had been asked to come again as often as it does.
    The apology is sent.
    """


class DialogueKilledProcess(SmsdError):
    """Each process that ran the dialogue for this message stopped giving signs of life.
    The apology is sent.
    """
