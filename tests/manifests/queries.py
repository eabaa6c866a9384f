"""Checks the queries of alert rules and the dashboard against the metrics that smsd
exposes."""

import re
from collections import defaultdict
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from smsd.telemetry.metrics import Metrics

SCRAPE_LABELS = {"namespace", "pod", "instance", "job"}
"""Added by Prometheus, not by smsd."""

EXPORTER = {
    "memcached_items_evicted_total",
    "memcached_current_bytes",
    "memcached_limit_bytes",
    "memcached_current_connections",
}
"""Metrics of memcached's exporter, named as in its documentation."""

OPEN = {("smsd_deliveries_total", "error_code"), ("smsd_request_duration_seconds", "code")}
"""Labels that get values which are not there from the start."""

_SELECTOR = re.compile(r"\b((?:smsd|memcached)_\w+)(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'(\w+)(=~|!~|!=|=)"([^"]*)"')
_GROUPING = re.compile(r"\b(?:by|on)\s*\(([^)]*)\)")

Exposed = dict[str, dict[str, set[str]]]


class Selector(NamedTuple):
    metric: str
    matchers: list[tuple[str, str, str]]


def exposed() -> Exposed:
    """Sample name -> label -> values, as a new process exposes them."""
    page, _ = Metrics(nodes=["memcached-0.memcached:11211"]).expose("text/plain")
    found: Exposed = defaultdict(lambda: defaultdict(set))
    for family in text_string_to_metric_families(page.decode()):
        for sample in family.samples:
            found[sample.name]
            for label, value in sample.labels.items():
                found[sample.name][label].add(value)
    return found


def selectors(query: str) -> list[Selector]:
    return [Selector(name, _MATCHER.findall(inner)) for name, inner in _SELECTOR.findall(query)]


def problems(query: str, known: Exposed) -> list[str]:
    """What is wrong with a query: each metric, label and label value that nothing
    exposes."""
    found = selectors(query)
    if not found:
        return [f"no metric in {query!r}"]
    wrong = [
        f"no metric {s.metric}" for s in found if s.metric not in known and s.metric not in EXPORTER
    ]
    labels = set(SCRAPE_LABELS)
    for selector in found:
        labels |= set(known.get(selector.metric, {}))
        wrong += _wrong_matchers(selector, known)
    grouped = {name.strip() for group in _GROUPING.findall(query) for name in group.split(",")}
    return wrong + [f"no label {name}" for name in sorted(grouped - labels)]


def _wrong_matchers(selector: Selector, known: Exposed) -> list[str]:
    wrong = []
    mine = known.get(selector.metric, {})
    family = re.sub(r"_(count|bucket|sum)$", "", selector.metric)
    for label, operator, value in selector.matchers:
        if label in SCRAPE_LABELS or "$" in value:
            continue
        alternatives = [value] if operator in ("=", "!=") else value.split("|")
        if label not in mine:
            wrong.append(f"{selector.metric} has no label {label}")
        elif (family, label) not in OPEN:
            wrong += [
                f"{selector.metric} has no {label}={a}"
                for a in alternatives
                if a not in mine[label]
            ]
    return wrong
