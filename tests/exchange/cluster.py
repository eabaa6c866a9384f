"""Several replicas on one store, in one virtual-time loop, in front of a Twilio that
asks again, follows redirects and uses its fallback URL.

Nothing is a stand-in but the edges: the exchange, the overlay and the store in memory
are those of the service. A `Link` between a replica and the store delays, fails,
freezes or forgets what it did. The dialogue notes each run as the one of `tests.faults`
does, so that the same checker judges both.
"""

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from smsd import Message, Session
from smsd.conversation.record import Record
from smsd.errors import SaveUnsettled, StoreUnavailable
from smsd.exchange.events import Answer, Counted, Observer
from smsd.exchange.exchange import Exchange
from smsd.exchange.runner import Policy
from smsd.store.memory import Memory
from smsd.store.overlay import OverlayStore
from tests.exchange.virtual import VirtualLoop, process
from tests.faults.turns import DialogueRun
from tests.observer import Told

START_MS = 1_790_000_000_000
TTL_S = 14_400
ACCOUNT = "AC" + "1" * 32
TIMEOUT_S = 0.25
FOREVER_S = 1e6
MOST_HOPS = 45
READ_TIMEOUT_S = 15.0
"""Of Twilio, for one request."""


class Link:
    """A replica's way to the store. It fails as the client of memcached does: in time.

    latency_s  of a read and of a write
    is_up      whether the store answers
    forgets    so many of the next writes are carried out, and nobody is told
    """

    nodes: dict[str, bool] = {}  # noqa: RUF012 - as the protocol has it

    def __init__(self, memory: Memory, clock_s: Callable[[], float]) -> None:
        self._memory = memory
        self._clock_s = clock_s
        self.latency_s = 0.001
        self._is_up = True
        self._up_since_s = -math.inf
        self.forgets = 0
        self.thawed = asyncio.Event()
        self.thawed.set()
        self.operations = 0

    @property
    def is_up(self) -> bool:
        return self._is_up

    @is_up.setter
    def is_up(self, is_up: bool) -> None:
        if is_up and not self._is_up:
            self._up_since_s = self._clock_s()
        self._is_up = is_up

    def up_since_s(self, _key: bytes) -> float:
        return self._up_since_s

    def is_ready(self, _key: bytes) -> bool:
        return self.is_up and self.thawed.is_set()

    async def _travel(self) -> None:
        await self.thawed.wait()
        self.operations += 1
        if not self.is_up:
            raise StoreUnavailable("node", "down")
        if self.latency_s > TIMEOUT_S:
            await asyncio.sleep(TIMEOUT_S)
            raise StoreUnavailable("node", "timeout")
        await asyncio.sleep(self.latency_s)
        await self.thawed.wait()

    async def load(self, key: bytes) -> tuple[Record | None, Record | None]:
        await self._travel()
        return await self._memory.load(key)

    async def save(self, key: bytes, record: Record, token: Any, *, again: bool = False) -> Any:
        await self._travel()
        written = await self._memory.save(key, record, token, again=again)
        if self.forgets:
            self.forgets -= 1
            raise SaveUnsettled
        return written

    async def flush(self) -> None:
        await self._memory.flush()

    async def close(self) -> None:
        """Nothing to close."""


class Diary:
    """The dialogue. A text says what it does, in words:

    wait SECONDS   takes that long
    end            ends the conversation
    fail           raises
    poison         takes its process down
    """

    def __init__(self, cluster: "Cluster") -> None:
        self._cluster = cluster
        self._handlers: dict[str, object] = {}

    def conversation_key(self, message: Message) -> str | None:
        return None

    def handler_of(self, message: Message, session: Session) -> object:
        """What waits and what does not are two handlers, as a router has them."""
        return self._handlers.setdefault(message.body.partition(" ")[0], _Handler())

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def reload(self, settings: object) -> None: ...

    async def __call__(self, message: Message, session: Session) -> str:
        run = self._cluster.begin(message, session)
        words = message.body.split()
        session.data["heard"] = session.data.get("heard", 0) + 1
        try:
            if words[0] == "wait":
                await asyncio.sleep(float(words[1]))
                await self._cluster.replicas[run.replica].link.thawed.wait()
            if "poison" in words:
                self._cluster.kill(self._cluster.replicas[run.replica])
                await asyncio.sleep(FOREVER_S)
            run.has_finished = True
        finally:
            run.end_s = self._cluster.loop.time()
        if "fail" in words:
            raise RuntimeError("as asked")
        if "end" in words:
            run.has_ended = True
            session.end()
        return f"{session.count} times, heard {session.data['heard']}"


class _Handler:
    """Can be referred to weakly."""


