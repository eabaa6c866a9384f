"""The parts of the documentation that are made from the code: settings, metrics, public
names."""

import ast
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterable, Iterator
from functools import cached_property

from docs.tools.pages import ROOT
from smsd.settings.table import SETTINGS, THANKS, Setting
from smsd.telemetry.metrics import Metrics
from smsd.twilio.diagnosis import ADVICE
from smsd.web.refusals import ADVICE as REFUSALS

API_MODULES = ("smsd", "smsd.form", "smsd.testing", "smsd.simulator", "smsd.errors")
"""What a bot's author imports. Other modules may change without notice."""

_OPEN_LABELS = {"node", "version"}
"""Labels whose values depend on the installation."""

_MOST_VALUES = 20
_RECEIVERS = ("self", "cls")
_MODULE = re.compile(r"~|\b(?:[a-z_]+\.)+(?=[A-Z])")
_QUOTED_ANNOTATION = re.compile(r"(: |-> )'([^']*)'")
_DESCRIPTORS = (property, cached_property, staticmethod, classmethod)


def settings() -> str:
    """Every setting with its default and its meaning."""
    rows = (
        (f"`{each.name}`", _default(each), "live" if each.live else "", each.meaning)
        for each in SETTINGS
    )
    return _table(("name", "default", "live", "meaning"), rows)


def _default(setting: Setting) -> str:
    if setting.required:
        return "required"
    if setting.name == "SMSD_GREETING_FIRST":
        return f"`{THANKS}` and SMSD_GREETING"
    if setting.file and setting.default:
        return "built-in sample"
    return f"`{setting.default}`" if setting.default is not None else "\N{EN DASH}"


def metrics() -> str:
    """Every metric with its type, its labels and its help."""
    registry = Metrics(nodes=["node"]).registry
    families = sorted(
        (family for family in registry.collect() if family.name.startswith("smsd_")),
        key=lambda family: family.name,
    )
    rows = []
    for family in families:
        labels: dict[str, dict[str, None]] = {}
        for sample in family.samples:
            for label, value in sample.labels.items():
                if label != "le":
                    labels.setdefault(label, {})[value] = None
        name = family.name + ("_total" if family.type == "counter" else "")
        told = "; ".join(_label(label, values) for label, values in labels.items())
        rows.append((f"`{name}`", family.type, told, family.documentation))
    return _table(("name", "type", "labels", "meaning"), rows)


def _label(name: str, values: Iterable[str]) -> str:
    known = [value for value in values if value]
    if name in _OPEN_LABELS or not known or len(known) > _MOST_VALUES:
        return f"`{name}`"
    return f"`{name}`: {', '.join(known)}"


def causes() -> str:
    """Every cause of a signature mismatch with the advice that smsd logs."""
    return _table(("`cause`", "what smsd advises"), ((f"`{k}`", v) for k, v in ADVICE.items()))


def refusals() -> str:
    """Every kind of refused request with the advice that smsd logs."""
    return _table(("`kind`", "what smsd advises"), ((f"`{k}`", v) for k, v in REFUSALS.items()))


def api() -> str:
    """Every public name with the first paragraph of its docstring."""
    return _table(("name", "meaning"), list(_api_rows()))


def _api_rows() -> Iterator[tuple[str, str]]:
    for module_name in API_MODULES:
        module = importlib.import_module(module_name)
        for name in public_names(module_name):
            value = getattr(module, name)
            full = f"{module_name}.{name}"
            yield f"`{full}`", _summary(value)
            if inspect.isclass(value):
                for member in members(value):
                    yield f"`{name}.{member}`", _summary(inspect.getattr_static(value, member))


def reference() -> str:
    """Every public name with its signature and its whole docstring."""
    return "\n".join(_reference_lines())


def _reference_lines() -> Iterator[str]:
    for module_name in API_MODULES:
        module = importlib.import_module(module_name)
        for name in public_names(module_name):
            full = f"{module_name}.{name}"
            value = getattr(module, name)
            yield f"\n### {full}\n\n```text"
            yield _described(name, value)
            if inspect.isclass(value):
                for member in members(value):
                    yield "\n" + _described(member, inspect.getattr_static(value, member))
            yield "```"


def _described(name: str, value: object) -> str:
    if isinstance(value, staticmethod | classmethod):
        value = value.__func__
    doc = textwrap.indent(inspect.getdoc(value) or "", "    ")
    return f"{name}{_signature(value)}\n{doc}".rstrip()


