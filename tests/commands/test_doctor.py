"""`smsd doctor`, against real memcached nodes that answer, refuse and hang, and against
servers that are none."""

import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from smsd.commands.nodes import check_node
from smsd.simulator import WebhookUrl
from tests.commands.test_cli import smsd
from tests.processes import PATIENCE_S, PUBLIC_URL, SETTINGS, Memcached, free_port
from tests.store.test_tls import PEM
from tests.store.test_tls import memcached as tls_node

COOKIE_SECRET = SETTINGS["SMSD_COOKIE_KEYS"].partition(":")[2]


def doctor(**env: str) -> subprocess.CompletedProcess[str]:
    return smsd("doctor", env={**SETTINGS, **env})


def wrong(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What it found to be wrong."""
    return [
        line.removeprefix("WRONG   ")
        for line in done.stdout.splitlines()
        if line.startswith("WRONG")
    ]


def test_every_check_is_named_when_all_is_well() -> None:
    with Memcached() as one, Memcached() as two:
        done = doctor(SMSD_STORE=f"memcached://{one.node},{two.node}")
        client = one.client()
        left = int(client.stats()[b"curr_items"])
        client.close()
    assert (done.returncode, done.stderr, wrong(done)) == (0, "", [])
    for check in (
        "settings",
        "signature: agrees with Twilio's SDK",
        "dialogue: smsd.dialogues.greeting:reply",
    ):
        assert f"ok      {check}\n" in done.stdout
    for node in (one.node, two.node):
        assert re.search(
            rf"ok      memcached {node}: version [0-9.]+, written and read back in [0-9.]+ ms\n",
            done.stdout,
        )
    assert left == 0, "its own key is deleted again"


def test_printed_urls_are_ones_that_twilio_accepts() -> None:
    done = doctor(SMSD_PUBLIC_URL=f"{PUBLIC_URL}/texts")
    (webhook,) = re.findall(r"A message comes in +(\S+)", done.stdout)
    (fallback,) = re.findall(r"Primary handler fails +(\S+)", done.stdout)
    (status,) = re.findall(r"Status callback +(\S+)", done.stdout)
    configured = WebhookUrl.parse(webhook)
    assert configured.url == fallback == f"{PUBLIC_URL}/texts/sms"
    assert status == f"{PUBLIC_URL}/texts/sms/status"
    assert configured.retries >= 1
    assert {"ct", "5xx"} <= configured.retried
    attempts_s = (configured.retries + 1) * configured.connect_timeout_s
    assert attempts_s < configured.total_timeout_s, "all attempts have room in Twilio's 15 s"


def test_other_nodes_are_checked_after_one_refuses() -> None:
    with Memcached() as node:
        nobody = f"127.0.0.1:{free_port()}"
        done = doctor(SMSD_STORE=f"memcached://{nobody},{node.node}")
    assert done.returncode == 1
    (found,) = wrong(done)
    assert found.startswith(f"memcached {nobody}: nothing listens there (connection refused).")
    assert f"ok      memcached {node.node}" in done.stdout
    assert "For Twilio's console" in done.stdout


def test_former_nodes_are_checked_once() -> None:
    gone = f"127.0.0.1:{free_port()}"
    with Memcached() as node:
        done = doctor(
            SMSD_STORE=f"memcached://{node.node}", SMSD_STORE_FORMER=f"{node.node},{gone}"
        )
    assert done.stdout.count(f"memcached {node.node}: version") == 1
    (problem,) = wrong(done)
    assert problem.startswith(f"memcached {gone}: ")


def test_hanging_node_is_wrong_in_time() -> None:
    with Memcached() as node:
        node.hang()
        done = doctor(SMSD_STORE=f"memcached://{node.node}", SMSD_STORE_TIMEOUT="0.2")
    assert done.returncode == 1
    (found,) = wrong(done)
    assert found.startswith(f"memcached {node.node}: no answer within 0.2 s (SMSD_STORE_TIMEOUT)")


def test_unknown_node_name_is_wrong() -> None:
    done = doctor(SMSD_STORE="memcached://no-such-host.invalid:11211")
    assert done.returncode == 1
    (found,) = wrong(done)
    assert found.startswith("memcached no-such-host.invalid:11211: there is no host of that name")


@contextmanager
def scripted(*answers: bytes) -> Iterator[str]:
    """A server that gives one answer to each line or block it is sent, then closes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE_S)

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                for answer in answers:
                    connection.recv(4096)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        thread.join(PATIENCE_S)


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        (
            (b"HTTP/1.1 400 Bad Request\r\n\r\n",),
            "something answers there that is not memcached. Is the port right?",
        ),
        (
            (b"",),
            (
                "closed the connection. It is not memcached, "
                "or it expects TLS: then use memcacheds:// in SMSD_STORE"
            ),
        ),
        (
            (b"VERSION 1.6.0\r\n", b"SERVER_ERROR out of memory storing object\r\n"),
            "refuses to store. Is it full? Its log or `stats` says why",
        ),
        (
            (b"VERSION 1.6.0\r\n", b"STORED\r\n", b"END\r\n", b"NOT_FOUND\r\n"),
            "did not return what was written",
        ),
    ],
    ids=["no memcached", "closes", "full", "forgets"],
)
def test_server_that_is_not_memcached_is_explained(answers: tuple[bytes, ...], says: str) -> None:
    with scripted(*answers) as node:
        done = doctor(SMSD_STORE=f"memcached://{node}", SMSD_STORE_TIMEOUT="5")
    assert done.returncode == 1
    assert wrong(done) == [f"memcached {node}: {says}"]
    assert done.stderr == ""


