"""Capacity planning and the autoscaler count with the same figures.

docs/performance.md derives everything from a few measured figures. These tests repeat
its arithmetic and hold the results against the manifests, so that neither can change
alone.
"""

import math
import re

from .cluster import CHECKOUT, container, one

PAGE = (CHECKOUT / "docs/performance.md").read_text(encoding="utf-8")
LIMITS = container("production", "smsd", "smsd")["resources"]
SCALER = one("production", "HorizontalPodAutoscaler", "smsd")["spec"]


def cores(quantity: str) -> float:
    """Of a Kubernetes quantity such as 700m or 1."""
    return float(quantity[:-1]) / 1000 if quantity.endswith("m") else float(quantity)


def number(pattern: str) -> float:
    """The number that the group of the pattern finds on the page, once."""
    found = re.findall(pattern, PAGE)
    assert len(found) == 1, (pattern, found)
    return float(found[0].replace(",", ""))


CPU_S = number(r"`c`: CPU for a message, whole service \| ([\d.]+) ms") / 1000
TARGET = number(r"At a target of (\d+) % CPU") / 100


def target_cores() -> float:
    (metric,) = SCALER["metrics"]
    target = metric["resource"]["target"]
    assert target["type"] == "AverageValue", "a share of the request would change with the request"
    return cores(target["averageValue"])


def pods_for(messages_per_s: float) -> int:
    """The page's formula, without the spare pod."""
    return math.ceil(messages_per_s * CPU_S / TARGET)


def test_autoscaler_aims_at_the_planned_share_of_a_core() -> None:
    assert target_cores() == TARGET * cores(LIMITS["limits"]["cpu"])


def test_a_pod_may_use_one_core_and_reserves_less_than_the_target() -> None:
    assert cores(LIMITS["limits"]["cpu"]) == 1, "one process uses one core at most"
    assert cores(LIMITS["requests"]["cpu"]) <= target_cores()


def test_the_pages_messages_per_pod_follow_from_its_figures() -> None:
    share, cpu_s = number(r"messages/s per pod = ([\d.]+) / c"), number(r"= 0\.7 / ([\d.]+) s =")
    assert (share, cpu_s) == (TARGET, CPU_S)
    assert number(r"0\.7 / [\d.]+ s = ([\d,]+)") == round(TARGET / CPU_S, -1)


def test_example_agrees_with_the_figures_and_the_autoscaler() -> None:
    peak = number(r"peak (4,\d+) \|")
    pods = int(number(r"\| 4,200 · [\d.]+ / 0\.7 = (\d+), and a spare one"))
    assert number(r"\| 4,200 · ([\d.]+) / 0\.7 = \d+, and a spare one") == CPU_S
    assert pods == pods_for(peak)
    assert SCALER["minReplicas"] <= pods + 1 <= SCALER["maxReplicas"]


def test_the_large_example_follows_from_the_figures() -> None:
    assert number(r"100,000 · ([\d.]+) / 0\.7 =") == CPU_S
    assert number(r"100,000 · [\d.]+ / 0\.7 = (\d+);") == pods_for(100_000)
