"""The Grafana dashboard: the sidecar finds its ConfigMap, and its queries name metrics
that exist."""

import json
from typing import Any

import pytest

from .cluster import one
from .queries import exposed, problems, selectors

CONFIG_MAP = one("production-monitoring", "ConfigMap", "smsd-dashboard")
DASHBOARD: dict[str, Any] = json.loads(CONFIG_MAP["data"]["smsd.json"])
PANELS = {panel["title"]: panel for panel in DASHBOARD["panels"] if panel["type"] != "row"}
QUERIES = [target["expr"] for panel in PANELS.values() for target in panel["targets"]]


def test_the_sidecar_finds_it() -> None:
    assert CONFIG_MAP["metadata"]["labels"]["grafana_dashboard"] == "1"


@pytest.mark.parametrize("title", PANELS)
def test_the_panel_asks_for_what_is_exposed(title: str) -> None:
    targets = PANELS[title]["targets"]
    assert targets
    for target in targets:
        assert problems(target["expr"], exposed()) == []


def test_panels_have_names_numbers_and_places_of_their_own() -> None:
    every = DASHBOARD["panels"]
    assert len({panel["id"] for panel in every}) == len(every)
    assert len({(p["gridPos"]["x"], p["gridPos"]["y"]) for p in every}) == len(every)
    assert all(p["gridPos"]["x"] + p["gridPos"]["w"] <= 24 for p in every)


def test_every_metric_of_smsd_is_shown() -> None:
    shown = {selector.metric for query in QUERIES for selector in selectors(query)}
    parts = ("_created", "_count", "_sum")  # of histograms, of which the buckets are shown
    assert {
        n for n in exposed() if n.startswith("smsd_") and not n.endswith(parts)
    } - shown == set()


def test_data_source_and_namespace_can_be_chosen() -> None:
    assert [variable["name"] for variable in DASHBOARD["templating"]["list"]] == [
        "datasource",
        "namespace",
    ]
    assert all(panel["datasource"]["uid"] == "${datasource}" for panel in PANELS.values())
    assert all('namespace=~"$namespace"' in query for query in QUERIES)
