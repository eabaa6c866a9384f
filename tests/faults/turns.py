"""Slow dialogues under test: who texts, what the dialogues noted, and a checker of
order.

The checker reads the notes of the dialogue `tests.faults.dialogues:diary` and the
replies that came over HTTP. It knows nothing of how smsd keeps turns.
"""

import asyncio
import json
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from smsd.simulator import (
    JAR,
    Account,
    Client,
    Cookies,
    Failure,
    Inbound,
    Outcome,
    Request,
    Response,
    Twilio,
)
from tests.faults.dialogues import DIARY
from tests.faults.world import World, world
from tests.processes import ACCOUNT, PUBLIC_URL, TOKEN, Smsd

URL = f"{PUBLIC_URL}/sms"


@dataclass(frozen=True)
class DialogueRun:
    """One run of the dialogue, as it noted it itself. Times in seconds, monotonic."""

    conversation: str
    sid: str
    count: int
    process: int
    start_s: float
    end_s: float | None
    """None if it never ended: its process was killed, or it still runs."""
    has_finished: bool
    """It came to its end, and was not canceled."""


class Notes:
    """The file in which all replicas note what their dialogues do."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def runs(self, conversation: str | None = None) -> list[DialogueRun]:
        """Every run, in the order of the starts."""
        begun: dict[tuple[int, str], dict[str, object]] = {}
        done: list[DialogueRun] = []
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        for line in map(json.loads, lines):
            key = line["process"], line["sid"]
            if line["what"] == "start":
                begun[key] = line
                continue
            start = begun.pop(key)
            done.append(_run(start, line["at_s"], line["what"] == "end"))
        done += [_run(start, None, False) for start in begun.values()]
        found = sorted(done, key=lambda run: run.start_s)
        return [run for run in found if conversation in (None, run.conversation)]


def _run(start: Mapping[str, object], end_s: float | None, has_finished: bool) -> DialogueRun:
    return DialogueRun(
        str(start["conversation"]),
        str(start["sid"]),
        int(str(start["count"])),
        int(str(start["process"])),
        float(str(start["at_s"])),
        end_s,
        has_finished,
    )


class Texter:
    """The offline Twilio in front of several replicas: each request goes to a random
    one of those that are up, or to `only`. What cannot be delivered goes to the
    fallback URL.
    """

    def __init__(
        self, replicas: Sequence[Smsd], *, seed: int = 1, url: str = URL, fallback: bool = True
    ) -> None:
        self.replicas = list(replicas)
        self.only: Smsd | None = None
        self.outcomes: list[Outcome] = []
        self.down: set[int] = set()
        """Ports of replicas that a load balancer would not use."""
        self.responses: Counter[str] = Counter()
        """How many responses Twilio got, by MessageSid."""
        self._random = Random(seed)
        account = Account(ACCOUNT, TOKEN, url, fallback_url=URL if fallback else None)
        self.client = Client(account=account, twilio=Twilio(random=self._random))

    def compose(self, body: str, from_: str) -> Inbound:
        return self.client.compose(body, from_=from_)

    async def text(
        self, body: str, from_: str, replica: Smsd | None = None, cookies: Cookies = JAR
    ) -> Outcome:
        """Send a message, and follow it to its end."""
        return await self.deliver(self.compose(body, from_), replica, cookies)

    async def deliver(
        self, message: Inbound, replica: Smsd | None = None, cookies: Cookies = JAR
    ) -> Outcome:
        """Deliver a message; its first request goes to `replica`, later ones to any."""
        flow = self.client.twilio.deliver(self.client.sender, message, cookies)
        target = replica
        try:
            request = next(flow)
            while True:
                response = await self._perform(request, target)
                self.responses[message.sid] += isinstance(response, Response)
                request = flow.send(response)
                target = None
        except StopIteration as stop:
            outcome: Outcome = stop.value
            self.outcomes.append(outcome)
            return outcome

    async def _perform(self, request: Request, replica: Smsd | None) -> Response | Failure:
        up = [each for each in self.replicas if each.port not in self.down]
        target = replica or self.only or self._random.choice(up)
        return await self.client.perform(request, connect_to=target.address)

    def close(self) -> None:
        self.client.close()


@dataclass
class Scene:
    """Replicas with the noting dialogue, and what they noted."""

    world: World
    notes: Notes

    @property
    def replicas(self) -> list[Smsd]:
        return self.world.replicas

    def runner_of(self, sid: str) -> Smsd:
        """The replica that runs the message's dialogue now."""
        [run] = [run for run in self.notes.runs() if run.sid == sid and run.end_s is None]
        [found] = [replica for replica in self.replicas if replica.pid == run.process]
        return found

    def has_started(self, sid: str) -> bool:
        return any(run.sid == sid for run in self.notes.runs())


