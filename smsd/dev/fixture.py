"""A phone that texts a dialogue through all of smsd, in a test: what the fixture
`phone` is. `smsd.testing` documents it for authors.

The service starts at the first text, so that what a test prepares (a working directory,
an environment variable, a file) comes before the dialogue is made and opened. One event
loop runs in a thread of its own, with one listener on a loopback port and the store in
memory.

Time stands still, apart from what the phone lets pass and the time that a dialogue
takes. Sleeping is skipped (see `virtual_time`), so a dialogue of a minute is tested at
once.
"""

import asyncio
import time
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from threading import Thread
from typing import Any, TypeVar

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

from smsd.dev.dev_service import WatchedService
from smsd.dev.virtual_time import VirtualTimeLoop
from smsd.dialogues import loading
from smsd.dialogues.calling import as_exception
from smsd.errors import MediaError, SettingsError
from smsd.settings import table
from smsd.simulator.blocking import BlockingClient
from smsd.simulator.edge import DEFAULT_FROM, DEFAULT_SID, DEFAULT_TO, DEFAULT_TOKEN
from smsd.simulator.twilio import JAR, Clock, Cookies, Twilio
from smsd.simulator.values import Outcome
from smsd.simulator.webhook import Account

DEFAULT_DIALOGUE = "smsd.dialogues.greeting:reply"
TYPING_S = 30.0  # so that a test with many messages does not look like two machines in a loop
PATIENCE_S = 30.0
T = TypeVar("T")


@contextmanager
def phone_for(dialogue: Any, environ: Mapping[str, str]) -> Iterator["Phone"]:
    """A phone in front of a dialogue: "module:callable", or a callable (message,
    session). `environ` holds settings, as in the environment.

    The dialogue is imported now, while the working directory is still the project's. It
    is made and opened at the first text.
    """
    if isinstance(dialogue, str):
        problems = loading.import_problems(dialogue)
        if problems:
            raise SettingsError(*problems)
    with closing(ServiceThread(dialogue, environ)) as thread:
        yield Phone(thread, DEFAULT_FROM, DEFAULT_TO)


class Phone:
    """One person's phone in a test.

    number  who texts, such as "+14158675309"
    to      the number that is texted
    last    everything about the last message, a `smsd.simulator.Outcome`: its replies, each
            request and answer, Twilio's error codes; None before the first message
    """

    def __init__(self, thread: "ServiceThread", number: str, to: str) -> None:
        self._thread = thread
        self.number = number
        self.to = to
        self.last: Outcome | None = None

    def text(
        self,
        body: str = "",
        *,
        media: Sequence[tuple[str, str] | tuple[str, str, bytes | None]] = (),
        deliveries: int = 1,
        cookies: Cookies = JAR,
        failing: bool = False,
        **extra: str,
    ) -> str | None:
        """Text the dialogue and return its reply.

        Twilio's `<Redirect>` is followed, so a slow dialogue's reply is returned too.
        Each text lets half a minute pass beforehand, as if somebody had typed it.

        body        the text of the message
        media       (URL, content type) of each attachment. A third value is the content
                    that `media.read` returns, by default "content of URL"; None if the file
                    is gone, so that it raises MediaError 404
        deliveries  how often Twilio delivers this one message
        cookies     which cookie it carries: `smsd.simulator.LOST` for none,
                    `smsd.simulator.STALE` for an old one
        failing     True to get the apology of a dialogue that fails; otherwise what it
                    raises is raised here
        extra       more of Twilio's parameters, such as ProfileName="Ada"

        Returns several messages joined by newlines, and None for no reply. Raises what
        the dialogue raised, `smsd.errors.SettingsError` if the dialogue or a setting
        cannot be used, and AssertionError if Twilio would refuse the reply or if two
        deliveries got different replies.
        """
        client = self._thread.client
        self._thread.clock.advance(TYPING_S)
        for url, _, *content in media:
            self._thread.files[url] = content[0] if content else f"content of {url}".encode()
        links = [(url, content_type) for url, content_type, *_ in media]
        message = client.compose(body, from_=self.number, to=self.to, media=links, extra=extra)
        with self._thread.watched.following(message.sid) as counted:
            outcomes = [client.deliver(message, cookies=cookies) for _ in range(deliveries)]
        self.last = outcomes[-1]
        errors = [event.error for event in counted if event.error]
        if errors and not failing:
            raise as_exception(errors[0])  # pytest would take a KeyboardInterrupt for Ctrl-C
        _check_replies(outcomes)
        return self.last.text

    @property
    def media(self) -> tuple[str, ...]:
        """The URLs of all media of the last reply."""
        return tuple(
            url for reply in (self.last.replies if self.last else ()) for url in reply.media
        )

    @property
    def waited_s(self) -> float:
        """Seconds of virtual time from the last message to its last reply. Added in
        0.2."""
        return self.last.waited_s if self.last else 0.0

    @property
    def hops(self) -> int:
        """How often Twilio was asked to come again for the last message. Added in 0.2."""
        return self.last.hops if self.last else 0

    def wait(self, seconds: float = 0, *, minutes: float = 0, hours: float = 0) -> None:
        """Let time pass. After four hours without a message a conversation is over."""
        self._thread.clock.advance(seconds + 60 * minutes, hours=hours)

    def lose_store(self) -> None:
        """Empty the store, as a restart of memcached does. Cookies keep what they hold."""
        self._thread.run(self._thread.watched.flush())

    @contextmanager
    def store_down(self) -> Iterator[None]:
        """Within the `with` block the store cannot be reached."""
        self._thread.watched.set_store_up(False)
        try:
            yield
        finally:
            self._thread.watched.set_store_up(True)

    def as_(self, number: str, to: str | None = None) -> "Phone":
        """Another person's phone. It texts the same number unless `to` says otherwise."""
        return Phone(self._thread, number, to or self.to)


