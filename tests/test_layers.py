"""The house: every import points down, the core knows no network, clock or environment. Read from the source.

`problems` judges one module's source, so that bad examples can be shown to it as well as the package.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

CORE: tuple[set[str], ...] = (
    {"errors", "version", "turns"},
    {"signature", "record", "reply", "session"},
    {"conversation"},
    {"mismatch", "message", "cookie", "form"},
    {"store", "gate"},
    {"exchange"},
)
EDGE: tuple[set[str], ...] = (
    {"settings_casts", "logs", "dialogue", "store.wire", "listener"},
    {"settings_files", "store.node", "store.memory", "store.overlay", "store.switch", "refresh"},
    {"settings", "store.memcached", "metrics"},
    {"reload", "handlers"},
    {"app"},
    {"server"},
    {"serve"},
    {"workbench", "doctor", "keys"},
    {"cli"},
    {"__main__"},
)
FLOOR = {name: height for height, names in enumerate((*CORE, *EDGE)) for name in names}
"""Module to its floor, from the ground up: it may import from floors below its own, and from no other."""

CORE_MODULES = set().union(*CORE)
PURE = {
    "binascii", "collections", "collections.abc", "dataclasses", "functools", "hashlib", "hmac", "itertools",
    "msgspec", "re", "string", "types", "typing", "unicodedata", "urllib.parse",
}  # fmt: skip
"""All that the core may import from elsewhere: nothing that reads a clock, a socket, a file or chance."""

PURE_BUT = {
    "exchange": {"asyncio": {"get_running_loop", "timeout_at"}},
    "turns": {"asyncio": {"Future", "get_running_loop", "timeout"}},
}
"""Time-outs and turns."""

IMPURE_BUILTINS = {"open", "print", "input", "exec", "eval", "__import__", "breakpoint"}
DEVELOPMENT = {"workbench", "refresh", "store.switch", "testing", "doctor", "keys"}
LATER = {
    "cli": {"serve", "doctor", "keys", "simulator.terminal"},
    "serve": {"workbench"},
    "testing": {"simulator.rehearsal"},
}
"""Imports within a function: what a command needs is imported when it runs, the development server with --dev."""

FRONT_DOOR = {"message", "reply", "session", "version"}
SIMULATOR_USES = {"reply"}
"""Of the service, the offline Twilio uses the counter of segments and nothing else."""

REHEARSAL = "simulator.rehearsal"
"""Puts the service and the offline Twilio into one process, for tests of dialogues: above both."""


@dataclass(frozen=True)
class Import:
    """`names` are those of `from module import names`; empty for `import module`."""

    module: str
    names: frozenset[str]
    in_function: bool


def imports(tree: ast.AST, in_function: bool = False) -> Iterator[Import]:
    """Every import below a node."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, frozenset(), in_function) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            yield Import(node.module or "", frozenset(alias.name for alias in node.names), in_function)
        else:
            inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from imports(node, in_function or inside)


def modules() -> dict[str, str]:
    """Every module of the package, named from below smsd ("" is the front door), and its source."""
    found = {}
    for path in sorted((ROOT / "smsd").rglob("*.py")):
        parts = path.relative_to(ROOT / "smsd").with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = path.read_text(encoding="utf-8")
    return found


MODULES = modules()


def own(found: Import) -> set[str]:
    """The modules of ours that an import names: `from smsd import x` is x if that is a module, else ""."""
    top, _, rest = found.module.partition(".")
    if top != "smsd":
        return set()
    below = {f"{rest}.{name}".lstrip(".") for name in found.names}
    named = below & (set(MODULES) | set(FLOOR))
    return named | ({rest} if below - named or not below else set())


def problems(name: str, source: str) -> Iterator[str]:
    """What is wrong with a module of this name, a line each."""
    tree = ast.parse(source)
    for found in imports(tree):
        for target in own(found):
            if found.in_function:
                if target not in LATER.get(name, ()):
                    yield f"{name} imports {target} within a function"
            elif not may_import(name, target):
                yield f"{name} imports {target}"
        if found.module.partition(".")[0] == "prometheus_client" and name != "metrics":
            yield f"{name} imports prometheus_client"
        if found.module == "os" and found.names & {"environ", "getenv", "environb"}:
            yield f"{name} reads the environment"
        if name in CORE_MODULES and not own(found) and not is_pure(name, found):
            yield f"{name} imports {found.module}"
    for node in ast.walk(tree):
        yield from misuses(name, node)


def may_import(name: str, target: str) -> bool:
    """Whether the arrow from one module of ours to another points down."""
    room, target_room = name.partition(".")[0], target.partition(".")[0]
    if room == "dialogues":
        return target == ""
    if name == "testing":
        return target_room == "simulator"
    if name == REHEARSAL:
        return target_room == "simulator" or FLOOR.get(target, 99) <= FLOOR["app"]
    if room == "simulator":
        return target_room == "simulator" or target in SIMULATOR_USES
    if name == "":
        return target in FRONT_DOOR
    if name == "workbench" and target == "simulator.web":
        return True
    return FLOOR.get(target, 99) < FLOOR[name]


def is_pure(name: str, found: Import) -> bool:
    allowed = PURE_BUT.get(name, {}).get(found.module)
    return found.module in PURE or (allowed is not None and found.names <= allowed)


