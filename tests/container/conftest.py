"""Fixtures that the tests share: the image under test, and what was measured."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from smsd.version import VERSION

from .podman import HARDENED, SETTINGS, Container, container, podman, wait_until

FIGURES: dict[str, str] = {}


@pytest.fixture(scope="session")
def image() -> str:
    """The name of the image that tests/container/run built from the Dockerfile."""
    return f"localhost/smsd:{VERSION}"


@pytest.fixture(scope="session")
def memcached_image() -> str:
    """The name that the StatefulSet uses."""
    return os.environ["MEMCACHED_IMAGE"]


@pytest.fixture(scope="session")
def figures() -> dict[str, str]:
    """Measured figures by name; pytest prints them at the end."""
    return FIGURES


@pytest.fixture(scope="session", autouse=True)
def clean() -> None:
    """Remove what an interrupted run left behind."""
    podman("pod", "rm", "--all", "--force", check=False)
    podman("rm", "--all", "--force", "--time", "0", check=False)
    podman("volume", "rm", "--all", "--force", check=False)
    podman("secret", "rm", "--all", check=False)
    podman("network", "prune", "--force", check=False)


@pytest.fixture(scope="module")
def smsd(image: str) -> Iterator[Container]:
    """A hardened `smsd serve` with its store in memory."""
    with container(image, options=HARDENED, environ=SETTINGS) as started:
        wait_until(started.is_ready, "smsd is ready")
        yield started


@pytest.fixture
def dialogue(tmp_path: Path) -> Path:
    """A folder to mount at /app. A test puts its dialogue into mine.py there."""
    folder = tmp_path / "app"
    folder.mkdir()
    return folder


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for what, figure in FIGURES.items():
        terminalreporter.write_line(f"measured: {what}: {figure}")
