"""What this process knows of the conversations in which a message waits or runs here.

Knows no store and no HTTP; no network. Most messages are answered at once and never get
here.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from smsd.conversation import merging
from smsd.conversation.record import Record
from smsd.exchange.running import Run
from smsd.store import View


class Conversation:
    """One conversation while requests wait for it, or dialogues of it run, here.

    record       the join of all versions that this process has seen. It is joined into
                 every read, so that the loss of the stored record loses no turn
    runs         the dialogues that run here, by message
    is_degraded  memcached could not be reached when the record was read last
    written      a view of this process's last write, which spares the next one its read;
                 None if another replica may well have written since
    """

    def __init__(self, key: bytes, id_: bytes) -> None:
        self.key = key
        self.id = id_
        self.record: Record | None = None
        self.runs: dict[bytes, Run] = {}
        self.is_degraded = False
        self.written: View | None = None
        self.claiming = asyncio.Lock()
        self.requests: Counter[bytes] = Counter()
        """How many requests wait here, by message."""
        self.poller: asyncio.Task[None] | None = None
        self._changed = asyncio.get_running_loop().create_future()

    @property
    def local(self) -> set[bytes]:
        """Messages that run or wait in this process."""
        return {*self.runs, *self.requests}

    @property
    def is_idle(self) -> bool:
        return not self.runs and not self.requests

    def saw(self, record: Record, *, is_degraded: bool) -> bool:
        """Take in a version that was read or written; whether it brought anything new."""
        self.is_degraded = is_degraded
        before = self.record
        if before is None or merging.covers(record, before):
            self.record = record
        else:
            self.record = merging.join(before, record)
        if before is not None and merging.covers(before, self.record):
            return False
        self.notify()
        return True

    def notify(self) -> None:
        """Wake every request that waits."""
        changed, self._changed = self._changed, asyncio.get_running_loop().create_future()
        changed.set_result(None)

    async def changed(self, timeout_s: float) -> None:
        """Wait for `notify`, at most so many seconds."""
        await asyncio.wait([self._changed], timeout=timeout_s)


class Conversations:
    """The conversations of this process in which something waits or runs, by key."""

    def __init__(self) -> None:
        self._by_key: dict[bytes, Conversation] = {}
        self.requests = 0
        """Requests that wait."""

    def __iter__(self) -> Iterator[Conversation]:
        return iter(list(self._by_key.values()))

    def get(self, key: bytes) -> Conversation | None:
        return self._by_key.get(key)

    def of(self, key: bytes, id_: bytes) -> Conversation:
        """The conversation, new if nothing of it waits or runs here yet."""
        found = self._by_key.get(key)
        if found is None:
            found = self._by_key[key] = Conversation(key, id_)
        return found

    @contextmanager
    def waiting(self, conversation: Conversation, digest: bytes) -> Iterator[None]:
        """Within the `with` block a request waits for this message."""
        conversation.requests[digest] += 1
        self.requests += 1
        try:
            yield
        finally:
            self.requests -= 1
            conversation.requests[digest] -= 1
            if not conversation.requests[digest]:
                del conversation.requests[digest]
            self.forget_if_idle(conversation)

    def forget_if_idle(self, conversation: Conversation) -> None:
        if conversation.is_idle and self._by_key.get(conversation.key) is conversation:
            del self._by_key[conversation.key]
            if conversation.poller:
                conversation.poller.cancel()
