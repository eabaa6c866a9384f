"""Tests of the booking dialogue, named by a marker instead of a fixture."""

import pytest


@pytest.mark.dialogue("booking:reply")
def test_a_guest_books_a_table_and_corrects_the_day(phone):
    assert phone.text("A table please") == "Welcome to the café! Under what name?"
    assert phone.text("Ada") == "Hello Ada. Which day?"
    assert phone.text("tomorrow") == "Write the day like 2026-12-24."
    assert phone.text("2026-12-24") == "A table for Ada on 24 December? Write yes, or back."
    assert phone.text("back") == "Hello Ada. Which day?"
    assert phone.text("2026-12-25") == "A table for Ada on 25 December? Write yes, or back."
    assert phone.text("yes") == "See you on 25 December!"
    assert phone.media == ("https://example.com/map.png",)


@pytest.mark.dialogue("booking:reply")
def test_never_mind_leaves_the_form(phone):
    phone.text("hi")
    assert phone.text("Never mind.") == "All right, forgotten."
