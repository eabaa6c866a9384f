"""G4 in one process: replicas lose memcached again and again, and count on their
overlays.

The runs are long enough, and have enough duplicates, to overflow the cookie, the window
and the lineages. With real processes that would take hours.
"""

from dataclasses import dataclass, field
from random import Random

import pytest

from smsd.conversation import counting
from smsd.conversation.copy import pack, unpack
from smsd.conversation.identity import message_digest
from smsd.conversation.record import Record

TTL_MS = 14_400_000
START_MS = 1_790_000_000_000
REPLICAS = range(3)


@dataclass
class Cluster:
    """Three replicas, one memcached, one conversation."""

    random: Random
    stored: Record | None = None
    overlays: list[Record | None] = field(default_factory=lambda: [None] * len(REPLICAS))
    reaches: list[bool] = field(default_factory=lambda: [True] * len(REPLICAS))
    now_ms: int = START_MS

    def deliver(self, place: int, message: int, cookie: Record | None) -> tuple[int, Record]:
        """Deliver a message; return its number and the cookie of the answer."""
        self.now_ms += self.random.choice((5, 50, 1000))
        if self.reaches[place]:
            number, record = self._step(message, self.stored, cookie, self.overlays[place])
            self.stored, self.overlays[place] = record, None
        else:
            number, record = self._step(message, self.overlays[place], cookie)
            self.overlays[place] = record
        return number, unpack(pack(record, b"c" * 18)).record()

    def _step(
        self, message: int, stored: Record | None, *copies: Record | None
    ) -> tuple[int, Record]:
        record = counting.opened(
            stored,
            [copy for copy in copies if copy],
            now_ms=self.now_ms,
            ttl_ms=TTL_MS,
            random_bits=self.random.getrandbits(32),
        ).record
        digest = message_digest(f"SM{message}")
        known = counting.find(record, digest)
        if known:
            return known.number, record
        return record.count + 1, counting.added(record, digest, b"x", now_ms=self.now_ms, data=b"")

    def merge(self, place: int) -> None:
        overlay = self.overlays[place]
        if self.reaches[place] and overlay:
            bits = self.random.getrandbits(32)
            self.stored = counting.reconciled(
                self.stored, overlay, now_ms=self.now_ms, ttl_ms=TTL_MS, random_bits=bits
            )
            self.overlays[place] = None


def converse(cluster: Cluster, messages: int, duplicates: float, *, outages: bool) -> None:
    """Send one message after the other, some to two or three replicas at once. The jar
    keeps the cookie of one of them.
    """
    random, cookie = cluster.random, None
    for message in range(1, messages + 1):
        for place in REPLICAS:
            if outages and (random.random() < 0.4 or message % 12 == 0):
                cluster.reaches[place] = not cluster.reaches[place] or message % 12 == 0
            if random.random() < 0.5 or message % 12 == 0:
                cluster.merge(place)
        copies = random.randint(2, 3) if random.random() < duplicates else 1
        answers = [
            cluster.deliver(place, message, cookie) for place in random.sample(REPLICAS, copies)
        ]
        assert {number for number, _ in answers} == {message}
        cookie = random.choice(answers)[1]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("duplicates", [0.02, 0.1, 0.5])
def test_g4_separated_replicas_count_right_by_cookie(seed: int, duplicates: float) -> None:
    converse(Cluster(Random(seed), reaches=[False] * 3), 120, duplicates, outages=False)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("duplicates", [0.02, 0.1, 0.5])
def test_g4_many_short_outages_lose_nothing(seed: int, duplicates: float) -> None:
    """Each replica reaches memcached at least every 12 messages; the cookie knows at
    least the last 16.
    """
    cluster = Cluster(Random(seed))
    converse(cluster, 150, duplicates, outages=True)
    cluster.reaches = [True] * 3
    for place in REPLICAS:
        cluster.merge(place)
    assert cluster.stored
    assert cluster.stored.count == 150
