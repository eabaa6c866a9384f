"""Turns: one dialogue at a time, in order, each answered once; against a plain model."""

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from smsd.conversation import counting, ending, merging, trimming, turns
from smsd.conversation.counting import Found
from smsd.conversation.identity import message_digest
from smsd.conversation.record import (
    ANSWERED,
    WINDOW,
    Entry,
    Lineage,
    Record,
    Turn,
    decode,
    encode,
)

START_MS = 1_790_000_000_000
TTL_MS = 14_400_000
DIGESTS = [message_digest(f"SM{i}") for i in range(200)]


class Conversation:
    """A record that is read and written by nobody else, and its clock."""

    def __init__(self) -> None:
        self.now_ms = START_MS
        self.bits = 0
        self.record = Record(START_MS)
        self.open()

    def open(self, *copies: Record) -> Record:
        self.bits += 1
        self.record = counting.opened(
            self.record, copies, now_ms=self.now_ms, ttl_ms=TTL_MS, random_bits=self.bits
        ).record
        return self.record

    def register(self, message: int) -> None:
        self.record = turns.registered(self.open(), DIGESTS[message], now_ms=self.now_ms)

    def announce(self, message: int, holder: int = 1) -> None:
        self.record = turns.announced(self.open(), DIGESTS[message], holder, now_ms=self.now_ms)

    def claim(self, message: int, holder: int = 1) -> None:
        self.record = turns.claimed(self.record, self.found(message), holder, now_ms=self.now_ms)

    def answer(self, message: int, data: bytes | None = b'{"a":1}') -> None:
        self.record = turns.answered(
            self.record, self.found(message), b"re", now_ms=self.now_ms, data=data
        )

    def found(self, message: int) -> Found:
        found = counting.find(self.record, DIGESTS[message])
        assert found
        return found

    def may_run(self, message: int, holder: int = 9, only: set[bytes] | None = None) -> bool:
        return turns.may_run(
            self.record, self.found(message), holder, now_ms=self.now_ms, only=only
        )


# --- order


def test_second_message_waits_for_the_first() -> None:
    talk = Conversation()
    talk.announce(1)
    talk.register(2)
    assert not talk.may_run(2)
    assert turns.is_held_up(talk.open(), None, now_ms=talk.now_ms)
    talk.answer(1)
    assert talk.may_run(2)
    assert not turns.is_held_up(talk.open(), talk.found(2), now_ms=talk.now_ms)


def test_answered_message_never_runs_again() -> None:
    talk = Conversation()
    talk.announce(1)
    talk.answer(1)
    assert not talk.may_run(1)
    talk.record = turns._replaced(talk.record, talk.found(1), reply=None)
    assert not talk.may_run(1), "its reply was forgotten, that it was answered is not"


def test_message_that_is_open_here_and_answered_there_holds_nobody_up() -> None:
    def counted_in(lineage: int) -> Record:
        record = Record(START_MS, lineages=(Lineage(lineage, 0),), own=lineage)
        return turns.registered(record, DIGESTS[1], now_ms=START_MS)

    low, high = counted_in(1), counted_in(2)
    found = counting.find(high, DIGESTS[1])
    assert found
    answered = turns.answered(high, found, b"re", now_ms=START_MS)
    joined = merging.join(low, answered)
    assert turns.open_messages(joined) == []
    assert not turns.is_held_up(joined, None, now_ms=START_MS)
    assert [each.entry.digest for each in turns.open_messages(low)] == [DIGESTS[1]]


def test_lease_that_runs_out_is_taken_over_by_its_own_message_only() -> None:
    talk = Conversation()
    talk.announce(1)
    talk.register(2)
    talk.now_ms += turns.LEASE_MS + turns.CLOCK_SKEW_MS + 1
    assert talk.may_run(1)
    assert not talk.may_run(2), "the first message may still come back"
    assert turns.is_takeover(talk.found(1), 9)
    talk.claim(1, 9)
    assert talk.found(1).entry.turn == Turn(3, talk.now_ms + turns.LEASE_MS, 9, 1)
    assert not talk.may_run(1, 8)


def test_message_holds_others_up_for_twenty_seconds_at_most() -> None:
    for begin in (Conversation.announce, Conversation.register):
        talk = Conversation()
        begin(talk, 1)
        talk.register(2)
        talk.now_ms += turns.BLOCK_MS - 1
        assert not talk.may_run(2)
        talk.now_ms += 1
        assert talk.may_run(2)
        talk.claim(2)
        assert not talk.may_run(1), "it comes back, and waits for the one that runs"
        talk.answer(2)
        assert talk.may_run(1)


