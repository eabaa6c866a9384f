"""Tests of the hello dialogue. The fixture `phone` comes with smsd."""

import hello
import pytest


@pytest.fixture
def dialogue():
    return hello.reply


def test_it_asks_for_the_name_and_remembers_it(phone):
    assert phone.text("hi") == "Hello! What is your name?"
    assert phone.text("Ada", deliveries=2) == "Ada, this is message 2."
    phone.lose_store()
    assert phone.text("hi") == "Ada, this is message 3."


def test_it_asks_again_after_four_hours(phone):
    phone.text("hi")
    phone.wait(hours=4)
    assert phone.text("hi") == "Hello! What is your name?"


def test_each_sender_has_a_separate_conversation(phone):
    phone.text("hi")
    assert phone.as_("+14155550100").text("hi") == "Hello! What is your name?"
