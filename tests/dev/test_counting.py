"""How messages were counted is read from the service's own log events."""

import logging
from collections.abc import Iterator

import pytest

from smsd.dev.counting import MOST_MESSAGES, CountingWatch
from smsd.dev.hooks import Counting
from smsd.telemetry import logs

log = logging.getLogger("smsd.web.handlers")


@pytest.fixture
def watch() -> Iterator[CountingWatch]:
    watch = CountingWatch()
    watch.install()
    log.setLevel(logging.INFO)
    yield watch
    log.setLevel(logging.NOTSET)
    watch.remove()


def test_the_last_delivery_of_a_message_is_remembered(watch: CountingWatch) -> None:
    logs.event(log, logging.INFO, "message", sid="SM1", outcome="counted", count=3)
    logs.event(log, logging.INFO, "message", sid="SM1", outcome="duplicate", count=3)
    assert watch.of("SM1") == Counting("duplicate", 3)
    assert watch.of("SM2") is None


def test_other_events_are_passed_over(watch: CountingWatch) -> None:
    logs.event(log, logging.INFO, "delivery", sid="SM1", outcome="counted", count=3)
    log.info("message")
    logs.event(log, logging.INFO, "message", sid="SM1", outcome="counted")
    assert watch.of("SM1") is None


def test_only_the_last_messages_are_kept(watch: CountingWatch) -> None:
    for number in range(MOST_MESSAGES + 1):
        logs.event(log, logging.INFO, "message", sid=f"SM{number}", outcome="counted", count=1)
    assert watch.of("SM0") is None
    assert watch.of("SM1") is not None