def _check_replies(outcomes: Sequence[Outcome]) -> None:
    """AssertionError for a reply that Twilio would refuse, and for different replies to
    one message."""
    for outcome in outcomes:
        problems = [f"{notice.code} {notice.text}" for notice in outcome.errors]
        assert not problems, f"Twilio would refuse this reply: {', '.join(problems)}"  # noqa: S101
    texts = {outcome.text for outcome in outcomes}
    assert len(texts) == 1, f"one message got different replies: {texts}"  # noqa: S101


class ServiceThread:
    """The service in front of a dialogue, on an event loop in a thread of its own. It
    starts when `client` or `watched` is first asked for.

    dialogue, environ  as for `phone_for`
    files              the content of media, by URL; None for a file that is gone
    """

    def __init__(self, dialogue: Any, environ: Mapping[str, str]) -> None:
        self._dialogue = dialogue
        self._environ = environ
        self._started = ExitStack()
        self._client: BlockingClient | None = None
        self._watched: WatchedService
        self.files: dict[str, bytes | None] = {}
        start_s = time.time()
        self.clock = Clock(lambda: start_s)
        self.loop = VirtualTimeLoop(self.clock.advance)

    @property
    def client(self) -> BlockingClient:
        """Twilio, in front of the running service."""
        if self._client is None:
            try:
                self._client = self._start()
            except BaseException:
                self._started.close()  # so that another try begins from nothing
                raise
        return self._client

    @property
    def watched(self) -> WatchedService:
        """The running service."""
        _ = self.client
        return self._watched

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """What a coroutine returns, run on the event loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(PATIENCE_S)

    def close(self) -> None:
        """Stop the service, if it was started."""
        self._started.close()
        self.loop.close()

    def _start(self) -> BlockingClient:
        spec = self._dialogue if isinstance(self._dialogue, str) else DEFAULT_DIALOGUE
        given = {
            "TWILIO_AUTH_TOKEN": DEFAULT_TOKEN,
            "SMSD_PUBLIC_URL": "http://127.0.0.1",
            "SMSD_DIALOGUE": spec,
        }
        settings = table.load({**given, **self._environ}, dev=True)
        loaded = (
            loading.load(spec, settings)
            if isinstance(self._dialogue, str)
            else loading.make(self._dialogue, settings, repr(self._dialogue))
        )
        thread = Thread(target=self.loop.run_forever, name="smsd", daemon=True)
        thread.start()
        self._started.callback(thread.join, PATIENCE_S)
        self._started.callback(self.loop.call_soon_threadsafe, self.loop.stop)
        port = self.run(self._serve(settings, loaded))
        token = settings.auth_token.reveal().decode()
        return BlockingClient(
            account=Account(DEFAULT_SID, token, f"{settings.public_url}/sms"),
            twilio=Twilio(self.clock),
            connect_to=f"127.0.0.1:{port}",
        )

    async def _serve(self, settings: table.Settings, loaded: loading.LoadedDialogue) -> int:
        """Open the dialogue and listen; returns the port."""
        await loaded.open()
        self._watched = WatchedService(
            settings,
            loaded,
            now_ms=lambda: round(self.clock() * 1000),
            clock_s=self.loop.time,
            fetch_media=self._read_file,
            observers=[self.loop],
        )
        server = HTTPServer(self._watched.service.public())
        sockets = bind_sockets(0, "127.0.0.1")
        server.add_sockets(sockets)
        self._started.callback(lambda: self.run(self._stop(server)))
        port: int = sockets[0].getsockname()[1]
        return port

    async def _stop(self, server: HTTPServer) -> None:
        server.stop()
        await server.close_all_connections()
        await self._watched.service.close()

    async def _read_file(self, url: str, limit: int, _account_sid: str) -> bytes:
        """Serve what `Phone.text` was given, with the errors of a real download."""
        content = self.files.get(url)
        if content is None:
            raise MediaError("Twilio has no such file", 404)
        if len(content) > limit:
            raise MediaError(f"the file has more than {limit} bytes")
        return content
