"""The service under a dialogue that is being tested, in this process, and its clock.

It starts at the first text, so that what a test prepares (a working directory, an
environment variable, a file) comes before the dialogue is made and opened. One event
loop runs in a thread of its own, with one listener on a loopback port and the store in
memory.

Time stands still, apart from what the phone lets pass and the time that a dialogue
takes. Sleeping is skipped (see `virtual_time`), so a dialogue of a minute is tested at
once.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from threading import Thread
from typing import Any, TypeVar

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

from smsd.app import Service
from smsd.conversation.session import Session
from smsd.dev.failures import FailureWatch
from smsd.dev.switch import Switch
from smsd.dev.virtual_time import VirtualTimeLoop
from smsd.dialogues import loading
from smsd.dialogues.calling import as_exception
from smsd.errors import MediaError, SettingsError
from smsd.exchange.exchange import Exchange
from smsd.exchange.running import Dialogue
from smsd.settings import table
from smsd.simulator.blocking import BlockingClient
from smsd.simulator.edge import DEFAULT_SID, DEFAULT_TOKEN
from smsd.simulator.twilio import Clock, Twilio
from smsd.simulator.values import Outcome
from smsd.simulator.webhook import Account
from smsd.store import Remote
from smsd.twilio.message import Message
from smsd.twilio.reply import Reply

DEFAULT_DIALOGUE = "smsd.dialogues.greeting:reply"
PATIENCE_S = 30.0
NOTICEABLE_S = 0.5  # what a request takes beyond this moves the clock; less leaves tests exact
T = TypeVar("T")
Run = Callable[[Coroutine[Any, Any, T]], T]


class Stage:
    """Use it in a `with` block. The service starts when `client` is first asked for.

    dialogue  "module:callable", or a callable that takes (message, session)
    environ   settings, as in the environment
    """

    def __init__(self, dialogue: Any, environ: Mapping[str, str]) -> None:
        self._dialogue = dialogue
        self._environ = environ
        self._started = ExitStack()
        self._client: BlockingClient | None = None
        self._switch: Switch | None = None
        self._failures: list[tuple[str, BaseException]] = []
        self.files: dict[str, bytes | None] = {}
        """The content of media, by URL; None for a file that is gone."""
        start_s = time.time()
        self.clock = Clock(lambda: start_s)
        self.loop = VirtualTimeLoop(self.clock.advance)
        self._idle_since_s = 0.0

    def __enter__(self) -> "Stage":
        """Import the dialogue, while the working directory is still the project's."""
        if isinstance(self._dialogue, str):
            problems = loading.import_problems(self._dialogue)
            if problems:
                raise SettingsError(*problems)
        return self

    def __exit__(self, *_: object) -> None:
        self._started.close()
        self.loop.close()

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

    def lose_store(self) -> None:
        """Empty the store. With cookie:// there is none."""
        _ = self.client
        if self._switch:
            self._run(self._switch.flush())

    def set_store_up(self, up: bool) -> None:
        """Take the store down, or up again."""
        _ = self.client
        if self._switch:
            self._switch.up = up

    def judge(self, outcomes: Sequence[Outcome], *, may_fail: bool) -> None:
        """Fail the test for what went wrong with one message.

        Raises what the dialogue raised unless it may fail, and AssertionError for a
        reply that Twilio would refuse and for different replies to one message.
        """
        sids = {outcome.message.sid for outcome in outcomes}
        raised = [error for sid, error in self._failures if sid in sids]
        self._failures.clear()
        if raised and not may_fail:
            raise as_exception(raised[0])  # pytest would take a KeyboardInterrupt for Ctrl-C
        for outcome in outcomes:
            problems = [f"{notice.code} {notice.text}" for notice in outcome.errors]
            assert not problems, f"Twilio would refuse this reply: {', '.join(problems)}"  # noqa: S101
        texts = {outcome.text for outcome in outcomes}
        assert len(texts) == 1, f"one message got different replies: {texts}"  # noqa: S101

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
        self._run: Run[Any] = self._started.enter_context(_running(self.loop))
        watch = FailureWatch(lambda sid, error: self._failures.append((sid, error)))
        watch.install()
        self._started.callback(watch.remove)
        port = self._run(self._serve(settings, loaded))
        token = settings.auth_token.reveal().decode()
        return BlockingClient(
            account=Account(DEFAULT_SID, token, f"{settings.public_url}/sms"),
            twilio=Twilio(self.clock),
            connect_to=f"127.0.0.1:{port}",
        )

    async def _serve(self, settings: table.Settings, loaded: loading.LoadedDialogue) -> int:
        """Open the dialogue and listen; returns the port."""
        await loaded.open()
        service = Service(
            settings,
            loaded,
            now_ms=lambda: round(self.clock() * 1000),
            clock_s=self.loop.time,
            wrap=self._wrap,
            fetch_media=self._read_file,
        )
        self._watch(service.exchange)
        server = HTTPServer(service.public())
        sockets = bind_sockets(0, "127.0.0.1")
        server.add_sockets(sockets)
        self._started.callback(lambda: self._run(_stop(service, server)))
        port: int = sockets[0].getsockname()[1]
        return port

    async def _read_file(self, url: str, limit: int, _account_sid: str) -> bytes:
        """Serve what `Phone.text` was given, with the errors of a real download."""
        content = self.files.get(url)
        if content is None:
            raise MediaError("Twilio has no such file", 404)
        if len(content) > limit:
            raise MediaError(f"the file has more than {limit} bytes")
        return content

    def _wrap(self, remote: Remote) -> Switch:
        self._switch = Switch(remote)
        return self._switch

    def _watch(self, exchange: Exchange) -> None:
        """Tell the loop when a request waits and which dialogues run, so that it may
        skip time."""
        answer = exchange.answer

        async def timed(*args: Any, **more: Any) -> Any:
            with self._taking_time():
                return await answer(*args, **more)

        exchange.answer = timed  # type: ignore[method-assign]
        exchange.policy.dialogue = _Watched(exchange.policy.dialogue, self.loop)

    @contextmanager
    def _taking_time(self) -> Iterator[None]:
        """Let the clock go on with what the request takes, if that is noticeable.

        Between the requests of one message, which are a `<Redirect>` apart, the
        dialogue goes on, and so does the clock.
        """
        began_s, skipped_s = self.loop.time(), self.loop.skipped_s
        if self.loop.begun() and not self.loop.requests_waiting:
            self.clock.advance(began_s - self._idle_since_s)
        self.loop.requests_waiting += 1
        try:
            yield
        finally:
            self.loop.requests_waiting -= 1
            self._idle_since_s = self.loop.time()
            took_s = self._idle_since_s - began_s
            if took_s > NOTICEABLE_S:
                self.clock.advance(took_s - (self.loop.skipped_s - skipped_s))


class _Watched:
    """A dialogue whose runs the loop watches, so that it skips the time in which they
    sleep."""

    def __init__(self, dialogue: Dialogue, loop: VirtualTimeLoop) -> None:
        self._dialogue = dialogue
        self._loop = loop
        self.conversation_key = getattr(dialogue, "conversation_key", None)

    def __call__(
        self, message: Message, session: Session
    ) -> Coroutine[Any, Any, Reply | str | None]:
        run = self._dialogue(message, session)
        self._loop.watch(run)
        return run

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dialogue, name)


async def _stop(service: Service, server: HTTPServer) -> None:
    server.stop()
    await server.close_all_connections()
    await service.close()


@contextmanager
def _running(loop: asyncio.AbstractEventLoop) -> Iterator[Run[Any]]:
    """Run an event loop in a thread; yields a function that runs a coroutine there."""
    thread = Thread(target=loop.run_forever, name="smsd", daemon=True)
    thread.start()
    try:
        yield lambda coroutine: asyncio.run_coroutine_threadsafe(coroutine, loop).result(PATIENCE_S)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(PATIENCE_S)
