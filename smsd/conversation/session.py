"""What a dialogue sees of the conversation: `Session`.

A session decides nothing: `smsd.exchange` fills it before the dialogue runs and reads it
back afterwards.
"""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from smsd.conversation.history import HistoryEntry
from smsd.errors import DataError

MAX_DATA_BYTES = 100_000
"""Of `session.data` as JSON, where there is a store; `cookie://` takes 400."""

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(dict[str, Any])


class Session:
    """One conversation, at one message.

    count     number of this message in the conversation, from 1
    is_new    whether this message begins the conversation
    restored  whether the stored conversation was lost or cannot be reached, and the
              cookie brought it back. `data` of more than 400 bytes is then missing and
              shows as {}
    data      a JSON object that is kept for the conversation
    history   earlier messages and their replies, if SMSD_HISTORY asks for them

    smsd makes sessions. A test of your own may, too:

    >>> session = Session(2)
    >>> session.data["color"] = "blue"
    >>> session.count, session.is_new, session.data
    (2, False, {'color': 'blue'})

    The dialogues of one conversation run one at a time, in the order of their numbers.
    What a dialogue changes in `data` is applied exactly once per message, or not at
    all:

    - If Twilio delivers a message again, it gets the reply that it got before. The
      dialogue does not run again.
    - If a replica dies, another one runs the dialogue again, from the `data` before
      this message. A handler that usually answers at once may also begin in vain, once.
      So a dialogue should change nothing but `session`, or only in a way that may be
      repeated for one `message.sid`.
    - If a dialogue raises, is late, or leaves something that is not a JSON object,
      `data` stays as it was.
    - If memcached cannot be reached, `data` goes on in this process from the cookie's
      copy, and is merged afterwards. Of two versions the one with more messages wins as
      a whole.
    - If the record is lost, up to 400 bytes of JSON come back from the cookie, and
      `restored` is True.
    """

    __slots__ = ("_data", "_history", "_packed", "count", "ended", "restored", "waiting_form")

    def __init__(
        self,
        count: int,
        *,
        restored: bool = False,
        packed_data: bytes = b"",
        history: Sequence[HistoryEntry] | Callable[[], Sequence[HistoryEntry]] = (),
    ) -> None:
        self.count = count
        self.restored = restored
        self.ended = False
        self.waiting_form: str | None = None  # set by a form that asked a question, for a router
        self._packed = packed_data
        self._data: dict[str, Any] | None = None
        self._history = history

    @property
    def is_new(self) -> bool:
        """Whether this message begins the conversation."""
        return self.count == 1

    @property
    def data(self) -> dict[str, Any]:
        """A JSON object that is kept for the conversation. Change it, and the next
        message finds the change.

        At most 100,000 bytes of JSON, with `cookie://` 400. If it is larger or not JSON
        when the dialogue returns, the sender gets the apology.

        >>> session = Session(1)
        >>> session.data.setdefault("seen", []).append("hi")
        >>> session.data
        {'seen': ['hi']}
        """
        if self._data is None:
            self._data = _decoder.decode(self._packed) if self._packed else {}
        return self._data

    @data.setter
    def data(self, value: dict[str, Any]) -> None:
        if not isinstance(value, dict):
            raise DataError(f"session.data is not a JSON object but a {type(value).__name__}")
        self._data = value

    @property
    def history(self) -> tuple[HistoryEntry, ...]:
        """The last messages of this conversation and their replies, oldest first,
        without the present message. Added in 0.2.

        Empty unless `SMSD_HISTORY` is more than 0; then at most so many messages, and
        at most 16 kB of texts and replies together: the oldest are dropped first.
        Messages that were left to Twilio (STOP, HELP) or silenced as a loop are not in
        it, and each message is in it once. A message without a reply has "" for its
        reply, one whose dialogue failed the apology.

        The history is kept in the record only. It is empty with `cookie://`, after the
        record was lost, and after `end()`; during an outage of memcached it begins
        anew.

        >>> session = Session(2, history=[HistoryEntry("hi", "Hello!", 1, 1_790_000_000)])
        >>> [(entry.text, entry.reply) for entry in session.history]
        [('hi', 'Hello!')]
        """
        if callable(self._history):
            self._history = self._history()
        return tuple(self._history)

    def end(self) -> None:
        """Make this reply the last of the conversation: the next message begins a new
        one, with count 1 and empty data.
        """
        self.ended = True

    def packed_data(self, limit: int = MAX_DATA_BYTES) -> bytes:
        """`data` as JSON, or b"" for {}. For smsd itself.

        Raises DataError if it is not a JSON object or has more than `limit` bytes.
        """
        if self._data is None:
            return self._packed
        if not self._data:
            return b""
        try:
            packed = _encoder.encode(self._data)
            _decoder.decode(packed)
        except (msgspec.MsgspecError, TypeError, ValueError, RecursionError) as error:
            raise DataError(f"session.data is not a JSON object: {type(error).__name__}") from error
        if len(packed) > limit:
            raise DataError(
                f"session.data has {len(packed)} bytes of JSON; at most {limit} are allowed"
            )
        return packed
