"""The README is a door: short, and everything in it works."""

import re

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


def test_bot_has_ten_lines_and_its_test_five() -> None:
    for file, most in (("bot.py", 10), ("test_bot.py", 5)):
        lines = (EXAMPLE / file).read_text(encoding="utf-8").splitlines()
        assert len([line for line in lines if line.strip()]) <= most, file


def test_every_promise_has_one_line() -> None:
    table = README.section("What it promises")
    assert re.findall(r"^\| (G\d+) \|", table, re.MULTILINE) == PROMISES
