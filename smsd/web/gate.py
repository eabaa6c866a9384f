"""Who may come in: sizes, signature, account. Raises `Rejected` for whoever may not; knows no HTTP status and
no socket.
"""

import re
from collections.abc import Callable, Collection, Mapping

from smsd.errors import SignatureMismatch, SignatureMissing, TooLarge, WrongAccount
from smsd.twilio.diagnosis import explain
from smsd.twilio.signature import KeyRing, Params, candidate_urls, verify

MAX_BODY_BYTES = 64 * 1024
MAX_FIELDS = 1000
EXPLAIN_EVERY_S = 1.0
"""A mismatch is examined at most so often: it costs milliseconds, and anybody can cause it."""

_TURN = re.compile(r"turn=")
_HOP = re.compile(r"[?&]turn=([0-9]{1,3})(?:&|$)")


def hop_of(uri: str) -> int:
    """How often Twilio was asked to come again, as the request's `turn=N` says; else 0.

    >>> hop_of("/sms?shop=1&turn=3"), hop_of("/sms"), hop_of("/sms?turn=x")
    (3, 0, 0)
    """
    found = _HOP.search(uri)
    return int(found[1]) if found else 0


class Gate:
    """`ring` and `accounts` may be replaced at any time.

    accounts  the only AccountSids that are served; empty for all
    """

    def __init__(
        self,
        ring: KeyRing,
        *,
        public_url: str,
        prefix: str,
        accounts: Collection[str],
        clock_s: Callable[[], float],
    ) -> None:
        self.ring = ring
        self.accounts = accounts
        self._public_url = public_url
        self._prefix = prefix
        self._clock_s = clock_s
        self._explain_after_s = clock_s()

    def check(
        self, uri: str, body: bytes, params: Params, signature: str, signature_settings: str
    ) -> str:
        """The label of the key that signed. `uri` is the raw request target, `body` the raw form; the headers
        X-Twilio-Signature and X-Twilio-Webhooks-Signature-Settings are "" if they are not there.
        """
        if body.count(b"&") >= MAX_FIELDS:
            raise TooLarge
        if not signature:
            raise SignatureMissing
        account = params.get("AccountSid")
        account_sid = account[0].decode("utf-8", "replace") if account else ""
        keys = self.ring.keys_for(account_sid, signature_settings)
        key = verify(keys, candidate_urls(self._public_url, self._target(uri)), params, signature)
        if key is None:
            raise SignatureMismatch
        return key.label

    def check_account(self, account_sid: str) -> None:
        """WrongAccount for a good signature of an account that is not served."""
        if self.accounts and account_sid not in self.accounts:
            raise WrongAccount

    def explain(self, uri: str, params: Params, headers: Mapping[str, str]) -> str | None:
        """The likely cause of a mismatch, one of `mismatch.CAUSES`; None while the last one is too recent."""
        now_s = self._clock_s()
        if now_s < self._explain_after_s:
            return None
        self._explain_after_s = now_s + EXPLAIN_EVERY_S
        return explain(self.ring, self._public_url, self._target(uri), params, headers)

    def hop_url(self, uri: str, hop: int) -> str:
        """The public URL of the same webhook with `turn=hop`; the rest of the query stays."""
        path, _, query = self._target(uri).partition("?")
        fields = [field for field in query.split("&") if field and not _TURN.match(field)]
        return f"{self._public_url}{path}?{'&'.join([*fields, f'turn={hop}'])}"

    def _target(self, uri: str) -> str:
        """The path below the public URL's, which an ingress may have stripped or not."""
        return (
            uri[len(self._prefix) :] if self._prefix and uri.startswith(f"{self._prefix}/") else uri
        )
