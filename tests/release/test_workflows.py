"""The workflows for a public forge: valid, pinned, with few rights, and doing what
`.ci/run` does.

Nothing here runs them.
"""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from .test_artifacts import CHECKOUT

FOLDER = CHECKOUT / ".github/workflows"
TOOLS = Path(sys.executable).parent
NAMES = sorted(file.name for file in FOLDER.iterdir())


def workflow(name: str) -> dict[Any, Any]:
    return dict(yaml.safe_load((FOLDER / name).read_text()))


def triggers(name: str) -> Any:
    return workflow(name)[True]  # YAML 1.1 reads the key `on` as a boolean


def steps(name: str) -> list[dict[str, Any]]:
    return [step for job in workflow(name)["jobs"].values() for step in job.get("steps", [])]


def check(*command: object) -> None:
    done = subprocess.run(
        list(map(str, command)), check=False, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_the_workflow_fits_the_forges_schema(name: str) -> None:
    schema = "vendor.github-workflows"
    check(TOOLS / "check-jsonschema", "--builtin-schema", schema, FOLDER / name)


def test_zizmor_finds_nothing() -> None:
    check(TOOLS / "zizmor", "--offline", "--no-progress", FOLDER)


@pytest.mark.parametrize("name", NAMES)
def test_every_action_is_pinned_to_a_commit(name: str) -> None:
    used = [step["uses"] for step in steps(name) if "uses" in step]
    assert used
    assert [action for action in used if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action)] == []


@pytest.mark.parametrize("name", NAMES)
def test_rights_are_given_to_single_jobs(name: str) -> None:
    assert workflow(name)["permissions"] == {}
    assert all("permissions" in job for job in workflow(name)["jobs"].values())


def test_ci_runs_what_ci_run_does_with_the_whole_history() -> None:
    assert "bash .ci/run" in [step.get("run") for step in steps("ci.yml")]
    (checkout,) = [step for step in steps("ci.yml") if "checkout" in step.get("uses", "")]
    assert checkout["with"]["fetch-depth"] == 0, "the upgrade tests need the old version"
    assert {"push", "pull_request", "workflow_call"} <= set(triggers("ci.yml"))


def test_only_a_tag_that_passed_everything_is_published() -> None:
    assert triggers("release.yml") == {"push": {"tags": ["v*"]}}
    jobs = workflow("release.yml")["jobs"]
    assert jobs["check"]["uses"] == "./.github/workflows/ci.yml"
    assert jobs["build"]["needs"] == "check"
    assert jobs["pypi"]["needs"] == jobs["image"]["needs"] == "build"
    assert {jobs["pypi"]["environment"], jobs["image"]["environment"]} == {"pypi", "image"}
    assert any(
        '.ci/release dist "$GITHUB_REF_NAME"' in step.get("run", "")
        for step in steps("release.yml")
    )


def test_publishing_stores_no_secret() -> None:
    assert "secrets." not in (FOLDER / "release.yml").read_text()
