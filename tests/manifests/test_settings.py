"""Manifests and settings agree: smsd knows every name, misses no required one, and
loads the values."""

import base64
import re
import string
from collections.abc import Iterator
from pathlib import Path

import pytest

from smsd.errors import SettingsError
from smsd.server import FINISH_S, IDLE_GRACE_S
from smsd.settings import table as settings
from smsd.settings.table import SETTINGS

from .cluster import K8S, config_map, container, one, pods

SETS = ["production", "production-gke", "production-eks-alb", "local"]
SECRETS = {
    "TWILIO_AUTH_TOKEN": "0123456789abcdef0123456789abcdef",
    "TWILIO_AUTH_TOKEN_SECONDARY": "",
    "SMSD_COOKIE_KEYS": "1:" + string.ascii_letters,
    "SMSD_HASH_KEY": string.ascii_letters,
}
"""The keys of smsd-secrets, as `smsd keys --kubernetes` writes them."""


def environment(name: str) -> dict[str, str]:
    """What the container sees: the ConfigMap and then its own variables."""
    mine = container(name, "smsd", "smsd")
    return {**config_map(name, "smsd-settings"), **{e["name"]: e["value"] for e in mine["env"]}}


def mounts(name: str) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Each mounted volume: its path in the pod, what it comes from, its files."""
    volumes = {v["name"]: v for v in pods(name)["smsd"]["spec"]["volumes"]}
    for mount in container(name, "smsd", "smsd")["volumeMounts"]:
        volume = volumes[mount["name"]]
        if "configMap" in volume:
            yield mount["mountPath"], "configMap", config_map(name, volume["configMap"]["name"])
        else:
            yield mount["mountPath"], volume["secret"]["secretName"], secrets_of(name)


def secrets_of(name: str) -> dict[str, str]:
    if name.startswith("production"):
        return SECRETS
    return {
        key: base64.b64decode(value).decode()
        for key, value in config_map(name, "smsd-secrets").items()
    }


def in_folder(name: str, folder: Path) -> dict[str, str]:
    """The pod's environment, with its mounted files in `folder`."""
    for path, _, files in mounts(name):
        (folder / path.lstrip("/")).mkdir(parents=True)
        for key, content in files.items():
            (folder / path.lstrip("/") / key).write_text(content)
    found = environment(name)
    return {
        key: f"{folder}{value}" if value.startswith("/etc/smsd/") else value
        for key, value in found.items()
    }


@pytest.mark.parametrize("name", SETS)
def test_every_variable_is_a_setting(name: str) -> None:
    known = {s.name for s in SETTINGS} | {f"{s.name}_FILE" for s in SETTINGS}
    assert set(environment(name)) <= known


@pytest.mark.parametrize("name", SETS)
def test_every_required_setting_is_given(name: str) -> None:
    given = {key.removesuffix("_FILE") for key in environment(name)}
    assert {s.name for s in SETTINGS if s.required} <= given


@pytest.mark.parametrize("name", SETS)
def test_secrets_are_files_and_never_variables(name: str) -> None:
    secret = {s.name for s in SETTINGS if s.secret}
    assert secret & set(environment(name)) == set()


@pytest.mark.parametrize("name", SETS)
def test_smsd_loads_these_settings_without_a_warning(name: str, tmp_path: Path) -> None:
    loaded = settings.load(in_folder(name, tmp_path))
    assert loaded.warnings == ()
    assert loaded.people["+14158675309"] == "Rey"
    assert loaded.auth_token_secondary is None


def test_a_missing_secret_file_is_found_by_this_check(tmp_path: Path) -> None:
    environ = in_folder("production", tmp_path)
    Path(environ["SMSD_HASH_KEY_FILE"]).unlink()
    with pytest.raises(SettingsError, match="SMSD_HASH_KEY"):
        settings.load(environ)


@pytest.mark.parametrize("name", SETS)
def test_the_store_names_the_pods_of_the_stateful_set(name: str, tmp_path: Path) -> None:
    memcached = one(name, "StatefulSet", "memcached")
    service = one(name, "Service", memcached["spec"]["serviceName"])
    assert service["spec"]["clusterIP"] == "None"
    names = [
        f"memcached-{i}.{service['metadata']['name']}:11211"
        for i in range(memcached["spec"]["replicas"])
    ]
    assert list(settings.load(in_folder(name, tmp_path)).store.nodes) == names


@pytest.mark.parametrize("name", SETS)
def test_ports_are_those_of_the_settings(name: str, tmp_path: Path) -> None:
    loaded = settings.load(in_folder(name, tmp_path))
    ports = {p["name"]: p["containerPort"] for p in container(name, "smsd", "smsd")["ports"]}
    assert ports == {"http": loaded.port, "admin": loaded.admin_port}
    assert pods(name)["smsd"]["metadata"]["annotations"]["prometheus.io/port"] == str(
        loaded.admin_port
    )


@pytest.mark.parametrize("name", SETS)
def test_the_grace_period_outlasts_the_drain(name: str, tmp_path: Path) -> None:
    """The dialogue's time-out does not count: another replica takes over what still
    runs."""
    drain_delay_s = settings.load(in_folder(name, tmp_path)).drain_delay_s
    to_spare_s = 10  # merging the overlay, closing connections
    grace_s = pods(name)["smsd"]["spec"]["terminationGracePeriodSeconds"]
    assert grace_s >= drain_delay_s + IDLE_GRACE_S + FINISH_S + to_spare_s


def test_the_commented_settings_are_the_defaults() -> None:
    """settings.env shows what can be changed; uncommenting a line changes nothing but
    examples."""
    lines = (K8S / "settings.env").read_text().splitlines()
    shown = dict(line[1:].split("=", 1) for line in lines if re.match(r"#[A-Z_]+=", line))
    defaults = {s.name: s.default for s in SETTINGS}
    examples = {"TWILIO_ACCOUNT_SID", "SMSD_STORE_FORMER", "SMSD_DIALOGUE", "SMSD_ONE_MOMENT"}
    assert examples < shown.keys() <= defaults.keys()
    assert {n: v for n, v in shown.items() if n not in examples and v != defaults[n]} == {}


def test_the_secret_of_production_is_not_in_the_repository() -> None:
    with pytest.raises(ValueError, match="unpack"):
        config_map("production", "smsd-secrets")
    assert (
        "kind: Secret"
        not in (Path(__file__).parents[2] / "deploy/k8s/kustomization.yaml").read_text()
    )
