"""The examples in the docstrings of the public API run, and every public name has a
docstring."""

import doctest
import importlib
import inspect

import pytest

from docs.tools.pages import Page, pages
from docs.tools.tables import API_MODULES, public_names

MODULES = (
    "smsd",
    "smsd.conversation.session",
    "smsd.form",
    "smsd.router",
    "smsd.twilio.message",
    "smsd.twilio.reply",
    "smsd.twilio.segments",
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_are_true(name: str) -> None:
    failed, tried = doctest.testmod(importlib.import_module(name))
    assert tried
    assert not failed


@pytest.mark.parametrize("module", API_MODULES)
def test_every_public_name_has_a_docstring(module: str) -> None:
    for name in public_names(module):
        value = getattr(importlib.import_module(module), name)
        if callable(value):
            assert inspect.getdoc(value), f"{module}.{name}"


@pytest.mark.parametrize("each", pages(), ids=lambda each: each.path)
def test_examples_in_pages_are_true(each: Page) -> None:
    text = "\n".join(block.text for block in each.blocks("python") if ">>> " in block.text)
    test = doctest.DocTestParser().get_doctest(text, {}, each.path, each.path, 0)
    assert doctest.DocTestRunner().run(test).failed == 0
