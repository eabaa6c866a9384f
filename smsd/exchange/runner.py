"""Runs the author's dialogue, contained: whatever it raises, swallows or blocks, a run
ends with a result or is left behind.

A dialogue is other people's code. It may raise what is no Exception (`sys.exit()`, the
cancellation of something it waited for), may swallow its own cancellation, or may never
return. So it runs in a task of its own: its time-outs and cancel scopes bind to that
task, and whoever waits for the answer stops waiting when the time is up, whatever the
task still does. Nothing is held in the middle: what was started runs to its end or is
canceled as a whole.

Usually a message is announced in the record before its dialogue starts, so that a run
never has to be thrown away. That costs a write. Most dialogues answer without waiting
for anything, and then the write of the reply can carry the announcement. So a handler
that answered at once AT_ONCE_TIMES in a row in this process starts unannounced
(`Runner.answers_at_once`), until the first time that it waits.
"""

import asyncio
import inspect
import math
from collections.abc import Coroutine, Generator
from contextvars import ContextVar
from functools import lru_cache, partial
from types import coroutine
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakKeyDictionary

import msgspec

from smsd.conversation import counting
from smsd.conversation.history import entries
from smsd.conversation.session import Session
from smsd.errors import DialogueTimeout, UserCodeError
from smsd.exchange.events import Observer, Outcome
from smsd.twilio.markup import texts_of
from smsd.twilio.message import Message
from smsd.twilio.reply import SILENCE, Reply, to_reply

if TYPE_CHECKING:
    from smsd.exchange.ledger import Page

AT_ONCE_TIMES = 3
"""A handler that answered so often in a row without waiting is known to do so."""

YIELDING_S = 0.005
"""A coroutine that only yields (`asyncio.sleep(0)`) counts as waiting after this long."""

LOOP_WINDOW_S = 30
"""The loop guard counts the replies of so many seconds (SMSD_LOOP_LIMIT)."""


class Dialogue(Protocol):
    """What smsd asks of a dialogue. `smsd.dialogues.loading` makes one of whatever an
    author wrote.
    """

    def __call__(self, message: Message, session: Session) -> Coroutine[Any, Any, Any]:
        """Reply to a message. May raise anything."""
        ...

    def conversation_key(self, message: Message) -> str | None:
        """The name of the message's conversation, if it has one. Never raises."""
        ...

    def handler_of(self, message: Message, session: Session) -> object:
        """What will reply to the message: the dialogue itself, or a part of it. Can be
        referred to weakly. Never raises.
        """
        ...

    async def open(self) -> None:
        """Called before the first message."""
        ...

    async def close(self) -> None:
        """Called after the last message."""
        ...

    async def reload(self, settings: object) -> None:
        """Called when settings have changed."""
        ...


class Policy(msgspec.Struct):
    """How messages are answered. All of it may be replaced at any time; a message that
    is being answered keeps what it began with.

    apology             sent when the dialogue fails or is late; empty for silence
    one_moment          sent when Twilio is asked to come again for the first time, if any
    dialogue_timeout_s  seconds for one run of the dialogue
    loop_limit          replies within LOOP_WINDOW_S, beyond which there are none; 0 for any
    opt_out             leave STOP, HELP and their like to Twilio
    history             how many messages `session.history` holds
    """

    dialogue: Dialogue
    apology: str
    one_moment: str
    dialogue_timeout_s: float
    loop_limit: int
    opt_out: bool
    history: int = 0


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

    @property
    def outcome(self) -> Outcome:
        return "failed" if self.error else "counted"


NOT_ASKED = Result(SILENCE, None)
"""The dialogue is not run: Twilio answers itself, or two machines text each other."""


