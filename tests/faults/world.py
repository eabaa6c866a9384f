"""What most tests here need: memcached nodes, proxies before them if asked for, and replicas of smsd over them."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count

from tests.faults.proxy import Proxy
from tests.processes import Memcached, Smsd, wait_for

PATIENT = {"SMSD_STORE_TIMEOUT": "5"}
"""A starved CPU is not taken for an outage: for promises that hold while memcached answers."""

_numbers = count(5550000)


def number() -> str:
    """A phone number that no test used yet, so a conversation of its own."""
    return f"+1415{next(_numbers)}"


@dataclass
class World:
    nodes: list[Memcached]
    proxies: list[Proxy]
    replicas: list[Smsd]

    @property
    def names(self) -> list[str]:
        """What smsd calls the nodes."""
        return [node.node for node in self.proxies or self.nodes]

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
    options: tuple[str, ...] = (),
) -> Iterator[World]:
    """So many of each, started. `options` are memcached's."""
    with ExitStack() as stack:
        stores = [stack.enter_context(Memcached(*options)) for _ in range(nodes)]
        proxies = [stack.enter_context(Proxy(store.port)) for store in stores] if proxied else []
        made = World(stores, proxies, [])
        for _ in range(replicas):
            made.replicas.append(stack.enter_context(Smsd(store_of(made.names) | dict(env or {}))))
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
