"""What the pages name exists: links, headings, files, settings, metrics, commands,
options, tests."""

import json
import re

import pytest
from prometheus_client import parser

from docs.tools.pages import ROOT, Page, page, pages
from smsd.settings.table import SETTINGS
from smsd.telemetry.metrics import Metrics
from smsd.twilio.diagnosis import ADVICE
from tests.commands.test_cli import smsd

EVERY_TEXT = "\n".join(each.text for each in pages() if each.path != "CHANGELOG.md")
LINKS = [(each, link) for each in pages() for link in each.links() if "://" not in link]
NO_METRICS = {"smsd_environ"}
"""Names that look like a metric's."""


def named(pattern: str) -> list[str]:
    """What the pattern finds on all pages, each once."""
    return sorted(set(re.findall(pattern, EVERY_TEXT)))


@pytest.mark.parametrize(("origin", "link"), LINKS, ids=str)
def test_link_leads_to_a_file_and_a_heading(origin: Page, link: str) -> None:
    path, _, anchor = link.partition("#")
    target = (origin.file.parent / path).resolve() if path else origin.file
    assert target.exists()
    if anchor and target.suffix == ".md":
        assert anchor in Page(target.relative_to(ROOT).as_posix()).anchors()


@pytest.mark.parametrize("each", pages(), ids=lambda each: each.path)
def test_page_has_one_title(each: Page) -> None:
    assert len(re.findall(r"^# ", each.prose, re.MULTILINE)) == 1


@pytest.mark.parametrize("path", named(r"`((?:smsd|tests|deploy|docs)/[\w./-]+)`"))
def test_named_file_exists(path: str) -> None:
    assert (ROOT / path).exists()


@pytest.mark.parametrize(
    ("name", "path"), sorted(set(re.findall(r"`(\w+)`\s+in\s+`([\w/]+\.py)`", EVERY_TEXT)))
)
def test_name_in_a_file_exists(name: str, path: str) -> None:
    assert re.search(rf"\b{name}\b", (ROOT / path).read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", named(r"\bSMSD_[A-Z_]*[A-Z]\b|\bTWILIO_[A-Z_]*[A-Z]\b"))
def test_named_setting_exists(name: str) -> None:
    assert name.removesuffix("_FILE") in {setting.name for setting in SETTINGS}


@pytest.mark.parametrize("verb", named(r"(?m)(?:^|`)make ([a-z]+)\b"))
def test_named_make_target_exists_and_is_described(verb: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^{verb}:.*## \w", makefile, re.MULTILINE)


@pytest.mark.parametrize("metric", sorted({*named(r"\bsmsd_[a-z_]+(?=[`{])")} - NO_METRICS))
def test_named_metric_exists(metric: str) -> None:
    text = Metrics(nodes=["a:1"]).expose("")[0].decode()
    names = {
        sample.name
        for family in parser.text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert metric in names | {re.sub(r"_(count|sum|bucket)$", "", name) for name in names}


@pytest.mark.parametrize(
    "command", named(r"(?:^|[`\s/])smsd (serve|phone|doctor|keys|new|routes)\b")
)
def test_named_command_exists_with_its_options(command: str) -> None:
    usage = smsd(command, "--help").stdout
    for option in named(rf"smsd {command}[^`\n|;>]*?(--[a-z-]+)"):
        assert option in usage


def test_named_tests_exist() -> None:
    for path, name in re.findall(r"(tests/[\w/]+\.py)::(\w+)", EVERY_TEXT):
        assert f"def {name}(" in (ROOT / path).read_text(encoding="utf-8"), name


def test_endpoint_tables_name_every_endpoint() -> None:
    table = page("docs/twilio.md").section("Endpoints")
    assert set(re.findall(r"^\| `(?:[A-Z]+ )?(/[\w/]+)`", table, re.MULTILINE)) == {
        "/sms", "/sms/status", "/healthz", "/phone", "/metrics", "/livez", "/readyz", "/status"
    }  # fmt: skip


def test_log_line_on_the_twilio_page_is_one_that_smsd_writes() -> None:
    (line,) = re.findall(r'^ *(\{"time".*\})$', page("docs/twilio.md").text, re.MULTILINE)
    event = json.loads(line)
    assert event["advice"] == ADVICE[event["cause"]]
