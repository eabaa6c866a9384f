"""How long stores keep a record after a write. Pure arithmetic.

The record itself decides when a conversation is over (`conversation.merging`). A store
must not forget it earlier, and must forget it some time.
"""

from smsd.conversation.record import Record

MARGIN_S = 2
"""memcached expires in whole seconds, and must not be earlier than the record's own
time."""

OPEN_S = 180
"""A record in which a message waits for its answer is kept at least this long: its
lease or place (up to 30 s from now), and `merging.OPEN_GRACE_MS` after that."""


def expires_in_s(record: Record, *, ttl_s: int, now_ms: int) -> int:
    """Seconds from `now_ms` (milliseconds since 1970) until a store may forget
    `record`.

    At most the session's lifetime, however far this clock and the one that dated the
    record are apart. memcached would take more than 30 days for a date.
    """
    left_s = -(-(record.last_ms + ttl_s * 1000 - now_ms) // 1000)
    if left_s < OPEN_S and record.open_until_ms:
        return OPEN_S + MARGIN_S
    return min(max(1, left_s), ttl_s) + MARGIN_S
