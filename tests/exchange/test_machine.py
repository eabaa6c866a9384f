"""Random texts and faults over several replicas, in virtual time, against a plain model:
a list of texts that are answered one after the other.

The model knows nothing of records, leases or lineages. The order of runs and what the
senders got are also judged by the checker of `tests.faults`.
"""

from collections import Counter

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.exchange.cluster import Cluster, Noted, Replica
from tests.faults.turns import turn_violations

BODIES = (
    "now",
    "now end",
    "now fail",
    "wait 0",
    "wait 0.01",
    "wait 0.4",
    "wait 2",
    "wait 2 end",
    "wait 2 fail",
    "wait 15",
)
PAUSES_S = (0.0, 0.002, 0.1, 0.6, 1.1, 3.0, 6.0)


class Texting(RuleBasedStateMachine):
    """Texts and duplicates; nothing fails."""

    replicas = 3
    bodies: tuple[str, ...] = BODIES

    @initialize(seed=st.integers(0, 2**32), far=st.booleans())
    def begin(self, seed: int, far: bool) -> None:
        self.cluster = Cluster(self.replicas, seed=seed, dialogue_timeout_s=60.0)
        self.disturbed: set[str] = set()
        """Texts whose dialogue may have run more than once."""
        for replica in self.cluster.up:
            replica.link.latency_s = 0.02 if far else 0.001

    @property
    def target(self) -> Replica:
        thawed = [replica for replica in self.cluster.up if replica.link.thawed.is_set()]
        return self.cluster.random.choice(thawed or self.cluster.up)

    @rule(body=st.sampled_from(BODIES), pause_s=st.sampled_from(PAUSES_S))
    def text(self, body: str, pause_s: float) -> None:
        body = body if body in self.bodies else "now"
        if sum(not each.is_answered for each in self.cluster.delivered) < 25:
            self.cluster.text(body, at=self.target)
        self.cluster.let(pause_s)

    @rule(which=st.integers(0, 30), with_cookie=st.booleans(), pause_s=st.sampled_from(PAUSES_S))
    def deliver_again(self, which: int, with_cookie: bool, pause_s: float) -> None:
        recent = self.cluster.delivered[-10:]
        if recent:
            message = recent[which % len(recent)].message
            self.cluster.deliver(message, self.target, with_cookie=with_cookie)
        self.cluster.let(pause_s)

    @rule(pause_s=st.sampled_from(PAUSES_S))
    def wait(self, pause_s: float) -> None:
        self.cluster.let(pause_s)

    def teardown(self) -> None:
        if not hasattr(self, "cluster"):
            return
        try:
            self.cluster.finish()
            assert self.cluster.loop.errors == []
            self.judge()
        finally:
            self.cluster.close()

    # --- the model

    def judge(self) -> None:
        """Every text is counted once; dialogues ran in order, once each, and saw what
        the earlier ones left; every delivery got the reply of the run that counts.
        """
        sids = {each.message.sid for each in self.cluster.delivered}
        told = Counter(
            event.message.sid for event in self.cluster.events if event.outcome != "duplicate"
        )
        lost = {sid: told[sid] for sid in sids if told[sid] != 1} if not self.disturbed else {}
        assert not lost, f"counted not once: {lost}"
        runs = self.effective_runs()
        assert {run.sid for run in runs} == sids
        replies = self.replies_of(runs)
        for each in self.cluster.delivered:
            assert each.text == replies[each.message.sid], (each, replies[each.message.sid])
        names = [*self.cluster.replicas]
        found = turn_violations(
            [run.as_run(names) for run in runs],
            self.cluster.delivered,  # type: ignore[arg-type]
            killed=[names.index(name) for name in self.cluster.killed],
            may_run_again=self.disturbed,
        )
        assert not found, found

    def effective_runs(self) -> list[Noted]:
        """The run of each text whose answer counts, in the order of their starts. An
        instant handler may begin in vain once; nothing else runs twice undisturbed.
        """
        by_sid: dict[str, list[Noted]] = {}
        for run in self.cluster.runs:
            by_sid.setdefault(run.sid, []).append(run)
        for sid, runs in by_sid.items():
            if sid not in self.disturbed:
                assert len(runs) <= 1 + self.is_instant(runs[0]), runs
        return sorted((runs[-1] for runs in by_sid.values()), key=lambda run: run.start_s)

    @staticmethod
    def is_instant(run: Noted) -> bool:
        return run.body.startswith(("now", "wait 0"))  # some of them are trusted to be

    def replies_of(self, runs: list[Noted]) -> dict[str, str]:
        """What a plain list of texts, answered one by one, would have replied."""
        replies = {}
        number = heard = 0
        for run in runs:
            number += 1
            assert run.count == number, (run, number)
            assert run.heard == heard, (run, heard)
            if "fail" in run.body:
                replies[run.sid] = "Sorry"
                continue
            heard += 1
            replies[run.sid] = f"{number} times, heard {heard}"
            if "end" in run.body:
                number = heard = 0
        return replies