class Run:
    """One run of a dialogue for one message. Nothing happens before `start`.

    handler      what replies to the message: the dialogue, or a part of it
    data_limit   bytes of `session.data` as JSON
    apology      what is sent if the dialogue fails
    timeout_s    seconds from `start` until the dialogue is late
    setting      the name of the setting that says so
    """

    task: "asyncio.Task[Result]"
    deadline_s: float
    has_waited: bool | None = None
    """Whether it had to wait for something; None until that is known."""

    def __init__(
        self,
        dialogue: Dialogue,
        message: Message,
        session: Session,
        *,
        data_limit: int,
        apology: Reply,
        timeout_s: float,
        setting: str,
    ) -> None:
        self.handler = dialogue.handler_of(message, session)
        self._dialogue = dialogue
        self._message = message
        self._session = session
        self._data_limit = data_limit
        self._apology = apology
        self._timeout_s = timeout_s
        self._setting = setting
        self._is_stopped = False
        self._loop = asyncio.get_running_loop()

    def start(self) -> None:
        """Begin when the event loop comes to it."""
        self._started_s = self._loop.time()
        self.deadline_s = self._started_s + self._timeout_s
        # past the factory for user code, which is for what the dialogue starts itself
        self.task = asyncio.Task(self._contained(), loop=self._loop)

    async def first_step(self) -> None:
        """Let the dialogue run to its first wait, or to its end."""
        yields_until_s = 0.0
        await _one_turn_of_the_loop()
        while not self.task.done() and not _is_waiting(self.task):
            now_s = self._loop.time()
            yields_until_s = yields_until_s or now_s + YIELDING_S
            if now_s > yields_until_s:
                break
            await _one_turn_of_the_loop()
        self.has_waited = not self.task.done()

    def result(self) -> Result:
        """What it led to, once its task is done."""
        if self.task.cancelled():  # stopped before it began
            return self._failed(asyncio.CancelledError())
        return self.task.result()

    def stop(self) -> None:
        """Nobody needs its result any more: cancel the dialogue, once."""
        if not self._is_stopped:
            self._is_stopped = True
            self.task.cancel()

    def late(self) -> Result:
        """The time is up, whatever the dialogue does about it."""
        self.stop()
        limit = f"within {self._timeout_s:g} s ({self._setting})"
        return self._failed(DialogueTimeout(f"the dialogue did not return {limit}"))

    async def _contained(self) -> Result:
        """The task. It never raises: SystemExit would end the process, and a
        cancellation from elsewhere would be taken for one of ours.
        """
        in_dialogue.set(True)
        session = self._session
        try:
            reply = to_reply(await self._dialogue(self._message, session))
            data = session.packed_data(self._data_limit)
        except BaseException as error:  # noqa: BLE001 - see above
            return self._failed(error)
        return Result(reply, data, session.ended, None, self._took_s(), self._message.body)

    def _failed(self, error: BaseException) -> Result:
        text = self._message.body
        return Result(self._apology, None, False, error, self._took_s(), text)

    def _took_s(self) -> float:
        return self._loop.time() - self._started_s


