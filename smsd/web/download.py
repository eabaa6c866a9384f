"""Downloads the files that come with messages: what `Media.read` calls.

Must not send credentials to anybody but Twilio, hold more than the caller's limit in
memory, or show a URL in an error: it names the account and the message.

The URL stands in a request that Twilio signed, so Twilio alone decides which host is
asked; no sender of a message can. Twilio answers with a redirect to a signed URL of its
content network, which wants no credentials and may refuse a request that has some. So
they are sent to hosts of twilio.com only, over https, and not after a redirect has led
elsewhere.
"""

import asyncio
import socket
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urljoin, urlsplit

from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPRequest, HTTPResponse
from tornado.netutil import Resolver

from smsd.errors import MediaError
from smsd.settings.table import Settings
from smsd.store.lookup import LookupFailed, NameLookup
from smsd.twilio.markup import is_http_url

LIMIT_S = 30.0
"""For one file, redirects included."""

CONNECT_LIMIT_S = 5.0
MOST_REDIRECTS = 5
MAX_HOSTS = 64
"""Of which the latest lookup is remembered."""

_REDIRECTS = (301, 302, 303, 307, 308)
_SLACK_BYTES = 1_000_000
"""Tornado's own limit is so much higher: ours tells a file that is too large from a
lost connection."""

Credentials = tuple[str, str]


class ThreadResolver(Resolver):
    """Looks up hosts for Tornado's HTTP client: one lookup of a host at a time, in a
    daemon thread.

    The event loop's resolver would not do, for the reasons in `store.lookup`: a lookup
    that hangs would hold up others, and the end of the process.
    """

    def initialize(self) -> None:
        """Tornado's way to say `__init__`."""
        self._lookups: dict[tuple[str, int], NameLookup] = {}

    async def resolve(
        self, host: str, port: int, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[tuple[int, Any]]:
        """The addresses of a host, as Tornado expects them. Raises OSError."""
        if len(self._lookups) >= MAX_HOSTS:
            self._lookups.clear()
        lookup = self._lookups.setdefault((host, port), NameLookup(host, port))
        try:
            found = await lookup.addresses()
        except LookupFailed as error:
            raise OSError("the host's name cannot be looked up") from error
        return [(each[0], each[4]) for each in found if family in (socket.AF_UNSPEC, each[0])]


class MediaFetcher:
    """Call it with a URL, the most bytes to accept, and the AccountSid of the message.

    settings  gives the present settings: credentials may change while smsd runs
    client    options of Tornado's HTTP client, for tests
    """

    def __init__(
        self, settings: Callable[[], Settings], client: Mapping[str, Any] | None = None
    ) -> None:
        self._settings = settings
        self._client = {"resolver": ThreadResolver(), **(client or {})}

    async def __call__(self, url: str, limit: int, account_sid: str) -> bytes:
        """The file's content. Raises MediaError."""
        try:
            async with asyncio.timeout(LIMIT_S):
                return await self._follow(url, limit, self._credentials(account_sid))
        except TimeoutError as error:
            raise MediaError(f"the file did not arrive within {LIMIT_S:g} s") from error

    def _credentials(self, account_sid: str) -> Credentials:
        settings = self._settings()
        account = settings.accounts.get(account_sid)
        if account and account.tokens:
            return account_sid, account.tokens[0].reveal().decode()
        if settings.api_key and settings.api_secret:
            return settings.api_key.reveal().decode(), settings.api_secret.reveal().decode()
        return account_sid, settings.auth_token.reveal().decode()

    async def _follow(self, url: str, limit: int, credentials: Credentials) -> bytes:
        at_twilio = True
        for _ in range(MOST_REDIRECTS + 1):
            if not is_http_url(url):
                raise MediaError("the file has no http or https URL")
            at_twilio = at_twilio and _is_twilios(url)
            response, content = await self._get(url, limit, credentials if at_twilio else None)
            location = response.headers.get("Location")
            if response.code in _REDIRECTS and location:
                target = urljoin(url, location)
                if url.startswith("https:") and not target.startswith("https:"):
                    raise MediaError("a redirect leads from https to another protocol")
                url = target
            elif response.code == 200:
                return content
            else:
                raise MediaError(_reason(response.code, at_twilio), response.code)
        raise MediaError(f"more than {MOST_REDIRECTS} redirects")

    async def _get(
        self, url: str, limit: int, credentials: Credentials | None
    ) -> tuple[HTTPResponse, bytes]:
        """One request. Returns as soon as the file is known to be too large."""
        content = bytearray()
        too_large: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def see_header(line: str) -> None:
            name, _, value = line.partition(":")
            if name.lower() == "content-length" and value.strip().isdecimal():
                check(int(value))

        def take(chunk: bytes) -> "asyncio.Future[None] | None":
            check(len(content) + len(chunk))
            if too_large.done():
                return asyncio.get_running_loop().create_future()  # read no further
            content.extend(chunk)
            return None

        def check(size: int) -> None:
            if size > limit and not too_large.done():
                too_large.set_result(None)

        username, password = credentials or (None, None)
        request = HTTPRequest(
            url,
            auth_username=username,
            auth_password=password,
            follow_redirects=False,
            decompress_response=False,
            connect_timeout=CONNECT_LIMIT_S,
            request_timeout=LIMIT_S,
            header_callback=see_header,
            streaming_callback=take,  # Tornado waits for the future that it returns
        )
        client = AsyncHTTPClient(
            force_instance=True, max_body_size=limit + _SLACK_BYTES, **self._client
        )
        fetched = asyncio.ensure_future(client.fetch(request, raise_error=False))
        try:
            waited: set[asyncio.Future[Any]] = {fetched, too_large}
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            if too_large.done():
                raise MediaError(f"the file has more than {limit} bytes")
            return fetched.result(), bytes(content)
        except (HTTPClientError, OSError, ValueError) as error:
            raise MediaError(
                f"the file's host cannot be reached: {type(error).__name__}"
            ) from error
        finally:
            fetched.cancel()
            client.close()


def _is_twilios(url: str) -> bool:
    """Whether credentials may be sent there."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    return (
        parts.scheme == "https"
        and parts.port in (None, 443)
        and (host == "twilio.com" or host.endswith(".twilio.com"))
    )


def _reason(status: int, sent_credentials: bool) -> str:
    if status in (401, 403) and sent_credentials:
        names = "TWILIO_API_KEY and TWILIO_API_SECRET, or TWILIO_AUTH_TOKEN"
        return f"Twilio refused the credentials with {status}; check {names}"
    if status in (401, 403):
        return f"the file's host refused the request with {status}"
    if status == 404:
        return "Twilio has no such file: it was deleted, or is not stored yet"
    return f"the file's host answered {status}"
