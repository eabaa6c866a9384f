"""Changed files take effect while smsd runs; a broken version changes nothing."""

import os
from pathlib import Path

import pytest

from smsd.errors import SettingsError
from smsd.settings.reload import Reloader
from smsd.settings.table import Secret

GOOD = {
    "SMSD_PUBLIC_URL": "https://sms.example.com",
    "SMSD_COOKIE_KEYS": "1:" + "o" * 32,
    "SMSD_HASH_KEY": "h" * 32,
}


@pytest.fixture
def mount(tmp_path: Path) -> Path:
    (tmp_path / "token").write_text("old-token")
    (tmp_path / "people.toml").write_text('"+14155550123" = "Ann"')
    return tmp_path


def reloader(mount: Path, **more: str) -> Reloader:
    files = {
        "TWILIO_AUTH_TOKEN_FILE": str(mount / "token"),
        "SMSD_PEOPLE": str(mount / "people.toml"),
    }
    return Reloader({**GOOD, **files, **more})


def test_nothing_has_changed_until_a_file_changes(mount: Path) -> None:
    found = reloader(mount)
    assert not found.changed()
    (mount / "people.toml").write_text('"+14155550123" = "Anna"')
    assert found.changed()
    settings = found.reload()
    assert settings is not None
    assert settings.people == {"+14155550123": "Anna"}
    assert found.settings is settings
    assert not found.changed()


def test_a_new_token_is_taken_over(mount: Path) -> None:
    found = reloader(mount)
    (mount / "token").write_text("new-token\n")
    assert found.changed()
    found.reload()
    assert found.settings.auth_token == Secret("new-token")


def test_reload_without_a_change_returns_none(mount: Path) -> None:
    found = reloader(mount)
    before = found.settings
    os.utime(mount / "token", ns=(1, 1))
    assert found.changed()
    assert found.reload() is None
    assert found.settings is before


def test_broken_version_keeps_the_old_one(mount: Path) -> None:
    found = reloader(mount)
    before = found.settings
    (mount / "people.toml").write_text('"+14155550123" = ')
    (mount / "token").write_text("new-token")
    with pytest.raises(SettingsError, match="SMSD_PEOPLE: its file is not TOML"):
        found.reload()
    assert found.settings is before
    assert not found.changed()
    (mount / "people.toml").write_text('"+14155550123" = "Anna"')
    assert found.changed()
    found.reload()
    assert (found.settings.auth_token, found.settings.people) == (
        Secret("new-token"),
        {"+14155550123": "Anna"},
    )


def test_missing_file_keeps_the_old_version(mount: Path) -> None:
    found = reloader(mount)
    (mount / "token").unlink()
    assert found.changed()
    with pytest.raises(SettingsError, match="TWILIO_AUTH_TOKEN: its file cannot be read"):
        found.reload()
    assert found.settings.auth_token == Secret("old-token")
    assert not found.changed()


def test_replaced_file_of_equal_size_and_time_is_noticed(mount: Path) -> None:
    found = reloader(mount)
    times = os.stat(mount / "token")
    (mount / "next").write_text("new-token")
    os.utime(mount / "next", ns=(times.st_atime_ns, times.st_mtime_ns))
    (mount / "next").rename(mount / "token")
    assert found.changed()


def test_swapped_kubernetes_mount_is_noticed(tmp_path: Path) -> None:
    for version in ("old", "new"):
        (tmp_path / f"..{version}").mkdir()
        (tmp_path / f"..{version}" / "token").write_text(f"{version}-token")
        (tmp_path / f"..{version}" / "people.toml").write_text('"+14155550123" = "Ann"')
    (tmp_path / "..data").symlink_to("..old")
    (tmp_path / "token").symlink_to("..data/token")
    (tmp_path / "people.toml").symlink_to("..data/people.toml")
    found = reloader(tmp_path)
    (tmp_path / "..tmp").symlink_to("..new")
    (tmp_path / "..tmp").rename(tmp_path / "..data")
    assert found.changed()
    found.reload()
    assert found.settings.auth_token == Secret("new-token")
    assert not found.restart_needed


def test_setting_that_needs_a_restart_keeps_its_value(mount: Path) -> None:
    (mount / "port").write_text("8081")
    (mount / "store").write_text("memory://")
    found = reloader(
        mount,
        SMSD_PORT_FILE=str(mount / "port"),
        SMSD_STORE_FILE=str(mount / "store"),
        SMSD_APOLOGY="Oh.",
    )
    (mount / "port").write_text("8082")
    (mount / "store").write_text("cookie://")
    assert found.reload() is None
    assert found.restart_needed == ("SMSD_STORE", "SMSD_PORT")
    assert found.settings.port == 8081
    (mount / "port").write_text("8081")
    (mount / "store").write_text("memory://")
    (mount / "token").write_text("new-token")
    assert found.reload() is not None
    assert not found.restart_needed


def test_the_first_version_must_be_right(mount: Path) -> None:
    (mount / "token").write_text("a b")
    with pytest.raises(SettingsError, match="TWILIO_AUTH_TOKEN"):
        reloader(mount)


def test_invalid_path_counts_as_a_missing_file(mount: Path) -> None:
    found = Reloader({"SMSD_PEOPLE": str(mount / "people.toml")}, dev=True)
    assert not found.changed()
    with pytest.raises(SettingsError, match="SMSD_PEOPLE"):
        Reloader({"SMSD_PEOPLE": "a\x00b"}, dev=True)


def test_throw_away_secrets_stay_over_a_reload(mount: Path) -> None:
    found = Reloader(
        {"SMSD_PEOPLE": str(mount / "people.toml")}, dev=True, dev_defaults={"SMSD_PORT": "8081"}
    )
    before = found.settings
    (mount / "people.toml").write_text('"+14155550123" = "Anna"')
    found.reload()
    assert found.settings.people != before.people
    assert (found.settings.hash_key, found.settings.cookie_keys) == (
        before.hash_key,
        before.cookie_keys,
    )
    assert (found.settings.auth_token, found.settings.port) == (before.auth_token, 8081)
    assert not found.restart_needed
