"""Decides when a request may begin, and which requests there is no time for.

Under load, requests begin in the order in which they arrived, MOST_AT_ONCE in one turn
of the event loop, so that turns stay short and neither memcached nor a probe seems
late. A request that comes while others have waited longer than `patience_s` is *shed*:
it gets a 503 at once. Its connection is *held*: nothing is read from it for a while.

    admission.arrive()              every request, when it has arrived completely
    admission.is_late               shed it?
    await admission.turn()          else, wait until it may begin
    await admission.hold()          after the 503 was written
    admission.leave()               every request, after its answer
"""

import asyncio
import time
from collections import deque

MOST_AT_ONCE = 50
"""Requests begun in one turn of the event loop."""

HELD_S = 5.0
"""After shedding a request, stop reading from its connection for up to this long:
refusing costs half as much as answering (docs/performance.md), and a client that is
refused may come again at once.
"""


class Admission:
    """The requests of this process that are being served, wait to be, or were shed.

    patience_s  requests are shed while another one has waited longer than this
    """

    def __init__(self, *, patience_s: float = 2.0) -> None:
        self.under_way = 0
        """Requests that have arrived and whose answer is not finished, held ones too."""
        self._patience_s = patience_s
        self._room = MOST_AT_ONCE
        self._waiting: deque[tuple[float, asyncio.Future[None]]] = deque()
        self._held: deque[tuple[float, asyncio.Future[None]]] = deque()
        # Both hold since when each request waits, the longest wait first.

    def arrive(self) -> None:
        """A request has arrived completely."""
        self.under_way += 1

    def leave(self) -> None:
        """Its answer is written."""
        self.under_way -= 1

    @property
    def is_late(self) -> bool:
        """Whether earlier requests wait so long already that a new one has to be shed."""
        return bool(self._waiting) and _age_s(self._waiting[0]) > self._patience_s

    def turn(self) -> "asyncio.Future[None] | None":
        """None if the request may begin at once, else what to wait for."""
        loop = asyncio.get_running_loop()
        if not self._room:
            begun = loop.create_future()
            self._waiting.append((time.monotonic(), begun))
            return begun
        if self._room == MOST_AT_ONCE:
            loop.call_soon(self._next_turn)
        self._room -= 1
        return None

    def hold(self) -> "asyncio.Future[None]":
        """What to wait for before the next request is read from a connection."""
        released: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._held.append((time.monotonic(), released))
        return released

    def release_two(self) -> None:
        """A request was answered. Two held connections are released for each answer, so
        that soon after a rush none is held any more.
        """
        if self._held and len(self._waiting) < MOST_AT_ONCE:
            for _ in range(min(2, len(self._held))):
                _go_on(self._held)

    def release_late(self) -> None:
        """Release connections that were held long enough, or all if nobody is served.
        Call this about once a second.
        """
        is_idle = self.under_way == len(self._held)
        while self._held and (is_idle or _age_s(self._held[0]) > HELD_S):
            _go_on(self._held)

    def _next_turn(self) -> None:
        begun = min(len(self._waiting), MOST_AT_ONCE)
        for _ in range(begun):
            _go_on(self._waiting)
        if begun:
            asyncio.get_running_loop().call_soon(self._next_turn)
        # They go on in the loop's next turn, so nobody may begin in this one: it would
        # overtake them.
        self._room = 0 if begun else MOST_AT_ONCE


def _age_s(waiting: "tuple[float, asyncio.Future[None]]") -> float:
    return time.monotonic() - waiting[0]


def _go_on(queue: "deque[tuple[float, asyncio.Future[None]]]") -> None:
    future = queue.popleft()[1]
    if not future.done():  # the request's task may have been canceled
        future.set_result(None)
