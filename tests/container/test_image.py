"""The image: its size, contents, metadata and health check, and how it behaves when
hardened."""

import http.client
import json
import re
import subprocess
import threading
import time
from pathlib import Path

import pytest

from smsd.simulator import BlockingClient
from smsd.version import VERSION

from .podman import (
    CHECKOUT,
    HARDENED,
    PUBLIC_URL,
    SETTINGS,
    TOKEN,
    Container,
    container,
    get,
    inspect,
    podman,
    run,
    status,
    wait_until,
)

BASE = "docker.io/library/python:3.13-slim-trixie"
MB = 1_000_000
SLOW_DIALOGUE = """
import asyncio, pathlib

async def reply(message, session):
    pathlib.Path("/tmp/asked").touch()
    await asyncio.sleep(3)
    return "late, but there"
"""


def phone(to: Container, token: str = TOKEN) -> BlockingClient:
    return BlockingClient(f"{PUBLIC_URL}/sms", token=token, connect_to=to.address)


def test_it_adds_less_than_60_mb_to_its_base(image: str, figures: dict[str, str]) -> None:
    added = inspect("image", image)["Size"] - inspect("image", BASE)["Size"]
    figures["image size over its base"] = f"{added / MB:.0f} MB"
    assert 0 < added < 60 * MB


def test_its_settings_are_those_that_operators_rely_on(image: str) -> None:
    found = inspect("image", image)
    config = found["Config"]
    assert config["Entrypoint"] == ["smsd"]
    assert config["Cmd"] == ["serve"]
    assert config["User"] == "10001:10001"
    assert config["StopSignal"] == "SIGTERM"
    assert set(config["ExposedPorts"]) == {"8080/tcp", "9090/tcp"}
    labels = {
        key.removeprefix("org.opencontainers.image."): value
        for key, value in config["Labels"].items()
        if key.startswith("org.opencontainers.image.")
    }
    assert labels.keys() >= {"title", "description", "licenses", "version", "revision"}
    assert labels["version"] == VERSION
    assert re.fullmatch("[0-9a-f]{40}", labels["revision"])
    assert found["Healthcheck"]["Test"][0] == "CMD"


def test_it_holds_no_build_tools_and_only_compiled_modules(image: str) -> None:
    script = """
        cd /opt/venv && ls bin lib/python3*/site-packages
        for f in lib/python3*/site-packages/smsd/*.py lib/python3*/site-packages/tornado/*.py; do
            ls "$(dirname "$f")/__pycache__/$(basename "$f" .py)".cpython-*.pyc >/dev/null || echo "not compiled: $f"
        done
        ls -A /app"""
    listing = podman("run", "--rm", "--entrypoint", "sh", image, "-c", script).split()
    assert {"smsd", "tornado"} <= set(listing)
    tools = [
        n
        for n in listing
        if re.match(r"(pip|setuptools|wheel|_distutils_hack|uv)\b", n, re.IGNORECASE)
    ]
    assert tools == []
    assert "compiled:" not in listing


def test_it_holds_the_version_of_the_checkout(image: str) -> None:
    version = podman("run", "--rm", image, "--version")
    assert version == f"smsd {VERSION} (distribution smsd-twilio)"


def test_dev_server_answers_the_curl_line_it_prints(image: str) -> None:
    options = ("--publish", "8080:8080")
    with container(image, "serve", "--dev", "--host", "0.0.0.0", options=options) as dev:  # noqa: S104
        wait_until(lambda: status("http://127.0.0.1:8080/phone") == 200, "the phone page")
        (curl,) = re.findall(r"\b(curl .*/sms)$", dev.logs(), re.MULTILINE)
        done = subprocess.run(
            ["sh", "-c", curl], check=False, capture_output=True, text=True, timeout=20
        )
        assert "<Response>" in done.stdout, done
        (phone_line,) = re.findall(r"In a terminal (.*)$", dev.logs(), re.MULTILINE)
        engine, exec_, _, name, *command = phone_line.split()
        assert (engine, exec_) == ("podman", "exec"), (
            "through a published port it would get no token"
        )
        said = podman("exec", name, *command, "--send", "hi")
        assert said.startswith("Thanks for the new message!") or "has messaged" in said


