"""A real browser before a real `smsd serve --dev`. Without Chromium the tests are skipped, but never in CI."""

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, ViewportSize, expect, sync_playwright

from tests.dev.processes import DevServer

ARTEFACTS = Path(__file__).parents[2] / ".artefacts"
CHROMIUM = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--no-first-run",
]
SIZES: dict[str, ViewportSize] = {
    "desk": {"width": 1280, "height": 800},
    "tablet": {"width": 900, "height": 900},
    "pocket": {"width": 390, "height": 844},
}


@pytest.fixture(scope="module")
def server() -> Iterator[DevServer]:
    with DevServer() as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        reason = f"{CHROMIUM} is missing: apt-get install chromium, or set CHROMIUM"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    expect.set_options(timeout=10_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


class Watch:
    """What a page must not do: complain on the console, or ask another host for anything."""

    def __init__(self, page: Page, host: str) -> None:
        self.complaints: list[str] = []
        self.strangers: list[str] = []
        page.on(
            "console",
            lambda m: self.complaints.append(m.text) if m.type in ("error", "warning") else None,
        )
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on(
            "request",
            lambda r: self.strangers.append(r.url) if urlsplit(r.url).netloc != host else None,
        )
