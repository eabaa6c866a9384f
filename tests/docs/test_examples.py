"""Every project of docs/examples passes its own tests, and passes them again."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from docs.tools.pages import ROOT

PROJECTS = sorted({path.parent for path in (ROOT / "docs/examples").rglob("test_*.py")})


@pytest.mark.parametrize("project", PROJECTS, ids=lambda path: path.name)
def test_an_examples_tests_pass_twice(project: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(
        project, tmp_path / "project", ignore=shutil.ignore_patterns("__pycache__")
    )
    for _ in range(2):  # a test that leaves something behind fails the second time
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
