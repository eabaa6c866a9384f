"""The rendered production manifests, run as pods by podman, with their files, limits
and rights.

Podman 4.3 knows no StatefulSet, Service or Ingress, so three things stand in for the
cluster: each pod of the StatefulSet is made from its template and gets its name in the
network from here; the Secret is stored from here, since this version cannot read one
with stringData; and the tests connect to the pod's port, where the Ingress would.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from smsd.simulator import BlockingClient

from .podman import CHECKOUT, PUBLIC_URL, TOKEN, get, inspect, podman, run, status, wait_until

Manifest = dict[str, Any]
ADMIN = "http://127.0.0.1:9090"
SMSD = "smsd-pod-0-smsd"


@pytest.fixture(scope="module")
def rendered() -> list[Manifest]:
    command = ["kubectl", "kustomize", str(CHECKOUT / "deploy/k8s")]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    return list(yaml.safe_load_all(done.stdout))


@pytest.fixture(scope="module")
def network() -> Iterator[str]:
    name = podman("network", "create", "pods")
    yield name
    podman("network", "rm", "--force", name)


@pytest.fixture(scope="module")
def secret(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Created as deploy/k8s/README.md says."""
    token_file = tmp_path_factory.mktemp("token") / "token"
    token_file.write_text(TOKEN + "\n")
    command = [
        sys.executable,
        "-m",
        "smsd",
        "keys",
        "--kubernetes",
        "--token-file",
        str(token_file),
    ]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=30, cwd=CHECKOUT
    )
    manifest = yaml.safe_load(done.stdout)
    name = manifest["metadata"]["name"]
    podman("secret", "create", name, "-", stdin=json.dumps({"data": manifest["stringData"]}))
    yield
    podman("secret", "rm", name)


def play(manifests: list[Manifest], network: str, file: Path) -> Iterator[None]:
    file.write_text(yaml.safe_dump_all(manifests))
    podman("play", "kube", "--network", network, file)
    yield
    podman("play", "kube", "--down", file)


def pods_of(stateful_set: Manifest) -> Iterator[Manifest]:
    """The pods that the controller would create, without their ports, which podman
    would publish, and without the exporter.
    """
    spec = stateful_set["spec"]["template"]["spec"]
    (memcached,) = [c for c in spec["containers"] if c["name"] == "memcached"]
    bare = {
        key: value
        for key, value in memcached.items()
        if key not in ("ports", "livenessProbe", "readinessProbe")
    }
    for number in range(stateful_set["spec"]["replicas"]):
        name = f"{stateful_set['metadata']['name']}-{number}"
        yield {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "labels": stateful_set["spec"]["template"]["metadata"]["labels"],
            },
            "spec": {**spec, "containers": [bare]},
        }


@pytest.fixture(scope="module")
def store(
    rendered: list[Manifest], network: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[str]]:
    (stateful_set,) = [m for m in rendered if m["kind"] == "StatefulSet"]
    folder = tmp_path_factory.mktemp("memcached")
    playing = []
    for pod in pods_of(stateful_set):
        name = pod["metadata"]["name"]
        alias = f"{name}.{stateful_set['spec']['serviceName']}"
        playing.append(play([pod], f"{network}:alias={alias}", folder / f"{name}.yaml"))
        next(playing[-1])
    yield [f"memcached-{number}-memcached" for number in range(len(playing))]
    for one in playing:
        next(one, None)


