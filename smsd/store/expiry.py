"""How long stores keep a record after a write. Pure arithmetic.

The record's own time decides when a conversation is over (`conversation.merging`). A store
must only not forget it earlier, and must forget it some time.
"""

from smsd.conversation.record import Record

MARGIN_S = 2
"""memcached expires in whole seconds, and must not be earlier than the record's own time."""


def expires_in_s(record: Record, *, ttl_s: int, now_ms: int) -> int:
    """Seconds from `now_ms` (milliseconds since 1970) until a store may forget `record`.

    Between 1 s and the session's lifetime, plus a margin, however far this clock and the
    one that dated the record are apart. memcached would take more than 30 days for a date.
    """
    left_ms = record.last_ms + ttl_s * 1000 - now_ms
    return min(max(1, -(-left_ms // 1000)), ttl_s) + MARGIN_S
