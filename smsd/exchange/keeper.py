"""The turns of this process: requests that wait here for theirs, and dialogues that run
here in theirs. What a turn is stands in `smsd.conversation.turns`.

A request waits until its message has a reply (`Keeper.wait`). What happens in this
process wakes it at once. What other replicas write is seen by polling, one task for each
conversation. When it is the message's turn, the request claims it and starts the
dialogue.

A task stays with each dialogue that did not answer at once (`Keeper.keep`), whether or
not a request still waits for it: it renews the lease, ends the dialogue when its time is
up, and writes what it led to, which any replica may deliver. A result is written only
while the record still shows this process as the holder of the turn in the same epoch;
otherwise another replica has taken over, and the result is dropped.
"""

import asyncio
from typing import Any

import msgspec

from smsd.conversation import counting, turns
from smsd.conversation.counting import Found
from smsd.conversation.record import Record
from smsd.errors import DialogueKilledProcess
from smsd.exchange.events import Observer
from smsd.exchange.ledger import Arrival, Conversation, Ledger, Page
from smsd.exchange.runner import Result, Run, Runner

RENEW_EVERY_S = 1.0
"""A lease of `turns.LEASE_MS` survives two renewals that fail."""

GIVE_BACK_S = 2.0
"""How long the end of the process waits until turns are given back."""

ABANDONED_AFTER_S = 0.1
"""A dialogue has this long to end when its time is up. Then it counts as abandoned."""

POLL_FIRST_S = 0.05
POLL_MOST_S = 1.0
"""The pause between two looks grows from the first to this, and is short again after a
change."""

LOOK_EVERY_S = 1.0
"""A request looks at the clock at least this often, since leases run out in silence."""

SETTLE_S = 3.0
"""After an outage other replicas have this long to find memcached and to merge."""

RETRY_CLAIM_S = 0.05
"""A claim that was not written is tried again after this time."""

FRESH_MS = 2_000
"""A place is not renewed while it is newer than this."""


class HeldTurn(msgspec.Struct, frozen=True):
    """A turn that this process holds: a message whose dialogue runs here."""

    arrival: Arrival
    run: Run
    epoch: int
    holder: int

    def find(self, page: Page) -> Found | None:
        """The message, if it is still this process that holds its turn."""
        found = self.arrival.find(page)
        if found is None or found.entry.turn is None or not found.entry.is_open:
            return None
        turn = found.entry.turn
        return found if (turn.epoch, turn.holder) == (self.epoch, self.holder) else None

    def renewed(self, page: Page) -> Record | None:
        """The record with a new lease; None if the turn was lost."""
        found = self.find(page)
        return turns.renewed(page.record, found, now_ms=page.now_ms) if found else None

    def given_back(self, page: Page) -> Record | None:
        """The record with the message waiting again; None if the turn was lost."""
        found = self.find(page)
        return turns.given_back(page.record, found, now_ms=page.now_ms) if found else None


