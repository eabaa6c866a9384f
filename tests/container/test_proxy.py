"""nginx in front of smsd, as an ingress: it terminates TLS, changes headers and may
strip a path prefix."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from smsd.simulator import BlockingClient

from .podman import (
    HARDENED,
    SETTINGS,
    TOKEN,
    Container,
    container,
    get,
    process,
    status,
    wait_until,
)

CONFIG = """
daemon off;
pid {folder}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    proxy_set_header Host smsd.internal;
    proxy_set_header X-Forwarded-Proto http;
    proxy_set_header X-Forwarded-Host elsewhere.example.com;
    server {{
        listen 127.0.0.1:80;
        location / {{ proxy_pass http://{plain}; }}
    }}
    server {{
        listen 127.0.0.1:443 ssl;
        ssl_certificate {folder}/tls.crt;
        ssl_certificate_key {folder}/tls.key;
        location = /health {{ return 204; }}
        location /sms {{ proxy_pass http://{plain}; }}
        location /texts/ {{ proxy_pass http://{prefixed}; }}
        location /stripped/ {{ proxy_pass http://{stripped}/; }}
    }}
}}
"""
"""It gives a wrong host and scheme, as a chain of proxies may: smsd must trust only its
settings."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a certificate for localhost."""
    folder = tmp_path_factory.mktemp("nginx")
    subject = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2")
    files = ("-keyout", str(folder / "tls.key"), "-out", str(folder / "tls.crt"))
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *subject, *files]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return folder


@pytest.fixture(scope="module")
def replicas(image: str) -> Iterator[dict[str, Container]]:
    """One process for each public URL."""
    urls = {
        "plain": "https://localhost",
        "prefixed": "https://localhost/texts",
        "stripped": "https://localhost/stripped",
    }
    environ = {name: {**SETTINGS, "SMSD_PUBLIC_URL": url} for name, url in urls.items()}
    with (
        container(image, options=HARDENED, environ=environ["plain"]) as plain,
        container(image, options=HARDENED, environ=environ["prefixed"]) as prefixed,
        container(image, options=HARDENED, environ=environ["stripped"]) as stripped,
    ):
        started = {"plain": plain, "prefixed": prefixed, "stripped": stripped}
        wait_until(lambda: all(one.is_ready() for one in started.values()), "all are ready")
        yield started


@pytest.fixture(scope="module")
def proxy(folder: Path, replicas: dict[str, Container]) -> Iterator[None]:
    addresses = {name: one.address for name, one in replicas.items()}
    config = folder / "nginx.conf"
    config.write_text(CONFIG.format(folder=folder, **addresses))
    nginx = shutil.which("nginx")
    assert nginx
    with process(nginx, "-e", "stderr", "-p", folder, "-c", config, log=folder / "nginx.log"):
        wait_until(lambda: status("http://127.0.0.1/sms") == 405, "nginx passes requests on")
        yield


@pytest.mark.parametrize(
    "url",
    ["https://localhost/sms", "https://localhost/texts/sms", "https://localhost/stripped/sms"],
    ids=["no prefix", "prefix passed on", "prefix stripped"],
)
@pytest.mark.usefixtures("proxy")
def test_signatures_hold_behind_the_proxy(
    url: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(folder / "tls.crt"))
    client = BlockingClient(url, token=TOKEN)
    outcomes = [
        client.text("hi"),
        client.text("and hi"),
        client.text("query", extra={"Query": "a b&c=ü"}),
    ]
    assert [outcome.status for outcome in outcomes] == [200, 200, 200]
    assert [(outcome.text or "").split()[-2] for outcome in outcomes] == ["1", "2", "3"]
    assert all("Secure" in (outcome.cookie or "") for outcome in outcomes)


@pytest.mark.parametrize("path", ["", "/texts", "/stripped"])
@pytest.mark.usefixtures("proxy")
def test_doctor_calls_through_the_proxy_and_names_it(path: str, folder: Path) -> None:
    base = f"https://localhost{path}"
    done = subprocess.run(
        [sys.executable, "-m", "smsd", "doctor", "--call"],
        env={**SETTINGS, "SMSD_PUBLIC_URL": base, "SSL_CERT_FILE": str(folder / "tls.crt")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"ok      {base}/sms: smsd answers, with this auth token" in done.stdout
    assert "certificate: trusted here" in done.stdout
    assert "ok      in front: nginx; its read time-out must be longer" in done.stdout


@pytest.mark.usefixtures("proxy")
def test_webhook_set_to_http_is_refused_with_its_cause(
    replicas: dict[str, Container],
) -> None:
    """smsd explains at most one mismatch a second: the tests before may have used that
    up."""
    client = BlockingClient("http://localhost/sms", token=TOKEN)

    def is_named() -> bool:
        assert client.text("hi").text is None
        page = get(f"{replicas['plain'].admin}/metrics")
        (scheme,) = re.findall(
            r'^smsd_signature_mismatch_total{cause="scheme"} (.*)$', page, re.MULTILINE
        )
        return float(scheme) > 0

    wait_until(is_named, "the cause is named")


@pytest.mark.usefixtures("proxy")
def test_only_the_webhook_is_reached_through_it() -> None:
    assert status("http://127.0.0.1/metrics") == 404
    assert status("http://127.0.0.1/livez") == 404