@contextmanager
def scene(
    nodes: int = 1,
    replicas: int = 3,
    env: Mapping[str, str | None] | None = None,
    *,
    proxied: bool = False,
    dialogue: str = "diary",
) -> Iterator[Scene]:
    """So many replicas whose dialogue notes what it does."""
    with TemporaryDirectory() as folder:
        notes = Notes(Path(folder) / "diary")
        given = {
            "SMSD_DIALOGUE": f"tests.faults.dialogues:{dialogue}",
            DIARY: str(notes.file),
            **(env or {}),
        }
        with world(nodes, replicas, given, proxied=proxied) as made:
            yield Scene(made, notes)


async def until(condition: object, what: str, *, within_s: float = 20.0) -> None:
    """Wait for a condition, a function without arguments, on the event loop."""
    assert callable(condition)
    give_up_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < give_up_s, f"not within {within_s} s: {what}"
        await asyncio.sleep(0.02)


# --- the checker


def turn_violations(
    runs: Iterable[DialogueRun],
    outcomes: Iterable[Outcome],
    *,
    killed: Collection[int] = (),
    may_run_again: Collection[str] = (),
    silent: Collection[str] = (),
) -> list[str]:
    """Each broken promise in a sentence; none for a good history.

    killed         processes that were killed, or frozen for longer than a lease
    may_run_again  messages whose replica was stopped, killed or frozen, or whose record
                   was lost: their dialogue may have run more than once
    silent         messages that get no reply, such as STOP
    """
    found = []
    by_conversation: dict[str, list[DialogueRun]] = defaultdict(list)
    for run in runs:
        by_conversation[run.conversation].append(run)
    for conversation, its_runs in by_conversation.items():
        its_runs.sort(key=lambda run: run.start_s)
        for rule in (
            _overlaps(its_runs, killed),
            _order(its_runs),
            _again(its_runs, may_run_again),
        ):
            found += [f"{conversation}: {problem}" for problem in rule]
    return found + list(_replies(outcomes, silent))


def _overlaps(runs: Sequence[DialogueRun], killed: Collection[int]) -> Iterator[str]:
    for run, following in pairwise(runs):
        if run.process in killed:
            continue
        if run.end_s is None or run.end_s > following.start_s:
            yield f"{run.count} still ran when {following.count} started"


def _order(runs: Sequence[DialogueRun]) -> Iterator[str]:
    firsts: dict[str, DialogueRun] = {}
    for run in runs:
        firsts.setdefault(run.sid, run)
    started = list(firsts.values())
    for run, following in pairwise(started):
        if following.count <= run.count and following.count != 1:
            yield f"{following.count} started after {run.count}"


def _again(runs: Sequence[DialogueRun], allowed: Collection[str]) -> Iterator[str]:
    times: dict[str, int] = defaultdict(int)
    for run in runs:
        times[run.sid] += 1
    for sid, ran in times.items():
        if ran > 1 and sid not in allowed:
            yield f"{sid} ran {ran} times"


def _replies(outcomes: Iterable[Outcome], silent: Collection[str]) -> Iterator[str]:
    replies: dict[str, set[str | None]] = defaultdict(set)
    for outcome in outcomes:
        replies[outcome.message.sid].add(outcome.text)
    for sid, texts in replies.items():
        if len(texts) > 1:
            yield f"{sid} got {len(texts)} replies: {sorted(map(str, texts))}"
        if texts == {None} and sid not in silent:
            yield f"{sid} got no reply"
