"""What the README says is so: its tables, links, commands and examples against the code."""

import asyncio
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import parser

from smsd import Message, Session
from smsd.commands.doctor import console
from smsd.dialogues.loading import LoadedDialogue
from smsd.settings import files as settings_files
from smsd.settings.table import SETTINGS, THANKS, Setting, load
from smsd.telemetry.metrics import Metrics
from smsd.twilio.diagnosis import ADVICE
from tests import processes
from tests import raw_http as wire
from tests.commands.test_cli import smsd

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The fenced examples in a language."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```", README, re.MULTILINE | re.DOTALL)
    return [
        "".join(line.removeprefix(indent) for line in code.splitlines(True))
        for indent, code in found
    ]


def between(marker: str) -> str:
    """What stands between two comments of this name."""
    (text,) = re.findall(rf"<!-- {marker} -->\n(.*?)<!-- /{marker} -->", README, re.DOTALL)
    return str(text)


def cells(row: str) -> list[str]:
    """Of one row of a table; a bar within backticks is no border."""
    hidden = re.sub(r"`[^`]*`", lambda code: code[0].replace("|", "\0"), row.strip().strip("|"))
    return [cell.strip().replace("\0", "|") for cell in hidden.split("|")]


# --- tables


def default_of(setting: Setting) -> str:
    if setting.required:
        return "required"
    if setting.name == "SMSD_GREETING_FIRST":
        return f"`{THANKS}` and SMSD_GREETING"
    if setting.file and setting.default:
        return "built-in sample"
    return f"`{setting.default}`" if setting.default is not None else "\N{EN DASH}"


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_the_table_of_settings_has_each_with_its_default(setting: Setting) -> None:
    (row,) = [
        cells(line) for line in between("settings").splitlines() if f"| `{setting.name}` |" in line
    ]
    assert row[1] == default_of(setting)
    assert row[2] == ("live" if setting.live else "")
    assert row[3]


def test_the_table_of_settings_has_no_others_and_their_order() -> None:
    names = re.findall(r"^\| `([A-Z_]+)` \|", between("settings"), re.MULTILINE)
    assert names == [setting.name for setting in SETTINGS]


def test_the_table_of_dependencies_is_that_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {re.match(r"[\w-]+", each)[0] for each in project["dependencies"]}  # type: ignore[index]
    table = README.partition("## Dependencies")[2].partition("\n\n")[2].partition("\n\n")[0]
    assert {cells(line)[0] for line in table.splitlines()[2:]} == declared


def test_what_belongs_into_twilios_console_is_what_the_doctor_prints() -> None:
    printed = console(load(processes.SETTINGS))
    for url in re.findall(r"https://\S+", printed):
        assert f"`{url}`" in README


# --- links and names


def anchors(text: str) -> set[str]:
    """Of every heading, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links() -> Iterator[str]:
    yield from re.findall(r"\]\(([^)\s]+)\)", README)


@pytest.mark.parametrize("link", sorted({link for link in links() if "://" not in link}))
def test_every_link_leads_somewhere(link: str) -> None:
    path, _, anchor = link.partition("#")
    target = ROOT / path if path else ROOT / "README.md"
    assert target.exists()
    if anchor and target.suffix == ".md":
        assert anchor in anchors(target.read_text(encoding="utf-8"))


def named(pattern: str) -> list[str]:
    return sorted(set(re.findall(pattern, README)))


@pytest.mark.parametrize("path", named(r"`((?:smsd|tests|deploy)/[\w./-]+)`"))
def test_every_file_that_is_named_exists(path: str) -> None:
    assert (ROOT / path).exists()


@pytest.mark.parametrize("name", named(r"\bSMSD_[A-Z_]+|\bTWILIO_[A-Z_]+"))
def test_every_setting_that_is_named_exists(name: str) -> None:
    assert name.removesuffix("_FILE") in {setting.name for setting in SETTINGS}


@pytest.mark.parametrize("verb", named(r"(?m)(?:^|`)make ([a-z]+)\b"))
def test_every_verb_of_make_that_is_named_exists_and_says_what_it_does(verb: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^{verb}:.*## \w", makefile, re.MULTILINE)


@pytest.mark.parametrize("metric", named(r"\bsmsd_[a-z_]+(?=[`{])"))
def test_every_metric_that_is_named_exists(metric: str) -> None:
    text = Metrics(nodes=["a:1"]).expose("")[0].decode()
    names = {
        sample.name
        for family in parser.text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert metric in names | {re.sub(r"_(count|sum|bucket)$", "", name) for name in names}


@pytest.mark.parametrize("command", named(r"(?:^|[`\s])smsd (serve|phone|doctor|keys)\b"))
def test_every_command_that_is_named_exists_with_its_options(command: str) -> None:
    usage = smsd(command, "--help").stdout
    for option in named(rf"smsd {command}[^`\n|]*?(--[a-z-]+)"):
        assert option in usage


def test_every_test_that_is_named_exists() -> None:
    for path, name in re.findall(r"(tests/[\w/]+\.py)::(\w+)", README):
        assert f"def {name}(" in (ROOT / path).read_text(encoding="utf-8"), name


# --- examples


def test_the_first_dialogue_works() -> None:
    code = blocks("python")[0]
    namespace: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), namespace)  # noqa: S102 - our own README
    dialogue = LoadedDialogue(namespace["reply"])  # type: ignore[arg-type]
    message = Message.from_params(
        {name: [value.encode()] for name, value in wire.message().items()}
    )
    assert asyncio.run(dialogue(message, Session(3))) == "This is message 3 of our conversation"


def test_the_curl_lines_answer_is_the_real_one() -> None:
    (example,) = blocks("xml")
    with processes.Smsd() as server:
        answer = wire.post(server.address, wire.message(From=wire.REY))
    assert answer.body.decode() == example.strip()


def test_the_files_are_taken_as_they_stand() -> None:
    accounts, people, directory = [block for block in blocks("toml") if "[project]" not in block]
    (account,) = settings_files.accounts(accounts).values()
    assert account.shared_keys["KEYID"].algorithm == "sha256"
    assert settings_files.people(people) == {wire.REY: "Rey"}
    (person,) = settings_files.directory(directory)
    assert person.picture


def test_the_log_line_is_one_that_smsd_writes() -> None:
    (line,) = re.findall(r'^ *(\{"time".*\})$', README, re.MULTILINE)
    event = json.loads(line)
    assert event["advice"] == ADVICE[event["cause"]]


def test_the_endpoints_are_those_of_the_listeners() -> None:
    table = README.partition("## Endpoints")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(?:[A-Z]+ )?(/[\w/]+)`", table, re.MULTILINE)) == {
        "/sms", "/sms/status", "/phone", "/metrics", "/livez", "/readyz", "/status"
    }  # fmt: skip
