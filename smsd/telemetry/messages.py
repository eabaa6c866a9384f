"""Metrics and log lines of messages: what the exchange tells, as operators see it."""

import logging

from smsd.exchange.events import Counted, Observer
from smsd.telemetry import logs
from smsd.telemetry.metrics import Metrics

log = logging.getLogger("smsd.http")


class MessageReporter(Observer):
    """Reports an exchange's events."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def counted(self, event: Counted) -> None:
        """One "message" line, and one more in smsd_messages_total."""
        self._metrics.counted(event)
        if event.texts and event.message.channel == "sms":  # only there segments are charged
            self._metrics.texted(event.texts)
        if event.error:
            sid = event.message.sid
            logs.event(log, logging.ERROR, "dialogue failed", sid=sid, error=event.error)
        logs.event(
            log,
            logging.INFO,
            "message",
            conversation=event.conversation.hex(),
            sid=event.message.sid,
            outcome=event.outcome,
            count=event.number,
            ms=round(event.took_s * 1000, 1),
        )

    def turns_waiting(self, requests: int) -> None:
        self._metrics.turns_waiting(requests)

    def taken_over(self) -> None:
        self._metrics.taken_over()

    def dialogues_abandoned(self, dialogues: int) -> None:
        self._metrics.dialogues_abandoned(dialogues)
