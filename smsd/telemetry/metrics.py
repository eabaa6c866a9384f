"""Every metric: its name, its help, its label values. The only file that imports prometheus_client.

Names: `smsd_`, what is counted, the unit (`_seconds`), `_total` for counters. No label ever holds a number, a
name or an id; every label value that can be known beforehand is there from the start, at 0, so that the first
event shows as a rise.
"""

import logging
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import accumulate

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from smsd.exchange.answer import OUTCOMES, Counted
from smsd.store.node import KINDS
from smsd.telemetry.logs import event
from smsd.twilio.delivery import DELIVERY_STATUSES
from smsd.twilio.diagnosis import CAUSES
from smsd.twilio.segments import segments
from smsd.version import VERSION

log = logging.getLogger("smsd.telemetry.metrics")

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter, which nobody asks for

HANDLERS = {
    "sms": (200, 400, 403, 405, 413, 503),
    "status": (204, 400, 403, 405, 413, 503),
    "other": (404,),
}
"""Label `handler` and the codes it is expected to give."""

_REQUEST_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15)
_STORE_BUCKETS = (
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1,
)
_DIALOGUE_BUCKETS = (*_REQUEST_BUCKETS, 30, 60, 120, 300)
_REASONS = (
    "signature_missing",
    "signature_mismatch",
    "account",
    "malformed",
    "too_large",
    "method",
)
_FALLBACKS = ("11200", "11205", "11215", "11217", "11750", "12100", "12200", "12300", "other")


class Series:
    """One set of label values of `Durations`."""

    __slots__ = ("_bounds_s", "counts", "sum_s")

    def __init__(self, bounds_s: tuple[float, ...]) -> None:
        self._bounds_s = bounds_s
        self.counts = [0] * (len(bounds_s) + 1)  # the last one: longer than every bound
        self.sum_s = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(self._bounds_s, seconds)] += 1
        self.sum_s += seconds


class Durations(Collector):
    """A histogram that only the event loop writes to. Without prometheus_client's locks it takes a fifth of the
    time, and every message is observed four times.
    """

    def __init__(
        self,
        name: str,
        help_: str,
        bounds_s: tuple[float, ...],
        *labels: str,
        registry: CollectorRegistry,
    ) -> None:
        self._described = name, help_
        self._bounds_s = bounds_s
        self._labels = labels
        self._series: dict[tuple[str, ...], Series] = {}
        registry.register(self)

    def of(self, *values: object) -> Series:
        """The series with these label values."""
        key = tuple(map(str, values))
        if key not in self._series:
            self._series[key] = Series(self._bounds_s)
        return self._series[key]

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """What is exposed."""
        family = HistogramMetricFamily(*self._described, labels=self._labels)
        bounds = [*map(floatToGoString, self._bounds_s), "+Inf"]
        for values, series in self._series.items():
            family.add_metric(
                values, list(zip(bounds, accumulate(series.counts), strict=True)), series.sum_s
            )
        yield family