@dataclass
class Noted:
    """One run, as the dialogue saw it."""

    replica: str
    conversation: str
    sid: str
    body: str
    count: int
    heard: int
    start_s: float
    end_s: float | None = None
    has_finished: bool = False
    has_ended: bool = False
    is_killed: bool = False

    def as_run(self, processes: list[str]) -> DialogueRun:
        return DialogueRun(
            self.conversation,
            self.sid,
            self.count,
            processes.index(self.replica),
            self.start_s,
            None if self.is_killed else self.end_s,
            self.has_finished and not self.is_killed,
        )


class Replica(Observer):
    """One process."""

    def __init__(self, name: str, cluster: "Cluster", skew_ms: int = 0, **policy: Any) -> None:
        self.name = name
        self.cluster = cluster
        self.link = Link(cluster.memory, cluster.loop.time)
        self.is_up = True
        self.events: list[Counted] = []
        self.takeovers = 0
        self.waiting = 0

        def now_ms() -> int:
            return START_MS + skew_ms + round(cluster.loop.time() * 1000)

        def random_bits() -> int:
            return cluster.random.getrandbits(32)

        self.store = OverlayStore(
            self.link,
            timeout_s=TIMEOUT_S,
            ttl_s=TTL_S,
            now_ms=now_ms,
            random_bits=random_bits,
            observer=Told(),
            clock_s=cluster.loop.time,
        )
        given: dict[str, Any] = {
            "apology": "Sorry",
            "one_moment": "",
            "dialogue_timeout_s": 60.0,
            "loop_limit": 0,
            "opt_out": True,
            **policy,
        }
        self.exchange = Exchange(
            store=self.store,
            policy=Policy(cluster.diary, **given),
            hash_key=b"h" * 40,
            ttl_s=TTL_S,
            answer_within_s=cluster.answer_within_s,
            now_ms=now_ms,
            random_bits=random_bits,
            observer=self,
        )

    def counted(self, event: Counted) -> None:
        self.events.append(event)

    def dialogue_started(self, task: "asyncio.Task[Any]") -> None:
        self.cluster.loop.belongs_to(self.name, task)

    def taken_over(self) -> None:
        self.takeovers += 1

    def turns_waiting(self, requests: int) -> None:
        self.waiting = requests


@dataclass
class Delivered:
    """A text, and the reply that its sender got for one delivery. It looks to the
    checker like an outcome of the offline Twilio.
    """

    message: Message
    text: str | None = None
    hops: int = 0
    began_s: float = 0.0
    ended_s: float | None = None
    texts: list[str] = field(default_factory=list)
    """Everything that was sent on the way."""

    @property
    def is_answered(self) -> bool:
        return self.ended_s is not None