def _signature(value: object) -> str:
    if not callable(value) or isinstance(value, cached_property):
        return ""
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):
        return ""
    parameters = [each for each in signature.parameters.values() if each.name not in _RECEIVERS]
    returned = signature.empty if inspect.isclass(value) else signature.return_annotation
    text = str(signature.replace(parameters=parameters, return_annotation=returned))
    text = re.sub(r"<function (\w+) at 0x\w+>", r"\1", text)
    return _MODULE.sub("", _QUOTED_ANNOTATION.sub(r"\1\2", text))


def public_names(module_name: str) -> list[str]:
    """The names of a module that a bot's author may use."""
    module = importlib.import_module(module_name)
    listed = getattr(module, "__all__", None)
    if listed is not None:
        return [name for name in listed if _is_documented(getattr(module, name))]
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and not name.startswith("pytest_")
        and getattr(value, "__module__", None) == module_name
    ]


def _is_documented(value: object) -> bool:
    """Whether a public name has a docstring of its own: constants have none."""
    return inspect.isclass(value) or inspect.isroutine(value)


def members(owner: type) -> list[str]:
    """The documented attributes, properties and methods of a public class."""
    return [
        name
        for name, value in vars(owner).items()
        if not name.startswith("_")
        and not inspect.ismemberdescriptor(value)
        and (callable(value) or isinstance(value, _DESCRIPTORS))
    ]


def _summary(value: object) -> str:
    if isinstance(value, staticmethod | classmethod):
        value = value.__func__
    doc = inspect.getdoc(value) if callable(value) or hasattr(value, "__get__") else None
    first = re.split(r"\n\s*\n", doc or "", maxsplit=1)[0]
    return " ".join(first.split())


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(cell or ' ' for cell in line)} |\n" for line in lines)


DUPLICATE_ROUTE = (
    ("smsd/web/handlers.py", "MessageHandler.serve", "the form becomes a `Message`; the reply goes out"),
    ("smsd/exchange/exchange.py", "Exchange.answer", "the conversation is found"),
    ("smsd/exchange/exchange.py", "Exchange._choose", "the best cookie is chosen"),
    ("smsd/conversation/identity.py", "message_digest", "the short id of a message"),
    ("smsd/exchange/exchange.py", "Exchange._counted_in_turn", "one message of a conversation at a time"),
    ("smsd/exchange/exchange.py", "Exchange._counted", "is the message in the record?"),
    ("smsd/exchange/ledger.py", "Ledger.read", "the record is read from the store"),
    ("smsd/exchange/ledger.py", "Ledger._page", "the cookie's copy is merged"),
    ("smsd/conversation/counting.py", "opened", "whether a copy is alive, and its merge"),
    ("smsd/conversation/merging.py", "covers", "a copy that brings nothing new is skipped"),
    ("smsd/conversation/counting.py", "find", "the message's place in the record"),
    ("smsd/exchange/exchange.py", "Exchange._reply", "its reply is known, or still being made, or forgotten"),
    ("smsd/exchange/exchange.py", "Exchange._ask_again", "the reply is not known any more: run again, change nothing"),
    ("smsd/exchange/exchange.py", "Exchange._tell_duplicate", "counted as a duplicate, not as a message"),
    ("smsd/exchange/exchange.py", "Exchange._answer", "the same reply again, and a fresh copy for the cookie"),
)  # fmt: skip
"""What to read to see what happens to a message that Twilio delivers again."""

LONGEST_ROUTE = 400
"""Lines."""


def duplicate() -> str:
    """The route of a duplicate through the code, with the lines to read."""
    rows = [
        (str(step), f"`{path}`", f"`{name}`", str(_lines(path, name)), what)
        for step, (path, name, what) in enumerate(DUPLICATE_ROUTE, start=1)
    ]
    total = ("", "", "", str(duplicate_lines()), "in all")
    return _table(("", "file", "read", "lines", "what happens"), [*rows, total])


def duplicate_lines() -> int:
    """How many lines the route of a duplicate has."""
    return sum(_lines(path, name) for path, name, _ in DUPLICATE_ROUTE)


def _lines(path: str, name: str) -> int:
    """The length of a function or method, named as in the file."""
    node: ast.AST = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    for part in name.split("."):
        node = next(
            child for child in ast.iter_child_nodes(node) if getattr(child, "name", None) == part
        )
    assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    return (node.end_lineno or node.lineno) - node.lineno + 1


TABLES = {
    "settings": settings,
    "metrics": metrics,
    "causes": causes,
    "refusals": refusals,
    "api": api,
    "reference": reference,
    "duplicate": duplicate,
}
