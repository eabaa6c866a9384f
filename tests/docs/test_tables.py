"""The tables and listings of the documentation agree with the code."""

import ast
import re
import shlex
import tomllib

import pytest

from docs.tools.pages import ROOT, Page, cells, page, pages
from docs.tools.refresh import included_files, refreshed
from docs.tools.tables import API_MODULES, LONGEST_ROUTE, duplicate_lines, public_names
from smsd.commands.doctor import console
from smsd.settings import files as settings_files
from smsd.settings.table import SETTINGS, load
from tests import processes
from tests import raw_http as wire

PROMISES = [
    f"G{number}" for number in range(1, 13) if (ROOT / f"tests/faults/test_g{number}.py").exists()
]


@pytest.mark.parametrize("each", pages(), ids=lambda each: each.path)
def test_page_shows_current_listings_and_tables(each: Page) -> None:
    assert refreshed(each) == each.text, "run `make docs`"


def test_stale_listings_and_tables_are_noticed() -> None:
    stale = Page("docs/dialogues.md")
    text = stale.text.replace("What is your name?", "Who are you?", 1)
    stale.__dict__["text"] = text
    assert refreshed(stale) != text


def test_every_example_file_is_shown_on_a_page() -> None:
    files = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "docs/examples").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.name != "README.md"
    }
    assert files == {path for path in included_files() if path.startswith("docs/examples/")}


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_settings_table_explains_each_setting(setting: object) -> None:
    rows = [cells(line) for line in page("docs/settings.md").between("table settings").splitlines()]
    (row,) = [row for row in rows if row[0] == f"`{setting.name}`"]  # type: ignore[attr-defined]
    assert row[3]


@pytest.mark.parametrize("module", API_MODULES)
def test_api_table_names_everything_public(module: str) -> None:
    table = page("docs/api.md").between("table api")
    for name in public_names(module):
        assert f"| `{module}.{name}` |" in table


def test_dependency_table_matches_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {re.match(r"[\w-]+", each)[0] for each in project["dependencies"]}  # type: ignore[index]
    section = page("docs/architecture.md").section("Dependencies")
    rows = [cells(line) for line in section.splitlines() if line.startswith("|")]
    assert {row[0] for row in rows[2:]} == declared


@pytest.mark.parametrize("promise", PROMISES)
def test_each_promise_names_a_test_file_of_its_own(promise: str) -> None:
    table = page("docs/promises.md").between("promises")
    (row,) = [cells(line) for line in table.splitlines() if f"**{promise}**" in line]
    (file, *_) = re.findall(r"`(tests/faults/[\w/]+\.py)`", row[2])
    assert file == f"tests/faults/test_{promise.lower()}.py"
    assert f"def test_{promise.lower()}_" in (ROOT / file).read_text(encoding="utf-8")


def log_events() -> set[str]:
    """The event of every log line, from the source."""
    return {
        argument.value
        for file in (ROOT / "smsd").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("event", "logs.event", "self._report")
        for argument in node.args[:3]
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
    }


def test_log_table_names_every_event() -> None:
    table = page("docs/settings.md").section("Log lines")
    rows = [cells(line)[0] for line in table.splitlines() if line.startswith("|")][2:]
    assert set(re.findall(r"`([^`]+)`", " ".join(rows))) == log_events()


@pytest.mark.parametrize("each", pages(), ids=lambda each: each.path)
def test_python_listings_are_files_or_doctests(each: Page) -> None:
    shown = {(ROOT / path).read_text(encoding="utf-8") for path in included_files()}
    for block in each.blocks("python"):
        assert block.text in shown or ">>> " in block.text, block.text[:60]


def test_exported_settings_of_the_recipes_can_be_used() -> None:
    (script,) = [block.text for block in page("docs/recipes.md").blocks("sh")]
    words = shlex.split(script)
    given = dict(word.split("=", 1) for word in words if "=" in word)
    settings = load({**processes.SETTINGS, **given})
    assert settings.history == 16


def test_rooms_table_names_everything_in_the_package() -> None:
    text = page("docs/architecture.md").section("The rooms")
    rooms = {
        f"smsd/{path.name}{'/' * path.is_dir()}"
        for path in (ROOT / "smsd").iterdir()
        if path.name not in ("__pycache__", "__init__.py", "py.typed")
    }
    assert {room for room in rooms if f"`{room}`" not in text} == set()


def test_route_of_a_duplicate_stays_short() -> None:
    assert duplicate_lines() <= LONGEST_ROUTE


def test_tests_page_names_every_suite_and_helper() -> None:
    text = page("tests/README.md").text
    suites = {path.parent for path in (ROOT / "tests").rglob("test_*.py")}
    helpers = {
        path
        for path in (ROOT / "tests").rglob("*.py")
        if not path.name.startswith(("test_", "_", "conftest")) and "bench" not in path.parts
    }
    paths = sorted(path.relative_to(ROOT).as_posix() for path in suites | helpers)
    assert [path for path in paths if f"`{path}`" not in text and path != "tests"] == []


def test_console_table_shows_what_the_doctor_prints() -> None:
    for url in re.findall(r"https://\S+", console(load(processes.SETTINGS))):
        assert f"`{url}`" in page("docs/twilio.md").text


def test_toml_files_of_the_settings_page_can_be_loaded() -> None:
    accounts, people, directory = [block.text for block in page("docs/settings.md").blocks("toml")]
    (account,) = settings_files.accounts(accounts).values()
    assert account.shared_keys["KEYID"].algorithm == "sha256"
    assert settings_files.people(people) == {wire.REY: "Rey"}
    (person,) = settings_files.directory(directory)
    assert person.picture
