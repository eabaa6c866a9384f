"""Declares every metric: its name, help, labels, and the values that exist from the
start.

Nothing is counted here; `smsd.telemetry.metrics` does that. Names follow Prometheus'
conventions: `smsd_`, what is measured, the unit (`_seconds`), `_total` for counters. No
label ever holds a number, a name or an id. A label value that can be known beforehand
exists from the start at 0, so that its first event shows as a rise.
"""

from collections.abc import Iterable, Mapping

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)

from smsd.exchange.events import COOKIE_STATES, OUTCOMES
from smsd.store import KINDS
from smsd.twilio.delivery import DELIVERY_STATUSES
from smsd.twilio.diagnosis import CAUSES
from smsd.version import VERSION

disable_created_metrics()  # type: ignore[no-untyped-call]  # else each counter has a second series

HANDLERS: Mapping[str, tuple[int, ...]] = {
    "sms": (200, 400, 403, 405, 413, 503),
    "status": (204, 400, 403, 405, 413, 503),
    "other": (404,),
}
"""The label `handler`, and the codes that each is expected to give."""

REASONS = (
    "signature_missing",
    "signature_mismatch",
    "account",
    "malformed",
    "too_large",
    "method",
)
FALLBACKS = ("11200", "11205", "11215", "11217", "11750", "12100", "12200", "12300", "other")

_REQUEST_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15)
_DIALOGUE_BUCKETS = (*_REQUEST_BUCKETS, 30, 60, 120, 300)
_STORE_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)  # fmt: skip


class Families:
    """One registry and the metrics in it.

    nodes  the memcached nodes, as the settings name them
    """

    def __init__(self, *, nodes: Iterable[str] = ()) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._declare_requests()
        self._declare_conversations()
        self._declare_store(nodes)
        self._declare_process()

    def _declare_requests(self) -> None:
        self.requests = self._histogram(
            "request_duration_seconds",
            "From reading a request to writing its answer.",
            _REQUEST_BUCKETS,
            "handler",
            "code",
        )
        for handler, codes in HANDLERS.items():
            for code in codes:
                self.requests.labels(handler, code)
        self.rejected = self._counter("rejected", "Requests refused, by reason.", reason=REASONS)
        self.mismatches = self._counter(
            "signature_mismatch", "Signatures that did not fit, by likely cause.", cause=CAUSES
        )
        self.signatures = self._counter(
            "signatures",
            "Good signatures, by the key that made them.",
            key=("primary", "secondary", "account", "shared"),
        )
        self.fallbacks = self._counter(
            "fallbacks",
            "Messages at the fallback URL, by Twilio's error code.",
            error_code=FALLBACKS,
        )
        self.deliveries = Counter(
            "smsd_deliveries",
            "Status callbacks, by status and error code.",
            ["status", "error_code"],
            registry=self.registry,
        )
        for status in DELIVERY_STATUSES:
            self.deliveries.labels(status, "")

    def _declare_conversations(self) -> None:
        self.messages = self._counter(
            "messages", "Messages accepted, by what became of them.", outcome=OUTCOMES
        )
        self.cookies = self._counter(
            "cookies",
            "Messages, by the state of the cookie that came along.",
            state=COOKIE_STATES,
        )
        self.started = self._counter("conversations_started", "Conversations started.")
        self.restored = self._counter(
            "conversations_restored",
            "Conversations restored after memcached lost their record.",
            source=("cookie", "overlay"),
        )
        self.segments = self._counter(
            "reply_segments",
            "SMS segments of replies, as Twilio charges them.",
            encoding=("GSM-7", "UCS-2"),
        )
        self.dialogue_duration = self._histogram(
            "dialogue_duration_seconds", "How long dialogues ran.", _DIALOGUE_BUCKETS
        )
        self.redirects = self._counter(
            "redirects", "Requests that were told to come again, because their reply was not ready."
        )
        self.takeovers = self._counter(
            "takeovers", "Dialogues run again because their replica was gone."
        )
        self.waiting = self._gauge(
            "turns_waiting", "Requests that wait here for their turn or their reply."
        )
        self.abandoned = self._gauge(
            "dialogues_abandoned",
            "Dialogues still running although their time is over: they swallow cancellation, or block.",
        )

    def _declare_store(self, nodes: Iterable[str]) -> None:
        self.store_duration = self._histogram(
            "store_duration_seconds",
            "How long a message waited for one store operation.",
            _STORE_BUCKETS,
            "operation",
        )
        for operation in ("read", "write"):
            self.store_duration.labels(operation)
        self.store_errors = Counter(
            "smsd_store_errors",
            "Failures of memcached nodes, by kind.",
            ["node", "kind"],
            registry=self.registry,
        )
        self.node_up = Gauge(
            "smsd_store_up", "Whether the node answers.", ["node"], registry=self.registry
        )
        for node in nodes:
            self.node_up.labels(node).set(1)
            for kind in KINDS:
                self.store_errors.labels(node, kind)
        self.conflicts = self._counter(
            "store_conflicts", "Records that another writer changed between read and write."
        )
        self.pending = self._gauge(
            "store_pending", "Conversations on the overlay, to be merged into memcached."
        )
        self.dropped = self._counter(
            "store_dropped",
            "Overlay records dropped at the memory bound; their cookies hold the counts.",
        )

    def _declare_process(self) -> None:
        self.reloads = self._counter(
            "reloads", "Attempts to read changed settings again.", result=("ok", "refused")
        )
        self.last_reload = self._gauge(
            "last_reload_successful",
            "1 if the files on disk are the settings in force, 0 while smsd refuses them.",
        )
        self.last_reload.set(1)  # smsd does not start with a broken file
        self.event_loop_lag = self._gauge(
            "event_loop_lag_seconds", "The longest the event loop was held up in the last 15 s."
        )
        Gauge(
            "smsd_build_info",
            "Always 1; the version is in the label.",
            ["version"],
            registry=self.registry,
        ).labels(VERSION).set(1)

    def _counter(self, name: str, help_: str, **label: Iterable[str]) -> Counter:
        counter = Counter(f"smsd_{name}", help_, list(label), registry=self.registry)
        for values in label.values():
            for value in values:
                counter.labels(value)
        return counter

    def _gauge(self, name: str, help_: str) -> Gauge:
        return Gauge(f"smsd_{name}", help_, registry=self.registry)

    def _histogram(
        self, name: str, help_: str, buckets: tuple[float, ...], *labels: str
    ) -> Histogram:
        return Histogram(f"smsd_{name}", help_, labels, buckets=buckets, registry=self.registry)
