"""The README's derived image: a dialogue of one's own, in four lines."""

import re
from pathlib import Path

from smsd.simulator import BlockingClient

from .podman import (
    CHECKOUT,
    HARDENED,
    PUBLIC_URL,
    SETTINGS,
    TOKEN,
    container,
    podman,
    run,
    wait_until,
)

BUILD = (
    "build",
    "--isolation",
    "chroot",
    "--network",
    "host",
    "--pull-never",
    "--format",
    "docker",
    "--quiet",
)


def block(name: str) -> str:
    """The file of this name in the README: the example that begins with it."""
    readme = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    (text,) = re.findall(
        rf"^```\w+\n(# {re.escape(name)}\n.*?)^```$", readme, re.MULTILINE | re.DOTALL
    )
    return str(text)


def test_an_image_of_four_lines_has_the_dialogue_of_the_readme(image: str, tmp_path: Path) -> None:
    for name in ("booking.py", "Dockerfile"):
        (tmp_path / name).write_text(block(name))
    podman("tag", image, "localhost/smsd:latest")  # what `docker build -t smsd .` makes
    podman(*BUILD, "--tag", "cafe", tmp_path)
    try:
        with container("cafe", options=HARDENED, environ=SETTINGS) as started:
            wait_until(started.is_ready, "cafe is ready")
            phone = BlockingClient(f"{PUBLIC_URL}/sms", token=TOKEN, connect_to=started.address)
            assert phone.text("hi").text == "Welcome to the café! Under what name?"
            assert phone.text("Ada").text == "Hello Ada. Which day?"
        (tmp_path / "booking.py").write_text("import nowhere_at_all")
        refused = run(*BUILD, "--tag", "broken", tmp_path)
        assert refused.returncode != 0
        assert "No module named 'nowhere_at_all'" in refused.stdout + refused.stderr
    finally:
        podman("rmi", "--force", "cafe", "localhost/smsd:latest", check=False)