class Metrics:
    """One registry and what is in it. Also the stores' `Observer`."""

    def __init__(self, *, nodes: Iterable[str] = ()) -> None:
        self.registry = CollectorRegistry()
        self.under_way = 0
        ProcessCollector(registry=self.registry)
        self._metrics()
        self.store_pending_gauge.set(0)
        Gauge(
            "smsd_build_info",
            "Always 1; the version is in the label.",
            ["version"],
            registry=self.registry,
        ).labels(VERSION).set(1)
        for node in nodes:
            self.store_up_gauge.labels(node).set(1)
            for kind in KINDS:
                self.store_errors.labels(node, kind)

    def _metrics(self) -> None:
        self.messages = self._counter(
            "messages", "Messages accepted, by what became of them.", outcome=OUTCOMES
        )
        self.rejected = self._counter("rejected", "Requests refused, by reason.", reason=_REASONS)
        self.mismatches = self._counter(
            "signature_mismatch", "Signatures that did not fit, by likely cause.", cause=CAUSES
        )
        self.signatures = self._counter(
            "signatures",
            "Good signatures, by the key that made them.",
            key=("primary", "secondary", "account", "shared"),
        )
        self.cookies = self._counter(
            "cookies",
            "Cookies received.",
            state=("absent", "valid", "expired", "foreign", "forged"),
        )
        self.started = self._counter("conversations_started", "Conversations begun.")
        self.restored = self._counter(
            "conversations_restored",
            "Conversations that memcached had lost.",
            source=("cookie", "overlay"),
        )
        self.fallbacks = self._counter(
            "fallbacks", "Messages at the fallback URL.", error_code=_FALLBACKS
        )
        self.reloads = self._counter("reloads", "Settings read again.", result=("ok", "refused"))
        self.last_reload_gauge = self._gauge(
            "last_reload_successful",
            "1 if the files on disk are the settings in force, 0 while smsd refuses them.",
        )
        self.last_reload_gauge.set(1)  # smsd does not start with a broken file
        self.store_conflicts = self._counter(
            "store_conflicts", "Records written by another hand between read and write."
        )
        self.store_errors = Counter(
            "smsd_store_errors",
            "Failures of memcached nodes.",
            ["node", "kind"],
            registry=self.registry,
        )
        self.overlay_dropped_counter = self._counter(
            "store_dropped",
            "Overlay records dropped at the memory bound; their cookies hold the counts.",
        )
        self.deliveries = Counter(
            "smsd_deliveries", "Status callbacks.", ["status", "error_code"], registry=self.registry
        )
        for status in DELIVERY_STATUSES:
            self.deliveries.labels(status, "")
        self.requests = self._durations(
            "request", "From request read to answer written.", _REQUEST_BUCKETS, "handler", "code"
        )
        for handler, codes in HANDLERS.items():
            for code in codes:
                self.requests.of(handler, code)
        self.store_duration = self._durations(
            "store", "Of one operation, as a message waits for it.", _STORE_BUCKETS, "operation"
        )
        self._store_took = {name: self.store_duration.of(name) for name in ("read", "write")}
        self.dialogue_duration = self._durations(
            "dialogue", "Of the dialogue.", _DIALOGUE_BUCKETS
        ).of()
        self.redirects_counter = self._counter(
            "redirects", "Requests that were told to come again, because their reply was not ready."
        )
        self.takeovers_counter = self._counter(
            "takeovers", "Dialogues run again because their replica was gone."
        )
        self.turns_waiting_gauge = self._gauge(
            "turns_waiting", "Requests that wait here for their turn or their reply."
        )
        self.dialogues_abandoned_gauge = self._gauge(
            "dialogues_abandoned",
            "Dialogues still running although their time is over: they swallow cancellation, or block.",
        )
        self.segments = self._counter(
            "reply_segments",
            "SMS segments of replies, as Twilio charges them.",
            encoding=("GSM-7", "UCS-2"),
        )
        self._segments = {name: self.segments.labels(name) for name in ("GSM-7", "UCS-2")}
        self.store_up_gauge = Gauge(
            "smsd_store_up", "Whether the node answers.", ["node"], registry=self.registry
        )
        self.store_pending_gauge = Gauge(
            "smsd_store_pending",
            "Conversations on the overlay, to be merged into memcached.",
            registry=self.registry,
        )
        # `labels` takes longer than what it is looked up for
        self._messages, self._cookies = cache(self.messages.labels), cache(self.cookies.labels)
        self._signatures, self._requests = cache(self.signatures.labels), cache(self.requests.of)
        self.event_loop_lag = Gauge(
            "smsd_event_loop_lag_seconds",
            "The longest the event loop was held up in the last 15 s.",
            registry=self.registry,
        )

    def _counter(self, name: str, help_: str, **label: Iterable[str]) -> Counter:
        counter = Counter(f"smsd_{name}", help_, list(label), registry=self.registry)
        for values in label.values():
            for value in values:
                counter.labels(value)
        return counter

    def _gauge(self, name: str, help_: str) -> Gauge:
        return Gauge(f"smsd_{name}", help_, registry=self.registry)

    def _durations(
        self, name: str, help_: str, bounds_s: tuple[float, ...], *labels: str
    ) -> Durations:
        return Durations(
            f"smsd_{name}_duration_seconds", help_, bounds_s, *labels, registry=self.registry
        )

    def expose(self, accept: str) -> tuple[bytes, str]:
        """The page and its content type: Prometheus' or OpenMetrics' format, as `accept` has it."""
        try:
            encoder, content_type = choose_encoder(accept)
        except TypeError:  # it asks for a version that is no number
            encoder, content_type = choose_encoder("")
        return encoder(self.registry), content_type

    def counted(self, event: Counted) -> None:
        """One accepted message."""
        self._messages(event.outcome).inc()
        self._cookies(event.cookie_state).inc()
        if event.is_first:
            self.started.inc()
        if event.is_restored:
            self.restored.labels("cookie").inc()
        if event.dialogue_s is not None:
            self.dialogue_duration.observe(event.dialogue_s)

    def texted(self, texts: Iterable[str]) -> None:
        """Messages that go out as SMS."""
        for text in texts:
            counted = segments(text)
            self._segments[counted.encoding].inc(counted.count)

    def reloaded(self, *, accepted: bool) -> None:
        """Count one reload of the settings, and remember whether the files were accepted."""
        self.reloads.labels("ok" if accepted else "refused").inc()
        self.last_reload_gauge.set(accepted)

    def signed(self, key: str) -> None:
        """One good signature."""
        self._signatures(key).inc()

    def took(self, handler: str, code: int, seconds: float) -> None:
        """One request to the public listener."""
        self._requests(handler, code).observe(seconds)

    # --- turns

    def redirected(self) -> None:
        """Count one request that was told to come again."""
        self.redirects_counter.inc()

    def taken_over(self) -> None:
        """Count one dialogue that runs again because its replica was gone."""
        self.takeovers_counter.inc()

    def turns_waiting(self, requests: int) -> None:
        """Set how many requests wait here for their turn or their reply."""
        self.turns_waiting_gauge.set(requests)

    def dialogues_abandoned(self, dialogues: int) -> None:
        """Set how many dialogues still run although their time is over."""
        self.dialogues_abandoned_gauge.set(dialogues)

    # --- what the stores tell

    def store_error(self, node: str, kind: str) -> None:
        self.store_errors.labels(node, kind).inc()

    def store_node_down(self, node: str, kind: str) -> None:
        self.store_up_gauge.labels(node).set(0)
        event(log, logging.WARNING, "memcached node down", node=node, kind=kind)

    def store_node_up(self, node: str, kind: str, down_s: float) -> None:
        self.store_up_gauge.labels(node).set(1)
        event(
            log,
            logging.WARNING,
            "memcached node up",
            node=node,
            kind=kind,
            down_s=round(down_s, 3),
        )

    def store_took(self, operation: str, seconds: float) -> None:
        self._store_took[operation].observe(seconds)

    def store_conflict(self) -> None:
        self.store_conflicts.inc()

    def store_pending(self, conversations: int) -> None:
        self.store_pending_gauge.set(conversations)

    def overlay_merged(self) -> None:
        self.restored.labels("overlay").inc()

    def overlay_dropped(self) -> None:
        self.overlay_dropped_counter.inc()

    def overlay_lost(self, conversations: int) -> None:
        event(log, logging.WARNING, "overlay lost at shutdown", conversations=conversations)
