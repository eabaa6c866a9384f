"""Whose turn it is: messages of one conversation in one process go one after the other, since all but one would
lose the compare-and-swap. Knows no message and no store.
"""

import asyncio
from collections import deque

TURN_WAIT_S = 0.25
"""So long a message waits for the one before it in its conversation. Then compare-and-swap alone decides."""


class Turns:
    """The messages that wait, by conversation."""

    def __init__(self) -> None:
        self._waiting: dict[bytes, deque[asyncio.Future[None]]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    async def take(self, key: bytes) -> bool:
        """Wait for the turn, for TURN_WAIT_S at most; True if it must be given on."""
        queue = self._waiting.get(key)
        if queue is None:
            self._waiting[key] = deque()
            return True
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.append(turn)
        try:
            async with asyncio.timeout(TURN_WAIT_S):
                await turn
        except TimeoutError:
            return False
        return True

    def give(self, key: bytes) -> None:
        queue = self._waiting[key]
        while queue:
            turn = queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        del self._waiting[key]
