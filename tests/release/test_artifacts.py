"""What `make release` builds: complete, reproducible, installable, and of one version.

Part of `make manifests`. It builds the last commit, not the checkout.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from smsd.version import VERSION

CHECKOUT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
WHEEL = f"smsd_twilio-{VERSION}-py3-none-any.whl"
SDIST = f"smsd_twilio-{VERSION}.tar.gz"
BILL = f"smsd-{VERSION}.cdx.json"


def run(
    *command: object, cwd: Path = CHECKOUT, **environ: str
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        list(map(str, command)),
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
        cwd=cwd,
        env={**os.environ, **environ},
    )


def release(*arguments: object, **environ: str) -> "subprocess.CompletedProcess[str]":
    return run(CHECKOUT / ".ci/release", *arguments, cwd=CHECKOUT, **environ)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with everything that a release publishes. The tag demands a dated
    changelog."""
    folder = tmp_path_factory.mktemp("release") / "dist"
    done = release(folder, f"v{VERSION}")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def committed(folder: str) -> set[str]:
    return set(run("git", "ls-tree", "-r", "--name-only", "HEAD", folder).stdout.split())


def metadata(built: Path) -> Message:
    with zipfile.ZipFile(built / WHEEL) as wheel:
        text = wheel.read(f"smsd_twilio-{VERSION}.dist-info/METADATA").decode()
    return Parser().parsestr(text)


def test_it_builds_wheel_sdist_bill_of_materials_and_checksums(built: Path) -> None:
    assert {file.name for file in built.iterdir()} == {WHEEL, SDIST, BILL, "SHA256SUMS"}
    for line in (built / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split()
        assert hashlib.sha256((built / name).read_bytes()).hexdigest() == digest


def test_the_wheel_holds_the_package_and_nothing_else(built: Path) -> None:
    with zipfile.ZipFile(built / WHEEL) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert names == committed("smsd")


def test_the_sdist_holds_what_a_build_needs(built: Path) -> None:
    with tarfile.open(built / SDIST) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    added_by_the_build = {"PKG-INFO", ".gitignore"}
    others = {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "requirements.lock"}
    assert names == committed("smsd") | others | added_by_the_build


def test_the_metadata_is_that_of_pyproject(built: Path) -> None:
    found = metadata(built)
    assert (found["Name"], found["Version"]) == ("smsd-twilio", VERSION)
    assert found["License-Expression"] == "MIT"
    required = {str(Requirement(text)) for text in found.get_all("Requires-Dist", [])}
    wanted = {str(Requirement(text)) for text in PYPROJECT["project"]["dependencies"]}
    assert {text for text in required if "extra ==" not in text} == wanted


def test_the_same_commit_gives_the_same_bytes(built: Path, tmp_path: Path) -> None:
    done = release(tmp_path, TZ="Asia/Tokyo", LC_ALL="C", PYTHONHASHSEED="7", HOME=str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "SHA256SUMS").read_text() == (built / "SHA256SUMS").read_text()


def test_the_bill_of_materials_lists_every_locked_package(built: Path) -> None:
    bill = json.loads((built / BILL).read_text())
    root = bill["metadata"]["component"]
    assert (root["name"], root["version"]) == ("smsd-twilio", VERSION)
    listed = {(part["name"], part["version"]) for part in bill["components"]}
    lock = (CHECKOUT / "requirements.lock").read_text()
    assert listed == set(re.findall(r"^([\w.-]+)==([\w.]+)", lock, re.MULTILINE))
    for part in bill["components"]:
        assert part["purl"] == f"pkg:pypi/{part['name']}@{part['version']}"
        assert part["externalReferences"][0]["hashes"], part["name"]


def test_the_installed_wheel_runs_and_brings_its_files(built: Path, tmp_path: Path) -> None:
    """With the locked dependencies of this environment, but without this checkout."""
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv/bin/python"
    done = run(
        sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index",
        built / WHEEL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    packages = sysconfig.get_path("purelib")

    def installed(command: str, *arguments: str) -> str:
        done = run(tmp_path / "venv/bin" / command, *arguments, cwd=tmp_path, PYTHONPATH=packages)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert installed("python", "-c", "import smsd; print(smsd.__file__)").startswith(str(tmp_path))
    assert VERSION in installed("smsd", "--version")
    installed("smsd", "new", "pizza-bot")
    assert (tmp_path / "pizza-bot/pizza_bot.py").exists()


@pytest.mark.parametrize("tag", ["v0.0.1", VERSION, f"v{VERSION}-rc1"])
def test_a_tag_that_does_not_name_the_version_is_refused(tag: str, tmp_path: Path) -> None:
    done = release(tmp_path, tag)
    assert done.returncode == 1
    assert "does not name the version" in done.stderr


def test_every_file_names_the_one_version() -> None:
    """smsd/version.py is the source; these files cannot read it."""
    kustomization = yaml.safe_load((CHECKOUT / "deploy/k8s/kustomization.yaml").read_text())
    dockerfile = (CHECKOUT / "Dockerfile").read_text()
    assert kustomization["images"] == [{"name": "smsd", "newTag": VERSION}]
    assert re.findall(r"^ARG VERSION=(.+)$", dockerfile, re.MULTILINE) == [VERSION, VERSION]
    compose = yaml.safe_load((CHECKOUT / "deploy/compose.yaml").read_text())
    assert compose["services"]["smsd"]["image"] == f"smsd:{VERSION}"
    assert PYPROJECT["project"]["dynamic"] == ["version"]
    assert PYPROJECT["tool"]["hatch"]["version"] == {"path": "smsd/version.py"}


def test_the_image_is_built_by_the_locked_build_tool() -> None:
    lock = (CHECKOUT / "deploy/build.lock").read_text()
    (version,) = re.findall(r"^hatchling==([\w.]+)", lock, re.MULTILINE)
    (requirement,) = PYPROJECT["build-system"]["requires"]
    assert Requirement(requirement).specifier.contains(version)
