"""Reads and changes conversations' records: read, merge, change, compare-and-swap, and
again from the start if another write came first.

What the store holds is not all that is known. A cookie brings a copy, and while this
process is busy with a conversation it remembers every version that it has seen
(`Conversation.record`). All of them are joined into every read. So the loss of the
stored record loses neither counts nor turns.
"""

import asyncio
import math
from collections.abc import Callable, Iterator
from functools import reduce
from typing import Any

import msgspec

from smsd.conversation import counting, ending, merging, turns
from smsd.conversation.counting import Found
from smsd.conversation.history import MAX_TEXT, trimmed_history
from smsd.conversation.identity import storage_key
from smsd.conversation.record import Copy, Record
from smsd.exchange.events import CookieState, Counted, Outcome
from smsd.exchange.runner import Result, Run
from smsd.store import Store, View
from smsd.twilio.markup import verbs
from smsd.twilio.message import Message

MOST_TRIES = 100
"""Writes of one change, however fast each fails: some servers refuse every
compare-and-swap."""


class Page(msgspec.Struct, frozen=True):
    """A conversation as it was read, merged, and opened for one more message."""

    view: View
    record: Record
    is_restored: bool
    """The stored record was gone, and a copy brought the count back."""
    by_cookie_alone: bool
    """memcached answered, and the only copy that was merged is the cookie's."""
    now_ms: int
    number: int
    """Of the next message."""

    @property
    def is_degraded(self) -> bool:
        return self.view.is_degraded


class Written(msgspec.Struct, frozen=True):
    """A change that was written: the page before it, and the record after it."""

    page: Page
    record: Record


Change = Callable[[Page], Record | None]
"""From what was read to what is to be written; None to leave it as it is."""


class Conversation:
    """What one process knows of a conversation while it is busy with it.

    record       the join of all versions that this process has seen
    is_degraded  memcached could not be reached when the record was read last
    here_until_s  a message had to be counted on the overlay: so long, its answer need not
                 try memcached either
    next_view    what this process wrote last, with a token that spares the next write its
                 read; None if another replica may well have written since
    requests     how many requests are being answered here, by message
    runs         the dialogues that run here, by message
    read_took_s  how long the store took for the last read before a message was counted
    arriving     held by a message while it is counted: of two that write at the same time
                 one would lose the compare-and-swap and start over
    claiming     held while a turn is claimed; None until then
    poller       looks at the store while requests wait for another replica
    """

    def __init__(self, id_: bytes) -> None:
        self.id = id_
        self.key = storage_key(id_)
        self.record: Record | None = None
        self.is_degraded = False
        self.here_until_s = 0.0
        self.next_view: View | None = None
        self.requests: dict[bytes, int] = {}
        self.runs: dict[bytes, Run] = {}
        self.read_took_s = math.inf
        self.arriving = asyncio.Lock()
        self.claiming: asyncio.Lock | None = None
        self.poller: asyncio.Task[None] | None = None
        self._changed: asyncio.Future[None] | None = None

    @property
    def messages_here(self) -> set[bytes]:
        """Messages that run or wait in this process."""
        return {*self.runs, *self.requests}

    def find(self, digest: bytes) -> Found | None:
        """Where a message stands, as far as this process knows."""
        return counting.find(self.record, digest) if self.record else None

    def saw(self, record: Record, *, is_degraded: bool) -> None:
        """Take in a version that was read or written, and wake who waits for news."""
        self.is_degraded = is_degraded
        if len(record.lineages) > 1:  # each read of a lost record opens one to write in
            written = tuple([line for line in record.lineages if line.top])
            record = msgspec.structs.replace(record, lineages=written)
        before = self.record
        if before is None or merging.covers(record, before):
            self.record = record
        else:
            self.record = merging.join(before, record)
        if self._changed and not (before and merging.covers(before, self.record)):
            self.notify()

    def notify(self) -> None:
        """Wake every request that waits."""
        changed, self._changed = self._changed, None
        if changed:
            changed.set_result(None)

    async def changed(self, timeout_s: float) -> None:
        """Wait for `notify`, at most so many seconds."""
        if self._changed is None:
            self._changed = asyncio.get_running_loop().create_future()
        await asyncio.wait([self._changed], timeout=timeout_s)


