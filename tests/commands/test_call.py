"""`smsd doctor --call`: against a real smsd, directly and behind TLS, and against what
is not smsd."""

import datetime as dt
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trustme

from smsd.commands.call import HttpAnswer, _certificate, _in_front, check_public_url
from smsd.settings.table import load
from tests.commands.test_cli import smsd
from tests.processes import PATIENCE_S, SETTINGS, Smsd, free_port

OTHER_TOKEN = "f" * 32


def call(public_url: str, **env: str) -> tuple[int, list[str]]:
    """Exit code, and the lines of the report that concern the public URL."""
    given = {**SETTINGS, "SMSD_PUBLIC_URL": public_url, **env}
    done = smsd("doctor", "--call", env=given)
    assert done.stderr == ""
    lines = done.stdout.partition("\n\n")[0].splitlines()
    start = next(n for n, line in enumerate(lines) if "cookie keys" in line)
    return done.returncode, lines[start + 1 :]


@contextmanager
def running(prefix: str = "", **env: str) -> Iterator[str]:
    """A real smsd that is its own public URL; yields it."""
    port = free_port()
    base = f"http://127.0.0.1:{port}{prefix}"
    with Smsd({"SMSD_PUBLIC_URL": base, "SMSD_PORT": str(port), **env}) as server:
        yield base
        assert server.metric('smsd_messages_total{outcome="counted"}') == 0
        assert server.metric('smsd_messages_total{outcome="failed"}') == 0


@pytest.mark.parametrize("prefix", ["", "/texts"])
def test_this_smsd_is_recognized_and_counts_nothing(prefix: str) -> None:
    with running(prefix) as base:
        code, lines = call(base)
    assert code == 0
    assert lines[:2] == [
        f"ok      {base}/healthz: 200",
        f"ok      {base}/sms: smsd answers, with this auth token and this SMSD_PUBLIC_URL",
    ]
    assert lines[2].startswith("ok      in front: nothing that names itself.")
    assert len(lines) == 3


def test_an_smsd_with_another_token_is_told_apart() -> None:
    with running(TWILIO_AUTH_TOKEN=OTHER_TOKEN) as base:
        code, lines = call(base)
    assert code == 1
    assert any(line.startswith(f"WRONG   {base}/sms: the signature is refused.") for line in lines)


def test_nobody_listening_is_said() -> None:
    base = f"http://127.0.0.1:{free_port()}"
    code, lines = call(base)
    assert code == 1
    (line,) = lines
    assert line.startswith(f"WRONG   {base}: nothing listens there (connection refused).")


@contextmanager
def answering(
    status: int, headers: Mapping[str, str] | None = None, *, forged: int = 403, hop: int = 400
) -> Iterator[str]:
    """Something that gives POST /sms this answer; yields its URL."""
    right: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.give(404)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            signature = self.headers["X-Twilio-Signature"]
            if "?" in self.path:
                self.give(hop)
            elif right and signature != right[0]:
                self.give(forged)
            else:
                right.append(signature)
                self.give(status)

        def give(self, code: int) -> None:
            self.send_response_only(code)
            for name, value in {"Content-Length": "0", **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("status", "headers", "says"),
    [
        (308, {"Location": "https://there.example/sms"}, "redirects with 308 to https://there"),
        (301, {}, "redirects with 301 to nowhere"),
        (404, {}, "404, so POST /sms does not reach smsd"),
        (405, {}, "405, so POST /sms does not reach smsd"),
        (502, {}, "502, so a proxy answers but reaches no smsd"),
        (200, {}, "200, so something else answers there and not smsd"),
    ],
)
def test_what_is_not_smsd_is_named(status: int, headers: dict[str, str], says: str) -> None:
    with answering(status, headers) as base:
        code, lines = call(base)
    assert code == 1
    (found,) = [line for line in lines if line.startswith("WRONG")]
    assert found.startswith(f"WRONG   {base}/sms")
    assert says in found
    assert any(line.startswith(f"warning {base}/healthz: 404") for line in lines)


def test_wrong_signature_accepted_or_query_lost_is_wrong() -> None:
    with answering(400, forged=400, hop=403) as base:
        code, lines = call(base)
    assert code == 1
    wrong = [line for line in lines if line.startswith("WRONG")]
    assert len(wrong) == 2
    assert "a wrong signature was answered with 400" in wrong[0]
    assert "something in front changes the query" in wrong[1]


def test_something_that_is_not_http_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"220 mail.example ESMTP\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        base = f"http://127.0.0.1:{listener.getsockname()[1]}"
        code, lines = call(base)
        thread.join()
    assert (code, lines) == (
        1,
        [f"WRONG   {base}: something answers there that is not HTTP. Is the port right?"],
    )


# --- TLS


def _whole(sock: socket.socket) -> bytes:
    """One HTTP message: head and body, as announced by Content-Length."""
    sock.settimeout(PATIENCE_S)
    data = b""
    while b"\r\n\r\n" not in data:
        data += sock.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    announced = re.search(rb"(?i)content-length: (\d+)", head)
    while len(body) < int(announced[1] if announced else 0):
        body += sock.recv(65536)
    return head + b"\r\n\r\n" + body


