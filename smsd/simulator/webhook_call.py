"""One webhook call as Twilio makes it: retries, HTTP redirects, `<Redirect>`, fallback
URL.

This module must not do IO, sleep or read a clock of its own: the clock is an argument.

The idea: a call is a generator. It yields each `Request` to perform and is sent the
`Response` or `Failure` that came of it. Whoever drives the generator decides what
performing means: a socket, an in-process service, or a test's script in virtual time.

A call is a chain of documents. Each document has time-outs, retries and a total time of
its own, taken from the fragment of its own URL, and Twilio acts on each document as
soon as it is reached: a text before a `<Redirect>` is sent before the redirect is
followed.
"""

from base64 import b64encode
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from urllib.parse import urlencode, urljoin

from smsd.simulator import twiml
from smsd.simulator.jar import Jar, violates_http
from smsd.simulator.values import Attempt, Failure, Inbound, Params, Request, Response
from smsd.simulator.webhook import Account, WebhookUrl, signature_headers

MAX_HTTP_REDIRECTS = 10
MAX_DOCUMENTS = 50  # one call's documents, `<Redirect>` and fallback URL included (14106)
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
_Documents = Generator[Request, Response | Failure, twiml.Document]
_Results = Generator[Request, Response | Failure, Response | Failure]
_Hops = Generator[Request, Response | Failure, int]


@dataclass(slots=True)
class WebhookCall:
    """The state of one call.

    `cookies` is the Cookie header of the next request. Cookies that come back go into
    `jar`, and the later documents of the call carry them; without a jar they are
    dropped.
    """

    account: Account
    clock: Callable[[], float]
    idempotency_token: str
    cookies: str | None = None
    jar: Jar | None = None
    pair: tuple[str, str, str] = ("", "", "")
    attempts: list[Attempt] = field(default_factory=list)
    stored: bool = False  # whether the jar has taken in a cookie of this call

    def message(
        self,
        inbound: Inbound,
        receive: Callable[[twiml.Document], None],
        on_hop: Callable[[int], None] = lambda _: None,
    ) -> _Hops:
        """Deliver a message: ask the webhook and follow its `<Redirect>` verbs.

        Each document goes to `receive` as soon as it is reached; `on_hop` gets the
        number of each `<Redirect>`, from 1, before it is followed. A document that
        fails is asked for at the fallback URL, with the same form plus ErrorCode and
        ErrorUrl; a fallback that fails ends the call. Returns how many `<Redirect>`
        were followed.
        """
        hops, params, fallback_url = 0, inbound.params, self.account.fallback_url
        webhook, method = WebhookUrl.parse(self.account.url), "POST"
        for _ in range(MAX_DOCUMENTS):
            document = yield from self.document(webhook, params, method)
            receive(document)
            if document.failed and fallback_url:
                error = ("ErrorCode", str(document.notices[-1].code)), ("ErrorUrl", self.asked_url)
                webhook, method, params = WebhookUrl.parse(fallback_url), "POST", (*params, *error)
                fallback_url = None
                continue
            if document.redirect is None:
                return hops
            hops += 1
            on_hop(hops)
            params, fallback_url = inbound.params, self.account.fallback_url
            method, url = document.redirect
            try:
                webhook = WebhookUrl.parse(url)
            except ValueError as error:
                receive(twiml.failed(11100, f"<Redirect>: {error}"))
                return hops
        receive(twiml.failed(14106, "more than 50 documents for one message"))
        return hops

    @property
    def asked_url(self) -> str:
        """The URL of the last request."""
        return self.attempts[-1].request.url

    def document(self, webhook: WebhookUrl, params: Params, method: str = "POST") -> _Documents:
        """Fetch one document, with its retries and HTTP redirects."""
        deadline_s = self.clock() + webhook.total_timeout_s
        return (yield from _Fetch(self, webhook, params, deadline_s).document(method))

    def keep(self, answer: Response) -> None:
        """Put the cookies of an answer into the jar, and take them along from now on."""
        if self.jar is None:
            return
        set_cookies = answer.all("Set-Cookie")
        self.jar.store(self.pair, set_cookies, same_call=self.stored)
        if set_cookies:
            self.stored = True
            self.cookies = self.jar.header(self.pair)


@dataclass(slots=True)
class _Fetch:
    """One document being fetched: its URL's overrides, its form, and when its time is
    up."""

    call: WebhookCall
    webhook: WebhookUrl
    params: Params
    deadline_s: float

    def document(self, method: str) -> _Documents:
        """Fetch the document, through however many HTTP redirects."""
        form, url = self.params, self.webhook.url
        if method == "GET":
            url += ("&" if "?" in url else "?") + urlencode(form)
        for _ in range(MAX_HTTP_REDIRECTS + 1):
            result = yield from self._tries(method, url)
            if isinstance(result, Failure):
                return twiml.failed(FAILURE_CODES[result.kind], f"{result.kind}: {result.detail}")
            if any(violates_http(line) for line in result.all("Set-Cookie")):
                return twiml.failed(11206, "HTTP protocol violation in Set-Cookie")
            if result.status not in FOLLOWED:
                return self._read(result, url)
            self.call.keep(result)
            target = result.header("Location")
            if not target:
                return twiml.failed(11200, f"status {result.status} without Location")
            url = urljoin(url, target).partition("#")[0]
            method = method if result.status == 307 else "GET"  # 301 to 303 lose the form
        return twiml.failed(11215, "too many redirects")

    def _read(self, answer: Response, url: str) -> twiml.Document:
        if 300 <= answer.status < 400:
            return twiml.failed(11216, f"redirect {answer.status} is not followed")
        if not 200 <= answer.status < 300:
            return twiml.failed(11200, f"status {answer.status}")
        self.call.keep(answer)
        return twiml.read(answer, url)

    def _tries(self, method: str, url: str) -> _Results:
        for tried in range(self.webhook.retries + 1):
            result = yield from self._once(method, url)
            out_of_time = self.call.clock() >= self.deadline_s
            last_try = tried == self.webhook.retries
            if out_of_time or last_try or not (_retry_names(result) & self.webhook.retried):
                break
        return result

    def _once(self, method: str, url: str) -> _Results:
        """Ask once; and again with credentials if there are any and the service wants
        them."""
        result = yield from self._perform(self._request(method, url))
        challenged = (
            isinstance(result, Response)
            and result.status == 401
            and result.header("WWW-Authenticate")
        )
        if self.webhook.credentials and challenged:
            token = b64encode(":".join(self.webhook.credentials).encode()).decode()
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
        limits_s = self.webhook.connect_timeout_s, self.webhook.read_timeout_s, left_s
        return Request(method, url, tuple(headers), urlencode(form).encode(), *limits_s)


def _retry_names(result: Response | Failure) -> set[str]:
    """Which names of the retry policy `#rp` cover this result."""
    if isinstance(result, Failure):
        if result.begun:
            return set()
        if result.kind in _CONNECTING:
            return {"ct", "all"}
        return {"rt", "all"} if result.kind == "read_timeout" else {"all"}
    return {f"{result.status // 100}xx", "all"} if result.status >= 400 else set()