class DyingReplicas(Texting):
    """Replicas are killed, frozen and stopped; writes are carried out untold."""

    def disturb(self) -> None:
        """Texts that are open now may run again."""
        for each in self.cluster.delivered:
            if not each.is_answered:
                self.disturbed.add(each.message.sid)

    @precondition(lambda self: len(self.cluster.replicas) < 7)
    @rule()
    def kill(self) -> None:
        self.disturb()
        self.cluster.kill(self.target)
        self.cluster.start()

    @precondition(lambda self: len(self.cluster.replicas) < 7)
    @rule()
    def stop(self) -> None:
        self.disturb()
        self.cluster.loop.run(self.cluster.stop(self.target))
        self.cluster.start()

    @rule(seconds=st.sampled_from((1.0, 3.5, 6.0, 10.0)))
    def freeze(self, seconds: float) -> None:
        self.cluster.let(1.0)  # while a process is frozen, so are its timers: count first
        self.disturb()
        if sum(replica.link.thawed.is_set() for replica in self.cluster.up) > 1:
            self.cluster.freeze(self.target, seconds)

    @rule()
    def forget_a_write(self) -> None:
        self.disturb()
        self.target.link.forgets = 1

    @rule(body=st.sampled_from(BODIES), pause_s=st.sampled_from(PAUSES_S))
    def text(self, body: str, pause_s: float) -> None:
        super().text(body, pause_s)
        if any(
            not replica.link.thawed.is_set() or replica.link.forgets for replica in self.cluster.up
        ):
            self.disturb()


class Outages(Texting):
    """memcached goes away for all replicas or for one, and forgets everything.

    Numbers may repeat until all is merged, and what ran elsewhere may run again. But
    every text is counted once in the end, and none waits for nothing.
    """

    bodies = tuple(body for body in BODIES if "end" not in body)

    @rule(seconds=st.sampled_from((0.3, 1.0, 5.0, 12.0)), only_one=st.booleans())
    def outage(self, seconds: float, only_one: bool) -> None:
        gone = [self.target] if only_one else self.cluster.up
        for replica in gone:
            replica.link.is_up = False
            self.cluster.loop.call_later(seconds, setattr, replica.link, "is_up", True)

    has_flushed = False

    @rule()
    def flush(self) -> None:
        self.has_flushed = True
        self.cluster.loop.run(self.cluster.memory.flush())

    def judge(self) -> None:
        told = Counter(
            event.message.sid for event in self.cluster.events if event.outcome != "duplicate"
        )
        sids = {each.message.sid for each in self.cluster.delivered}
        assert all(each.text for each in self.cluster.delivered)
        assert set(told) == sids
        if sids:
            self.cluster.let(25)  # a text that only a cookie knows as open blocks for 20 s
            began_s = self.cluster.loop.time()
            last = self.cluster.text("now")
            self.cluster.until(last.done)
            assert self.cluster.loop.time() - began_s < 1, "nothing is left to wait for"
            self.cluster.let(3)
            if not self.has_flushed:  # else a count is lost where two answers crossed
                assert self.cluster.stored().count == len(sids) + 1


MACHINE = settings(
    deadline=None,
    stateful_step_count=30,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestOutages = Outages.TestCase
TestOutages.settings = MACHINE
TestTexting = Texting.TestCase
TestTexting.settings = MACHINE
TestDyingReplicas = DyingReplicas.TestCase
TestDyingReplicas.settings = MACHINE
