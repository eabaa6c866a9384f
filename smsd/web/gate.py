"""Decides which requests may come in: it checks the number of fields, the signature and
the account.

It raises `Rejected` for the others; `smsd.web.handlers` chooses the HTTP status.
"""

import math
import re
from collections.abc import Callable, Collection, Mapping

from smsd.errors import SignatureMismatch, SignatureMissing, TooLarge, WrongAccount
from smsd.twilio.diagnosis import explain
from smsd.twilio.signature import KeyRing, Params, candidate_urls, verify

MAX_BODY_BYTES = 64 * 1024
MAX_FIELDS = 1000
EXPLAIN_EVERY_S = 1.0
"""Examine a mismatch at most this often: it costs milliseconds, and anybody can cause
one."""

_HOP_FIELD = re.compile(r"(?:hop|turn)=")
_HOP = re.compile(r"[?&](?:hop|turn)=([0-9]{1,3})(?:&|$)")


def hop_of(uri: str) -> int:
    """How often Twilio was asked to come again, as the request's `hop=N` says; else 0.

    Replicas of the version before write `turn=N`.

    >>> hop_of("/sms?shop=1&hop=3"), hop_of("/sms?turn=2"), hop_of("/sms"), hop_of("/sms?hop=x")
    (3, 2, 0, 0)
    """
    found = _HOP.search(uri)
    return int(found[1]) if found else 0


class Gate:
    """Checks requests. `ring` and `accounts` may be replaced at any time.

    ring        all secrets that may sign
    public_url  the URL that Twilio calls, without a slash at the end
    prefix      its path
    accounts    the only AccountSids that are served; empty for all
    clock_s     a monotonic clock in seconds
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
        self._explained_s = -math.inf

    def check(
        self, uri: str, body: bytes, params: Params, signature: str, signature_settings: str
    ) -> str:
        """Return the label of the key that signed, or raise `Rejected`.

        uri                 the raw request target
        body                the raw body, and `params` the form in it
        signature           X-Twilio-Signature, or ""
        signature_settings  X-Twilio-Webhooks-Signature-Settings, or ""
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
        """Raise `WrongAccount` if the account is not served."""
        if self.accounts and account_sid not in self.accounts:
            raise WrongAccount

    def explain(self, uri: str, params: Params, headers: Mapping[str, str]) -> str | None:
        """The likely cause of a mismatch, one of `diagnosis.CAUSES`.

        None if the last mismatch was examined less than EXPLAIN_EVERY_S ago.
        """
        now_s = self._clock_s()
        if 0 <= now_s - self._explained_s < EXPLAIN_EVERY_S:
            return None
        self._explained_s = now_s
        return explain(self.ring, self._public_url, self._target(uri), params, headers)

    def hop_url(self, uri: str, hop: int) -> str:
        """The public URL of the same webhook with `hop=N`; the rest of the query stays."""
        path, _, query = self._target(uri).partition("?")
        fields = [field for field in query.split("&") if field and not _HOP_FIELD.match(field)]
        return f"{self._public_url}{path}?{'&'.join([*fields, f'hop={hop}'])}"

    def _target(self, uri: str) -> str:
        """The target below the path of the public URL, which an ingress may have
        stripped."""
        return (
            uri[len(self._prefix) :] if self._prefix and uri.startswith(f"{self._prefix}/") else uri
        )