def test_hardened_it_answers_signed_webhooks(smsd: Container) -> None:
    client = phone(smsd)
    assert (
        client.text("hi").text
        == "Thanks for the new message! Rey has messaged +14158141829 1 times"
    )
    assert client.text("hi again").text == "Rey has messaged +14158141829 2 times"
    assert phone(smsd, token="another").text("hi").codes


def test_hardened_container_has_no_rights(smsd: Container) -> None:
    lines = podman("exec", smsd.name, "cat", "/proc/1/status").splitlines()
    status_of_1 = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    assert status_of_1["Uid"].split() == ["10001"] * 4
    assert int(status_of_1["CapEff"], 16) == int(status_of_1["CapBnd"], 16) == 0
    assert status_of_1["NoNewPrivs"].strip() == "1"
    assert run("exec", smsd.name, "touch", "/app/x").returncode != 0


def test_smsd_itself_is_process_1(smsd: Container) -> None:
    command = podman("exec", smsd.name, "cat", "/proc/1/cmdline").split("\0")
    assert command[:3] == ["/opt/venv/bin/python", "/opt/venv/bin/smsd", "serve"]


def test_time_to_the_first_answer_and_memory_at_rest(image: str, figures: dict[str, str]) -> None:
    begun_s = time.monotonic()
    with container(
        image, options=("--publish", "8080:8080", *HARDENED), environ=SETTINGS
    ) as started:
        client = BlockingClient(f"{PUBLIC_URL}/sms", token=TOKEN, connect_to="127.0.0.1:8080")
        wait_until(lambda: client.text("hi").text, "the first answer")
        figures["from `run` to the first answer"] = f"{time.monotonic() - begun_s:.1f} s"
        lines = Path(f"/proc/{started.pid}/status").read_text().splitlines()
        (resident,) = [int(line.split()[1]) for line in lines if line.startswith("VmRSS")]
        figures["memory at rest (resident)"] = f"{resident / 1024:.0f} MiB"
        assert resident < 96 * 1024, "the manifests request 96Mi"


def test_it_runs_under_any_user_id(image: str) -> None:
    """OpenShift picks one, with group 0."""
    options = (*HARDENED, "--user", "1000650000:0")
    with container(image, options=options, environ=SETTINGS) as started:
        wait_until(started.is_ready, "smsd is ready")
        assert phone(started).text("hi").text


def test_it_answers_load_balancers_on_the_public_port(smsd: Container) -> None:
    assert status(f"http://{smsd.address}/healthz") == 200


def test_without_settings_it_exits_with_2_and_names_each(image: str) -> None:
    done = run("run", "--rm", image)
    assert done.returncode == 2
    for name in ("TWILIO_AUTH_TOKEN", "SMSD_PUBLIC_URL", "SMSD_COOKIE_KEYS", "SMSD_HASH_KEY"):
        assert name in done.stderr


def test_sigterm_finishes_the_request_in_flight_and_exits_with_0(
    image: str, dialogue: Path
) -> None:
    (dialogue / "mine.py").write_text(SLOW_DIALOGUE)
    options = ("--volume", f"{dialogue}:/app:ro", "--tmpfs", "/tmp", *HARDENED)  # noqa: S108
    environ = {**SETTINGS, "SMSD_DIALOGUE": "mine:reply", "SMSD_DRAIN_DELAY": "1"}
    with container(image, options=options, environ=environ) as slow:
        wait_until(slow.is_ready, "smsd is ready")
        answers: list[str | None] = []
        asking = threading.Thread(target=lambda: answers.append(phone(slow).text("hi").text))
        asking.start()
        asked = ("test", "-e", "/tmp/asked")  # noqa: S108 - in the container
        wait_until(lambda: run("exec", slow.name, *asked).returncode == 0, "it asks")
        admin = slow.admin
        slow.signal("TERM")
        wait_until(lambda: status(f"{admin}/readyz") == 503, "readiness fails")
        assert status(f"{admin}/livez") == 200
        asking.join(timeout=20)
        assert answers == ["late, but there"]
        assert slow.exit_code() == 0


