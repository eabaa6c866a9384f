"""G8: tokens, cookie keys and people change without a restart and without refusing a
valid request."""

import asyncio
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from smsd.settings import files as settings_files
from smsd.settings.reload import Reloader
from smsd.simulator import Account
from tests.faults.history import TO, Recorder
from tests.faults.world import World, number, world
from tests.processes import ACCOUNT, PUBLIC_URL, SETTINGS, TOKEN, Smsd, wait_for

pytestmark = pytest.mark.asyncio

OLD_KEY = SETTINGS["SMSD_COOKIE_KEYS"]
NEW_KEY = "2:" + "new-cookie-key-" * 3
NEW_TOKEN = "f" * 32
FILES = {
    "TWILIO_AUTH_TOKEN": TOKEN,
    "TWILIO_AUTH_TOKEN_SECONDARY": "",
    "SMSD_COOKIE_KEYS": OLD_KEY,
    "SMSD_PEOPLE": '"+14158675309" = "Rey"\n',
}


class Mounted:
    """Settings in files, as a mounted Secret has them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name, content in FILES.items():
            self.write(name, content)

    def write(self, name: str, content: str) -> None:
        """Replace the file as a whole, as the kubelet does."""
        new = self.folder / f".{name}"
        new.write_text(content)
        new.replace(self.folder / name)

    @property
    def env(self) -> dict[str, str | None]:
        given: dict[str, str | None] = dict.fromkeys(FILES)
        return given | {f"{name}_FILE": str(self.folder / name) for name in FILES}


@pytest.fixture
def mounted(tmp_path: Path) -> Mounted:
    return Mounted(tmp_path)


@pytest.fixture
def two(mounted: Mounted) -> Iterator[World]:
    with world(nodes=1, replicas=2, env=mounted.env) as made:
        yield made


def reloads(replica: Smsd, result: str = "ok") -> float:
    return replica.metric(f'smsd_reloads_total{{result="{result}"}}')


def _more(replica: Smsd, result: str, than: float) -> bool:
    return reloads(replica, result) > than


async def changed(made: World, change: Callable[[], None], result: str = "ok") -> None:
    """Make a change, and wait until every replica has taken notice of it."""
    before = [reloads(replica, result) for replica in made.replicas]
    change()
    for replica, seen in zip(made.replicas, before, strict=True):
        replica.signal(1)
        await asyncio.to_thread(wait_for, partial(_more, replica, result, seen), "read again")


async def test_g8_tokens_cookie_keys_and_people_rotate_under_load_and_nothing_is_refused(
    two: World, mounted: Mounted
) -> None:
    async with Recorder(two.replicas) as twilio:
        over = asyncio.Event()

        async def talk(from_: str) -> None:
            while not over.is_set():
                await twilio.text(from_)
                await asyncio.sleep(0.02)

        talks = [asyncio.create_task(talk(number())) for _ in range(10)]

        async def some_messages() -> None:
            enough = len(twilio.history) + 40
            while len(twilio.history) < enough:
                await asyncio.sleep(0.01)

        async def write(name: str, content: str) -> None:
            """A change, and some messages after it."""
            await changed(two, lambda: mounted.write(name, content))
            await some_messages()

        for name, content in (
            ("TWILIO_AUTH_TOKEN_SECONDARY", NEW_TOKEN),
            ("SMSD_COOKIE_KEYS", f"{OLD_KEY},{NEW_KEY}"),
            ("SMSD_COOKIE_KEYS", f"{NEW_KEY},{OLD_KEY}"),
            ("SMSD_PEOPLE", '"+14158675309" = "Rey Skywalker"\n'),
        ):
            await write(name, content)
        twilio.client.account = Account(
            ACCOUNT, NEW_TOKEN, f"{PUBLIC_URL}/sms"
        )  # promoted: it signs now
        await some_messages()
        await write("TWILIO_AUTH_TOKEN", NEW_TOKEN)
        await write("TWILIO_AUTH_TOKEN_SECONDARY", "")
        await write("SMSD_COOKIE_KEYS", NEW_KEY)
        over.set()
        await asyncio.gather(*talks)
        assert twilio.violations() == []
        assert len(twilio.history) > 100
        rey = await twilio.client.text(
            "hi", from_="+14158675309", to=TO, connect_to=two.replicas[0].address
        )
        assert rey.text == f"Thanks for the new message! Rey Skywalker has messaged {TO} 1 times"
    for replica in two.replicas:
        for reason in ("signature_missing", "signature_mismatch", "account", "malformed"):
            assert replica.metric(f'smsd_rejected_total{{reason="{reason}"}}') == 0
        assert replica.metric('smsd_cookies_total{state="forged"}') == 0
        assert replica.metric('smsd_signatures_total{key="secondary"}') > 0


async def test_g8_a_broken_new_version_keeps_the_old_one(two: World, mounted: Mounted) -> None:
    async with Recorder(two.replicas) as twilio:
        from_ = number()
        for name, content in (
            ("TWILIO_AUTH_TOKEN", ""),
            ("SMSD_COOKIE_KEYS", "3:short"),
            ("SMSD_PEOPLE", "no = = toml"),
        ):
            await twilio.text(from_)
            await changed(two, partial(mounted.write, name, content), "refused")
            await twilio.text(from_)
            mounted.write(name, FILES[name])
        assert twilio.violations() == []


def test_g8_tokens_that_change_places_are_read_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mounted Secret changes as a whole. Half of the old one and half of the new one
    would know only one token."""
    for version, (first, second) in {"old": (TOKEN, NEW_TOKEN), "new": (NEW_TOKEN, TOKEN)}.items():
        (tmp_path / version).mkdir()
        (tmp_path / version / "TWILIO_AUTH_TOKEN").write_text(first)
        (tmp_path / version / "TWILIO_AUTH_TOKEN_SECONDARY").write_text(second)
    data = tmp_path / "..data"
    data.symlink_to("old")
    names = ("TWILIO_AUTH_TOKEN", "TWILIO_AUTH_TOKEN_SECONDARY")
    environ = {**SETTINGS, **{f"{name}_FILE": str(data / name) for name in names}}
    del environ["TWILIO_AUTH_TOKEN"]
    reloader = Reloader(environ)
    read = settings_files.read

    def swapped_meanwhile(path: str) -> str:
        content = read(path)
        if not (tmp_path / "swapped").exists():
            (tmp_path / "swapped").symlink_to("new")
            os.replace(tmp_path / "swapped", data)
            (tmp_path / "swapped").touch()
        return content

    monkeypatch.setattr(settings_files, "read", swapped_meanwhile)
    settings = reloader.reload()
    assert settings is not None
    assert settings.auth_token_secondary is not None
    known = {settings.auth_token.reveal(), settings.auth_token_secondary.reveal()}
    assert known == {TOKEN.encode(), NEW_TOKEN.encode()}
