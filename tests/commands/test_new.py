"""`smsd new NAME`: what it creates is tested and served in an environment of its own.

Its kustomization is rendered in tests/manifests, its image built in tests/container.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest

from smsd.commands import new
from smsd.commands.new import FILES, name_problem
from smsd.simulator import BlockingClient
from tests.commands.test_cli import smsd
from tests.processes import free_port, wait_for

ROOT = Path(__file__).parents[2]
TOKEN = "t" * 32


class Newcomer:
    """Somebody with a fresh virtual environment, offline: what smsd needs is at hand."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        at_hand = folder / "at-hand"
        at_hand.mkdir()
        for entry in Path(sysconfig.get_path("purelib")).iterdir():
            if not re.match(
                r"smsd|__editable__|pip\b|pytest_(tornado|asyncio)|.*\.pth$", entry.name
            ):
                (at_hand / entry.name).symlink_to(entry)
        checkout = folder / "smsd"
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "smsd", checkout / "smsd", ignore=ignored)
        shutil.copytree(ROOT / "deploy", checkout / "deploy")
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, checkout)
        self.port = free_port()
        self.env = {
            "PATH": f"{folder}/.venv/bin{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(at_hand),
            "PIP_NO_INDEX": "1",
            "PIP_NO_BUILD_ISOLATION": "0",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_CONFIG_FILE": os.devnull,
            "TWILIO_AUTH_TOKEN": TOKEN,
            "SMSD_PORT": str(self.port),
            "SMSD_ADMIN_PORT": str(free_port()),
        }
        self.run(f"{sys.executable} -m venv .venv", cwd=folder)
        self.run(".venv/bin/pip install ./smsd", cwd=folder)
        self.said = self.run("smsd new cafe", cwd=folder)
        self.cafe = folder / "cafe"

    def run(self, script: str, cwd: Path) -> str:
        """What a script printed; it must succeed."""
        done = subprocess.run(
            ["bash", "-euc", script],
            cwd=cwd,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Newcomer:
    return Newcomer(tmp_path_factory.mktemp("newcomer"))


def test_its_own_tests_pass_at_once(newcomer: Newcomer) -> None:
    said = newcomer.run("python -m pytest -q -W error", newcomer.cafe)
    assert re.search(r"\b5 passed", said)


def test_serve_dev_runs_it_and_takes_a_change(newcomer: Newcomer) -> None:
    steps = re.findall(r"^  (\S.*)$", newcomer.said, re.MULTILINE)
    script = "\n".join(step.partition("  #")[0] for step in steps)
    assert script.startswith("cd cafe\nsmsd serve --dev")
    with (newcomer.folder / "log").open("w+") as log:
        server = subprocess.Popen(
            ["bash", "-euc", script.replace("\nsmsd", "\nexec smsd")],
            cwd=newcomer.folder,
            env=newcomer.env,
            stdout=log,
            stderr=log,
        )
        try:
            said = Path(log.name).read_text
            wait_for(lambda: "listening" in said(), "listening")
            assert f"cafe:reply in {newcomer.cafe / 'cafe.py'}; reloads" in said()
            phone = BlockingClient(f"http://127.0.0.1:{newcomer.port}/sms", token=TOKEN)
            assert phone.text("hi").text == "Hello! What is your name?"
            source = newcomer.cafe / "cafe.py"
            before = source.read_text()
            source.write_text(before.replace("Nice to meet you", "Welcome"))
            wait_for(lambda: "dialogue reloaded" in said(), "the new version")
            source.write_text(before)
            assert phone.text("Ada").text == "Welcome, Ada."
        finally:
            server.terminate()
            server.wait()


def test_project_depends_on_smsd_twilio_alone(newcomer: Newcomer) -> None:
    project = tomllib.loads((newcomer.cafe / "pyproject.toml").read_text())["project"]
    (dependency,) = project["dependencies"]
    assert dependency.startswith("smsd-twilio>=")
    newcomer.run("pip install .", newcomer.cafe)
    shown = newcomer.run("pip show cafe", newcomer.cafe)
    assert "Requires: smsd-twilio\n" in shown


def test_project_names_the_checkout_of_smsd(newcomer: Newcomer) -> None:
    assert "pip install ../smsd pytest" in (newcomer.cafe / "README.md").read_text()
    kustomization = (newcomer.cafe / "deploy" / "kustomization.yaml").read_text()
    assert "  - ../../smsd/deploy/k8s #" in kustomization


def test_without_a_checkout_it_names_the_distribution(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(new, "find_checkout", lambda: None)
    new.create("cafe", tmp_path / "cafe")
    assert "pip install smsd-twilio pytest" in (tmp_path / "cafe" / "README.md").read_text()


def test_every_placeholder_is_filled(newcomer: Newcomer) -> None:
    created = {str(file.relative_to(newcomer.cafe)) for file in newcomer.cafe.rglob("*")}
    for target in FILES:
        name = target.replace("$module", "cafe")
        assert name in created
        text = (newcomer.cafe / name).read_text().replace("${SMSD_IMAGE}", "")
        assert not re.search(r"\$\w|\$\{", text), name


@pytest.mark.parametrize("name", ["cafe", "pizza-bot", "b2b"])
def test_good_names(name: str) -> None:
    assert name_problem(name) is None


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("Cafe", "lower-case"),
        ("2cafe", "begin with a letter"),
        ("../cafe", "may contain"),
        ("my_bot", "single hyphens"),
        ("a" * 41, "at most 40"),
        ("", "NAME must"),
        ("class", "a word of the Python language"),
        ("random", "a Python module named random already"),
        ("twilio", "a Python module named twilio already"),
        ("smsd", "a Python module named smsd already"),
    ],
)
def test_a_bad_name_is_refused_with_the_reason(tmp_path: Path, name: str, says: str) -> None:
    done = smsd("new", name, "--directory", str(tmp_path / "project"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("smsd new: ")
    assert says in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    project = tmp_path / "cafe"
    project.mkdir()
    assert smsd("new", "cafe", "--directory", str(project)).returncode == 0, "an empty folder"
    (project / "cafe.py").write_text("mine")
    again = smsd("new", "cafe", "--directory", str(project))
    assert (again.returncode, again.stdout) == (2, "")
    assert f"{project} exists already, and nothing is overwritten" in again.stderr
    assert (project / "cafe.py").read_text() == "mine"
    (tmp_path / "link").symlink_to("nowhere")
    assert "exists already" in smsd("new", "cafe", "--directory", str(tmp_path / "link")).stderr


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = smsd("new", "cafe", "--directory", str(tmp_path / "file" / "cafe"))
    assert done.returncode == 2
    assert "cannot be written: Not a directory" in done.stderr
