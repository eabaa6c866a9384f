"""The deadlines of a listener's connections: in every state, a connection has one.

Knows no request and no HTTP status. A connection is in one of three states:

- *waiting* for the head of a request, also before its first one: `IDLE_S`;
- *receiving* the body: `BODY_S`;
- *answering*: the request is being served, or its answer is being written. How long
  serving takes is up to the webhook. A peer that does not read its answer has `UNREAD_S`.

`close_late` enforces the deadlines; call it about once a second. Timers of Tornado's own
would cost two timers and two tasks for each request, and none ends an unread answer.
"""

import time
from typing import Protocol

IDLE_S = 620.0
"""Longer than proxies keep an idle connection: most of them 60 to 75 s, Google's load
balancer 600 s. If smsd closed first, a proxy could send a request into the closing
connection. Idle connections are cheap: `make_room` closes them when they are in the way.
"""

BODY_S = 15.0
"""Twilio gives up after 15 s."""

UNREAD_S = 15.0

RECYCLED_AFTER_S = 1.0
"""A connection that has waited this long without a request may be closed for a new one."""


class Stream(Protocol):
    """What is used of Tornado's IOStream."""

    def close(self) -> None: ...
    def writing(self) -> bool: ...


class Connection(Protocol):
    """What is used of Tornado's HTTP1ServerConnection."""

    stream: Stream


class Connections:
    """The open connections of one listener."""

    def __init__(
        self, *, idle_s: float = IDLE_S, body_s: float = BODY_S, unread_s: float = UNREAD_S
    ) -> None:
        self.idle_s = idle_s
        self.body_s = body_s
        self.unread_s = unread_s
        # Each connection is a key of one of them. Values are times of the monotonic clock.
        self._waiting: dict[Connection, float] = {}  # since when; the longest wait comes first
        self._receiving: dict[Connection, float] = {}  # since when
        self._answering: dict[Connection, float | None] = {}  # since when its answer is unread

    def __len__(self) -> int:
        return len(self._waiting) + len(self._receiving) + len(self._answering)

    def wait(self, connection: Connection) -> None:
        """The connection is new, or its last request is answered."""
        self._answering.pop(connection, None)
        self._waiting[connection] = time.monotonic()

    def receive(self, connection: Connection, now_s: float) -> None:
        """The head of a request has arrived."""
        self._waiting.pop(connection, None)
        self._receiving[connection] = now_s

    def answer(self, connection: Connection) -> None:
        """The request has arrived completely."""
        self._receiving.pop(connection, None)
        self._answering[connection] = None

    def forget(self, connection: Connection) -> None:
        """The connection is closed."""
        for state in (self._waiting, self._receiving, self._answering):
            state.pop(connection, None)

    def close_late(self) -> None:
        """Close the connections whose deadline has passed."""
        now_s = time.monotonic()
        late = [each for each, since_s in self._waiting.items() if now_s - since_s > self.idle_s]
        late += [each for each, since_s in self._receiving.items() if now_s - since_s > self.body_s]
        for connection, since_s in self._answering.items():
            if not connection.stream.writing():
                self._answering[connection] = None
            elif since_s is None:
                self._answering[connection] = now_s
            elif now_s - since_s > self.unread_s:
                late.append(connection)
        for connection in late:
            connection.stream.close()

    def make_room(self, at_most: int) -> None:
        """Close up to `at_most` of the connections that have waited longest for a request."""
        now_s = time.monotonic()
        for connection, since_s in list(self._waiting.items())[:at_most]:
            if now_s - since_s > RECYCLED_AFTER_S:
                connection.stream.close()
