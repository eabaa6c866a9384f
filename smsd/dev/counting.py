"""Remembers how the service counted the last messages, for the phone page.

It must not look into the exchange: the service logs one "message" event for each
message, with its number and outcome, on whatever path the message was answered.
`CountingWatch` is a log handler that keeps these facts. At a log level above `info` it
sees nothing.
"""

import logging
from collections.abc import Mapping

from smsd.dev.hooks import Counting

EVENT = "message"
MOST_MESSAGES = 300


class CountingWatch(logging.Handler):
    """Keeps outcome and number of the last messages of this process, by MessageSid."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._countings: dict[str, Counting] = {}

    def install(self) -> None:
        """Begin to watch."""
        logging.getLogger("smsd").addHandler(self)

    def remove(self) -> None:
        """Stop watching."""
        logging.getLogger("smsd").removeHandler(self)

    def of(self, sid: str) -> Counting | None:
        """How the last delivery of this message was counted, if it is remembered."""
        return self._countings.get(sid)

    def emit(self, record: logging.LogRecord) -> None:
        """Take a log record; only messages matter."""
        fields: Mapping[str, object] = getattr(record, "fields", {})
        sid, number = fields.get("sid"), fields.get("count")
        if record.msg != EVENT or not isinstance(sid, str) or not isinstance(number, int):
            return
        self._countings.pop(sid, None)
        self._countings[sid] = Counting(str(fields.get("outcome", "")), number)
        while len(self._countings) > MOST_MESSAGES:
            self._countings.pop(next(iter(self._countings)))
