"""The examples in the docstrings of what users import are run, and none of it is without one."""

import doctest
import importlib
from types import ModuleType

import pytest

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
    module: ModuleType = importlib.import_module(name)
    failed, tried = doctest.testmod(module)
    assert tried
    assert not failed


@pytest.mark.parametrize("public", ["Message", "Reply", "Router", "Session"])
def test_what_a_dialogue_is_given_and_returns_is_shown_by_example(public: str) -> None:
    documented = getattr(importlib.import_module("smsd"), public)
    assert ">>> " in documented.__doc__