@contextmanager
def behind_tls(folder: Path, target: int) -> Iterator[tuple[int, Path]]:
    """A proxy that terminates TLS for localhost; its port, and the authority to trust."""
    authority = trustme.CA()
    expires = dt.datetime.now(dt.UTC) + dt.timedelta(days=3)
    certificate, trusted = authority.issue_cert("localhost", not_after=expires), folder / "ca.pem"
    trusted.write_bytes(authority.cert_pem.bytes())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)

    def forward(client: socket.socket) -> None:
        try:
            with (
                context.wrap_socket(client, server_side=True) as outer,
                socket.create_connection(("127.0.0.1", target)) as inner,
            ):
                inner.sendall(_whole(outer))
                outer.sendall(_whole(inner))
        except OSError:
            pass  # the client refused the certificate

    with socket.create_server(("127.0.0.1", 0)) as listener:
        done = threading.Event()

        def serve() -> None:
            while True:
                client, _ = listener.accept()
                if done.is_set():
                    client.close()
                    return
                threading.Thread(target=forward, args=(client,)).start()

        thread = threading.Thread(target=serve)
        thread.start()
        port = listener.getsockname()[1]
        try:
            yield port, trusted
        finally:
            done.set()
            socket.create_connection(("127.0.0.1", port)).close()
            thread.join()


def test_the_certificate_is_checked_as_twilio_does(tmp_path: Path) -> None:
    port = free_port()
    with behind_tls(tmp_path, port) as (tls_port, trusted):
        base = f"https://localhost:{tls_port}"
        with Smsd({"SMSD_PUBLIC_URL": base, "SMSD_PORT": str(port)}):
            code, lines = call(base)
            assert (code, len(lines)) == (1, 1)
            assert lines[0].startswith(f"WRONG   {base}: the certificate is refused (")
            code, lines = call(base, SSL_CERT_FILE=str(trusted))
            assert code == 0
            assert lines[0].startswith("warning certificate: trusted here, valid until 20")
            assert lines[0].endswith("renew it, since Twilio refuses an expired one")
            assert lines[2].endswith("smsd answers, with this auth token and this SMSD_PUBLIC_URL")


def test_a_port_without_tls_is_said() -> None:
    with answering(400) as plain:
        base = plain.replace("http:", "https:")
        code, lines = call(base)
    assert (code, lines) == (1, [f"WRONG   {base}: TLS failed. Does this port speak TLS?"])


@pytest.mark.parametrize(
    ("scheme", "says"), [("https", "TLS failed."), ("http", "no answer within 0.2 s.")]
)
def test_silence_is_said_in_time(monkeypatch: pytest.MonkeyPatch, scheme: str, says: str) -> None:
    monkeypatch.setattr("smsd.commands.call.TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        base = f"{scheme}://127.0.0.1:{silent.getsockname()[1]}"
        settings = load({**SETTINGS, "SMSD_PUBLIC_URL": base})
        (finding,) = check_public_url(settings)
    assert finding.mark == "WRONG"
    assert finding.text.startswith(f"{base}: {says}")


def test_an_answer_that_stops_coming_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first two requests are answered, and then the service goes away."""
    with running() as base:
        settings = load({**SETTINGS, "SMSD_PUBLIC_URL": base})
        findings = check_public_url(settings)
        marks = [next(findings).mark, next(findings).mark]
    marks += [finding.mark for finding in findings]
    assert marks == ["ok", "ok", "WRONG", "ok"]


def test_a_certificate_with_time_left_is_fine() -> None:
    expires = time.strftime("%b %d %H:%M:%S %Y GMT", time.gmtime(time.time() + 90 * 86400))
    assert _certificate({"notAfter": expires}).mark == "ok"


@pytest.mark.parametrize(
    ("headers", "within_s", "mark", "says"),
    [
        ({"Server": "nginx/1.27"}, 12, "ok", "nginx; its read time-out must be longer than"),
        ({"Server": "istio-envoy"}, 14, "ok", "is 15 s unless it was changed"),
        ({"Server": "envoy"}, 15, "warning", "is 15 s unless it was changed"),
        ({"Server": "Caddy"}, 12, "warning", "Caddy; its read time-out"),
        ({"Via": "1.1 cache"}, 12, "warning", "1.1 cache; its read time-out"),
        ({"Server": "gateway"}, 12, "warning", "please check"),
        ({"Server": "TornadoServer/6.5"}, 12, "ok", "nothing that names itself"),
        ({}, 12, "ok", "nothing that names itself"),
    ],
)
def test_proxy_is_named_with_its_usual_time_out(
    headers: dict[str, str], within_s: float, mark: str, says: str
) -> None:
    (finding,) = _in_front(HttpAnswer(400, list(headers.items()), {}), within_s)
    assert finding.mark == mark
    assert says in finding.text