def test_tls_node_is_checked_over_tls(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text(PEM)
    with tls_node(tmp_path, "localhost") as node:
        store = f"localhost:{node.port}"
        trusted = doctor(SMSD_STORE=f"memcacheds://{store}", SMSD_STORE_CA=str(tmp_path / "ca.pem"))
        unknown = doctor(SMSD_STORE=f"memcacheds://{store}")
        plain = doctor(SMSD_STORE=f"memcached://{store}")
    assert (trusted.returncode, wrong(trusted)) == (0, [])
    assert f"ok      memcached {store}: version" in trusted.stdout
    (found,) = wrong(unknown)
    assert found.endswith("SMSD_STORE_CA must name that")
    (found,) = wrong(plain)
    assert found.startswith(f"memcached {store}: ")
    with Memcached() as node:
        (found,) = wrong(doctor(SMSD_STORE=f"memcacheds://{node.node}"))
    assert found.startswith(f"memcached {node.node}: ")


def test_wrong_settings_are_listed_without_urls() -> None:
    done = smsd("doctor", env={"SMSD_STORE": "redis://", "TWILIO_AUTH_TOKEN": "a secret"})
    assert done.returncode == 1
    assert [line.partition(":")[0] for line in wrong(done)] == [
        "TWILIO_AUTH_TOKEN", "SMSD_PUBLIC_URL", "SMSD_COOKIE_KEYS", "SMSD_HASH_KEY", "SMSD_STORE"
    ]  # fmt: skip
    assert "console" not in done.stdout


def test_broken_dialogue_is_wrong_with_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("\nimport no_such_module\n")
    done = doctor(SMSD_DIALOGUE="broken:reply", PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    (found,) = wrong(done)
    assert f"{tmp_path / 'broken.py'}:2" in found


def test_what_is_likely_a_mistake_is_a_warning() -> None:
    done = doctor(SMSD_GREETINGS="hello", TWILIO_AUTH_TOKEN="abc")
    assert done.returncode == 0
    warnings = re.findall(r"^warning (.*)$", done.stdout, re.MULTILINE)
    assert "SMSD_GREETINGS: no such setting; is SMSD_GREETING meant?" in warnings
    assert any(
        line.startswith("TWILIO_AUTH_TOKEN: is not 32 hexadecimal digits") for line in warnings
    )


def test_name_with_several_addresses_is_a_warning() -> None:
    """As a headless Service under one name: replicas would count on different nodes."""
    with Memcached() as node:
        port = int(node.node.rpartition(":")[2])

        def resolve(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
            families = socket.AF_INET, socket.AF_INET, socket.AF_INET6
            addresses = "127.0.0.1", "127.0.0.2", "::1"
            return [(f, 0, 0, "", (a, port)) for f, a in zip(families, addresses, strict=True)]

        findings = list(check_node(f"localhost:{port}", 5, None, resolve))
        both = list(check_node(f"localhost:{port}", 5, None, lambda *a, **b: resolve(*a, **b)[1:]))
    assert [finding.mark for finding in findings] == ["warning", "ok"]
    assert "this name has 2 addresses" in findings[0].text
    assert [finding.mark for finding in both] == ["ok"], "IPv4 and IPv6 of one node"


def test_hanging_name_lookup_is_wrong_in_time() -> None:
    released = threading.Event()

    def hang(*_: object, **__: object) -> list[tuple[object, ...]]:
        released.wait(PATIENCE_S)
        return []

    (finding,) = check_node("slow.example:11211", 5, None, hang, lookup_budget_s=0.1)
    released.set()
    assert finding.mark == "WRONG"
    assert "its name was not looked up within 0.1 s" in finding.text


def test_configuration_api_gets_the_same_retries() -> None:
    done = doctor()
    webhook = WebhookUrl.parse(re.findall(r"A message comes in +(\S+)", done.stdout)[0])
    setting = json.loads(re.findall(r'Setting  "connection": (.*)', done.stdout)[0])
    rule = json.loads(re.findall(r"Rule +(.*)", done.stdout)[0])
    assert setting["connectTimeoutMs"] == webhook.connect_timeout_s * 1000
    assert setting["retryPolicy"]["retryCount"] == webhook.retries
    names = {"CONNECTION_TIMEOUT": "ct", "HTTP_5XX": "5xx"}
    assert {names[name] for name in setting["retryPolicy"]["retryOn"]} == webhook.retried
    assert f"{PUBLIC_URL}/sms/status".startswith(rule["prefix"])


def test_the_table_for_the_console_is_aligned() -> None:
    table = doctor().stdout.partition("console:\n")[2].partition("\n\n")[0].splitlines()
    assert len({line.index("https://") for line in table}) == 1
    assert len({line.index("HTTP POST") for line in table if "HTTP POST" in line}) == 1


def test_it_never_shows_a_secret(tmp_path: Path) -> None:
    (tmp_path / "accounts.toml").write_text(
        f'[AC{"1" * 32}]\ntokens = ["sub-account-secret-sub-account"]\n'
    )
    with Memcached() as node:
        done = doctor(
            SMSD_STORE=f"memcached://{node.node}",
            TWILIO_AUTH_TOKEN_SECONDARY="secondary-secret-secondary",
            SMSD_ACCOUNTS=str(tmp_path / "accounts.toml"),
        )
    assert done.returncode == 0
    secrets = (SETTINGS["TWILIO_AUTH_TOKEN"], SETTINGS["SMSD_HASH_KEY"], COOKIE_SECRET)
    for secret in (*secrets, "secondary-secret", "sub-account-secret"):
        assert secret not in done.stdout + done.stderr


def test_findings_are_shown_as_they_are_made() -> None:
    """A node that hangs must not keep back what is known already."""
    with Memcached() as node:
        node.hang()
        process = subprocess.Popen(
            [sys.executable, "-m", "smsd", "doctor"],
            env={
                **SETTINGS,
                "PATH": os.environ["PATH"],
                "SMSD_STORE": f"memcached://{node.node}",
                "SMSD_STORE_TIMEOUT": "5",
            },
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout
            lines = [process.stdout.readline() for _ in range(4)]
            assert process.poll() is None
            node.resume()
            lines += process.communicate(timeout=PATIENCE_S)[0].splitlines()
        finally:
            process.kill()
            process.wait()
    assert lines[0] == "ok      settings\n"
    assert any(line.startswith(f"ok      memcached {node.node}") for line in lines)
