"""Tests of the ported tutorial: what Flask's session loses is kept."""

import pytest

pytestmark = pytest.mark.dialogue("after:hello")


def test_it_counts_as_the_tutorial_does(phone):
    assert phone.text("hi") == "Rey has messaged +14158141829 1 times."
    assert phone.text("hi again") == "Rey has messaged +14158141829 2 times."
    assert phone.as_("+14155550100").text("hi") == "Friend has messaged +14158141829 1 times."


def test_a_message_that_twilio_repeats_counts_once(phone):
    assert phone.text("hi", deliveries=3) == "Rey has messaged +14158141829 1 times."
    assert phone.text("hi") == "Rey has messaged +14158141829 2 times."


def test_a_lost_store_loses_no_count(phone):
    phone.text("hi")
    phone.lose_store()
    assert phone.text("hi") == "Rey has messaged +14158141829 2 times."
