"""Tests of the routes. `anywhere=True` lets a word through while the form waits."""

import pytest

pytestmark = pytest.mark.dialogue("bakery:router")


def test_words_and_patterns_choose_the_route(phone):
    assert phone.text("Hours!") == "Open from 7 to 18, except Mondays."
    assert phone.text("price of tart") == "Tart: 24 dollars."
    assert phone.text("hello") == "Write HOURS, ORDER, or PRICE OF and a cake."


def test_a_question_between_two_answers_does_not_disturb_the_form(phone):
    assert phone.text("order") == "Which cake?"
    assert phone.text("hours") == "Open from 7 to 18, except Mondays."
    assert phone.text("Tart") == "For which day?"
    assert phone.text("Friday") == "Tart for Friday: ordered."


def test_the_second_number_reaches_suppliers(phone):
    other = phone.as_(phone.number, to="+14155550142")
    assert other.text("hours") == "Deliveries: back door, before 6."
