"""One webhook call as Twilio makes it: retries, redirects, fallback URL. Generators, so no IO and no waiting.

They yield each `Request` to perform and are sent the `Answer` or `Failure` that came of it. The clock is
an argument.
"""

from base64 import b64encode
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from urllib.parse import urlencode, urljoin

from smsd.simulator import twiml
from smsd.simulator.jar import Jar, violates_http
from smsd.simulator.values import Answer, Attempt, Failure, Inbound, Params, Request
from smsd.simulator.webhook import Account, Webhook, signature_headers

MAX_REDIRECTS = 10
MAX_DOCUMENTS = 50
FOLLOWED = {301, 302, 303, 307}
FAILURE_CODES = {
    "connect_timeout": 11205,
    "refused": 11202,
    "read_timeout": 11203,
    "closed": 11205,
    "protocol": 11206,
    "host": 11210,
    "tls": 11220,
}
_CONNECTING = {"connect_timeout", "refused", "host", "tls"}  # what Twilio's "ct" covers
_Steps = Generator[Request, Answer | Failure, twiml.Document]
_Results = Generator[Request, Answer | Failure, Answer | Failure]


@dataclass(slots=True)
class Call:
    """The state of one call. `cookies` is the Cookie header; `jar` takes in what comes back, or None."""

    account: Account
    clock: Callable[[], float]
    idempotency_token: str
    cookies: str | None = None
    jar: Jar | None = None
    pair: tuple[str, str, str] = ("", "", "")
    attempts: list[Attempt] = field(default_factory=list)

    def message(self, inbound: Inbound) -> _Steps:
        """Ask the webhook, then the fallback URL if that failed. Returns the document, with all notices."""
        document = yield from self.document(self.account.url, inbound.params)
        if not (document.failed and self.account.fallback_url):
            return document
        again = [
            *inbound.params,
            ("ErrorCode", str(document.notices[-1].code)),
            ("ErrorUrl", self.asked_url),
        ]
        second = yield from self.document(self.account.fallback_url, again)
        second.notices[:0] = document.notices
        return second

    @property
    def asked_url(self) -> str:
        """The URL asked last."""
        return self.attempts[-1].request.url

    def document(self, url: str, params: Params) -> _Steps:
        """Ask one webhook with its retries, redirects and `<Redirect>` verbs."""
        hook = Webhook.parse(url)
        visit = _Visit(self, hook, params, self.clock() + hook.total_timeout_s)
        document, target = twiml.Document(), ("POST", hook.url)
        for _ in range(MAX_DOCUMENTS):
            page = yield from visit.page(*target)
            document.messages += page.messages
            document.notices += page.notices
            document.failed = page.failed
            if not page.redirect:
                return document
            target = page.redirect
        document.error(14106, "more than 50 documents for one message")
        return document


@dataclass(slots=True)
class _Visit:
    """One webhook URL asked: its overrides, its form, and when its time is over."""

    call: Call
    hook: Webhook
    params: Params
    deadline_s: float

    def page(self, method: str, url: str) -> _Steps:
        """One document, behind however many redirects."""
        for _ in range(MAX_REDIRECTS + 1):
            result = yield from self._tries(method, url)
            if isinstance(result, Failure):
                return twiml.failed(FAILURE_CODES[result.kind], f"{result.kind}: {result.detail}")
            if any(violates_http(line) for line in result.all("Set-Cookie")):
                return twiml.failed(11206, "HTTP protocol violation in Set-Cookie")
            if result.status not in FOLLOWED:
                return self._read(result, url)
            self._keep(result)
            target = result.header("Location")
            if not target:
                return twiml.failed(11200, f"status {result.status} without Location")
            url = urljoin(url, target).partition("#")[0]
            method = method if result.status == 307 else "GET"
        return twiml.failed(11215, "too many redirects")

    def _read(self, answer: Answer, url: str) -> twiml.Document:
        if 300 <= answer.status < 400:
            return twiml.failed(11216, f"redirect {answer.status} is not followed")
        if not 200 <= answer.status < 300:
            return twiml.failed(11200, f"status {answer.status}")
        self._keep(answer)
        return twiml.read(answer, url)

    def _keep(self, answer: Answer) -> None:
        if self.call.jar is not None:
            self.call.jar.store(self.call.pair, answer.all("Set-Cookie"))

    def _tries(self, method: str, url: str) -> _Results:
        for tried in range(self.hook.retries + 1):
            result = yield from self._once(method, url)
            spent = self.call.clock() >= self.deadline_s
            if spent or tried == self.hook.retries or not (_class(result) & self.hook.retried):
                break
        return result

    def _once(self, method: str, url: str) -> _Results:
        """Ask; and again with credentials, if there are any and the answer is that they are needed."""
        result = yield from self._perform(self._request(method, url))
        challenged = (
            isinstance(result, Answer)
            and result.status == 401
            and result.header("WWW-Authenticate")
        )
        if self.hook.credentials and challenged:
            token = b64encode(":".join(self.hook.credentials).encode()).decode()
            result = yield from self._perform(
                self._request(method, url, ("Authorization", f"Basic {token}"))
            )
        return result

    def _perform(self, request: Request) -> _Results:
        began_s = self.call.clock()
        result = yield request
        self.call.attempts.append(Attempt(request, result, began_s, self.call.clock()))
        return result

    def _request(self, method: str, url: str, *more: tuple[str, str]) -> Request:
        form = self.params if method == "POST" else ()
        headers = [("User-Agent", "TwilioProxy/1.1"), ("Accept", "*/*"), ("X-Home-Region", "us1")]
        headers.append(("I-Twilio-Idempotency-Token", self.call.idempotency_token))
        if method == "POST":
            headers.append(("Content-Type", "application/x-www-form-urlencoded; charset=UTF-8"))
        if self.call.cookies:
            headers.append(("Cookie", self.call.cookies))
        headers += [*signature_headers(self.call.account, url, form), *more]
        left_s = max(self.deadline_s - self.call.clock(), 0.001)
        limits_s = self.hook.connect_timeout_s, self.hook.read_timeout_s, left_s
        return Request(method, url, tuple(headers), urlencode(form).encode(), *limits_s)


def _class(result: Answer | Failure) -> set[str]:
    """Which names of `#rp` cover this result."""
    if isinstance(result, Failure):
        if result.begun:
            return set()
        if result.kind in _CONNECTING:
            return {"ct", "all"}
        return {"rt", "all"} if result.kind == "read_timeout" else {"all"}
    return {f"{result.status // 100}xx", "all"} if result.status >= 400 else set()
