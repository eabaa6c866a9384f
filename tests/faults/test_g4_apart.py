"""G4 in process: three replicas without memcached, each on its overlay, that know of one another only what the cookie
carries. Long enough, and with enough duplicates, for the cookie and the window to overflow.
"""

from random import Random

import pytest

from smsd import conversation as c
from smsd.conversation import Record
from smsd.cookie import pack, unpack

TTL_MS = 14_400_000
START_MS = 1_790_000_000_000


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("duplicates", [0.02, 0.1, 0.5])
def test_g4_replicas_apart_count_right_by_the_cookie_alone(seed: int, duplicates: float) -> None:
    """A message now and then comes to two or three of them; the jar keeps the cookie of one."""
    random, now_ms, jar = Random(seed), START_MS, None
    overlays: list[Record | None] = [None, None, None]
    for number in range(1, 121):
        copies = random.randint(2, 3) if random.random() < duplicates else 1
        cookies = []
        for place in random.sample(range(3), copies):
            now_ms += 1000
            opened = c.opened(
                overlays[place],
                [jar] if jar else [],
                now_ms=now_ms,
                ttl_ms=TTL_MS,
                random_bits=random.getrandbits(32),
            ).record
            assert c.find(opened, c.message_digest(f"SM{number}")) is None
            assert opened.count + 1 == number
            overlays[place] = c.added(opened, c.message_digest(f"SM{number}"), b"x", now_ms=now_ms, data=b"")
            cookies.append(overlays[place])
        jar = unpack(pack(random.choice(cookies), b"c" * 18))[1]  # type: ignore[arg-type]
