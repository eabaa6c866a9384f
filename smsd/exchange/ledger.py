"""Reads and changes a conversation's record: read, merge, change, compare-and-swap, and
again from the start if another write came first.

No HTTP, no logs, no network of its own: the store is an argument.
"""

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from smsd.conversation import counting, ending, merging, turns
from smsd.conversation.counting import Found, Opened
from smsd.conversation.history import MAX_TEXT, trimmed_history
from smsd.conversation.record import Copy, Record
from smsd.exchange.conversations import Conversation
from smsd.exchange.running import Result
from smsd.store import Store, View
from smsd.twilio.markup import verbs


class Page(msgspec.Struct, frozen=True):
    """A conversation as it was read, and the record opened for one more message."""

    view: View
    opened: Opened
    record: Record
    now_ms: int
    number: int
    """Of the next message."""
    copy: Copy | None = None
    """The version that the cookie or this process held before."""

    @property
    def is_degraded(self) -> bool:
        return self.view.is_degraded


class Written(NamedTuple):
    """A change that was written: the page before it, and the record after it."""

    page: Page
    record: Record


Change = Callable[[Page], Record | None]
"""From what was read to what is to be written; None to leave it as it is."""


class Ledger:
    """`now_ms` and `random_bits` are the caller's clock and source of lineage ids.

    `history` is how many messages of a conversation keep their text (SMSD_HISTORY).
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

    async def read(
        self, key: bytes, copy: Copy | None, conversation: Conversation | None = None
    ) -> Page:
        """The conversation as store, cookie and this process know it. Never raises: if
        the store cannot be reached in time, this is the overlay.
        """
        if conversation is not None and conversation.record is not None:
            if copy is not None and not merging.covers(conversation.record, copy):
                conversation.saw(
                    merging.join(conversation.record, copy.record()),
                    is_degraded=conversation.is_degraded,
                )
            copy = conversation.record
        return self.page(await self.store.load(key), copy, conversation)

    def page(
        self, view: View, copy: Copy | None = None, conversation: Conversation | None = None
    ) -> Page:
        """A view, merged with the copy and with whatever this process has seen
        meanwhile."""
        stored = view.stored
        copies: tuple[Copy, ...] = view.versions
        if copy is not None and self.store.keeps_records:
            copies = (copy, *copies)
        elif copy is not None:
            stored = counting.resumed(copy.record())
        if conversation is not None and conversation.record is not None:
            copies = (*copies, conversation.record)
        now_ms = self.now_ms()
        opened = counting.opened(
            stored,
            copies,
            now_ms=now_ms,
            ttl_ms=self._ttl_ms,
            random_bits=self.random_bits(),
        )
        record = opened.record
        return Page(view, opened, record, now_ms, record.count + 1, copy)

    async def write(
        self, key: bytes, record: Record, page: Page, conversation: Conversation | None = None
    ) -> Page | None:
        """Write `record` unless somebody wrote since `page`: None when done, else what
        is there now.
        """
        token = await self.store.save(key, record, page.view.token, again=conversation is not None)
        if token is None:
            view = await self.store.load(key, page.view)
            return self.page(view, page.copy, conversation)
        if conversation is not None:
            conversation.saw(record, is_degraded=page.is_degraded)
            conversation.written = View(record, token=token)
        return None

    async def change(self, conversation: Conversation, change: Change) -> Written | None:
        """Apply `change` to the latest record until it is written, or until it gives
        None: then the record is left as it is, and so is the answer.
        """
        written, conversation.written = conversation.written, None
        if written is None:
            page = await self.read(conversation.key, None, conversation)
        else:
            page = self.page(written, None, conversation)
        while True:
            record = change(page)
            if record is None and page.view is written:  # there may be news to decide by
                page = await self.read(conversation.key, None, conversation)
                continue
            if record is None:
                conversation.saw(page.record, is_degraded=page.is_degraded)
                return None
            again = await self.write(conversation.key, record, page, conversation)
            if again is None:
                return Written(page, record)
            page = again

    # --- records to write

    def added(self, page: Page, digest: bytes, result: Result) -> Record:
        """The record with one more message, answered at once."""
        record, now_ms = page.record, page.now_ms
        twiml = verbs(result.reply.twiml)
        data = record.data if result.data is None else result.data
        grown = counting.added(
            record, digest, twiml, now_ms=now_ms, data=data, text=self._kept_text(result)
        )
        if self._history:
            grown = trimmed_history(grown, self._history)
        return self._ended(grown, now_ms) if result.has_ended else grown

    def answered(self, page: Page, found: Found, result: Result) -> Record:
        """The record with the answer of a message that it has already."""
        twiml = verbs(result.reply.twiml)
        text = self._kept_text(result)
        written = turns.answered(
            page.record, found, twiml, now_ms=page.now_ms, data=result.data, text=text
        )
        if self._history:
            written = trimmed_history(written, self._history)
        return self._ended(written, page.now_ms) if result.has_ended else written

    def _kept_text(self, result: Result) -> str | None:
        """What `session.history` remembers: only messages that a dialogue was asked
        about."""
        return None if result.text is None or not self._history else result.text[:MAX_TEXT]

    def _ended(self, record: Record, now_ms: int) -> Record:
        return ending.ended(record, now_ms=now_ms, random_bits=self.random_bits())
