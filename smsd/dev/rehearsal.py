"""A dialogue on trial: the real exchange and HTTP handlers in this process, texted by the offline Twilio.

Time stands still but for `wait`, half a minute for every message, and the time that a dialogue takes: sleeping is
skipped (`virtual_time`), so that a dialogue of a minute is tested at once. One event loop in a thread of its own,
one listener on a loopback port, no store but memory.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Thread
from typing import Any, TypeVar

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

from smsd.app import Service
from smsd.conversation.session import Session
from smsd.dev.switch import Switch
from smsd.dev.virtual_time import VirtualTimeLoop
from smsd.dialogues import loading as dialogues
from smsd.exchange.exchange import Answer, Dialogue, Exchange
from smsd.settings import table as settings_module
from smsd.simulator.client import (
    DEFAULT_FROM,
    DEFAULT_SID,
    DEFAULT_TO,
    DEFAULT_TOKEN,
    BlockingClient,
)
from smsd.simulator.twilio import JAR, Clock, Cookies, Twilio
from smsd.simulator.values import Outcome
from smsd.simulator.webhook import Account
from smsd.store import Remote
from smsd.twilio.message import Message
from smsd.twilio.reply import Reply

PATIENCE_S = 30.0
TYPING_S = 30.0  # so that a test with many messages does not look like two machines in a loop
NOTICEABLE_S = 0.5  # what a request takes beyond this moves the clock; less leaves tests exact
T = TypeVar("T")


class Phone:
    """One person's phone in a test. `last` is the whole `Outcome` of the last message."""

    def __init__(self, stage: "Stage", number: str, to: str) -> None:
        self._stage = stage
        self.number = number
        self.to = to
        self.last: Outcome | None = None

    def text(
        self,
        body: str = "",
        *,
        media: Sequence[tuple[str, str]] = (),
        deliveries: int = 1,
        cookies: Cookies = JAR,
        failing: bool = False,
        **extra: str,
    ) -> str | None:
        """Text the dialogue; returns its reply, several messages joined by newlines, None for silence.

        media       (URL, content type) of each attachment
        deliveries  so often Twilio delivers this one message; every delivery must get the same reply
        cookies     `smsd.simulator.LOST`, `STALE` …
        failing     return the apology; otherwise what the dialogue raises is raised here
        extra       more of Twilio's parameters, such as ProfileName="Ada"
        """
        self._stage.clock.advance(TYPING_S)
        client = self._stage.client
        message = client.compose(body, from_=self.number, to=self.to, media=media, extra=extra)
        outcomes = [client.deliver(message, cookies=cookies) for _ in range(deliveries)]
        self.last = outcomes[-1]
        self._stage.judge(outcomes, failing)
        return self.last.text

    @property
    def waited_s(self) -> float:
        """Seconds of virtual time from the last message to its last reply. Added in 0.2."""
        return self.last.waited_s if self.last else 0.0

    @property
    def hops(self) -> int:
        """How often Twilio was asked to come again for the last message. Added in 0.2."""
        return self.last.hops if self.last else 0

    def wait(self, seconds: float = 0, *, minutes: float = 0, hours: float = 0) -> None:
        """Let time pass. After four hours without a message a conversation is over."""
        self._stage.clock.advance(seconds + 60 * minutes, hours=hours)

    def lose_store(self) -> None:
        """The store forgets everything, as a memcached does that is restarted. What cookies hold comes back."""
        self._stage.lose_store()

    @contextmanager
    def store_down(self) -> Iterator[None]:
        """Within the `with` block the store cannot be reached."""
        self._stage.switch.up = False
        try:
            yield
        finally:
            self._stage.switch.up = True

    def as_(self, number: str, to: str | None = None) -> "Phone":
        """Another person's phone, texting the same number unless told otherwise."""
        return Phone(self._stage, number, to or self.to)

    @property
    def media(self) -> tuple[str, ...]:
        """The URLs of all media of the last reply."""
        return tuple(
            url for reply in (self.last.replies if self.last else ()) for url in reply.media
        )


