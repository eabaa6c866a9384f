"""What a dialogue sees of the conversation. No network, no clock, no store: `exchange` fills it and reads it
back.
"""

from typing import Any

import msgspec

from smsd.errors import DataError

MAX_DATA_BYTES = 100_000
"""Of `session.data` as JSON, where there is a store; `cookie://` takes 400."""

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(dict[str, Any])


class Session:
    """One conversation, at one message.

    count     number of this message in the conversation, from 1
    is_new    this message begins the conversation
    restored  the store has lost the conversation or cannot be reached, and the cookie brought it back: `data`
              of more than 400 bytes is not here, and shows as {}

    >>> session = Session(2)  # smsd makes it; here as a test of your own might
    >>> session.data["colour"] = "blue"
    >>> session.count, session.is_new, session.data
    (2, False, {'colour': 'blue'})

    What a dialogue changes in `data` happens once for each message, or not at all:

    - a message that Twilio delivers again gets the answer it got before; the dialogue does not run;
    - two messages at the same time: the dialogue runs again with what the other one wrote, and only the run that
      was written counts. So nothing but `session` may be changed, or only in a way that `message.sid` makes harmless
      to repeat;
    - a dialogue that raises, is late, or leaves what is no JSON object: `data` stays as it was;
    - the store cannot be reached: `data` goes on in this process, from the cookie's copy, and is merged afterwards.
      Of two versions the one that counted more messages wins as a whole; one that never knew the data loses;
    - the record is lost: up to 400 bytes of JSON come back from the cookie, more is gone, and `restored` tells.
    """

    __slots__ = ("_data", "_packed", "count", "ended", "restored")

    def __init__(self, count: int, *, restored: bool = False, packed_data: bytes = b"") -> None:
        self.count = count
        self.restored = restored
        self.ended = False
        self._packed = packed_data
        self._data: dict[str, Any] | None = None

    @property
    def is_new(self) -> bool:
        return self.count == 1

    @property
    def data(self) -> dict[str, Any]:
        """A JSON object kept for the conversation: change it, and the next message finds the change.

        At most 100,000 bytes, with `cookie://` 400; beyond it, or if it is no JSON, the apology is sent.

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
            raise DataError(f"session.data is no JSON object: {type(value).__name__}")
        self._data = value

    def end(self) -> None:
        """This reply is the last of the conversation: the next message begins a new one at 1, with empty
        data.
        """
        self.ended = True

    def packed_data(self, limit: int = MAX_DATA_BYTES) -> bytes:
        """`data` as JSON, empty for {}. DataError if it is no JSON object or has more than `limit` bytes."""
        if self._data is None:
            return self._packed
        if not self._data:
            return b""
        try:
            packed = _encoder.encode(self._data)
            _decoder.decode(packed)
        except (msgspec.MsgspecError, TypeError, ValueError, RecursionError) as error:
            raise DataError(f"session.data is no JSON object: {type(error).__name__}") from error
        if len(packed) > limit:
            raise DataError(f"session.data has {len(packed)} bytes of JSON, {limit} are allowed")
        return packed
