"""The image of docs/dialogues.md: a dialogue on top of the image of smsd, in four
lines."""

import shutil
from pathlib import Path

from smsd.commands.new import create
from smsd.simulator import BlockingClient
from smsd.version import VERSION

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


def test_derived_image_serves_the_dialogue_of_the_tutorial(image: str, tmp_path: Path) -> None:
    for name in ("booking.py", "Dockerfile"):
        shutil.copy(CHECKOUT / "docs/examples/cafe" / name, tmp_path)
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
        podman("rmi", "--force", "cafe", check=False)
        podman("untag", "localhost/smsd:latest", "localhost/smsd:latest", check=False)


def test_project_made_by_smsd_new_builds_on_the_image_and_answers(
    image: str, tmp_path: Path
) -> None:
    """`image` is smsd:VERSION, which is what the project's Dockerfile begins with."""
    assert image.endswith(f"smsd:{VERSION}")
    create("pizza-bot", tmp_path / "pizza-bot")
    podman(*BUILD, "--tag", "pizza-bot", tmp_path / "pizza-bot")
    try:
        with container("pizza-bot", options=HARDENED, environ=SETTINGS) as started:
            wait_until(started.is_ready, "pizza-bot is ready")
            phone = BlockingClient(f"{PUBLIC_URL}/sms", token=TOKEN, connect_to=started.address)
            assert phone.text("hi").text == "Hello! What is your name?"
            assert phone.text("Ada").text == "Nice to meet you, Ada."
    finally:
        podman("rmi", "--force", "pizza-bot", check=False)
