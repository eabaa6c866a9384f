"""The record and its merge: laws, a plain set as the model, and the cases that decide
whether the form is right."""

from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count as counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from smsd.conversation import counting, ending, merging, trimming
from smsd.conversation.copy import pack, unpack
from smsd.conversation.identity import conversation_id, hashing_key, lineage_id, message_digest
from smsd.conversation.merging import MOST_APART
from smsd.conversation.record import (
    ANSWERED,
    MAX_RECORD_BYTES,
    WINDOW,
    Entry,
    Lineage,
    Record,
    Turn,
    decode,
    encode,
)
from smsd.errors import RecordError

TTL_MS = 14_400_000
START_MS = 1_790_000_000_000


def copy_of(record: Record) -> Record:
    """What a cookie made of the record brings back."""
    return unpack(pack(record, b"x" * 18)).record()


@dataclass
class World:
    """A store and a clock; every message takes a second. Random bits count up, so that
    lineages differ."""

    stored: Record | None = None
    now_ms: int = START_MS
    bits: counter = field(default_factory=lambda: counter(1))  # type: ignore[type-arg]

    def opened(self, stored: Record | None, *copies: Record | None) -> counting.Opened:
        return counting.opened(
            stored,
            [copy for copy in copies if copy],
            now_ms=self.now_ms,
            ttl_ms=TTL_MS,
            random_bits=next(self.bits),
        )

    def step(
        self, stored: Record | None, sid: str, *copies: Record | None, data: bytes = b""
    ) -> tuple[int, Record]:
        """One message as `exchange` handles it: its number, and the record to write."""
        self.now_ms += 1000
        record = self.opened(stored, *copies).record
        digest = message_digest(sid)
        known = counting.find(record, digest)
        if known:
            return known.number, record
        return record.count + 1, counting.added(
            record, digest, b"re " + sid.encode(), now_ms=self.now_ms, data=data
        )

    def text(self, sid: str, cookie: Record | None = None) -> tuple[int, Record]:
        """A message to the store; its number and the cookie of the answer."""
        number, self.stored = self.step(self.stored, sid, cookie)
        return number, copy_of(self.stored)

    def merge(self, overlay: Record) -> None:
        self.stored = counting.reconciled(
            self.stored, overlay, now_ms=self.now_ms, ttl_ms=TTL_MS, random_bits=next(self.bits)
        )


# --- laws


def slot_digest(lineage: int, ordinal: int) -> bytes:
    """A slot always holds the same message; a few messages stand in several slots."""
    return b"%06d" % ((lineage * 7 + ordinal * 3) % 17)


TURNS = st.builds(Turn, st.integers(0, 3), st.integers(0, 2), st.integers(0, 2), st.integers(0, 1))
STATES = st.one_of(
    st.tuples(st.none(), st.none(), st.just(False)),
    st.tuples(st.none(), TURNS | st.just(ANSWERED), st.booleans()),
    st.tuples(
        st.sampled_from([b"", b"r", b"s"]),
        st.none(),
        st.booleans(),
        st.sampled_from([None, "", "t", "u"]),
    ),
)
"""Reply, turn, one_moment and text: whatever one version may know of a message."""


@st.composite
def lineages(draw: st.DrawFn) -> tuple[Lineage, ...]:
    ids = sorted(draw(st.sets(st.integers(1, 5), max_size=4)))
    made = []
    for id_ in ids:
        top = draw(st.integers(0, 8))
        length = draw(st.integers(0, top))
        tail = tuple(
            Entry(slot_digest(id_, ordinal), id_ * 100 + ordinal, 5, *draw(STATES))
            for ordinal in range(top - length + 1, top + 1)
        )
        moved = min(top, id_ % 3)  # known since the lineage was created
        marked = st.sets(st.integers(moved + 1, top), max_size=2) if moved < top else st.just(set())
        made.append(Lineage(id_, top, tuple(sorted(draw(marked))), tail, moved))
    return tuple(made)


records = st.builds(
    Record,
    st.integers(0, 50),
    st.integers(0, 3),
    st.integers(0, 3),
    lineages(),
    st.sampled_from([b"", b'{"a":1}', b'{"a":2}']),
    st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 2)),
)


def settled(record: Record) -> Record:
    """As a join leaves it: duplicates among its own slots marked."""
    return merging.join(record, record)


@given(records, records)
def test_join_is_commutative(a: Record, b: Record) -> None:
    assert merging.join(a, b) == merging.join(b, a)


@given(records, records, records)
def test_join_is_associative(a: Record, b: Record, third: Record) -> None:
    assert merging.join(merging.join(a, b), third) == merging.join(a, merging.join(b, third))


@given(records, records)
def test_join_is_idempotent(a: Record, b: Record) -> None:
    joined = merging.join(a, b)
    assert merging.join(joined, joined) == joined
    assert merging.join(joined, a) == joined
    assert merging.join(settled(a), settled(a)) == settled(a)


