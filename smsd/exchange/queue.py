"""A queue for each conversation in this process: messages are counted one at a time,
since of two that write together one would lose the compare-and-swap and start over.

Knows no message and no store. It only avoids conflicts: a message waits WAIT_S at most,
and then compare-and-swap alone decides.
"""

import asyncio
from collections import deque

WAIT_S = 0.25


class LocalQueue:
    """Messages that wait, by conversation."""

    def __init__(self) -> None:
        self._waiting: dict[bytes, deque[asyncio.Future[None]] | None] = {}
        """None until somebody waits: nobody does, usually."""

    def enter_at_once(self, key: bytes) -> bool:
        """Whether nobody else of this conversation is counted now: then `leave` must be
        called.
        """
        if key in self._waiting:
            return False
        self._waiting[key] = None
        return True

    def __len__(self) -> int:
        return len(self._waiting)

    async def enter(self, key: bytes) -> bool:
        """Wait to be first, for WAIT_S at most. True if `leave` must be called."""
        if self.enter_at_once(key):
            return True
        queue = self._waiting[key]
        if queue is None:
            queue = self._waiting[key] = deque()
        first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.append(first)
        try:
            async with asyncio.timeout(WAIT_S):
                await first
        except TimeoutError:
            return False
        return True

    def leave(self, key: bytes) -> None:
        """Let the next one in."""
        queue = self._waiting[key]
        while queue:
            first = queue.popleft()
            if not first.done():
                first.set_result(None)
                return
        del self._waiting[key]