def test_the_health_check_sees_a_live_process(smsd: Container) -> None:
    assert run("healthcheck", "run", smsd.name).returncode == 0


def test_the_health_check_follows_the_admin_port_and_no_proxy(image: str) -> None:
    environ = {**SETTINGS, "SMSD_ADMIN_PORT": "9191", "http_proxy": "http://127.0.0.1:9"}
    with container(image, environ=environ) as moved:
        wait_until(lambda: status(f"http://{moved.ip}:9191/livez") == 200, "smsd lives")
        assert run("healthcheck", "run", moved.name).returncode == 0


@pytest.mark.parametrize("host", ["*", "0.0.0.0", "127.0.0.1", "::1", "::", ""])  # noqa: S104
def test_the_health_check_follows_the_address(image: str, host: str) -> None:
    with container(image, environ={**SETTINGS, "SMSD_HOST": host}) as one:
        healthy = ("healthcheck", "run", one.name)
        wait_until(lambda: run(*healthy).returncode == 0, f"it is healthy: {one.logs()}")


def test_the_health_check_sees_a_process_that_does_not_answer(image: str) -> None:
    with container(image, "3600", options=("--entrypoint", "sleep")) as idle:
        assert run("healthcheck", "run", idle.name).returncode == 1


def test_changed_secret_takes_effect_without_a_restart(image: str, tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    _swap(secrets, "..1", {"TWILIO_AUTH_TOKEN": TOKEN, "TWILIO_AUTH_TOKEN_SECONDARY": ""})
    environ = {key: value for key, value in SETTINGS.items() if key != "TWILIO_AUTH_TOKEN"}
    for name in ("TWILIO_AUTH_TOKEN", "TWILIO_AUTH_TOKEN_SECONDARY"):
        environ[f"{name}_FILE"] = f"/etc/smsd/secrets/{name}"
    options = ("--volume", f"{secrets}:/etc/smsd/secrets:ro", *HARDENED)
    with container(image, options=options, environ=environ) as rotating:
        wait_until(rotating.is_ready, "smsd is ready")
        assert phone(rotating).text("hi").text
        _swap(
            secrets, "..2", {"TWILIO_AUTH_TOKEN": TOKEN, "TWILIO_AUTH_TOKEN_SECONDARY": "promoted"}
        )
        wait_until(
            lambda: phone(rotating, token="promoted").text("hi").text, "the new token counts"
        )
        assert phone(rotating).text("hi").text, "and the old one too"
        reloads = re.findall(
            r'^smsd_reloads_total{result="(\w+)"} (\S+)$',
            get(f"{rotating.admin}/metrics"),
            re.MULTILINE,
        )
        assert dict(reloads) == {"ok": "1.0", "refused": "0.0"}


def _swap(volume: Path, version: str, files: dict[str, str]) -> None:
    """Change a mounted Secret as the kubelet does: write a new folder, then rename one
    link."""
    (volume / version).mkdir(parents=True)
    for name, content in files.items():
        (volume / version / name).write_text(content)
        if not (volume / name).is_symlink():
            (volume / name).symlink_to(f"..data/{name}")
    (volume / "..new").symlink_to(version)
    (volume / "..new").rename(volume / "..data")


def test_no_secret_gets_into_the_image(image: str) -> None:
    history = podman("history", "--no-trunc", "--format", "json", image)
    assert json.loads(history)
    for word in ("pip.conf", "PIP_CERT", "index-url", "AUTH_TOKEN="):
        assert word not in history


@pytest.mark.parametrize("address", ["public", "admin"])
def test_answers_to_strangers_say_nothing(smsd: Container, address: str) -> None:
    port = {"public": 8080, "admin": 9090}[address]
    connection = http.client.HTTPConnection(smsd.ip, port, timeout=5)
    connection.request("GET", "/no-such-page")
    response = connection.getresponse()
    assert (response.status, response.read()) == (404, b"")
    connection.close()


def test_the_context_holds_only_what_is_copied() -> None:
    lines = (CHECKOUT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