class Cluster:
    """So many replicas. Use `loop.run` to let something happen, and `close` it.

    answer_within_s  how long a request waits
    policy           settings of all replicas
    """

    def __init__(
        self, replicas: int = 2, *, seed: int = 0, answer_within_s: float = 12.0, **policy: Any
    ) -> None:
        self.loop = VirtualLoop()
        asyncio.set_event_loop(self.loop)
        self.random = Random(seed)
        self.answer_within_s = answer_within_s
        self.memory = Memory(TTL_S, self.now_ms, self.loop.time)
        self.diary = Diary(self)
        self.runs: list[Noted] = []
        self.delivered: list[Delivered] = []
        self.cookies: dict[str, bytes] = {}
        self.replicas: dict[str, Replica] = {}
        self.killed: set[str] = set()
        self._policy = policy
        self._sent = 0
        for _ in range(replicas):
            self.start()

    def now_ms(self) -> int:
        return START_MS + round(self.loop.time() * 1000)

    @property
    def up(self) -> list[Replica]:
        return [replica for replica in self.replicas.values() if replica.is_up]

    def start(self, **more: Any) -> Replica:
        """One replica more."""
        name = f"r{len(self.replicas) + 1}"

        async def make() -> Replica:
            process.set(name)
            return Replica(name, self, **{**self._policy, **more})

        made = self.replicas[name] = self.loop.run(make())
        return made

    def kill(self, replica: Replica) -> None:
        """As SIGKILL: nothing of it happens any more."""
        replica.is_up = False
        replica.link.thawed.clear()
        self.killed.add(replica.name)
        for run in self.runs:
            if run.replica == replica.name and not run.has_finished:
                run.is_killed = True
        self.loop.kill(replica.name)

    def freeze(self, replica: Replica, seconds: float) -> None:
        """As SIGSTOP, and SIGCONT later, as far as others can see: none of its
        operations gets through, and its dialogues do not go on.
        """
        replica.link.thawed.clear()
        self.killed.add(replica.name)
        self.loop.call_later(seconds, replica.link.thawed.set)

    async def stop(self, replica: Replica) -> None:
        """As SIGTERM, without the wait for dialogues to finish."""
        replica.is_up = False
        replica.exchange.stop_waiting()
        await replica.exchange.give_back()
        await replica.store.close(within_s=1.0)

    def begin(self, message: Message, session: Session) -> Noted:
        """A dialogue notes its beginning."""
        run = Noted(
            process.get(),
            message.from_,
            message.sid,
            message.body,
            session.count,
            session.data.get("heard", 0),
            self.loop.time(),
        )
        self.runs.append(run)
        return run

    # --- Twilio

    def message(self, body: str, from_: str = "+14155550100") -> Message:
        self._sent += 1
        form = {
            "MessageSid": f"SM{self._sent:032x}",
            "AccountSid": ACCOUNT,
            "From": from_,
            "To": "+14158141829",
            "Body": body,
        }
        return Message.from_params({name: [value.encode()] for name, value in form.items()})

    def text(
        self, body: str, from_: str = "+14155550100", at: Replica | None = None
    ) -> "asyncio.Task[Delivered]":
        """Send a text; its delivery goes on while the loop runs."""
        return self.deliver(self.message(body, from_), at)

    def deliver(
        self, message: Message, at: Replica | None = None, *, with_cookie: bool = True
    ) -> "asyncio.Task[Delivered]":
        """Deliver a message, perhaps not for the first time: the first request goes to
        `at`, the others anywhere.
        """
        delivered = Delivered(message, began_s=self.loop.time())
        self.delivered.append(delivered)
        return self.loop.create_task(self._deliver(delivered, at, with_cookie=with_cookie))

    async def _deliver(
        self, delivered: Delivered, at: Replica | None, *, with_cookie: bool
    ) -> Delivered:
        message = delivered.message
        while delivered.hops < MOST_HOPS:
            cookie = self.cookies.get(message.from_) if with_cookie else None
            answer = None
            for _ in range(4):  # the URL, and its fallback
                replica = at or self.random.choice(self.up)
                at = None
                answer = await self._request(replica, message, cookie, delivered.hops)
                if answer:
                    break
            assert answer, "no replica answered, not even at the fallback URL"
            self.cookies[message.from_] = answer.copy
            if answer.say:
                delivered.texts.append(answer.say)
            if not answer.come_again:
                reply = answer.twiml.decode().partition("<Message>")[2].partition("</Message>")[0]
                delivered.text = reply or None
                delivered.texts += [reply] if reply else []
                break
            delivered.hops += 1
        delivered.ended_s = self.loop.time()
        return delivered

    async def _request(
        self, replica: Replica, message: Message, cookie: bytes | None, hop: int
    ) -> Answer | None:
        """One request; None if its replica dies, or does not answer in time."""

        async def answer() -> Answer:
            process.set(replica.name)
            await replica.link.thawed.wait()  # nobody accepts the connection
            copies = [cookie] if cookie else []
            return await replica.exchange.answer(message, copies, "absent", hop)

        if replica.name in self.killed and not replica.is_up:
            return None
        holder: list[asyncio.Task[Answer]] = []

        async def within_process() -> None:
            process.set(replica.name)
            holder.append(self.loop.create_task(answer()))

        await self.loop.create_task(within_process())
        await asyncio.wait(holder, timeout=READ_TIMEOUT_S)
        [request] = holder
        return None if not request.done() or request.cancelled() else request.result()

    # --- time

    def let(self, seconds: float) -> None:
        """Let time pass."""
        self.loop.run(asyncio.sleep(seconds))

    def finish(self) -> None:
        """Let everything come to its end."""
        for replica in self.replicas.values():
            if replica.is_up:
                replica.link.is_up = True
                replica.link.latency_s = 0.001
        self.until(lambda: all(each.is_answered for each in self.delivered), 1200)
        self.let(3)

    def until(self, condition: Callable[[], bool], within_s: float = 60.0) -> None:
        """Let time pass until something is so."""

        async def wait() -> None:
            give_up_s = self.loop.time() + within_s
            while not condition():
                assert self.loop.time() < give_up_s, "it did not happen"
                await asyncio.sleep(0.01)

        self.loop.run(wait())

    def close(self) -> None:
        self.loop.close()
        asyncio.set_event_loop(None)

    # --- what happened

    def stored(self) -> Record:
        """The only record in the store."""
        [record] = self.memory._records.values()
        return record

    def dialogue_runs(self) -> list[DialogueRun]:
        names = [*self.replicas]
        return [run.as_run(names) for run in self.runs]

    @property
    def events(self) -> list[Counted]:
        return [event for replica in self.replicas.values() for event in replica.events]