def test_process_that_finds_its_own_turn_without_a_run_takes_it_back() -> None:
    talk = Conversation()
    talk.announce(1, holder=7)
    assert talk.may_run(1, holder=7)
    assert not turns.is_takeover(talk.found(1), 7)
    talk.claim(1, 7)
    assert talk.found(1).entry.turn == Turn(3, talk.now_ms + turns.LEASE_MS, 7, 0)


def test_turn_that_is_given_back_waits_again_and_is_no_lost_run() -> None:
    talk = Conversation()
    talk.announce(1)
    talk.record = turns.given_back(talk.record, talk.found(1), now_ms=talk.now_ms)
    assert talk.found(1).entry.turn == Turn(2, talk.now_ms + turns.PLACE_MS)
    assert talk.may_run(1)
    talk.claim(1, 5)
    assert talk.found(1).entry.turn == Turn(3, talk.now_ms + turns.LEASE_MS, 5)


def test_message_that_kills_three_processes_is_poison() -> None:
    talk = Conversation()
    talk.announce(1)
    for holder in (2, 3):
        talk.now_ms += turns.LEASE_MS + turns.CLOCK_SKEW_MS + 1
        assert not turns.is_poison(talk.found(1), holder)
        talk.claim(1, holder)
    talk.now_ms += turns.LEASE_MS + turns.CLOCK_SKEW_MS + 1
    assert turns.is_poison(talk.found(1), 4)


def test_during_an_outage_only_messages_of_this_process_hold_up() -> None:
    talk = Conversation()
    talk.announce(1, holder=2)
    talk.register(2)
    assert talk.may_run(2, only={DIGESTS[2]})
    assert not talk.may_run(2, only={DIGESTS[1], DIGESTS[2]})
    talk.now_ms += turns.BLOCK_MS
    assert not talk.may_run(1, only={DIGESTS[1]}), "it may still run elsewhere"


def test_message_that_only_a_cookie_remembers_begins_a_turn_anew() -> None:
    talk = Conversation()
    talk.record = counting.added(talk.record, DIGESTS[1], b"", now_ms=talk.now_ms, data=b"")
    line = talk.record.lineages[0]
    known = Entry(DIGESTS[1], 1, 5)
    talk.record = Record(talk.now_ms, lineages=(type(line)(line.id, 1, (), (known,)),))
    assert talk.may_run(1)
    talk.claim(1, 3)
    assert talk.found(1).entry.turn == Turn(1, talk.now_ms + turns.LEASE_MS, 3)


# --- merging


def test_later_epoch_wins_and_an_answer_beats_every_turn() -> None:
    talk = Conversation()
    talk.announce(1)
    running = talk.record
    talk.now_ms += turns.LEASE_MS + turns.CLOCK_SKEW_MS + 1
    talk.claim(1, 2)
    again = talk.record
    assert merging.join(running, again).lineages == merging.join(again, running).lineages
    assert counting.find(merging.join(running, again), DIGESTS[1]) == talk.found(1)
    talk.record = running
    talk.answer(1)
    joined = counting.find(merging.join(talk.record, again), DIGESTS[1])
    assert joined
    assert joined.reply == b"re"


def test_copy_with_turns_is_not_covered_by_one_without() -> None:
    talk = Conversation()
    talk.register(1)
    waiting = talk.record
    talk.announce(2)
    assert merging.covers(talk.record, waiting)
    assert not merging.covers(waiting, talk.record)
    running = talk.record
    talk.answer(2)
    assert merging.covers(talk.record, running)
    assert not merging.covers(running, talk.record)


def test_answer_whose_reply_is_forgotten_stays_an_answer() -> None:
    talk = Conversation()
    talk.announce(1)
    running = talk.record
    talk.answer(1)
    line = talk.record.lineages[0]
    forgotten = Entry(DIGESTS[1], 1, 5, None, ANSWERED)
    talk.record = Record(talk.now_ms, lineages=(type(line)(line.id, 1, (), (forgotten,)),))
    found = counting.find(merging.join(talk.record, running), DIGESTS[1])
    assert found
    assert turns.is_answered(found.entry)


def test_data_of_an_earlier_message_does_not_overwrite_that_of_a_later_one() -> None:
    talk = Conversation()
    talk.announce(1)
    talk.register(2)
    talk.answer(1, b'{"by":1}')
    first = talk.record
    talk.claim(2)
    talk.answer(2, b'{"by":2}')
    assert talk.record.stamp > first.stamp
    assert merging.join(talk.record, first).data == b'{"by":2}'


def test_failed_dialogue_leaves_data_alone() -> None:
    talk = Conversation()
    talk.announce(1)
    talk.answer(1, b'{"by":1}')
    talk.announce(2)
    before = talk.record.stamp
    talk.answer(2, None)
    assert (talk.record.data, talk.record.stamp) == (b'{"by":1}', before)


