"""What import-linter cannot say: the core reads no clock, no environment, no file and
no randomness.

Which room may import which stands in `pyproject.toml` ([tool.importlinter]) and is
checked by `make lint`.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "smsd"
CORE = ("conversation", "twilio", "exchange")
CORE_FILES = [
    *(
        path
        for room in CORE
        for path in sorted((PACKAGE / room).rglob("*.py"))
        if path.stem != "__init__"
    ),
    PACKAGE / "form.py",
]

IMPURE_MODULES = {
    "datetime", "os", "pathlib", "random", "secrets", "select", "shutil", "signal", "socket", "ssl", "subprocess",
    "sys", "tempfile", "threading", "time", "uuid",
}  # fmt: skip
IMPURE_BUILTINS = {"open", "print", "input", "exec", "eval", "__import__", "breakpoint"}
ASYNCIO_SOCKETS = {
    "open_connection",
    "start_server",
    "create_subprocess_exec",
    "create_subprocess_shell",
}


def impurities(source: str) -> Iterator[str]:
    """What a core module does that it must not, one phrase each."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (
                f"imports {a.name}"
                for a in node.names
                if a.name.partition(".")[0] in IMPURE_MODULES
            )
        elif (
            isinstance(node, ast.ImportFrom)
            and (node.module or "").partition(".")[0] in IMPURE_MODULES
        ):
            yield f"imports {node.module}"
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in IMPURE_BUILTINS
        ):
            yield f"calls {node.func.id}"
        elif isinstance(node, ast.Attribute) and node.attr in ASYNCIO_SOCKETS:
            yield f"uses {node.attr}"


@pytest.mark.parametrize("path", CORE_FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_core_module_is_pure_and_says_so(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert list(impurities(source)) == []
    docstring = (ast.get_docstring(ast.parse(source)) or "").lower()
    assert any(
        word in docstring
        for word in ("no network", "no http", "no store", "knows no", "no sockets")
    )


@pytest.mark.parametrize(
    ("source", "impurity"),
    [
        ("import time", "imports time"),
        ("import os.path", "imports os.path"),
        ("def f():\n    from random import random", "imports random"),
        ("from datetime import datetime", "imports datetime"),
        ("x = open('file')", "calls open"),
        ("import asyncio\nasyncio.open_connection('a', 1)", "uses open_connection"),
    ],
)
def test_impure_module_is_caught(source: str, impurity: str) -> None:
    assert impurity in list(impurities(source))
