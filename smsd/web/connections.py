"""The deadlines of a listener's connections: in every state, a connection has one.

A connection is in one of three states:

- *waiting* for the head of a request, also before its first one: `IDLE_S`;
- *receiving* the body: `BODY_S`;
- *answering*: the request is being served, or its answer is being written: `SERVING_S`.
  A peer that does not read its answer has `UNREAD_S`.

`close_late` enforces the deadlines; call it about once a second. Timers of Tornado's
own would cost two timers and two tasks for each request, and none ends an unread
answer.
"""

import time
from typing import Protocol

IDLE_S = 620.0
"""Longer than proxies keep an idle connection: most of them 60 to 75 s, Google's load
balancer 600 s. If smsd closed first, a proxy could send a request into the closing
connection. Idle connections are cheap: `make_room` closes them when they are in the
way.
"""

BODY_S = 15.0
"""Twilio gives up after 15 s."""

UNREAD_S = 15.0

SERVING_S = 120.0
"""Serving ends much earlier by itself; this is for a bug of ours, or of a page's."""

RECYCLED_AFTER_S = 0.25
"""If there are too many connections, one that waited this long without a request may be
closed for a new one. Who has a request sends it at once.
"""


class Stream(Protocol):
    """What is used of Tornado's IOStream."""

    def close(self) -> None: ...
    def writing(self) -> bool: ...


class ClientConnection(Protocol):
    """What is used of Tornado's HTTP1ServerConnection."""

    stream: Stream


class Connections:
    """The open connections of one listener."""

    def __init__(
        self,
        *,
        idle_s: float = IDLE_S,
        body_s: float = BODY_S,
        serving_s: float = SERVING_S,
        unread_s: float = UNREAD_S,
    ) -> None:
        self._idle_s = idle_s
        self._body_s = body_s
        self._serving_s = serving_s
        self._unread_s = unread_s
        # Each connection is a key of one of these; the value is since when.
        self._waiting: dict[ClientConnection, float] = {}  # the longest wait comes first
        self._receiving: dict[ClientConnection, float] = {}
        self._answering: dict[ClientConnection, float] = {}
        self._unread: dict[ClientConnection, float] = {}  # a part of those that are answering

    def __len__(self) -> int:
        return len(self._waiting) + len(self._receiving) + len(self._answering)

    def wait(self, connection: ClientConnection) -> None:
        """The connection is new, or its last request is answered."""
        self._answering.pop(connection, None)
        self._unread.pop(connection, None)
        self._waiting[connection] = time.monotonic()

    def receive(self, connection: ClientConnection) -> None:
        """The head of a request has arrived."""
        self._waiting.pop(connection, None)
        self._receiving[connection] = time.monotonic()

    def answer(self, connection: ClientConnection) -> None:
        """The request has arrived completely."""
        self._receiving.pop(connection, None)
        self._answering[connection] = time.monotonic()

    def forget(self, connection: ClientConnection) -> None:
        """The connection is closed."""
        for state in (self._waiting, self._receiving, self._answering, self._unread):
            state.pop(connection, None)

    def close_late(self) -> None:
        """Close the connections whose deadline has passed."""
        now_s = time.monotonic()
        for connection in self._answering:
            if connection.stream.writing():
                self._unread.setdefault(connection, now_s)
            else:
                self._unread.pop(connection, None)
        late = [
            connection
            for state, at_most_s in (
                (self._waiting, self._idle_s),
                (self._receiving, self._body_s),
                (self._answering, self._serving_s),
                (self._unread, self._unread_s),
            )
            for connection, since_s in state.items()
            if now_s - since_s > at_most_s
        ]
        for connection in late:
            connection.stream.close()

    def make_room(self, at_most: int) -> None:
        """Close up to `at_most` of the connections that have waited longest for a
        request."""
        now_s = time.monotonic()
        for connection, since_s in list(self._waiting.items())[:at_most]:
            if now_s - since_s > RECYCLED_AFTER_S:
                connection.stream.close()
