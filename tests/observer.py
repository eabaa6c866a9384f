"""An observer that remembers what a store told it."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Told:
    """`errors`: (node, kind) to how often; `up`: node to its last word; `outages`:
    node, kind, and how long it was down, None at the beginning.
    """

    errors: Counter[tuple[str, str]] = field(default_factory=Counter)
    up: dict[str, bool] = field(default_factory=dict)
    outages: list[tuple[str, str, float | None]] = field(default_factory=list)
    conflicts: int = 0
    pending: int = 0
    merged: int = 0
    dropped: int = 0
    lost: int = 0
    operations: Counter[str] = field(default_factory=Counter)

    def store_error(self, node: str, kind: str) -> None:
        self.errors[node, kind] += 1

    def store_node_down(self, node: str, kind: str) -> None:
        self.up[node] = False
        self.outages.append((node, kind, None))

    def store_node_up(self, node: str, kind: str, down_s: float) -> None:
        self.up[node] = True
        self.outages.append((node, kind, down_s))

    def store_took(self, operation: str, seconds: float) -> None:
        assert seconds >= 0
        self.operations[operation] += 1

    def store_conflict(self) -> None:
        self.conflicts += 1

    def store_pending(self, conversations: int) -> None:
        self.pending = conversations

    def overlay_merged(self) -> None:
        self.merged += 1

    def overlay_dropped(self) -> None:
        self.dropped += 1

    def overlay_lost(self, conversations: int) -> None:
        self.lost += conversations
