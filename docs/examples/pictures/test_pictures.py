"""Tests of the downloads. The third value is the file's content: nothing leaves the machine."""

import pytest

pytestmark = pytest.mark.dialogue("pictures:reply")


def test_a_picture_is_downloaded(phone):
    cat = ("https://example.com/cat.png", "image/png", b"meow")
    assert phone.text("look", media=[cat]) == "I got 4 bytes."


def test_a_picture_that_is_too_large_is_refused(phone):
    poster = ("https://example.com/poster.png", "image/png", b"x" * 1_000_001)
    assert phone.text("look", media=[poster]) == "I could not open your picture."


def test_a_picture_that_is_gone_is_refused(phone):
    gone = ("https://example.com/gone.png", "image/png", None)
    assert phone.text("look", media=[gone]) == "I could not open your picture."
