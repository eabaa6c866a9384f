"""Tests of the diary: its entries outlive the conversation."""

import pytest


@pytest.mark.dialogue("diary:Diary")
def test_entries_outlive_the_conversation(phone, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    phone.text("Rain.", deliveries=2)
    phone.wait(hours=5)
    assert phone.text("Sun.") == "Dear diary now has 2."
