"""What most tests here need: memcached nodes, proxies before them if asked for, and
replicas of smsd over them."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count

from tests.faults.names import Names
from tests.faults.proxy import Proxy
from tests.processes import Memcached, Smsd, wait_for

PATIENT = {"SMSD_STORE_TIMEOUT": "5"}
"""A starved CPU is not taken for an outage: for promises that hold while memcached
answers."""

_numbers = count(5550000)


def number() -> str:
    """A phone number that no test used yet, so a conversation of its own."""
    return f"+1415{next(_numbers)}"


@dataclass
class World:
    nodes: list[Memcached]
    proxies: list[Proxy]
    replicas: list[Smsd]
    lookups: Names | None = None
    """What the nodes' names resolve to, if they have names."""

    @property
    def hosts(self) -> list[str]:
        """The nodes' names without ports, if they have names."""
        return [f"memcached-{i}.test" for i in range(len(self.nodes))] if self.lookups else []

    @property
    def names(self) -> list[str]:
        """What smsd calls the nodes."""
        nodes = [node.node for node in self.proxies or self.nodes]
        for place, host in enumerate(self.hosts):
            nodes[place] = nodes[place].replace("127.0.0.1", host)
        return nodes

    def merged(self) -> bool:
        """Every node answers every replica, and nothing waits to be merged."""
        return all(settled(replica) for replica in self.replicas)


@contextmanager
def world(
    nodes: int = 1,
    replicas: int = 2,
    env: Mapping[str, str | None] | None = None,
    *,
    proxied: bool = False,
    named: bool = False,
    options: tuple[str, ...] = (),
) -> Iterator[World]:
    """So many of each, started. `options` are memcached's. With `named` the nodes have
    names that a test can change; otherwise they are addresses.
    """
    with ExitStack() as stack:
        stores = [stack.enter_context(Memcached(*options)) for _ in range(nodes)]
        proxies = [stack.enter_context(Proxy(store.port)) for store in stores] if proxied else []
        lookups = stack.enter_context(Names()) if named else None
        made = World(stores, proxies, [], lookups)
        for host in made.hosts:
            made.lookups.set(host, "127.0.0.1")  # type: ignore[union-attr]
        settings = store_of(made.names) | dict(env or {})
        for _ in range(replicas):
            replica = lookups.smsd(settings) if lookups else Smsd(settings)
            made.replicas.append(stack.enter_context(replica))
        yield made


def store_of(names: list[str]) -> dict[str, str | None]:
    """The settings for a store on these nodes; nothing is silenced."""
    return {"SMSD_STORE": "memcached://" + ",".join(names), "SMSD_LOOP_LIMIT": "0"}


def status(replica: Smsd) -> dict[str, object]:
    """What `/status` tells."""
    told: dict[str, object] = json.loads(replica.admin("/status")[1])
    return told


def settled(replica: Smsd) -> bool:
    """All nodes are up, nothing waits to be merged."""
    told = status(replica)
    return told["pending"] == 0 and "down" not in str(told["nodes"])


def sees(replica: Smsd, state: str) -> Callable[[], bool]:
    """Whether some node is "up" or "down" for a replica."""
    return lambda: f"'{state}'" in str(status(replica)["nodes"])


def counted(replica: Smsd) -> float:
    """Messages that a replica has counted as new."""
    return sum(
        replica.metric(f'smsd_messages_total{{outcome="{outcome}"}}')
        for outcome in ("counted", "degraded")
    )


def wait_until_merged(world: World) -> None:
    """Until memcached is back for everybody and nothing waits."""
    try:
        wait_for(world.merged, "every overlay is merged")
    except AssertionError as error:
        raise AssertionError(
            f"{error}: {[status(replica) for replica in world.replicas]}"
        ) from error
