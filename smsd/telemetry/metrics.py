"""Counts what happens. One method for each event; callers know no label and no metric.

`Metrics` is also the stores' `Observer`, so that the stores depend on neither metrics
nor logging: it writes the log line when a memcached node goes down or comes back.
"""

import logging
from collections.abc import Iterable
from functools import cache

from prometheus_client.exposition import choose_encoder

from smsd.exchange.events import Counted
from smsd.telemetry.families import Families
from smsd.telemetry.logs import event
from smsd.twilio.segments import segments

log = logging.getLogger("smsd.telemetry.metrics")


class Metrics(Families):
    """The metrics of one process."""

    def __init__(self, *, nodes: Iterable[str] = ()) -> None:
        super().__init__(nodes=nodes)
        # Looking up a child by its labels takes longer than counting.
        self._message = cache(self.messages.labels)
        self._cookie = cache(self.cookies.labels)
        self._signature = cache(self.signatures.labels)
        self._request = cache(self.requests.labels)
        self._operation = cache(self.store_duration.labels)
        self._encoding = cache(self.segments.labels)

    def expose(self, accept: str) -> tuple[bytes, str]:
        """All metrics and their content type, in the format that an Accept header asks
        for."""
        try:
            encoder, content_type = choose_encoder(accept)
        except TypeError:  # it asks for a version that is not a number
            encoder, content_type = choose_encoder("")
        return encoder(self.registry), content_type

    # --- requests

    def took(self, handler: str, code: int, seconds: float) -> None:
        """Count one request to the public listener."""
        self._request(handler, code).observe(seconds)

    def signed(self, key: str) -> None:
        """Count one good signature, by the label of its key."""
        self._signature(key).inc()

    # --- messages

    def counted(self, event: Counted) -> None:
        """Count one accepted message."""
        self._message(event.outcome).inc()
        self._cookie(event.cookie_state).inc()
        if event.is_first:
            self.started.inc()
        if event.is_restored:
            self.restored.labels("cookie").inc()
        if event.dialogue_s is not None:
            self.dialogue_duration.observe(event.dialogue_s)

    def texted(self, texts: Iterable[str]) -> None:
        """Count the segments of messages that are sent as SMS."""
        for text in texts:
            counted = segments(text)
            self._encoding(counted.encoding).inc(counted.count)

    # --- turns

    def redirected(self) -> None:
        """Count one request that was told to come again."""
        self.redirects.inc()

    def taken_over(self) -> None:
        """Count one dialogue that runs again because its replica was gone."""
        self.takeovers.inc()

    def turns_waiting(self, requests: int) -> None:
        """Set how many requests wait here for their turn or their reply."""
        self.waiting.set(requests)

    def dialogues_abandoned(self, dialogues: int) -> None:
        """Set how many dialogues still run although their time is over."""
        self.abandoned.set(dialogues)

    # --- settings

    def reloaded(self, *, accepted: bool) -> None:
        """Count one reload of the settings, and remember whether the files were
        accepted."""
        self.reloads.labels("ok" if accepted else "refused").inc()
        self.last_reload.set(accepted)

    # --- what the stores report

    def store_error(self, node: str, kind: str) -> None:
        """A node failed."""
        self.store_errors.labels(node, kind).inc()

    def store_node_down(self, node: str, kind: str) -> None:
        """A node answers no more."""
        self.node_up.labels(node).set(0)
        event(log, logging.WARNING, "memcached node down", node=node, kind=kind)

    def store_node_up(self, node: str, kind: str, down_s: float) -> None:
        """A node answers again."""
        self.node_up.labels(node).set(1)
        event(
            log,
            logging.WARNING,
            "memcached node up",
            node=node,
            kind=kind,
            down_s=round(down_s, 3),
        )

    def store_took(self, operation: str, seconds: float) -> None:
        """A message waited this long for an operation."""
        self._operation(operation).observe(seconds)

    def store_conflict(self) -> None:
        """Another writer changed a record between read and write."""
        self.conflicts.inc()

    def store_pending(self, conversations: int) -> None:
        """This many conversations are on the overlay."""
        self.pending.set(conversations)

    def overlay_merged(self) -> None:
        """A conversation was restored from the overlay."""
        self.restored.labels("overlay").inc()

    def overlay_dropped(self) -> None:
        """The overlay dropped a record at its memory bound."""
        self.dropped.inc()

    def overlay_lost(self, conversations: int) -> None:
        """The process ends before these conversations could be merged."""
        event(log, logging.WARNING, "overlay lost at shutdown", conversations=conversations)