@given(records, records)
def test_what_covers_another_counts_as_their_join(a: Record, b: Record) -> None:
    a, b = settled(a), settled(b)
    if merging.covers(a, b):
        assert merging.join(a, b).last_ms == a.last_ms
        assert (merging.join(a, b).data, merging.join(a, b).floor) == (
            max((a.stamp, a.data), (b.stamp, b.data))[1],
            a.floor,
        )


@given(records)
def test_encoding_gives_the_record_back(record: Record) -> None:
    assert decode(encode(record)) == record


@given(st.binary(max_size=200))
def test_bytes_that_are_no_record_are_a_record_error(garbage: bytes) -> None:
    for packed in (garbage, b"\x01" + garbage):
        with suppress(RecordError):
            assert isinstance(decode(packed), Record)


@given(records, st.data())
def test_a_truncated_record_is_a_record_error(record: Record, data: st.DataObject) -> None:
    packed = encode(record)
    with pytest.raises(RecordError):
        decode(packed[: data.draw(st.integers(0, len(packed) - 1))])


def test_a_record_of_a_later_version_is_a_record_error() -> None:
    with pytest.raises(RecordError, match="another format"):
        decode(b"\x02" + encode(Record(1))[1:])


def test_join_of_versions_far_apart_stays_small() -> None:
    old = Record(1, lineages=(Lineage(1, 1, tail=(Entry(b"first", 1),)),))
    new = Record(2, lineages=(Lineage(1, 2**40, tail=(Entry(b"last", 2**40),)),))
    joined = merging.join(old, new)
    assert joined.count == 2**40
    assert len(joined.lineages[0].tail) <= MOST_APART


# --- a plain set as the model


class AgainstAPlainSet(RuleBasedStateMachine):
    """Replicas, overlays, losses, stale cookies, retries: all copies together always
    know exactly the set."""

    replicas = ("a", "b")

    @initialize()
    def begin(self) -> None:
        self.world = World()
        self.overlays: dict[str, Record] = {}
        self.cookies: list[Record] = []
        self.counted: set[str] = set()
        self.sids: list[str] = []
        self.numbers: dict[str, int] = {}

    def _sid(self, again: int | None) -> str:
        if again is not None and self.sids:
            return self.sids[again % len(self.sids)]
        self.sids.append(f"SM{len(self.sids)}")
        return self.sids[-1]

    def _cookie(self, age: int | None) -> Record | None:
        if age is None or not self.cookies:
            return None
        return self.cookies[max(0, len(self.cookies) - 1 - age)]

    @precondition(lambda self: len(self.sids) < 15)
    @rule(again=st.none() | st.integers(0, 20), age=st.none() | st.integers(0, 3))
    def to_the_store(self, again: int | None, age: int | None) -> None:
        sid = self._sid(again)
        _, cookie = self.world.text(sid, self._cookie(age))
        self.cookies.append(cookie)
        self.counted.add(sid)

    @precondition(lambda self: len(self.sids) < 15)
    @rule(
        replica=st.sampled_from(replicas),
        again=st.none() | st.integers(0, 20),
        age=st.none() | st.integers(0, 3),
    )
    def to_an_overlay(self, replica: str, again: int | None, age: int | None) -> None:
        sid = self._sid(again)
        _, record = self.world.step(self.overlays.get(replica), sid, self._cookie(age))
        self.overlays[replica] = record
        self.cookies.append(copy_of(record))
        self.counted.add(sid)

    @precondition(lambda self: len(self.sids) < 15)
    @rule(
        replica=st.sampled_from(replicas), applied=st.booleans(), age=st.none() | st.integers(0, 3)
    )
    def the_answer_to_a_write_is_lost(self, replica: str, applied: bool, age: int | None) -> None:
        """Written or not, the replica does not know, and counts on its overlay."""
        sid = self._sid(None)
        read = self.world.stored
        _, record = self.world.step(read, sid, self._cookie(age))
        if applied:
            self.world.stored = record
        _, here = self.world.step(self.overlays.get(replica), sid, read, self._cookie(age))
        self.overlays[replica] = here
        self.cookies.append(copy_of(here))
        self.counted.add(sid)

    @rule()
    def the_store_loses_everything(self) -> None:
        self.world.stored = None

    @rule(replica=st.sampled_from(replicas), forget=st.booleans())
    def the_overlay_is_merged(self, replica: str, forget: bool) -> None:
        """`forget=False`: the write was applied, its answer was lost, the overlay goes
        on."""
        if replica in self.overlays:
            self.world.merge(self.overlays[replica])
            if forget:
                del self.overlays[replica]

    @invariant()
    def nothing_lost_nothing_doubled(self) -> None:
        if not self.counted:
            return
        everything = [*self.cookies, *self.overlays.values()]
        if self.world.stored:
            everything.append(self.world.stored)
        joined = everything[0]
        for version in everything[1:]:
            joined = merging.join(joined, version)
        assert joined.count == len(self.counted)
        for sid in self.counted:
            assert counting.find(joined, message_digest(sid)) is not None


