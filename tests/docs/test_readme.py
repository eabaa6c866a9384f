"""The README is a door: short, and everything in it works."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests import processes
from tests import raw_http as wire
from tests.docs.pages import ROOT, page
from tests.docs.test_tables import PROMISES

README = page("README.md")
EXAMPLE = ROOT / "docs/examples/hello"


def test_readme_has_under_200_lines() -> None:
    assert len(README.text.splitlines()) < 200


def test_curl_answer_is_the_real_one() -> None:
    (example,) = README.blocks("xml")
    with processes.Smsd() as server:
        answer = wire.post(server.address, wire.message(From=wire.REY))
    assert answer.body.decode() == example.text.strip()


def test_bot_has_ten_lines_and_passes_its_test(tmp_path: Path) -> None:
    for file in EXAMPLE.glob("*.py"):
        shutil.copy(file, tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr
    lines = [line for line in (EXAMPLE / "bot.py").read_text().splitlines() if line.strip()]
    assert len(lines) <= 10


def test_every_promise_has_one_line() -> None:
    table = README.section("What it promises")
    assert re.findall(r"^\| (G\d+) \|", table, re.MULTILINE) == PROMISES
