"""Downloading media over real TLS: who gets the credentials, and what is told when it
fails.

A local server stands for Twilio, its content network and for everybody else; names are
mapped to it, so that hosts of twilio.com are asked by their names and no packet leaves
the machine.
"""

import asyncio
import base64
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from smsd.errors import MediaError
from smsd.settings.table import Settings, load
from smsd.web import download
from smsd.web.download import MediaFetcher

pytestmark = pytest.mark.asyncio

ACCOUNT, SUB_ACCOUNT = "AC" + "a" * 32, "AC" + "b" * 32
TOKEN = "t" * 32
NAMES = ("api.twilio.com", "media.twiliocdn.com", "twilio.com.elsewhere.example", "mcs.twilio.com")
FILE = bytes(range(256)) * 40


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate, with its key in one file, for all NAMES; it is its own authority."""
    folder = tmp_path_factory.mktemp("tls")
    names = ",".join(f"DNS:{name}" for name in NAMES)
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=smsd test",
         "-days", "2", "-addext", f"subjectAltName={names}", "-keyout", "key.pem", "-out", "cert.pem"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    both = folder / "both.pem"
    both.write_bytes((folder / "key.pem").read_bytes() + (folder / "cert.pem").read_bytes())
    return both


class Internet:
    """The server that plays every host: what it answers by path, and who asked for
    what."""

    def __init__(self, certificate: Path) -> None:
        self.certificate = certificate
        self.asked: list[tuple[str, str, str | None]] = []  # host, path, credentials
        self.pages: dict[str, Callable[[RequestHandler], Coroutine[Any, Any, None]]] = {}
        self.tls_port = self.plain_port = 0
        self.left = asyncio.Event()

    def redirect(self, path: str, to: str, status: int = 307) -> None:
        async def page(handler: RequestHandler) -> None:
            handler.set_header("Location", to)
            handler.set_status(status)

        self.pages[path] = page

    def status(self, path: str, status: int) -> None:
        async def page(handler: RequestHandler) -> None:
            handler.set_status(status)

        self.pages[path] = page

    def file(self, path: str, content: bytes = FILE) -> None:
        async def page(handler: RequestHandler) -> None:
            handler.write(content)

        self.pages[path] = page

    def fetcher(self, settings: Callable[[], Settings] | None = None) -> MediaFetcher:
        mapping: dict[Any, Any] = {(name, 443): ("127.0.0.1", self.tls_port) for name in NAMES}
        mapping |= {(name, 80): ("127.0.0.1", self.plain_port) for name in NAMES}
        return MediaFetcher(
            settings or given,
            {"hostname_mapping": mapping, "defaults": {"ca_certs": str(self.certificate)}},
        )

    async def fetch(self, url: str, limit: int = 5_000_000, account: str = ACCOUNT) -> bytes:
        return await self.fetcher()(url, limit, account)


def given(**more: str) -> Settings:
    return load({"TWILIO_AUTH_TOKEN": TOKEN, "TWILIO_ACCOUNT_SID": ACCOUNT, **more}, dev=True)


@asynccontextmanager
async def internet(certificate: Path) -> AsyncIterator[Internet]:
    world = Internet(certificate)

    class Page(RequestHandler):
        async def get(self) -> None:
            header = self.request.headers.get("Authorization", "")
            credentials = base64.b64decode(header.removeprefix("Basic ")).decode() or None
            world.asked.append((self.request.host_name, self.request.path, credentials))
            await world.pages[self.request.path](self)

        def on_connection_close(self) -> None:
            world.left.set()

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    application = Application([(".*", Page)], log_function=lambda _handler: None)
    servers = [HTTPServer(application, ssl_options=context), HTTPServer(application)]
    sockets = [bind_sockets(0, "127.0.0.1") for _ in servers]
    for server, bound in zip(servers, sockets, strict=True):
        server.add_sockets(bound)
    world.tls_port, world.plain_port = (bound[0].getsockname()[1] for bound in sockets)
    try:
        yield world
    finally:
        for server in servers:
            server.stop()
            await server.close_all_connections()


async def test_redirect_to_the_content_network_is_followed_without_credentials(
    certificate: Path,
) -> None:
    async with internet(certificate) as world:
        world.redirect("/Media/ME1", "https://mcs.twilio.com/v1/signed?x=1")
        world.redirect("/v1/signed", "https://media.twiliocdn.com/file")
        world.file("/file")
        assert await world.fetch("https://api.twilio.com/Media/ME1") == FILE
        assert world.asked == [
            ("api.twilio.com", "/Media/ME1", f"{ACCOUNT}:{TOKEN}"),
            ("mcs.twilio.com", "/v1/signed", f"{ACCOUNT}:{TOKEN}"),
            ("media.twiliocdn.com", "/file", None),
        ]


async def test_credentials_stay_away_once_a_redirect_has_led_elsewhere(certificate: Path) -> None:
    async with internet(certificate) as world:
        world.redirect("/a", "https://twilio.com.elsewhere.example/b", 302)
        world.redirect("/b", "https://api.twilio.com/c", 302)
        world.file("/c", b"c")
        assert await world.fetch("https://api.twilio.com/a") == b"c"
        assert [credentials is None for _, _, credentials in world.asked] == [False, True, True]


async def test_credentials_are_never_sent_over_http_or_to_look_alikes(certificate: Path) -> None:
    async with internet(certificate) as world:
        world.file("/a", b"a")
        await world.fetch("http://api.twilio.com/a")
        await world.fetch("https://twilio.com.elsewhere.example/a")
        assert [credentials for _, _, credentials in world.asked] == [None, None]


@pytest.mark.parametrize(
    ("more", "account", "credentials"),
    [
        ({}, ACCOUNT, f"{ACCOUNT}:{TOKEN}"),
        (
            {"TWILIO_API_KEY": "SK" + "1" * 32, "TWILIO_API_SECRET": "s" * 32},
            ACCOUNT,
            "SK" + "1" * 32 + ":" + "s" * 32,
        ),
        (
            {"TWILIO_API_KEY": "SK" + "1" * 32, "TWILIO_API_SECRET": "s" * 32},
            SUB_ACCOUNT,
            f"{SUB_ACCOUNT}:{'u' * 32}",
        ),
    ],
)
async def test_api_key_is_preferred_and_a_sub_account_uses_its_own_token(
    more: dict[str, str], account: str, credentials: str, certificate: Path, tmp_path: Path
) -> None:
    accounts = tmp_path / "accounts.toml"
    accounts.write_text(f'[{SUB_ACCOUNT}]\ntokens = ["{"u" * 32}"]\n')

    async with internet(certificate) as world:
        world.file("/a")
        fetch = world.fetcher(lambda: given(**more, SMSD_ACCOUNTS=str(accounts)))
        await fetch("https://api.twilio.com/a", 100_000, account)
        assert world.asked[0][2] == credentials


async def test_file_of_just_the_limit_arrives_and_a_larger_one_is_refused(
    certificate: Path,
) -> None:
    async with internet(certificate) as world:
        world.file("/a")
        assert await world.fetch("https://api.twilio.com/a", len(FILE)) == FILE
        with pytest.raises(MediaError, match=f"more than {len(FILE) - 1} bytes"):
            await world.fetch("https://api.twilio.com/a", len(FILE) - 1)


async def test_endless_file_is_given_up_at_the_limit(certificate: Path) -> None:
    async def endless(handler: RequestHandler) -> None:
        while True:
            handler.write(bytes(10_000))
            await handler.flush()

    async with internet(certificate) as world:
        world.pages["/a"] = endless
        with pytest.raises(MediaError, match="more than 50000 bytes"):
            await world.fetch("https://api.twilio.com/a", 50_000)


async def test_file_that_does_not_arrive_in_time_is_given_up(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "LIMIT_S", 0.2)

    async def hang(handler: RequestHandler) -> None:
        handler.write(b"x")
        await handler.flush()
        await asyncio.Event().wait()

    async with internet(certificate) as world:
        world.pages["/a"] = hang
        with pytest.raises(MediaError, match=r"within 0.2 s|HTTPTimeoutError"):
            await world.fetch("https://api.twilio.com/a")


@pytest.mark.parametrize(
    ("status", "complaint"),
    [
        (401, "Twilio refused the credentials with 401; check TWILIO_API_KEY"),
        (403, "Twilio refused the credentials with 403"),
        (404, "no such file"),
        (410, "answered 410"),
        (500, "answered 500"),
        (304, "answered 304"),
        (204, "answered 204"),
    ],
)
async def test_status_of_a_failed_download_is_told(
    status: int, complaint: str, certificate: Path
) -> None:
    async with internet(certificate) as world:
        world.status("/a", status)
        with pytest.raises(MediaError, match=complaint) as caught:
            await world.fetch("https://api.twilio.com/a")
        assert caught.value.status == status
        assert "twilio.com" not in str(caught.value)


async def test_refusal_by_another_host_does_not_blame_the_credentials(certificate: Path) -> None:
    async with internet(certificate) as world:
        world.redirect("/a", "https://media.twiliocdn.com/b")
        world.status("/b", 403)
        with pytest.raises(MediaError, match="the file's host refused the request with 403"):
            await world.fetch("https://api.twilio.com/a")


@pytest.mark.parametrize(
    ("location", "complaint"),
    [
        ("/a", "more than 5 redirects"),
        ("http://media.twiliocdn.com/b", "from https to another protocol"),
        ("ftp://media.twiliocdn.com/b", "from https to another protocol"),
        ("https://bad host/", "no http or https URL"),
        ("https://media.twiliocdn.com:x/", "no http or https URL"),
        ("https://media.twiliocdn.com:1/", "cannot be reached"),
    ],
)
async def test_redirect_that_leads_nowhere_is_refused(
    location: str, complaint: str, certificate: Path
) -> None:
    async with internet(certificate) as world:
        world.redirect("/a", location)
        fetch = world.fetcher()
        fetch._client = {  # every other port is closed
            **fetch._client,
            "hostname_mapping": {
                **fetch._client["hostname_mapping"],
                "media.twiliocdn.com": "127.0.0.1",
            },
        }
        with pytest.raises(MediaError, match=complaint):
            await fetch("https://api.twilio.com/a", 100, ACCOUNT)


async def test_certificate_of_another_authority_is_refused(certificate: Path) -> None:
    async with internet(certificate) as world:
        world.file("/a")
        fetch = world.fetcher()
        fetch._client = {"hostname_mapping": fetch._client["hostname_mapping"]}
        with pytest.raises(MediaError, match="cannot be reached: SSL"):
            await fetch("https://api.twilio.com/a", 100, ACCOUNT)
        assert world.asked == []


@pytest.mark.parametrize("url", ["", "file:///etc/passwd", "owl.png", "https://"])
async def test_what_is_no_web_address_is_not_asked(url: str, certificate: Path) -> None:
    async with internet(certificate) as world:
        with pytest.raises(MediaError, match="no http or https URL"):
            await world.fetch(url)