AgainstAPlainSet.TestCase.settings = settings(
    max_examples=150, stateful_step_count=20, deadline=None
)
TestAgainstAPlainSet = AgainstAPlainSet.TestCase


# --- the cases that decide


def test_the_record_is_lost_and_a_retry_comes_with_the_cookie_from_before_it() -> None:
    world = World()
    _, before = world.text("SM1")
    assert world.text("SM2", before)[0] == 2
    world.stored = None
    number, cookie = world.text("SM2", before)
    assert number == 2
    assert world.text("SM3", cookie)[0] == 3


@pytest.mark.parametrize("newer_first", [False, True])
def test_the_record_is_lost_and_a_stale_and_a_newer_cookie_arrive(newer_first: bool) -> None:
    world = World()
    _, stale = world.text("SM1")
    _, newer = world.text("SM2", stale)
    _, newer = world.text("SM3", newer)
    world.stored = None
    first, second = (newer, stale) if newer_first else (stale, newer)
    assert world.text("SM4", first)[0] == (4 if newer_first else 2)
    assert world.text("SM5", second)[0] == 5


def test_the_record_is_lost_and_a_message_without_cookie_comes_before_one_with_the_old_cookie() -> (
    None
):
    world = World()
    _, cookie = world.text("SM1")
    _, cookie = world.text("SM2", cookie)
    world.stored = None
    assert world.text("SM3")[0] == 1
    assert world.text("SM4", cookie)[0] == 4


def test_a_write_that_timed_out_and_was_applied_all_the_same_counts_once() -> None:
    world = World()
    _, cookie = world.text("SM1")
    read = world.stored
    _, overlay = world.step(None, "SM2", read, cookie)
    assert world.text("SM2", cookie)[0] == 2  # applied after all, minutes later
    assert world.text("SM3", cookie)[0] == 3
    world.merge(overlay)
    assert world.text("SM4", copy_of(overlay))[0] == 4


def test_one_id_on_two_overlays_counts_once_after_merging() -> None:
    world = World()
    _, cookie = world.text("SM1")
    _, here = world.step(None, "SM2", cookie)
    _, there = world.step(None, "SM2", cookie)
    world.merge(here)
    world.merge(there)
    assert world.stored
    assert world.stored.count == 2
    assert world.text("SM3", cookie)[0] == 3


def test_one_id_on_an_overlay_and_in_the_store_counts_once_after_merging() -> None:
    world = World()
    _, cookie = world.text("SM1")
    _, overlay = world.step(None, "SM2", cookie)
    world.text("SM2", cookie)
    world.merge(overlay)
    assert world.text("SM3", cookie)[0] == 3


def test_an_overlay_that_goes_on_after_it_was_merged_counts_beside_the_store() -> None:
    world = World()
    _, cookie = world.text("SM1")
    _, overlay = world.step(None, "SM2", cookie)
    world.merge(overlay)
    world.text("SM3", cookie)  # must not take the overlay's next slot
    _, overlay = world.step(overlay, "SM4", cookie)
    world.merge(overlay)
    assert world.text("SM5")[0] == 5


def test_a_duplicate_that_only_the_cookie_knows_keeps_its_number_and_has_no_reply() -> None:
    world = World()
    _, cookie = world.text("SM1")
    _, cookie = world.text("SM2", cookie)
    _, cookie = world.text("SM3", cookie)
    known = counting.find(world.opened(None, cookie).record, message_digest("SM2"))
    assert known
    assert (known.number, known.reply) == (2, None)


def test_of_two_versions_the_data_of_the_one_that_counted_more_wins_then_the_later() -> None:
    world = World()
    _, base = world.step(None, "SM1", data=b'{"v":0}')
    _, fewer = world.step(base, "SM2", data=b'{"v":"fewer"}')
    _, more = world.step(base, "SM3", data=b'{"v":"older"}')
    _, more = world.step(more, "SM4", data=b'{"v":"more"}')
    assert merging.join(fewer, more).data == b'{"v":"more"}'
    _, later = world.step(base, "SM5", data=b'{"v":"later"}')
    assert merging.join(fewer, later).data == b'{"v":"later"}'


def test_the_time_in_the_record_decides_when_a_conversation_is_over() -> None:
    world = World()
    _, cookie = world.text("SM1")
    last_ms = world.stored.last_ms if world.stored else 0
    world.now_ms = last_ms + TTL_MS - 1001  # a message takes a second
    assert world.step(world.stored, "SM2")[0] == 2
    world.now_ms = last_ms + TTL_MS - 1000
    assert world.step(world.stored, "SM2")[0] == 1
    assert world.step(None, "SM2", cookie)[0] == 1


