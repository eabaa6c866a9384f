"""What the README shows and promises is true."""

import re

from docs.tools.pages import page
from tests import processes
from tests import raw_http as wire
from tests.docs.test_tables import PROMISES

README = page("README.md")


def test_curl_answer_is_the_real_one() -> None:
    (example,) = README.blocks("xml")
    with processes.Smsd() as server:
        answer = wire.post(server.address, wire.message(From=wire.REY))
    assert answer.body.decode() == example.text.strip()


def test_every_promise_has_one_line() -> None:
    table = README.section("What it promises")
    assert re.findall(r"^\| (G\d+) \|", table, re.MULTILINE) == PROMISES
