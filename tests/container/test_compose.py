"""deploy/compose.yaml as podman-compose runs it, with Caddy's own certificate authority
for localhost.

Caddy and memcached are stand-ins of the same names, made from Debian's packages.
"""

import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from smsd.simulator import BlockingClient
from smsd.version import VERSION

from .podman import CHECKOUT, ENGINE, TOKEN, Container, inspect, podman, run, status, wait_until

COMPOSE = CHECKOUT / "deploy/compose.yaml"
SERVICES = yaml.safe_load(COMPOSE.read_text())["services"]
ROOT = "/data/caddy/pki/authorities/local/root.crt"
URL = "https://localhost/sms"


def compose(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(ENGINE), "compose", *arguments], check=False, capture_output=True, text=True,
        timeout=180, cwd=folder,
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(image: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Set up as compose.yaml says at its top."""
    folder = tmp_path_factory.mktemp("deploy")
    for name in ("compose.yaml", "Caddyfile"):
        shutil.copy(CHECKOUT / "deploy" / name, folder)
    keys = podman("run", "--rm", image, "keys")
    lines = [keys, "DOMAIN=localhost", f"TWILIO_AUTH_TOKEN={TOKEN}", ""]
    (folder / ".env").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def running(folder: Path) -> Iterator[dict[str, Container]]:
    """The services by name."""
    started = compose(folder, "up", "--detach", "--no-build")
    try:
        assert started.returncode == 0, started.stdout + started.stderr
        services = {name: Container(f"smsd_{name}_1") for name in SERVICES}
        wait_until(
            lambda: status("http://localhost/sms") == 405,
            f"Caddy passes requests on: {started.stderr}",
        )
        wait_until(
            lambda: run("exec", services["caddy"].name, "test", "-e", ROOT).returncode == 0,
            f"Caddy has its certificate: {services['caddy'].logs()}",
        )
        yield services
    finally:
        compose(folder, "down", "--volumes")


@pytest.fixture
def phone(
    running: dict[str, Container], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> BlockingClient:
    """A phone that trusts Caddy's authority."""
    root = tmp_path / "root.crt"
    root.write_text(podman("exec", running["caddy"].name, "cat", ROOT) + "\n")
    monkeypatch.setenv("SSL_CERT_FILE", str(root))
    assert ssl.create_default_context().cert_store_stats()["x509_ca"] == 1
    return BlockingClient(URL, token=TOKEN)


def count(text: str | None) -> int:
    return int((text or "").split()[-2])


def test_a_text_is_answered_over_tls(phone: BlockingClient) -> None:
    outcomes = [phone.text("hi"), phone.text("hi again")]
    assert [outcome.status for outcome in outcomes] == [200, 200]
    assert [count(outcome.text) for outcome in outcomes] == [1, 2]


def test_a_conversation_survives_the_restart_of_memcached(
    phone: BlockingClient, running: dict[str, Container]
) -> None:
    first = count(phone.text("hi").text)
    podman("restart", "--time", "1", running["memcached"].name)
    assert count(phone.text("hi").text) == first + 1


def test_a_conversation_survives_the_replacement_of_smsd(
    phone: BlockingClient, running: dict[str, Container]
) -> None:
    first = count(phone.text("hi").text)
    podman("restart", "--time", "45", running["smsd"].name)
    wait_until(lambda: status("http://localhost/sms") == 405, "smsd is back")
    assert count(phone.text("hi").text) == first + 1


def test_nothing_but_the_webhook_is_reached(running: dict[str, Container]) -> None:
    for path in ("/", "/metrics", "/status", "/livez", "/phone"):
        assert status(f"http://localhost{path}") == 404, path


def test_a_webhook_set_to_http_is_refused_with_its_cause(running: dict[str, Container]) -> None:
    assert BlockingClient("http://localhost/sms", token=TOKEN).text("hi").text is None
    wait_until(lambda: '"cause":"scheme"' in running["smsd"].logs(), "the log names the cause")


def test_the_services_are_hardened(running: dict[str, Container]) -> None:
    for name, service in running.items():
        host = inspect("container", service.name)["HostConfig"]
        assert host["ReadonlyRootfs"] is True, name
        assert host["Memory"] == 256 * 1024 * 1024, name
    lines = podman("exec", running["smsd"].name, "cat", "/proc/1/status").splitlines()
    state = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    assert state["Uid"].split() == ["10001"] * 4
    assert int(state["CapBnd"], 16) == 0
    assert state["NoNewPrivs"].strip() == "1"


def test_the_doctor_finds_nothing_wrong(running: dict[str, Container]) -> None:
    done = run("exec", running["smsd"].name, "smsd", "doctor")
    assert done.returncode == 0, done.stdout + done.stderr


def test_without_a_domain_compose_says_what_is_missing(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "compose.yaml", tmp_path)
    (tmp_path / ".env").write_text("TWILIO_AUTH_TOKEN=x\n")
    done = compose(tmp_path, "config")
    assert done.returncode != 0
    assert "DOMAIN" in done.stdout + done.stderr


def test_it_runs_the_images_of_the_release() -> None:
    assert SERVICES["smsd"]["image"] == f"smsd:{VERSION}"
    manifest = (CHECKOUT / "deploy/k8s/base/memcached.yaml").read_text()
    assert f"image: {SERVICES['memcached']['image']}\n" in manifest
