"""checkov and hadolint find nothing in the Dockerfile and the manifests; every skip
gives its reason."""

import json
import os
import subprocess
import sys
from pathlib import Path

import yaml

from .cluster import CHECKOUT, SETS, text

TOOLS = Path(sys.executable).parent


def run(*command: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        list(map(str, command)),
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
        cwd=CHECKOUT,
    )


def test_checkov_finds_nothing(tmp_path: Path) -> None:
    for name in SETS:
        (tmp_path / f"{name}.yaml").write_text(text(name))
    (tmp_path / "Dockerfile").write_text((CHECKOUT / "Dockerfile").read_text())
    config = CHECKOUT / ".checkov.yaml"
    done = run(
        os.environ["CHECKOV"], "--config-file", config, "--directory", tmp_path, "--output", "json"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    passed = {
        report["check_type"]: report["summary"]["passed"] for report in json.loads(done.stdout)
    }
    assert passed.keys() == {"kubernetes", "dockerfile"}
    assert min(passed.values()) > 50, "it has looked"


def test_every_skip_of_checkov_says_why() -> None:
    lines = (CHECKOUT / ".checkov.yaml").read_text().splitlines()
    skips = [number for number, line in enumerate(lines) if line.strip().startswith("- CKV")]
    assert len(skips) == len(yaml.safe_load("\n".join(lines))["skip-check"])
    assert all(lines[number - 1].strip().startswith("# ") for number in skips)


def test_hadolint_finds_nothing() -> None:
    done = run(TOOLS / "hadolint", "--config", CHECKOUT / ".hadolint.yaml", CHECKOUT / "Dockerfile")
    assert done.returncode == 0, done.stdout + done.stderr