# --- trimming and expiry


def test_open_message_is_remembered_until_two_minutes_after_its_place() -> None:
    talk = Conversation()
    talk.register(0)
    for i in range(1, 60):
        talk.record = counting.added(talk.open(), DIGESTS[i], b"re", now_ms=talk.now_ms, data=b"")
    assert talk.found(0).entry.is_open
    assert talk.record.count == 60
    known = [entry for line in talk.record.lineages for entry in line.tail if entry.digest]
    assert len(known) <= WINDOW + 1
    talk.now_ms += turns.PLACE_MS + trimming.OPEN_GRACE_MS
    talk.record = trimming.compacted(talk.record, talk.now_ms)
    assert counting.find(talk.record, DIGESTS[0]) is None
    assert talk.record.count == 60


def test_conversation_does_not_expire_while_a_message_is_open() -> None:
    talk = Conversation()
    talk.announce(1)
    talk.now_ms += TTL_MS
    talk.record = turns.renewed(talk.record, talk.found(1), now_ms=talk.now_ms)
    assert talk.open().count == 1
    talk.answer(1)
    assert talk.open().count == 1
    talk.now_ms += TTL_MS
    assert talk.open().count == 0


# --- session.end()


def test_waiting_messages_become_the_first_of_the_next_conversation() -> None:
    talk = Conversation()
    talk.announce(1)
    talk.register(2)
    talk.register(3)
    before = talk.record
    talk.answer(1)
    talk.record = ending.ended(talk.record, now_ms=talk.now_ms, random_bits=77)
    assert (talk.record.count, talk.record.data) == (2, b"")
    assert [talk.found(i).number for i in (2, 3)] == [1, 2]
    assert talk.may_run(2)
    assert not talk.may_run(3)
    for copy in (before, merging.join(before, talk.record)):
        assert talk.open(copy).count == 2, "no older version brings the count back"
        assert [talk.found(i).number for i in (2, 3)] == [1, 2]
        assert talk.may_run(2)
    talk.register(4)
    assert talk.found(4).number == 3
    assert decode(encode(talk.record)) == talk.record


def test_message_that_ran_elsewhere_at_the_end_waits_again_and_its_old_turn_is_over() -> None:
    talk = Conversation()
    talk.announce(1)
    talk.announce(2, holder=5)  # as after an outage
    talk.answer(1)
    talk.record = ending.ended(talk.record, now_ms=talk.now_ms, random_bits=77)
    assert talk.found(2).entry.turn == Turn(2, talk.now_ms + turns.PLACE_MS)


# --- a model


@dataclass
class Process:
    """A replica: what it has seen, and the messages whose dialogues it runs, by epoch."""

    holder: int
    seen: Record | None = None
    runs: dict[int, int] = field(default_factory=dict)
    is_frozen: bool = False