def misuses(name: str, node: ast.AST) -> Iterator[str]:
    """A use of the environment, or in the core of what acts on the world."""
    in_core = name in CORE_MODULES
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        used = f"{node.value.id}.{node.attr}"
        if used in ("os.environ", "os.getenv", "os.environb") and name != "cli":
            yield f"{name} reads the environment"
        allowed = PURE_BUT.get(name, {}).get("asyncio", set())
        if in_core and node.value.id == "asyncio" and node.attr not in allowed:
            yield f"{name} uses {used}"
    called = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
    if in_core and called in IMPURE_BUILTINS:
        yield f"{name} calls {called}"


@pytest.mark.parametrize("name", MODULES, ids=lambda name: f"smsd.{name}".rstrip("."))
def test_every_import_points_down_and_the_core_is_pure(name: str) -> None:
    assert list(problems(name, MODULES[name])) == []


def test_every_module_has_its_place() -> None:
    rooms = ("dialogues", "simulator")
    placed = {name for name in MODULES if name in FLOOR or name.partition(".")[0] in rooms}
    assert placed | {"", "testing"} == set(MODULES)
    assert set(FLOOR) <= set(MODULES), "a place for a module that is gone"


def test_production_imports_neither_the_simulator_nor_the_development_server() -> None:
    reached, waiting = set(), {"serve"}
    while waiting:
        name = waiting.pop()
        reached.add(name)
        found = imports(ast.parse(MODULES[name]))
        waiting |= {target for each in found if not each.in_function for target in own(each)} - reached
    assert {"app", "handlers", "exchange", "store.memcached", "metrics"} <= reached
    assert not reached & DEVELOPMENT
    assert not {name for name in reached if name.startswith("simulator")}


@pytest.mark.parametrize("name", sorted(CORE_MODULES - {"errors", "version"}))
def test_each_module_of_the_core_says_at_its_top_what_it_must_not_do(name: str) -> None:
    docstring = ast.get_docstring(ast.parse(MODULES[name])) or ""
    assert any(
        word in docstring for word in ("No network", "no network", "no HTTP", "no store", "knows no")
    ), name


BAD = [
    ("signature", "import time", "signature imports time"),
    ("signature", "import random", "signature imports random"),
    ("signature", "import secrets", "signature imports secrets"),
    ("conversation", "import os", "conversation imports os"),
    ("conversation", "import socket", "conversation imports socket"),
    ("conversation", "from datetime import datetime", "conversation imports datetime"),
    ("conversation", "import asyncio", "conversation imports asyncio"),
    ("conversation", "from smsd import exchange", "conversation imports exchange"),
    ("conversation", "from smsd.cookie import CookieCodec", "conversation imports cookie"),
    ("reply", "x = open('file')", "reply calls open"),
    ("message", "from smsd.settings import load", "message imports settings"),
    ("message", "from tornado.web import RequestHandler", "message imports tornado.web"),
    ("cookie", "from tornado.web import Application", "cookie imports tornado.web"),
    ("cookie", "import tornado.ioloop", "cookie imports tornado.ioloop"),
    ("exchange", "import logging", "exchange imports logging"),
    ("exchange", "from smsd.store.memcached import Memcached", "exchange imports store.memcached"),
    ("exchange", "import asyncio\nasyncio.open_connection('a', 1)", "exchange uses asyncio.open_connection"),
    ("exchange", "def f():\n    import time", "exchange imports time"),
    ("gate", "from smsd import metrics", "gate imports metrics"),
    ("store", "from smsd.store import memory", "store imports store.memory"),
    ("handlers", "from prometheus_client import Counter", "handlers imports prometheus_client"),
    ("handlers", "from smsd import app", "handlers imports app"),
    ("handlers", "import os\nx = os.environ['X']", "handlers reads the environment"),
    ("settings", "from os import environ", "settings reads the environment"),
    ("app", "def f():\n    from smsd import workbench", "app imports workbench within a function"),
    ("app", "from smsd.simulator import Client", "app imports simulator"),
    ("serve", "from smsd import workbench", "serve imports workbench"),
    ("metrics", "from smsd.handlers import STATUS", "metrics imports handlers"),
    ("dialogues.greeting", "from smsd.session import Session", "dialogues.greeting imports session"),
    ("dialogues.greeting", "from smsd import settings", "dialogues.greeting imports settings"),
    ("simulator.twilio", "from smsd.signature import sign", "simulator.twilio imports signature"),
    ("simulator.twilio", "import smsd.app", "simulator.twilio imports app"),
    ("simulator.jar", "def f():\n    import smsd.app", "simulator.jar imports app within a function"),
    ("", "from smsd.app import Service", " imports app"),
]


@pytest.mark.parametrize(("name", "source", "problem"), BAD, ids=[problem for _, _, problem in BAD])
def test_a_bad_example_is_refused(name: str, source: str, problem: str) -> None:
    assert problem in list(problems(name, source))


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("cookie", "from binascii import a2b_base64"),
        ("exchange", "import asyncio\nasyncio.timeout_at(1)"),
        ("dialogues.greeting", "from smsd import Message, Reply, Session"),
        ("cli", "import os\nos.environ"),
        ("cli", "def f():\n    from smsd import serve"),
        ("exchange", "from smsd.store import Store"),
    ],
)
def test_a_good_example_is_taken(name: str, source: str) -> None:
    assert list(problems(name, source)) == []
