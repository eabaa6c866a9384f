"""One run of a dialogue, contained: whatever it raises, swallows or blocks, the run
ends with a result or is left behind.

Knows no store, no HTTP and no network; the clock is the event loop's.

A dialogue is other people's code. It may raise what is no Exception (`sys.exit()`, the
cancellation of something it waited for), may swallow its own cancellation, or may never
return. So it runs in a task of its own: its time-outs and cancel scopes bind to that
task, and whoever waits for the answer stops waiting when the time is up, whatever the
task still does.

The run stops at the dialogue's first wait until the message is announced in the record
(`Run.go_on`). If another replica's message came first, the run is dropped there, and
nothing beyond the first wait has happened.
"""

import asyncio
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from types import coroutine
from typing import Any

import msgspec

from smsd.conversation.session import Session
from smsd.errors import DialogueTimeout
from smsd.exchange.containment import in_dialogue
from smsd.twilio.message import Message
from smsd.twilio.reply import SILENCE, Reply, to_reply

Dialogue = Callable[[Message, Session], Coroutine[Any, Any, Any]]

YIELDING_S = 0.005
"""A coroutine that only yields (`asyncio.sleep(0)`) counts as waiting after this long."""


class Result(msgspec.Struct, frozen=True):
    """What a run led to: a reply and data to be written together, or an error."""

    reply: Reply
    data: bytes | None
    """The session's data as JSON; None if it stays as it was."""
    has_ended: bool = False
    """The dialogue called `session.end()`."""
    error: BaseException | None = None
    took_s: float | None = None
    """Seconds; None if the dialogue did not run."""
    text: str | None = None
    """What the sender wrote; None if the dialogue did not run."""


class Run:
    """A dialogue's run for one message, which starts when the event loop comes to it.

    data_limit   bytes of `session.data` as JSON
    apology      what is sent if the dialogue fails, as a `Reply`
    timeout_s    seconds from now until the dialogue is late
    is_announced False to stop at the first wait until `go_on` or `stop`
    """

    def __init__(
        self,
        dialogue: Dialogue,
        message: Message,
        session: Session,
        *,
        data_limit: int,
        apology: Reply,
        timeout_s: float,
        is_announced: bool,
    ) -> None:
        self.session = session
        self.is_held = False
        """It stands at its first wait."""
        self._is_stopped = False
        self._apology = apology
        self._text = message.body
        self._data_limit = data_limit
        self._may_go_on = is_announced
        self._announced: asyncio.Event | None = None
        self._yields_end_s = 0.0
        self._loop = asyncio.get_running_loop()
        self._started_s = self._loop.time()
        self.deadline_s = self._started_s + timeout_s
        # past the factory for user code, which is for what the dialogue starts itself
        self.task = asyncio.Task(self._contained(dialogue, message), loop=self._loop)

    async def first_step(self) -> Result | None:
        """Let the dialogue run to its first wait. What it led to if it did not wait."""
        await _one_turn_of_the_loop()
        while not (self.task.done() or self.is_held):
            if not self._yields_end_s:
                self._yields_end_s = self._loop.time() + YIELDING_S
            await _one_turn_of_the_loop()
        return self.task.result() if self.task.done() else None

    def go_on(self) -> None:
        """The message is announced: the dialogue may go beyond its first wait."""
        self._may_go_on = True
        if self._announced:
            self._announced.set()

    def stop(self) -> None:
        """Nobody needs its result any more: cancel the dialogue, once."""
        if not self._is_stopped:
            self._is_stopped = True
            self.task.cancel()
            self.go_on()

    def late(self) -> Result:
        """The time is up, whatever the dialogue does about it."""
        self.stop()
        return self._failed(
            DialogueTimeout("the dialogue did not return within SMSD_DIALOGUE_TIMEOUT")
        )

    async def _contained(self, dialogue: Dialogue, message: Message) -> Result:
        """The task. It never raises: SystemExit would end the process, and a
        cancellation from elsewhere would be taken for one of ours.
        """
        in_dialogue.set(True)
        try:
            said = to_reply(await self._driven(dialogue(message, self.session)))
            data = self.session.packed_data(self._data_limit)
        except BaseException as error:  # noqa: BLE001 - see above
            return self._failed(error)
        return Result(said, data, self.session.ended, None, self._took_s(), self._text)

    def _failed(self, error: BaseException) -> Result:
        return Result(self._apology, None, False, error, self._took_s(), self._text)

    def _took_s(self) -> float:
        return self._loop.time() - self._started_s

    @coroutine
    def _driven(self, dialogue: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
        """What `await dialogue` does, but for the stop at the first wait: a task cannot
        be told to pause, so its coroutine is resumed by hand (PEP 380, "yield from").
        """
        resume = partial(dialogue.send, None)
        while True:
            try:
                waits_for = resume()
            except StopIteration as returned:
                return returned.value
            if not self._may_go_on and self._is_wait(waits_for):
                cancellation = yield from self._held()
                if cancellation and not (waits_for is not None and waits_for.cancel()):
                    resume = partial(dialogue.throw, cancellation)
                    continue
            try:
                sent = yield waits_for
            except BaseException as thrown:  # noqa: BLE001 - for the dialogue to handle
                resume = partial(dialogue.throw, thrown)
            else:
                resume = partial(dialogue.send, sent)

    def _is_wait(self, waits_for: object) -> bool:
        """A bare `yield` of asyncio.sleep(0) is none, unless it goes on for too long."""
        if waits_for is not None:
            return True
        return bool(self._yields_end_s) and self._loop.time() > self._yields_end_s

    def _held(self) -> Generator[Any, Any, asyncio.CancelledError | None]:
        """Stand still until `go_on` or `stop`. A cancellation that comes meanwhile,
        such as that of the dialogue's own time-out, is delivered afterwards.
        """
        self.is_held = True
        self._announced = announced = asyncio.Event()
        cancellation = None
        while not announced.is_set():
            try:
                yield from announced.wait().__await__()
            except asyncio.CancelledError as error:
                cancellation = error
        return cancellation


@coroutine
def _one_turn_of_the_loop() -> Generator[None, None, None]:
    """As asyncio.sleep(0), without making a coroutine object."""
    yield


NOT_ASKED = Result(SILENCE, None)
"""The dialogue is not run: Twilio answers itself, or two machines text each other."""
