"""The documentation as data: its pages, and the fenced blocks, tables, links and
headings in them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One fenced block: its language and its text without the indentation of its list
    item."""

    language: str
    text: str


@dataclass(frozen=True)
class Page:
    """One Markdown file; `path` is relative to the repository."""

    path: str

    @property
    def file(self) -> Path:
        return ROOT / self.path

    @cached_property
    def text(self) -> str:
        return self.file.read_text(encoding="utf-8")

    @cached_property
    def prose(self) -> str:
        """The text without fenced blocks."""
        return _FENCE.sub("", self.text)

    def blocks(self, language: str | None = None) -> list[Block]:
        """The fenced blocks, in order; of one language if it is given."""
        found = [
            Block(name, "".join(line.removeprefix(indent) for line in code.splitlines(True)))
            for indent, name, code in _FENCE.findall(self.text)
        ]
        return [block for block in found if language in (None, block.language)]

    def between(self, marker: str) -> str:
        """What stands between `<!-- marker -->` and `<!-- /marker -->`."""
        start, end = f"<!-- {marker} -->\n", f"<!-- /{marker.split(maxsplit=1)[0]} -->"
        return self.text.partition(start)[2].partition(end)[0]

    def section(self, heading: str) -> str:
        """What stands under a heading, up to the next one of its level or above."""
        match = re.search(rf"^(#+) {re.escape(heading)}\n", self.prose, re.MULTILINE)
        assert match, f"{self.path} has no heading {heading!r}"
        rest = self.prose[match.end() :]
        following = re.search(rf"^#{{1,{len(match[1])}}} ", rest, re.MULTILINE)
        return rest[: following.start()] if following else rest

    def links(self) -> Iterator[str]:
        """The targets of all links and pictures."""
        yield from re.findall(r"\]\(([^)\s]+)\)", self.prose)
        yield from re.findall(r'\b(?:src|srcset|href)="([^"]+)"', self.prose)

    def anchors(self) -> set[str]:
        """Of every heading, as GitHub makes them."""
        headings = re.findall(r"^#+ (.*)$", self.prose, re.MULTILINE)
        return {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}


def page(path: str) -> Page:
    """The page at a path in the repository."""
    return Page(path)


def pages() -> list[Page]:
    """Every page that people read."""
    found = [
        *sorted(ROOT.glob("*.md")),
        *sorted((ROOT / "docs").glob("*.md")),
        ROOT / "deploy/k8s/README.md",
        *sorted((ROOT / "tests").glob("*.md")),
    ]
    return [Page(path.relative_to(ROOT).as_posix()) for path in found]


def cells(row: str) -> list[str]:
    """The cells of one row of a table; a bar within backticks is no border."""
    hidden = re.sub(r"`[^`]*`", lambda code: code[0].replace("|", "\0"), row.strip().strip("|"))
    return [cell.strip().replace("\0", "|") for cell in hidden.split("|")]