def test_a_conversation_that_is_over_is_not_brought_back_by_its_cookie_on_a_slower_clock() -> None:
    world = World()
    _, cookie = world.text("SM1")
    world.now_ms += TTL_MS
    assert world.text("SM2")[0] == 1
    slow = World(world.stored, now_ms=START_MS + TTL_MS - 5000)
    assert slow.text("SM3", cookie)[0] == 2


def test_after_end_no_older_cookie_brings_the_count_back() -> None:
    world = World()
    _, cookie = world.text("SM1")
    _, cookie = world.text("SM2", cookie)
    number, record = world.step(world.stored, "SM3", cookie, data=b'{"a":1}')
    world.stored = ending.ended(record, now_ms=world.now_ms, random_bits=7)
    assert (number, world.stored.count, world.stored.data) == (3, 0, b"")
    assert world.step(world.stored, "SM3", cookie)[0] == 3  # a retry of the last one is known
    assert world.text("SM4", cookie)[0] == 1
    ended = copy_of(world.stored)
    world.stored = None
    assert world.text("SM5", ended)[0] == 2


def test_ending_again_and_again_keeps_the_record_small() -> None:
    world = World()
    for i in range(100):
        number, record = world.step(world.stored, f"SM{i}")
        assert number == 1
        world.stored = ending.ended(record, now_ms=world.now_ms, random_bits=i)
    assert world.stored
    assert len(encode(world.stored)) < 3000
    assert world.step(world.stored, "SM99")[0] == 1


# --- bounds


def test_the_last_32_messages_are_known_with_their_replies() -> None:
    world = World()
    for i in range(100):
        world.text(f"SM{i}")
    assert world.stored
    known = [i for i in range(100) if counting.find(world.stored, message_digest(f"SM{i}"))]
    assert known == list(range(68, 100))
    found = counting.find(world.stored, message_digest("SM68"))
    assert found
    assert (found.number, found.reply) == (69, b"re SM68")


def test_after_many_losses_old_lineages_are_folded_and_nothing_is_lost() -> None:
    world = World()
    cookie = None
    for i in range(200):
        if i % 3 == 0:
            world.stored = None
        number, cookie = world.text(f"SM{i}", cookie)
        assert number == i + 1
    assert world.stored
    assert (
        sum(line.id > world.stored.floor for line in world.stored.lineages) <= trimming.MAX_LINEAGES
    )
    assert sum(len(line.tail) for line in world.stored.lineages) <= WINDOW


def test_a_record_too_large_for_memcached_forgets_old_replies_and_no_ids() -> None:
    world = World()
    record: Record | None = None
    for i in range(WINDOW):
        opened = world.opened(record).record
        record = counting.added(
            opened,
            message_digest(f"SM{i}"),
            b"x" * 60_000,
            now_ms=world.now_ms + i * 1000,
            data=b"d" * 100_000,
        )
    assert record
    packed = encode(record)
    assert len(packed) <= MAX_RECORD_BYTES
    back = decode(packed)
    replies = [entry.reply is not None for entry in back.lineages[0].tail]
    assert replies == sorted(replies)
    assert replies[-1]
    assert [entry.digest for entry in back.lineages[0].tail] == [
        e.digest for e in record.lineages[0].tail
    ]


def test_lineages_are_numbered_by_birth_also_when_a_clock_is_behind() -> None:
    first = lineage_id(START_MS, 2**32 - 1)
    assert lineage_id(START_MS + 1, 0, first) > first
    assert lineage_id(START_MS - 10_000, 5, first) > first
    assert first < 2**64


@given(st.text(), st.text(), st.text(), st.text(), st.text(), st.text())
def test_no_two_conversations_share_an_id(a: str, b: str, d: str, e: str, f: str, g: str) -> None:
    key = hashing_key(b"k" * 40)
    same = conversation_id(key, a, b, d) == conversation_id(key, e, f, g)
    assert same == ((a, b, d) == (e, f, g))
    assert len(conversation_id(key, a, b, d)) == 18


def test_the_id_depends_on_the_key() -> None:
    one, two = (
        conversation_id(hashing_key(key), "AC1", "+1", "+2")
        for key in (b"a" * 80, b"a" * 79 + b"b")
    )
    assert one != two


def test_replies_within_a_time_are_counted_silence_is_not() -> None:
    world = World()
    for i in range(5):
        world.text(f"SM{i}")
    assert world.stored
    silent = counting.added(
        world.opened(world.stored).record,
        message_digest("SM9"),
        b"",
        now_ms=world.now_ms + 1000,
        data=b"",
    )
    assert counting.replies_within(silent, world.now_ms // 1000 + 1, 4) == 3