@pytest.fixture(scope="module")
def smsd_pod(
    rendered: list[Manifest],
    secret: None,
    network: str,
    store: list[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[None]:
    mine = [m for m in rendered if m["kind"] in ("ConfigMap", "Deployment")]
    playing = play(mine, network, tmp_path_factory.mktemp("smsd") / "manifests.yaml")
    next(playing)
    wait_until(lambda: status(f"{ADMIN}/readyz") == 200, f"smsd is ready: {run('logs', SMSD)}")
    yield
    next(playing, None)


def phone(from_: str = "+14158675309") -> BlockingClient:
    return BlockingClient(
        f"{PUBLIC_URL}/sms", token=TOKEN, connect_to="127.0.0.1:8080", from_=from_
    )


@pytest.mark.usefixtures("smsd_pod")
def test_the_pod_answers_signed_webhooks_and_knows_the_people_of_the_config_map() -> None:
    assert (
        phone().text("hi").text
        == "Thanks for the new message! Rey has messaged +14158141829 1 times"
    )
    assert (
        phone("+15550001111").text("hi").text
        == "Thanks for the new message! Friend has messaged +14158141829 1 times"
    )


@pytest.mark.usefixtures("smsd_pod")
def test_it_reaches_every_node_by_its_name_in_the_cluster() -> None:
    for number in range(30):
        assert phone(f"+155500020{number:02}").text("hi").status == 200
    page = get(f"{ADMIN}/metrics")
    up = dict(re.findall(r'^smsd_store_up{node="([^"]+)"} (\S+)$', page, re.MULTILINE))
    assert up == {f"memcached-{number}.memcached:11211": "1.0" for number in range(3)}
    assert re.search(r'^smsd_messages_total{outcome="degraded"} 0.0$', page, re.MULTILINE)


@pytest.mark.usefixtures("smsd_pod")
def test_its_security_context_is_enforced(store: list[str]) -> None:
    for name, uid in ((SMSD, "10001"), *((node, "11211") for node in store)):
        lines = podman("exec", name, "cat", "/proc/1/status").splitlines()
        of_process_1 = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        assert of_process_1["Uid"].split() == [uid] * 4
        assert int(of_process_1["CapEff"], 16) == 0
        assert of_process_1["NoNewPrivs"].strip() == "1"
        assert of_process_1["Seccomp"].strip() == "2"
        host = inspect("container", name)["HostConfig"]
        assert host["ReadonlyRootfs"] is True
        assert host["Memory"] == 256 * 1024 * 1024


@pytest.mark.usefixtures("smsd_pod")
def test_no_secret_is_in_its_environment() -> None:
    environ = podman("exec", SMSD, "cat", "/proc/1/environ")
    assert TOKEN not in environ
    assert "TWILIO_AUTH_TOKEN_FILE=/etc/smsd/secrets/TWILIO_AUTH_TOKEN" in environ.split("\0")


@pytest.mark.usefixtures("smsd_pod")
def test_smsd_doctor_finds_nothing_wrong_in_the_pod() -> None:
    done = run("exec", SMSD, "smsd", "doctor")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{PUBLIC_URL}/sms" in done.stdout


@pytest.mark.usefixtures("smsd_pod")
def test_full_nodes_stay_within_the_limit_of_their_pods(store: list[str]) -> None:
    """A node that is written full evicts items; it is not killed for its memory."""
    script = """
import socket
link = socket.create_connection(("memcached-0.memcached", 11211))
value = b"x" * 900
for first in range(0, 260_000, 1000):
    link.sendall(b"".join(b"ms k%d 900 q\\r\\n%s\\r\\n" % (n, value) for n in range(first, first + 1000)) + b"mn\\r\\n")
    answer = b""
    while not answer.endswith(b"MN\\r\\n"):  # before it, an error for each item that it had no room for
        answer += link.recv(65536) or exit("memcached closed the connection")
"""
    node = store[0]
    podman("exec", SMSD, "python", "-c", script)
    state = inspect("container", node)
    assert state["State"]["Running"] is True
    assert state["RestartCount"] == 0
    assert state["State"]["OOMKilled"] is False
    (resident,) = re.findall(r"VmRSS:\s+(\d+) kB", podman("exec", node, "cat", "/proc/1/status"))
    assert 160 * 1024 < int(resident) < 256 * 1024


@pytest.mark.usefixtures("smsd_pod")
def test_sigterm_ends_the_pod_within_its_grace_period(rendered: list[Manifest]) -> None:
    podman("stop", "--time", "45", SMSD)
    assert inspect("container", SMSD)["State"]["ExitCode"] == 0