class Keeper:
    """The turns of one process: those that its requests wait for, and those it holds.

    holder           the random number by which records know this process
    answer_within_s  how long a request waits before Twilio is asked to come again
    """

    def __init__(
        self,
        ledger: Ledger,
        runner: Runner,
        observer: Observer,
        *,
        holder: int,
        answer_within_s: float,
    ) -> None:
        self.holder = holder
        self._ledger = ledger
        self._runner = runner
        self._observer = observer
        self._answer_within_s = answer_within_s
        self._loop = asyncio.get_running_loop()
        self._is_claiming = True
        self._requests_waiting = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._abandoned: set[asyncio.Task[Result]] = set()
        self._stop: asyncio.Future[None] = self._loop.create_future()

    @property
    def is_busy(self) -> bool:
        """Whether a dialogue runs here."""
        return bool(self._tasks)

    def stop_claiming(self) -> None:
        """The process is about to stop: no turn is claimed any more, and requests whose
        dialogue does not run here wait no longer.
        """
        self._is_claiming = False
        for conversation in self._ledger:
            conversation.notify()

    async def give_back(self) -> None:
        """End all dialogues that still run, and let other replicas run them again."""
        if not self._stop.done():
            self._stop.set_result(None)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=GIVE_BACK_S)

    # --- waiting

    async def wait(self, arrival: Arrival) -> Found | None:
        """The message when it is answered; None if Twilio should be asked to come
        again.
        """
        conversation = arrival.conversation
        self._count_waiting(+1)
        if conversation.poller is None:
            conversation.poller = self._loop.create_task(self._poll(conversation))
        try:
            return await self._until_answered(arrival)
        finally:
            self._count_waiting(-1)

    def _count_waiting(self, more: int) -> None:
        self._requests_waiting += more
        self._observer.turns_waiting(self._requests_waiting)

    async def _until_answered(self, arrival: Arrival) -> Found | None:
        conversation = arrival.conversation
        deadline_s = arrival.started_s + self._answer_within_s
        if arrival.digest not in conversation.runs:
            await self._ledger.change(conversation, lambda page: _with_fresh_place(page, arrival))
        while True:
            found = conversation.find(arrival.digest)
            if found is None or turns.is_answered(found.entry):
                return found
            runs_here = arrival.digest in conversation.runs
            left_s = deadline_s - self._loop.time()
            if left_s <= 0 or not (runs_here or self._is_claiming):
                return None
            record, is_degraded = conversation.record, conversation.is_degraded
            if (
                not runs_here
                and record
                and self._may_run(conversation, record, found, is_degraded=is_degraded)
            ):
                await self._claim(arrival)
                if arrival.digest in conversation.runs:
                    continue
                left_s = min(left_s, RETRY_CLAIM_S)
            await conversation.changed(min(left_s, LOOK_EVERY_S))

    def _may_run(
        self, conversation: Conversation, record: Record, found: Found, *, is_degraded: bool
    ) -> bool:
        """Whether a message may run here now."""
        return turns.may_run(
            record,
            found,
            self.holder,
            now_ms=self._ledger.now_ms(),
            only=conversation.messages_here if is_degraded else None,
        )

    async def _poll(self, conversation: Conversation) -> None:
        """Look at the record until nobody waits. While a dialogue runs here, its
        renewals of the lease look. The renewal of a lease elsewhere is no reason to
        look again soon: it happens every second, and each conversation that waits would
        read at POLL_FIRST_S again and again (the row "messages wait here for another
        replica" of `tests/bench/run slow`).
        """
        pause_s = POLL_FIRST_S
        stages: tuple[int, ...] = ()
        while True:
            if conversation.runs:
                await conversation.changed(POLL_MOST_S)
                pause_s = POLL_FIRST_S
                continue
            await asyncio.sleep(pause_s)
            page = await self._ledger.read(conversation)
            conversation.saw(page.record, is_degraded=page.is_degraded)
            before, stages = stages, turns.stages(page.record)
            pause_s = POLL_FIRST_S if stages != before else min(POLL_MOST_S, pause_s * 1.5)

    # --- claiming

    async def _claim(self, arrival: Arrival) -> None:
        """Claim the turn of a message if it may run now, and start its dialogue. A
        message that took its process down too often gets the apology.
        """
        conversation = arrival.conversation
        poison = self._runner.apologize(DialogueKilledProcess("its process died in each run"))

        def change(page: Page) -> Record | None:
            found = arrival.find(page)
            if found is None or not self._may_run(
                conversation, page.record, found, is_degraded=page.is_degraded
            ):
                return None
            if turns.is_takeover(found, self.holder) and self._is_settling(page):
                return None
            if turns.is_poison(found, self.holder):
                return self._ledger.answered(page, found, poison)
            return turns.claimed(page.record, found, self.holder, now_ms=page.now_ms)

        # Two requests for one message may both see that it is its turn.
        claiming = conversation.claiming = conversation.claiming or asyncio.Lock()
        async with claiming:
            if arrival.digest in conversation.runs or not self._is_claiming:
                return
            written = await self._ledger.change(conversation, change)
            if written is None:
                return
            before = counting.find(written.page.record, arrival.digest)
            after = counting.find(written.record, arrival.digest)
            assert before is not None and after is not None  # noqa: PT018, S101 - just changed
            if turns.is_answered(after.entry) or after.entry.turn is None:
                self._tell(arrival, written.page, poison)
                return
            if turns.is_takeover(before, self.holder):
                self._observer.taken_over()
            run = self._runner.run_for(arrival.message, written.page, before.number)
            self._runner.start(run)
            self.keep(arrival, run, after.entry.turn.epoch)

    def _is_settling(self, page: Page) -> bool:
        """Whether memcached is back so lately that leases renewed in the overlays of
        other replicas may not have reached it.
        """
        return self._loop.time() < page.view.up_since_s + SETTLE_S

    async def apologize(self, arrival: Arrival, error: Exception) -> None:
        """Answer a message that is still open with the apology, whoever runs its
        dialogue.
        """
        result = self._runner.apologize(error)

        def change(page: Page) -> Record | None:
            found = arrival.find(page)
            if found is None or turns.is_answered(found.entry):
                return None
            return self._ledger.answered(page, found, result)

        written = await self._ledger.change(arrival.conversation, change)
        if written is None:
            return
        if run := arrival.conversation.runs.get(arrival.digest):
            run.stop()  # one that runs elsewhere finds its turn lost when it renews
        self._tell(arrival, written.page, result)

    # --- holding

    def keep(self, arrival: Arrival, run: Run, epoch: int) -> None:
        """Stay with a run whose message is announced or claimed in this epoch."""
        arrival.conversation.runs[arrival.digest] = run
        turn = HeldTurn(arrival, run, epoch, self.holder)
        task = self._loop.create_task(self._stay(turn))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _stay(self, turn: HeldTurn) -> None:
        arrival, conversation = turn.arrival, turn.arrival.conversation
        try:
            result = await self._result(turn)
            self._leave_behind(turn.run)
            if result is None:
                await self._ledger.change(conversation, turn.given_back)
                return

            def change(page: Page) -> Record | None:
                found = turn.find(page)
                return self._ledger.answered(page, found, result) if found else None

            # who got a reply at once still waits for it, since the message arrived
            began_s = None if turn.run.has_waited else arrival.started_s
            written = await self._ledger.change(conversation, change, began_s=began_s)
            if written is not None:
                self._tell(arrival, written.page, result)
        finally:
            del conversation.runs[arrival.digest]
            conversation.notify()
            self._ledger.forget_if_idle(conversation)

    async def _result(self, turn: HeldTurn) -> Result | None:
        """What the run leads to. None if it must be given up: another replica has taken
        over, or this process stops.
        """
        run = turn.run
        at_once = await self._runner.first_step(run)
        if at_once:
            return at_once
        renew_s = self._loop.time() + RENEW_EVERY_S
        while True:
            left_s = min(renew_s, run.deadline_s) - self._loop.time()
            awaited: list[asyncio.Future[Any]] = [run.task, self._stop]
            await asyncio.wait(awaited, timeout=max(0, left_s), return_when=asyncio.FIRST_COMPLETED)
            if run.task.done():  # first: a result that is there is never given up
                return run.result()
            if self._stop.done():
                return None
            if self._loop.time() >= run.deadline_s:
                return run.late()
            if self._loop.time() >= renew_s:
                renew_s = self._loop.time() + RENEW_EVERY_S
                if await self._ledger.change(turn.arrival.conversation, turn.renewed) is None:
                    return None

    def _tell(self, arrival: Arrival, page: Page, result: Result) -> None:
        """A message that was open has its answer."""
        found = arrival.find(page)
        number = found.number if found else 0
        self._observer.counted(arrival.answered(page, number, result, self._loop.time()))

    def _leave_behind(self, run: Run) -> None:
        """Whatever the dialogue still does, nobody waits for it. One that swallows its
        cancellation is counted until it ends.
        """
        if run.task.done():
            return
        run.stop()
        self._abandoned.add(run.task)
        run.task.add_done_callback(self._ended)
        self._loop.call_later(ABANDONED_AFTER_S, self._count_abandoned)

    def _ended(self, task: asyncio.Task[Result]) -> None:
        self._abandoned.discard(task)
        self._count_abandoned()

    def _count_abandoned(self) -> None:
        self._observer.dialogues_abandoned(len(self._abandoned))


def _with_fresh_place(page: Page, arrival: Arrival) -> Record | None:
    """The record with a sign of life of a message that waits."""
    found = arrival.find(page)
    if found is None or turns.is_answered(found.entry) or turns.shows_running(found.entry):
        return None
    if turns.ran_somewhere(found.entry):
        return None  # it is not this request that would know
    turn = found.entry.turn
    if turn is not None and page.now_ms < turn.until_ms - turns.PLACE_MS + FRESH_MS:
        return None
    return turns.renewed(page.record, found, now_ms=page.now_ms)
