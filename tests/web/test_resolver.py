"""Hosts of smsd's own requests: looked up in daemon threads, and hanging alone."""

import asyncio
import socket
import threading

import pytest

from smsd.errors import MediaError
from smsd.store import lookup
from smsd.web import download
from smsd.web.download import MediaFetcher, ThreadResolver
from tests.web.test_download import given


@pytest.mark.asyncio
async def test_host_is_looked_up_for_tornado() -> None:
    resolver = ThreadResolver()
    found = await resolver.resolve("localhost", 80)
    assert {address[0] for _, address in found} & {"127.0.0.1", "::1"}
    only = await resolver.resolve("127.0.0.1", 80, socket.AF_INET6)
    assert only == []


@pytest.mark.asyncio
async def test_host_without_address_is_an_error_of_the_system(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(OSError, match="cannot be looked up"):
        await ThreadResolver().resolve("files.test", 80)


@pytest.mark.asyncio
async def test_few_hosts_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "MAX_HOSTS", 3)
    resolver = ThreadResolver()
    for last in range(10):
        await resolver.resolve(f"127.0.0.{last + 1}", 80)
        assert len(resolver._lookups) <= 3


def test_hanging_lookup_fails_the_download_and_keeps_no_loop_from_closing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    release, ended = threading.Event(), threading.Event()

    def hang(*_: object, **__: object) -> list[object]:
        release.wait(10)
        ended.set()
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    monkeypatch.setattr(lookup.NameLookup.__init__, "__kwdefaults__", DEFAULTS)

    async def test() -> None:
        with pytest.raises(MediaError, match="cannot be reached"):
            await MediaFetcher(given)("https://api.twilio.com/file", 1000, "AC" + "1" * 32)

    asyncio.run(test())  # it waits for the threads of the loop's own resolver
    assert not ended.is_set()
    release.set()


DEFAULTS = {"resolver": lookup.resolve, "budget_s": 0.1}
