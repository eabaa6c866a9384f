"""Lists every message that smsd prints for a person: `python -m docs.tools.messages`.

Read the list in one sitting. Each message should say what is wrong and what to do, in
plain English, and name the setting but never its value. The list is made from the
source: the texts of errors, of everything written to a stream, of log advice, and of
the commands' help. A replacement field shows as `{…}`.
"""

import ast
import sys
from collections.abc import Iterator
from typing import NamedTuple

from docs.tools.pages import ROOT

WRITERS = {"write", "print", "print_line", "add_argument", "add_parser", "ArgumentParser", "exit"}
"""Calls whose texts are shown as they stand."""

PROSE_ASSIGNMENTS = {"ADVICE", "_ADVICE"}
"""Constants that hold texts for people."""

FEWEST_WORDS = 3
"""Shorter texts are names and keys."""


class Text(NamedTuple):
    """One message and its place."""

    path: str
    line: int
    text: str


def messages() -> list[Text]:
    """Every message of the package, by file and line."""
    found: list[Text] = []
    for file in sorted((ROOT / "smsd").rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        path = file.relative_to(ROOT).as_posix()
        texts = {(node.lineno, node.col_offset): node for node in _shown(tree)}
        for _, node in sorted(texts.items()):
            text = " ".join(_text(node).split())
            if len(text.split()) >= FEWEST_WORDS:
                found.append(Text(path, node.lineno, text))
    return found


def _shown(tree: ast.Module) -> Iterator[ast.expr]:
    """The string expressions that reach a person."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            yield from _strings(node.exc)
        elif isinstance(node, ast.Call) and (_name(node.func) in WRITERS or _is_error(node)):
            yield from _strings(node)
        elif isinstance(node, ast.Yield | ast.Return) and node.value is not None:
            yield from _strings(node.value)
        elif isinstance(node, ast.AnnAssign | ast.Assign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if PROSE_ASSIGNMENTS & {_name(target) for target in targets} and node.value:
                yield from _strings(node.value)


def _strings(node: ast.AST) -> Iterator[ast.expr]:
    if isinstance(node, ast.JoinedStr) or (
        isinstance(node, ast.Constant) and isinstance(node.value, str)
    ):
        yield node
        return
    for child in ast.iter_child_nodes(node):
        yield from _strings(child)


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(
            str(part.value) if isinstance(part, ast.Constant) else "{…}" for part in node.values
        )
    assert isinstance(node, ast.Constant)
    return str(node.value)


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _is_error(node: ast.Call) -> bool:
    name = _name(node.func)
    return name.endswith(("Error", "Invalid", "Setting", "Finding")) or name in ("event", "append")


if __name__ == "__main__":
    for path, line, text in messages():
        sys.stdout.write(f"{path}:{line}: {text}\n")
