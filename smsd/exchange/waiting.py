"""The waiting room: a request whose message has no reply yet waits here for its turn,
or for the reply.

No HTTP, no logs, no network of its own. What other replicas write is seen by polling:
one task for each conversation, not for each request. What happens in this process wakes
the requests at once.
"""

import asyncio
from collections.abc import Callable

from smsd.conversation import counting, turns
from smsd.conversation.counting import Found
from smsd.conversation.record import Record
from smsd.exchange.arrival import Arrival
from smsd.exchange.conversations import Conversation, Conversations
from smsd.exchange.events import Observer
from smsd.exchange.keeper import Keeper
from smsd.exchange.ledger import Ledger, Page
from smsd.exchange.running import Result, Run

POLL_FIRST_S = 0.05
POLL_MOST_S = 1.0
"""The pause between two looks grows from the first to this, and is short again after a
change."""

LOOK_EVERY_S = 1.0
"""A request looks at the clock at least this often, since leases run out in silence."""

RETRY_CLAIM_S = 0.05
FRESH_MS = 2_000
"""A place is not renewed while it is newer than this."""


class WaitingRoom:
    """`answer_within_s`: how long a request waits before Twilio is asked to come again."""

    def __init__(
        self,
        ledger: Ledger,
        conversations: Conversations,
        keeper: Keeper,
        observer: Observer,
        answer_within_s: float,
    ) -> None:
        self._ledger = ledger
        self._conversations = conversations
        self._keeper = keeper
        self._observer = observer
        self._answer_within_s = answer_within_s

    async def wait(
        self,
        arrival: Arrival,
        conversation: Conversation,
        start: Callable[[Page, Found], Run],
        apology: Result,
    ) -> Found | None:
        """The message when it is answered; None if Twilio should be asked to come
        again.

        start    starts the dialogue when it is this message's turn
        apology  what a message gets that took its process down too often
        """
        with self._conversations.waiting(conversation, arrival.digest):
            self._observer.turns_waiting(self._conversations.requests)
            if conversation.poller is None:
                task = asyncio.get_running_loop().create_task(self._poll(conversation))
                conversation.poller = task
            try:
                return await self._until_answered(arrival, conversation, start, apology)
            finally:
                self._observer.turns_waiting(self._conversations.requests - 1)

    async def _until_answered(
        self,
        arrival: Arrival,
        conversation: Conversation,
        start: Callable[[Page, Found], Run],
        apology: Result,
    ) -> Found | None:
        loop = asyncio.get_running_loop()
        deadline_s = arrival.started_s + self._answer_within_s
        if arrival.digest not in conversation.runs:
            await self._ledger.change(conversation, lambda page: _with_fresh_place(page, arrival))
        while True:
            record = conversation.record
            found = counting.find(record, arrival.digest) if record else None
            if found is None or turns.is_answered(found.entry):
                return found
            runs_here = arrival.digest in conversation.runs
            left_s = deadline_s - loop.time()
            if left_s <= 0 or not (runs_here or self._keeper.is_claiming):
                return None
            if not runs_here and self._may_run(conversation, found):
                await self._keeper.claim(conversation, arrival, start, apology)
                if arrival.digest in conversation.runs:
                    continue
                left_s = min(left_s, RETRY_CLAIM_S)
            await conversation.changed(min(left_s, LOOK_EVERY_S))

    def _may_run(self, conversation: Conversation, found: Found) -> bool:
        record = conversation.record
        only = conversation.local if conversation.is_degraded else None
        return record is not None and turns.may_run(
            record, found, self._keeper.holder, now_ms=self._ledger.now_ms(), only=only
        )

    async def _poll(self, conversation: Conversation) -> None:
        """Look at the record until nobody waits. While a dialogue runs here, its keeper
        looks. The renewal of a lease is no reason to look again soon: otherwise 1,000
        conversations that wait for another replica read 5,000 times a second.
        """
        pause_s = POLL_FIRST_S
        stages: tuple[int, ...] = ()
        while True:
            if conversation.runs:
                await conversation.changed(POLL_MOST_S)
                pause_s = POLL_FIRST_S
                continue
            await asyncio.sleep(pause_s)
            page = await self._ledger.read(conversation.key, None, conversation)
            conversation.saw(page.record, is_degraded=page.is_degraded)
            before, stages = stages, turns.stages(page.record)
            pause_s = POLL_FIRST_S if stages != before else min(POLL_MOST_S, pause_s * 1.5)


def _with_fresh_place(page: Page, arrival: Arrival) -> Record | None:
    """The record with a sign of life of a message that waits."""
    found = counting.find(page.record, arrival.digest)
    if found is None or turns.is_answered(found.entry) or turns.shows_running(found.entry):
        return None
    turn = found.entry.turn
    if turn is not None and page.now_ms < turn.until_ms - turns.PLACE_MS + FRESH_MS:
        return None
    return turns.renewed(page.record, found, now_ms=page.now_ms)