class Stage:
    """The service under a dialogue, and the clock that both it and Twilio go by."""

    def __init__(self) -> None:
        start_s = time.time()
        self.clock = Clock(lambda: start_s)
        self.loop = VirtualTimeLoop(self.clock.advance)
        self.client = BlockingClient()
        self.switch: Switch
        self.lose_store: Callable[[], None]
        self._raised: list[Exception] = []

    def between(self, remote: Remote) -> Switch:
        """Put the switch before the store."""
        self.switch = Switch(remote)
        return self.switch

    def overhear(self, exchange: Exchange) -> None:
        """Note why a dialogue failed, which a sender never learns: what it raised, or what is wrong with its reply."""
        answer = exchange.answer

        async def overheard(*args: Any, **more: Any) -> Answer:
            with self._taking_time():
                answered = await answer(*args, **more)
            if answered.error is not None:
                self._raised.append(answered.error)
            return answered

        exchange.answer = overheard  # type: ignore[method-assign]
        exchange.dialogue = _Watched(exchange.dialogue, self.loop)

    @contextmanager
    def _taking_time(self) -> Iterator[None]:
        """Let the clock go on with what the request takes, if that is noticeable."""
        began_s, skipped_s = self.loop.time(), self.loop.skipped_s
        self.loop.requests_waiting += 1
        try:
            yield
        finally:
            self.loop.requests_waiting -= 1
            took_s = self.loop.time() - began_s
            if took_s > NOTICEABLE_S:
                self.clock.advance(took_s - (self.loop.skipped_s - skipped_s))

    def judge(self, outcomes: Sequence[Outcome], failing: bool) -> None:
        """Raise what the dialogue raised, what Twilio found wrong, and differing replies to one message."""
        raised = self._raised[:]
        self._raised.clear()
        if raised and not failing:
            raise raised[0]
        for outcome in outcomes:
            problems = [f"{notice.code} {notice.text}" for notice in outcome.errors]
            assert not problems, f"Twilio would refuse this reply: {', '.join(problems)}"  # noqa: S101
        texts = {outcome.text for outcome in outcomes}
        assert len(texts) == 1, f"one message got different replies: {texts}"  # noqa: S101


class _Watched:
    """A dialogue whose runs the loop watches, so as to skip the time in which they only sleep."""

    def __init__(self, dialogue: Dialogue, loop: VirtualTimeLoop) -> None:
        self._dialogue = dialogue
        self._loop = loop

    def __call__(
        self, message: Message, session: Session
    ) -> Coroutine[Any, Any, Reply | str | None]:
        run = self._dialogue(message, session)
        self._loop.watch(run)
        return run

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dialogue, name)


@contextmanager
def rehearsal(dialogue: Any, environ: Mapping[str, str]) -> Iterator[Phone]:
    """A phone before a running service with this dialogue: "module:callable", or a callable (message, session)."""
    stage = Stage()
    spec = dialogue if isinstance(dialogue, str) else "smsd.dialogues.greeting:reply"
    given = {
        "TWILIO_AUTH_TOKEN": DEFAULT_TOKEN,
        "SMSD_PUBLIC_URL": "http://127.0.0.1",
        "SMSD_DIALOGUE": spec,
    }
    settings = settings_module.load({**given, **environ}, dev=True)
    loaded = (
        dialogues.load(spec, settings)
        if isinstance(dialogue, str)
        else dialogues.LoadedDialogue(dialogue)
    )
    with _running(stage.loop) as run:
        service, server, port = run(_start(stage, settings, loaded))
        stage.lose_store = lambda: run(stage.switch.flush())
        stage.client = BlockingClient(
            account=Account(
                DEFAULT_SID, settings.auth_token.reveal().decode(), f"{settings.public_url}/sms"
            ),
            twilio=Twilio(stage.clock),
            connect_to=f"127.0.0.1:{port}",
        )
        try:
            yield Phone(stage, DEFAULT_FROM, DEFAULT_TO)
        finally:
            run(_stop(service, server))


async def _start(
    stage: Stage, settings: settings_module.Settings, loaded: dialogues.LoadedDialogue
) -> tuple[Service, HTTPServer, int]:
    await loaded.open()
    service = Service(
        settings,
        loaded,
        now_ms=lambda: round(stage.clock() * 1000),
        clock_s=stage.loop.time,
        wrap=stage.between,
    )
    stage.overhear(service.exchange)
    server = HTTPServer(service.public())
    sockets = bind_sockets(0, "127.0.0.1")
    server.add_sockets(sockets)
    return service, server, sockets[0].getsockname()[1]


async def _stop(service: Service, server: HTTPServer) -> None:
    server.stop()
    await server.close_all_connections()
    await service.close()


@contextmanager
def _running(
    loop: asyncio.AbstractEventLoop,
) -> Iterator[Callable[[Coroutine[Any, Any, T]], T]]:
    """An event loop in a thread, and a function that runs a coroutine there."""
    thread = Thread(target=loop.run_forever, name="smsd", daemon=True)
    thread.start()
    try:
        yield lambda coroutine: asyncio.run_coroutine_threadsafe(coroutine, loop).result(PATIENCE_S)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(PATIENCE_S)
        loop.close()