class TurnsAgainstAModel(RuleBasedStateMachine):
    """Three replicas, one record with compare-and-swap, kills, freezes, delays, losses.

    The model knows which dialogues really run, and checks each start and each answer.
    Leases of replicas that are alive are renewed as the clock goes on.
    """

    @initialize(faults=st.sampled_from(["none", "none", "kill", "freeze", "loss"]))
    def begin(self, faults: str) -> None:
        self.faults = faults
        self.now_ms = START_MS
        self.bits = 0
        self.stored: Record | None = None
        self.processes = [Process(holder) for holder in (1, 2, 3)]
        self.sent = 0
        self.replies: dict[int, int] = {}
        """The answers that were accepted, by message."""
        self.open_since: dict[int, int] = {}
        """Messages without an answer, and when each gave its last sign of life."""
        self.was_lost = False

    def read(self, process: Process) -> Record:
        self.bits += 1
        copies = [process.seen] if process.seen else []
        return counting.opened(
            self.stored, copies, now_ms=self.now_ms, ttl_ms=TTL_MS, random_bits=self.bits
        ).record

    def write(self, process: Process, record: Record) -> None:
        self.stored = record
        process.seen = merging.join(process.seen, record) if process.seen else record

    def starts(self, process: Process, message: int, record: Record) -> None:
        """A dialogue starts: nobody else may run, and nobody earlier may be open."""
        if not self.was_lost:
            found = counting.find(record, DIGESTS[message])
            assert found
            for other in self.processes:
                for running in other.runs:
                    is_alive = not other.is_frozen
                    assert not is_alive, f"{running} runs at {other.holder}"
            for earlier, sign_ms in self.open_since.items():
                known = counting.find(record, DIGESTS[earlier])
                if earlier != message and known and known.number < found.number:
                    assert self.now_ms >= sign_ms + turns.BLOCK_MS, f"{earlier} is open"
        now = counting.find(record, DIGESTS[message])
        assert now
        assert now.entry.turn
        process.runs[message] = now.entry.turn.epoch
        self.open_since[message] = self.now_ms

    @precondition(lambda self: self.sent < 12)
    @rule(who=st.integers(0, 2), at_once=st.booleans())
    def message_arrives(self, who: int, at_once: bool) -> None:
        process = self.processes[who]
        if process.is_frozen:
            return
        message, self.sent = self.sent, self.sent + 1
        record = self.read(process)
        if turns.is_held_up(record, None, now_ms=self.now_ms):
            self.write(process, turns.registered(record, DIGESTS[message], now_ms=self.now_ms))
            self.open_since[message] = self.now_ms
        elif at_once:
            self.write(
                process,
                counting.added(record, DIGESTS[message], b"re", now_ms=self.now_ms, data=b""),
            )
            self.replies[message] = 1
        else:
            record = turns.announced(record, DIGESTS[message], process.holder, now_ms=self.now_ms)
            self.write(process, record)
            self.starts(process, message, record)

    @precondition(lambda self: self.open_since)
    @rule(who=st.integers(0, 2), which=st.integers(0, 20))
    def request_looks_for_its_turn(self, who: int, which: int) -> None:
        process = self.processes[who]
        if process.is_frozen:
            return
        message = sorted(self.open_since)[which % len(self.open_since)]
        if not (message not in process.runs):
            return
        record = self.read(process)
        found = counting.find(record, DIGESTS[message])
        if found is None or not turns.may_run(record, found, process.holder, now_ms=self.now_ms):
            return
        record = turns.claimed(record, found, process.holder, now_ms=self.now_ms)
        self.starts(process, message, record)
        self.write(process, record)

    @rule(who=st.integers(0, 2), gives_back=st.booleans())
    def dialogue_ends(self, who: int, gives_back: bool) -> None:
        process = self.processes[who]
        if not (process.runs and not process.is_frozen):
            return
        message, epoch = next(iter(process.runs.items()))
        del process.runs[message]
        record = self.read(process)
        found = counting.find(record, DIGESTS[message])
        turn = found.entry.turn if found else None
        if found is None or turn is None or (turn.epoch, turn.holder) != (epoch, process.holder):
            return
        if gives_back:
            self.write(process, turns.given_back(record, found, now_ms=self.now_ms))
            self.open_since[message] = self.now_ms
            return
        self.write(process, turns.answered(record, found, b"re", now_ms=self.now_ms, data=b""))
        self.replies[message] = self.replies.get(message, 0) + 1
        self.open_since.pop(message, None)

    @rule(ms=st.sampled_from([200, 1_000, 2_500, 21_000]))
    def time_passes(self, ms: int) -> None:
        """Replicas that are alive renew their leases every second."""
        while ms > 0:
            self.now_ms += min(ms, 1_000)
            ms -= 1_000
            for process in self.processes:
                if not process.is_frozen:
                    self.renew(process)

    def renew(self, process: Process) -> None:
        for message, epoch in list(process.runs.items()):
            record = self.read(process)
            found = counting.find(record, DIGESTS[message])
            turn = found.entry.turn if found else None
            if found and turn and (turn.epoch, turn.holder) == (epoch, process.holder):
                self.write(process, turns.renewed(record, found, now_ms=self.now_ms))
                self.open_since[message] = self.now_ms
            else:
                del process.runs[message]

    @precondition(lambda self: self.faults in ("kill", "loss"))
    @rule(who=st.integers(0, 2))
    def process_is_killed(self, who: int) -> None:
        self.processes[who] = Process(self.processes[who].holder + 10)

    @precondition(lambda self: self.faults == "freeze")
    @rule(who=st.integers(0, 2))
    def process_freezes_or_goes_on(self, who: int) -> None:
        process = self.processes[who]
        process.is_frozen = not process.is_frozen
        if not process.is_frozen:
            self.renew(process)

    @precondition(lambda self: self.stored and self.faults == "loss")
    @rule()
    def record_is_lost(self) -> None:
        """With it go the turns that nobody alive has seen: order is not promised then."""
        self.stored = None
        self.was_lost = True

    @invariant()
    def no_message_is_answered_twice(self) -> None:
        if not self.was_lost:
            assert all(answers == 1 for answers in self.replies.values())

    @invariant()
    def nothing_is_lost(self) -> None:
        if self.stored and not self.was_lost:
            assert self.stored.count == self.sent
            for message in self.open_since:
                found = counting.find(self.stored, DIGESTS[message])
                assert found is None or found.entry.is_open


TurnsAgainstAModel.TestCase.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None
)
TestTurnsAgainstAModel = TurnsAgainstAModel.TestCase