class Tries:
    """The tries of one change that meets conflicts, bounded by time and by count. When
    they are used up, the change is made on the overlay, where nobody else writes.

    began_s     when the message arrived, or the change began
    patience_s  no try is begun that would end later, if it took as long as the last one,
                which is a read and a write
    """

    def __init__(self, began_s: float, patience_s: float) -> None:
        self._until_s = began_s + patience_s
        self._left = MOST_TRIES
        self._last_s: float | None = None

    def has_time(self, now_s: float, operations: int = 2) -> bool:
        """Whether to try once more, with so many operations until the answer."""
        last_s, self._last_s = self._last_s, now_s
        took_s = 0.0 if last_s is None else now_s - last_s
        self._left -= 1
        return self._left >= 0 and now_s + took_s * operations / 2 <= self._until_s


class Arrival(msgspec.Struct):
    """A request with a message, from its arrival to its answer.

    digest        the message's short id in the record
    hop           how often Twilio was asked to come again for this message
    copy          what the cookie tells of the conversation, if it is valid
    started_s     when it arrived, on the event loop's clock
    is_duplicate  the message was known, and Twilio was not asked to send it again
    is_restored   as in `Counted`
    """

    message: Message
    digest: bytes
    conversation: Conversation
    hop: int
    cookie_state: CookieState
    copy: Copy | None
    started_s: float
    is_duplicate: bool = False
    is_restored: bool = False

    def find(self, page: Page) -> Found | None:
        """Where the message stands in a record that was read."""
        return counting.find(page.record, self.digest)

    def event(self, outcome: Outcome, number: int, now_s: float, **more: Any) -> Counted:
        """What became of the message; `more` as in `Counted`."""
        return Counted(
            self.message,
            self.conversation.id,
            outcome,
            number,
            self.cookie_state,
            now_s - self.started_s,
            is_restored=self.is_restored,
            **more,
        )

    def answered(
        self, page: Page, number: int, result: Result, now_s: float, outcome: Outcome | None = None
    ) -> Counted:
        """The message has its reply in the record.

        page     the conversation before it was written
        outcome  that of `result`, unless the dialogue was not asked
        """
        outcome = outcome or result.outcome
        return self.event(
            "degraded" if page.is_degraded and outcome == "counted" else outcome,
            number,
            now_s,
            error=result.error,
            dialogue_s=result.took_s,
            texts=result.reply.texts,
        )


