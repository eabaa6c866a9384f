"""Keeps the turns of the dialogues that run in this process: claims them, renews their
leases, ends them when their time is up, and writes what they led to.

No HTTP, no logs, no network of its own. A task stays with each dialogue that did not
answer at once, whether or not a request still waits for it: the reply goes into the
record, and any replica may deliver it. A result is written only while the record still
shows this process as the holder of the turn in the same epoch; otherwise another
replica has taken over, and the result is dropped.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

from smsd.conversation import counting, turns
from smsd.conversation.counting import Found
from smsd.conversation.record import Record
from smsd.exchange.arrival import Arrival
from smsd.exchange.conversations import Conversation, Conversations
from smsd.exchange.events import Observer, Outcome
from smsd.exchange.ledger import Ledger, Page, Written
from smsd.exchange.running import Result, Run

RENEW_EVERY_S = 1.0
GIVE_BACK_S = 2.0
"""How long the end of the process waits until turns are given back."""

ABANDONED_AFTER_S = 0.1
"""A dialogue has this long to end when its time is up. Then it counts as abandoned."""


class HeldTurn(msgspec.Struct, frozen=True):
    """A turn that this process holds: a message whose dialogue runs here."""

    conversation: Conversation
    arrival: Arrival
    run: Run
    epoch: int
    holder: int

    def find(self, page: Page) -> Found | None:
        """The message, if it is still this process that holds its turn."""
        found = counting.find(page.record, self.arrival.digest)
        if found is None or found.entry.turn is None:
            return None
        turn = found.entry.turn
        is_ours = (turn.epoch, turn.holder) == (self.epoch, self.holder)
        return found if is_ours and found.entry.is_open else None

    def renewed(self, page: Page) -> Record | None:
        """The record with a new lease; None if the turn was lost."""
        found = self.find(page)
        return turns.renewed(page.record, found, now_ms=page.now_ms) if found else None

    def given_back(self, page: Page) -> Record | None:
        """The record with the message waiting again; None if the turn was lost."""
        found = self.find(page)
        return turns.given_back(page.record, found, now_ms=page.now_ms) if found else None


class Keeper:
    """`holder` is the random number by which records know this process."""

    def __init__(
        self, ledger: Ledger, conversations: Conversations, observer: Observer, holder: int
    ) -> None:
        self.holder = holder
        self.is_claiming = True
        """False once the process is about to stop: no turn is claimed any more."""
        self._ledger = ledger
        self._conversations = conversations
        self._observer = observer
        self._tasks: set[asyncio.Task[None]] = set()
        self._abandoned: set[asyncio.Task[Result]] = set()
        self._stop: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def is_busy(self) -> bool:
        """Whether a dialogue runs here."""
        return bool(self._tasks)

    def keep(self, conversation: Conversation, arrival: Arrival, run: Run, epoch: int) -> None:
        """The message is announced or claimed in this epoch: let its dialogue go on,
        and stay with it.
        """
        conversation.runs[arrival.digest] = run
        run.go_on()
        turn = HeldTurn(conversation, arrival, run, epoch, self.holder)
        task = asyncio.get_running_loop().create_task(self._stay(turn))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def claim(
        self,
        conversation: Conversation,
        arrival: Arrival,
        start: Callable[[Page, Found], Run],
        apology: Result,
    ) -> None:
        """Claim the turn of a message if it may run now, and `start` its dialogue. A
        message that took its process down too often gets the apology.
        """

        def change(page: Page) -> Record | None:
            found = counting.find(page.record, arrival.digest)
            only = conversation.local if page.is_degraded else None
            if found is None:
                return None
            if not turns.may_run(page.record, found, self.holder, now_ms=page.now_ms, only=only):
                return None
            if turns.is_poison(found, self.holder):
                return self._ledger.answered(page, found, apology)
            return turns.claimed(page.record, found, self.holder, now_ms=page.now_ms)

        async with conversation.claiming:
            if arrival.digest in conversation.runs or not self.is_claiming:
                return
            written = await self._ledger.change(conversation, change)
            if written is None:
                return
            before = counting.find(written.page.record, arrival.digest)
            after = counting.find(written.record, arrival.digest)
            assert before is not None and after is not None  # noqa: PT018, S101 - just changed
            if turns.is_answered(after.entry) or after.entry.turn is None:
                self._tell(arrival, written, apology)
                return
            if turns.is_takeover(before, self.holder):
                self._observer.taken_over()
            self.keep(conversation, arrival, start(written.page, before), after.entry.turn.epoch)

    async def answer(self, conversation: Conversation, arrival: Arrival, result: Result) -> None:
        """Answer a message that is still open, whoever runs its dialogue."""

        def change(page: Page) -> Record | None:
            found = counting.find(page.record, arrival.digest)
            if found is None or turns.is_answered(found.entry):
                return None
            return self._ledger.answered(page, found, result)

        written = await self._ledger.change(conversation, change)
        if written is None:
            return
        if run := conversation.runs.get(arrival.digest):
            run.stop()
        self._tell(arrival, written, result)

    async def give_back(self) -> None:
        """End all dialogues that still run, and let other replicas run them again."""
        if not self._stop.done():
            self._stop.set_result(None)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=GIVE_BACK_S)

    # --- one turn

    async def _stay(self, turn: HeldTurn) -> None:
        conversation = turn.conversation
        try:
            result = await self._result(turn)
            self._leave_behind(turn.run)
            if result is None:
                await self._ledger.change(conversation, turn.given_back)
            else:
                written = await self._ledger.change(
                    conversation, lambda page: self._written(turn, page, result)
                )
                if written is not None:
                    self._tell(turn.arrival, written, result)
        finally:
            del conversation.runs[turn.arrival.digest]
            conversation.notify()
            self._conversations.forget_if_idle(conversation)

    async def _result(self, turn: HeldTurn) -> Result | None:
        """What the run leads to. None if it must be given up: another replica has taken
        over, or this process stops.
        """
        loop, run = asyncio.get_running_loop(), turn.run
        renew_s = loop.time() + RENEW_EVERY_S
        while True:
            left_s = min(renew_s, run.deadline_s) - loop.time()
            awaited: list[asyncio.Future[Any]] = [run.task, self._stop]
            await asyncio.wait(
                awaited,
                timeout=max(0, left_s),
                return_when=asyncio.FIRST_COMPLETED,
            )
            if run.task.done():
                return run.task.result()
            if self._stop.done():
                return None
            if loop.time() >= run.deadline_s:
                return run.late()
            if loop.time() >= renew_s:
                renew_s = loop.time() + RENEW_EVERY_S
                if await self._ledger.change(turn.conversation, turn.renewed) is None:
                    return None

    def _written(self, turn: HeldTurn, page: Page, result: Result) -> Record | None:
        found = turn.find(page)
        return self._ledger.answered(page, found, result) if found else None

    def _tell(self, arrival: Arrival, written: Written, result: Result) -> None:
        found = counting.find(written.page.record, arrival.digest)
        number = found.number if found else 0
        outcome: Outcome = "failed" if result.error else "counted"
        now_s = asyncio.get_running_loop().time()
        self._observer.counted(arrival.counted(written.page, number, outcome, result, now_s=now_s))

    def _leave_behind(self, run: Run) -> None:
        """Whatever the dialogue still does, nobody waits for it. One that swallows its
        cancellation is counted until it ends.
        """
        if run.task.done():
            return
        run.stop()
        self._abandoned.add(run.task)
        run.task.add_done_callback(self._ended)
        asyncio.get_running_loop().call_later(ABANDONED_AFTER_S, self._count_abandoned)

    def _ended(self, task: asyncio.Task[Result]) -> None:
        self._abandoned.discard(task)
        self._count_abandoned()

    def _count_abandoned(self) -> None:
        self._observer.dialogues_abandoned(len(self._abandoned))
