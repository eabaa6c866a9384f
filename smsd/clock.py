"""The wall clock, asked at the edges and handed to the core as an argument."""

import time


def now_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000
