"""What import-linter cannot say of the core: it calls no builtin and no function of
asyncio that reaches a file, a terminal or a socket.

Which room may import what stands in `pyproject.toml` ([tool.importlinter]) and is
checked by `make lint`.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "smsd"
CORE_FILES = [
    *(
        path
        for room in ("conversation", "twilio", "exchange")
        for path in sorted((PACKAGE / room).rglob("*.py"))
    ),
    PACKAGE / "form.py",
    PACKAGE / "dialogues/matching.py",
    PACKAGE / "settings/casts.py",
]

BUILTINS = {"open", "print", "input", "exec", "eval", "__import__", "breakpoint"}
ASYNCIO_SOCKETS = {
    "open_connection",
    "start_server",
    "create_subprocess_exec",
    "create_subprocess_shell",
}


def impurities(source: str) -> Iterator[str]:
    """What a core module does that it must not, one phrase each."""
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in BUILTINS
        ):
            yield f"calls {node.func.id}"
        elif isinstance(node, ast.Attribute) and node.attr in ASYNCIO_SOCKETS:
            yield f"uses {node.attr}"


@pytest.mark.parametrize("path", CORE_FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_core_module_reaches_nothing_outside(path: Path) -> None:
    assert list(impurities(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    ("source", "impurity"),
    [
        ("x = open('file')", "calls open"),
        ("import asyncio\nasyncio.open_connection('a', 1)", "uses open_connection"),
    ],
)
def test_impure_module_is_caught(source: str, impurity: str) -> None:
    assert impurity in list(impurities(source))