class Ledger:
    """The conversations of one process, and the only way from the exchange to their
    records in the store.

    now_ms       the time in milliseconds since 1970
    random_bits  draws the ids of lineages
    history      how many messages of a conversation keep their text (SMSD_HISTORY)
    """

    def __init__(
        self,
        store: Store,
        *,
        ttl_s: int,
        now_ms: Callable[[], int],
        random_bits: Callable[[], int],
        history: int = 0,
    ) -> None:
        self.store = store
        self.now_ms = now_ms
        self.random_bits = random_bits
        self._ttl_ms = ttl_s * 1000
        self._history = history
        self._conversations: dict[bytes, Conversation] = {}

    # --- the conversations that this process is busy with

    def __iter__(self) -> Iterator[Conversation]:
        return iter(list(self._conversations.values()))

    def enter(self, id_: bytes, digest: bytes) -> Conversation:
        """The conversation, for a request with this message. `leave` must follow."""
        conversation = self._conversations.get(id_)
        if conversation is None:
            conversation = self._conversations[id_] = Conversation(id_)
        conversation.requests[digest] = conversation.requests.get(digest, 0) + 1
        return conversation

    def leave(self, conversation: Conversation, digest: bytes) -> None:
        """The request is answered."""
        conversation.requests[digest] -= 1
        if not conversation.requests[digest]:
            del conversation.requests[digest]
        self.forget_if_idle(conversation)

    def forget_if_idle(self, conversation: Conversation) -> None:
        """Remember nothing of it once no request and no dialogue is left."""
        if conversation.requests or conversation.runs:
            return
        self._conversations.pop(conversation.id, None)
        if conversation.poller:
            conversation.poller.cancel()

    # --- reading and writing

    async def read(
        self,
        conversation: Conversation,
        copy: Copy | None = None,
        before: View | None = None,
        *,
        here: bool = False,
    ) -> Page:
        """The conversation as store, cookie and this process know it. Never raises: if
        the store cannot be reached in time, this is the overlay.

        copy    the cookie's, if there is one
        before  the view whose write failed, when this is another try
        here    there is no time to ask the store
        """
        key, store = conversation.key, self.store
        view = store.load_here(key, before) if here else await store.load(key, before)
        return self._page(view, conversation, copy)

    def _page(self, view: View, conversation: Conversation, copy: Copy | None = None) -> Page:
        """A view, merged with whatever else is known."""
        stored = view.stored
        copies: list[Copy] = [copy] if copy else []
        copies += view.versions
        if conversation.record is not None:
            copies.append(conversation.record)
        if copies and not self.store.keeps_records:  # `cookie://`: a copy is the record
            known = reduce(merging.join, [each.record() for each in copies])
            stored, copies = counting.resumed(known), []
        now_ms = self.now_ms()
        record, is_restored = counting.opened(
            stored, copies, now_ms=now_ms, ttl_ms=self._ttl_ms, random_bits=self.random_bits()
        )
        by_cookie_alone = copy is not None and len(copies) == 1 and not view.is_degraded
        return Page(view, record, is_restored, by_cookie_alone, now_ms, record.count + 1)

    async def write(
        self, conversation: Conversation, record: Record, page: Page, *, again: bool
    ) -> bool:
        """Write `record` unless somebody wrote since `page`. False if somebody did, or
        perhaps did: read again.

        again  the conversation will soon be written again
        """
        token = await self.store.save(conversation.key, record, page.view.token, again=again)
        if token is None:
            return False
        conversation.next_view = View(record, token=token) if again else None
        conversation.saw(record, is_degraded=page.is_degraded)
        return True

    async def change(
        self, conversation: Conversation, change: Change, *, began_s: float | None = None
    ) -> Written | None:
        """Apply `change` to the latest record until it is written, or until it gives
        None: then the record is left as it is, and so is the answer.

        began_s  since when somebody waits for it, on the event loop's clock; now if None
        """
        clock_s = asyncio.get_running_loop().time
        # The store was too slow a moment ago, and the patience of this message is spent.
        here = clock_s() < conversation.here_until_s
        guess, conversation.next_view = None if here else conversation.next_view, None
        if guess:
            page = self._page(guess, conversation)
        else:
            page = await self.read(conversation, here=here)
        tries = Tries(clock_s() if began_s is None else began_s, self.store.patience_s)
        while True:
            record = change(page)
            if record is None and page.view is not guess:
                conversation.saw(page.record, is_degraded=page.is_degraded)
                return None
            if record is not None and await self.write(conversation, record, page, again=True):
                return Written(page, record)
            # a guess that finds nothing to do: there may be news to decide by
            is_late = not tries.has_time(clock_s())
            page = await self.read(conversation, before=page.view, here=is_late)

    # --- records to write

    def added(self, page: Page, digest: bytes, result: Result) -> Record:
        """The record with one more message, answered at once."""
        record, now_ms = page.record, page.now_ms
        data = record.data if result.data is None else result.data
        grown = counting.added(
            record,
            digest,
            verbs(result.reply.twiml),
            now_ms=now_ms,
            data=data,
            text=self._kept_text(result),
        )
        return self._finished(grown, result, now_ms)

    def answered(self, page: Page, found: Found, result: Result) -> Record:
        """The record with the answer of a message that it has already."""
        written = turns.answered(
            page.record,
            found,
            verbs(result.reply.twiml),
            now_ms=page.now_ms,
            data=result.data,
            text=self._kept_text(result),
        )
        return self._finished(written, result, page.now_ms)

    def _kept_text(self, result: Result) -> str | None:
        """What `session.history` remembers: only messages that a dialogue was asked
        about."""
        return None if result.text is None or not self._history else result.text[:MAX_TEXT]

    def _finished(self, record: Record, result: Result, now_ms: int) -> Record:
        if self._history:
            record = trimmed_history(record, self._history)
        if result.has_ended:
            return ending.ended(record, now_ms=now_ms, random_bits=self.random_bits())
        return record