class Runner:
    """What a process does about dialogues: it makes their runs, knows which handlers
    answer at once, and what is sent if no dialogue is run.

    `data_limit`: bytes of `session.data` as JSON.
    """

    def __init__(self, policy: Policy, data_limit: int, observer: Observer) -> None:
        self.policy = policy
        self._data_limit = data_limit
        self._observer = observer
        self._at_once: WeakKeyDictionary[object, int] = WeakKeyDictionary()
        """How often in a row a handler answered without waiting."""

    def outcome_without_dialogue(self, message: Message, page: "Page") -> Outcome | None:
        """Why the dialogue is not run for a message ("opted_out", "looped"); None if it
        is.
        """
        if self.policy.opt_out and message.is_opt_out:
            return "opted_out"
        if self.policy.loop_limit:
            sent = counting.replies_within(page.record, page.now_ms // 1000, LOOP_WINDOW_S)
            if sent >= self.policy.loop_limit:
                return "looped"
        return None

    def run_for(
        self, message: Message, page: "Page", number: int, *, at_most_s: float = math.inf
    ) -> Run:
        """A run that is not started yet.

        number     the message's in the conversation
        at_most_s  SMSD_ANSWER_WITHIN, if a request has to wait for all of the run
        """
        policy, record = self.policy, page.record
        session = Session(
            number,
            restored=page.is_restored,
            packed_data=record.data,
            history=partial(entries, record, policy.history, number, texts_of)
            if policy.history
            else (),
        )
        timeout_s, setting = policy.dialogue_timeout_s, "SMSD_DIALOGUE_TIMEOUT"
        if at_most_s < timeout_s:
            timeout_s, setting = at_most_s, "SMSD_ANSWER_WITHIN"
        return Run(
            policy.dialogue,
            message,
            session,
            data_limit=self._data_limit,
            apology=_apology(policy.apology),
            timeout_s=timeout_s,
            setting=setting,
        )

    def answers_at_once(self, run: Run) -> bool:
        """Whether its handler did so AT_ONCE_TIMES in a row, lately."""
        return self._at_once.get(run.handler, 0) >= AT_ONCE_TIMES

    def start(self, run: Run) -> None:
        """Begin it."""
        run.start()
        self._observer.dialogue_started(run.task)

    async def first_step(self, run: Run) -> Result | None:
        """Let a run come to its first wait, and remember whether it had one. Its result
        if it had none.
        """
        if run.has_waited is None:
            await run.first_step()
            in_a_row = 0 if run.has_waited else self._at_once.get(run.handler, 0) + 1
            self._at_once[run.handler] = in_a_row
        return None if run.has_waited else run.result()

    def apologize(self, error: Exception) -> Result:
        """What a message gets whose dialogue is not run because of `error`."""
        return Result(_apology(self.policy.apology), None, error=error)


@lru_cache(maxsize=4)
def _apology(text: str) -> Reply:
    """The reply that is sent instead; making one for each message would be wasteful."""
    return to_reply(text or None)


# --- tasks


in_dialogue: ContextVar[bool] = ContextVar("in_dialogue", default=False)
"""Set in the task of a dialogue; tasks inherit it from whoever starts them."""


def task_factory(
    loop: asyncio.AbstractEventLoop,
    coro: Coroutine[Any, Any, Any] | Generator[Any, None, Any],
    **options: Any,
) -> asyncio.Task[Any]:
    """For `loop.set_task_factory`: a task that a dialogue starts fails alone.

    SystemExit or KeyboardInterrupt in a task ends the event loop, and with it the
    process.
    """
    if in_dialogue.get() and asyncio.iscoroutine(coro):
        coro = _fails_alone(coro)
    return asyncio.Task(coro, loop=loop, **options)


async def _fails_alone(coro: Coroutine[Any, Any, Any]) -> Any:
    try:
        return await coro
    except (SystemExit, KeyboardInterrupt) as error:
        raise UserCodeError(f"{type(error).__name__} in a task of a dialogue") from error


def innermost(suspended: Any) -> Any:
    """What a suspended coroutine waits for in the end: the last of the coroutines and
    generators that await each other, or what that one waits for.
    """
    while True:
        if inspect.iscoroutine(suspended):
            waits_for = suspended.cr_await
        elif inspect.isgenerator(suspended):
            waits_for = suspended.gi_yieldfrom
        else:
            return suspended
        if waits_for is None:
            return suspended
        suspended = waits_for


def _is_waiting(task: "asyncio.Task[Any]") -> bool:
    """Whether the task waits for something. A generator that stands at a bare `yield`,
    as in asyncio.sleep(0), only lets others go first.
    """
    return not inspect.isgenerator(innermost(task.get_coro()))


@coroutine
def _one_turn_of_the_loop() -> Generator[None, None, None]:
    """As asyncio.sleep(0), without making a coroutine object."""
    yield
