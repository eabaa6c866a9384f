"""Copies the example files and the tables of the code into the pages: `python -m
docs.tools.refresh`.

A page never holds a hand-made copy. It has a marker, and what follows the marker is
made:

    <!-- include docs/examples/cafe/hello.py -->    the fenced block below shows this file
    <!-- table settings --> … <!-- /table -->       a table from `docs/tools/tables.py`
"""

import re
import sys

from docs.tools.pages import ROOT, Page, pages
from docs.tools.tables import TABLES

_INCLUDE = re.compile(r"(<!-- include (\S+) -->\n```\w+\n)(.*?)(^```$)", re.MULTILINE | re.DOTALL)
_TABLE = re.compile(r"(<!-- table (\w+) -->\n)(.*?)(<!-- /table -->)", re.DOTALL)


def refreshed(page: Page) -> str:
    """The page's text with every listing and table as it should be."""
    text = _INCLUDE.sub(lambda found: found[1] + _file(found[2]) + found[4], page.text)
    return _TABLE.sub(lambda found: found[1] + TABLES[found[2]]() + found[4], text)


def included_files() -> set[str]:
    """Every file that some page shows."""
    return {path for page in pages() for _, path, _, _ in _INCLUDE.findall(page.text)}


def _file(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8").rstrip("\n") + "\n"


def main() -> None:
    """Write every page that is not current, and say which."""
    for page in pages():
        text = refreshed(page)
        if text != page.text:
            page.file.write_text(text, encoding="utf-8")
            sys.stdout.write(f"refreshed {page.path}\n")


if __name__ == "__main__":
    main()
