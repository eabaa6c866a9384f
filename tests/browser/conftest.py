"""A real browser before a real `smsd serve --dev`. Without Chromium the tests are skipped, but never in CI."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright
from tornado.testing import bind_unused_port

ARTEFACTS = Path(__file__).parents[2] / ".artefacts"
CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--no-first-run",
]
SIZES = {"desk": {"width": 1440, "height": 900}, "pocket": {"width": 375, "height": 740}}


class DevServer:
    """A `smsd serve --dev` process that can be stopped and started again on the same ports."""

    def __init__(self) -> None:
        self.port, self.admin_port = (_unused_port() for _ in range(2))
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        keep = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "smsd", "serve", "--dev"],
            env=keep
            | {
                "SMSD_PORT": str(self.port),
                "SMSD_ADMIN_PORT": str(self.admin_port),
                "SMSD_DRAIN_DELAY": "0",
                "PYTHONUNBUFFERED": "1",
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr
        for line in self.process.stderr:
            if re.search(r"\blistening\b", line):
                return
        pytest.fail("smsd serve --dev did not come up")

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self.process:
            self.process.send_signal(number)
            self.process.communicate(timeout=30)
            self.process = None


def _unused_port() -> int:
    sock, port = bind_unused_port()
    sock.close()
    return port


@pytest.fixture(scope="module")
def server() -> Iterator[DevServer]:
    server = DevServer()
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        reason = f"{CHROMIUM} is missing: apt-get install chromium"
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
            "console", lambda m: self.complaints.append(m.text) if m.type in ("error", "warning") else None
        )
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda r: self.strangers.append(r.url) if urlsplit(r.url).netloc != host else None)
