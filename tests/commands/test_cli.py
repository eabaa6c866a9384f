"""The commands as they are typed: output, exit codes, and what they never print."""

import os
import pty
import re
import socket
import stat
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path

import pytest
import yaml

from smsd.version import VERSION
from tests import raw_http as wire
from tests.processes import ACCOUNT, PATIENCE_S, SETTINGS, TOKEN, Smsd, free_port

ROOT = Path(__file__).parents[2]
NOTHING: dict[str, str | None] = dict.fromkeys(SETTINGS)
SECRET_NAMES = ("TWILIO_AUTH_TOKEN", "SMSD_COOKIE_KEYS", "SMSD_HASH_KEY")


def smsd(
    *args: str,
    env: dict[str, str] | None = None,
    stdin: str = "",
    program: tuple[str, ...] = ("-m", "smsd"),
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, with nothing in its environment but PATH and `env`."""
    return subprocess.run(
        [sys.executable, *program, *args],
        env={"PATH": os.environ["PATH"], **(env or {})},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S * 2,
        check=False,
    )


# --- help and version


def test_help_names_every_command() -> None:
    done = smsd("--help")
    assert (done.returncode, done.stderr) == (0, "")
    for command in ("serve", "new", "phone", "doctor", "keys"):
        assert re.search(rf"^ +{command} ", done.stdout, re.MULTILINE)


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("serve", ["--dev", "--host", "--port", "--admin-port", "--log-format"]),
        ("phone", ["URL", "--send"]),
        ("new", ["NAME", "--directory"]),
        ("doctor", ["Exit 1"]),
        ("keys", ["--kubernetes", "--token-file", "--output"]),
    ],
)
def test_every_command_has_a_help_of_its_own(command: str, says: list[str]) -> None:
    done = smsd(command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    for word in says:
        assert word in done.stdout


def test_version_names_the_command_and_the_distribution() -> None:
    done = smsd("--version")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (done.returncode, done.stdout) == (
        0,
        f"smsd {VERSION} (distribution {project['name']})\n",
    )
    assert metadata.distribution(project["name"]).entry_points


def test_installed_script_and_module_are_the_same() -> None:
    script = Path(sys.executable).with_name("smsd")
    assert smsd("--version", program=(str(script),)).stdout == smsd("--version").stdout


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["fly"],
        ["serve", "--fly"],
        ["phone"],
        ["new"],
        ["keys", "--token", "x"],
        ["keys", "--name", "x"],
        ["keys", "--namespace", "x"],
        ["keys", "--token-file", "x"],
    ],
    ids=str,
)
def test_wrong_usage_is_2_with_the_usage(args: list[str]) -> None:
    done = smsd(*args)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: smsd")


# --- serve


def test_serve_names_every_missing_setting() -> None:
    done = smsd("serve")
    assert (done.returncode, done.stdout) == (2, "")
    *lines, hint = done.stderr.splitlines()
    assert "`smsd keys --output smsd.env`" in hint
    assert "`smsd serve --dev`" in hint
    assert sorted(lines) == [
        "smsd: SMSD_COOKIE_KEYS: is required",
        "smsd: SMSD_HASH_KEY: is required",
        "smsd: SMSD_PUBLIC_URL: is required",
        "smsd: TWILIO_AUTH_TOKEN: is required",
    ]


def test_serve_names_wrong_settings_but_no_value(tmp_path: Path) -> None:
    accounts = tmp_path / "accounts.toml"
    accounts.write_text('[AC1]\ntokens = ["file-secret-file-secret"]\n')
    wrong = {
        "TWILIO_AUTH_TOKEN": "token with-blank-in-it",
        "SMSD_COOKIE_KEYS": "1:cookie-secret",
        "SMSD_HASH_KEY": "hash-secret",
        "SMSD_PUBLIC_URL": "ftp://hidden.example.com",
        "SMSD_STORE": "redis://hidden-store",
        "SMSD_SESSION_TTL": "9999999",
        "SMSD_LOOP_LIMIT": "30",
        "SMSD_PORT": "http",
        "SMSD_LOG_FORMAT": "hidden-format",
        "SMSD_ACCOUNTS": str(accounts),
        "SMSD_PEOPLE": str(tmp_path / "missing.toml"),
        "TWILIO_ACCOUNT_SID": "hidden-sid",
        "SMSD_DIALOGUE": "hidden dialogue",
    }
    done = smsd("serve", env=wrong)
    assert (done.returncode, done.stdout) == (2, "")
    lines = done.stderr.splitlines()
    assert sorted(line.split(": ")[1] for line in lines) == sorted(wrong)
    assert all(line.startswith("smsd: ") for line in lines)
    for hidden in (
        "with-blank",
        "cookie-secret",
        "hash-secret",
        "hidden",
        "file-secret",
        "9999999",
        "redis",
    ):
        assert hidden not in done.stderr


@contextmanager
def taken_port() -> Iterator[int]:
    """A port on which somebody else listens."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield other.getsockname()[1]


@pytest.mark.parametrize(
    ("option", "setting"), [("--port", "SMSD_PORT"), ("--admin-port", "SMSD_ADMIN_PORT")]
)
def test_taken_port_is_named_with_a_way_out(option: str, setting: str) -> None:
    with taken_port() as port:
        done = smsd("serve", option, str(port), env=SETTINGS)
    assert done.returncode == 2
    assert [line for line in done.stderr.splitlines() if line.startswith("smsd: ")] == [
        (
            f"smsd: {setting}: port {port} is in use already. Stop the program that uses it, "
            f"or choose another port, such as {option} {port + 1}"
        )
    ]
    assert "Traceback" not in done.stderr


def test_unusable_address_names_the_host() -> None:
    done = smsd("serve", "--host", "192.0.2.1", env=SETTINGS)
    assert done.returncode == 2
    assert "smsd: SMSD_HOST: cannot listen on this address: " in done.stderr


def test_wrong_settings_and_broken_dialogue_are_named_together(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import no_such_module")
    wrong = {"SMSD_DIALOGUE": "broken:reply", "PYTHONPATH": str(tmp_path), "SMSD_STORE": "redis://"}
    for command, code in (("serve", 2), ("doctor", 1)):
        done = smsd(command, env={**SETTINGS, **wrong})
        assert done.returncode == code
        said = done.stdout + done.stderr
        assert "SMSD_STORE: must be" in said
        assert f"ModuleNotFoundError at {tmp_path / 'broken.py'}:1" in said


@pytest.mark.parametrize(
    ("source", "line", "says"),
    [
        ("def reply(message, session:\n    pass\n", 1, "SyntaxError"),
        ("import os\nimport no_such_module\n", 2, "no_such_module"),
        ("x = 1\n\nassert not 'my-own-secret', 'my-own-secret'\n", 3, "AssertionError"),
        ("\n\ndef reply(message):\n    pass\n", 3, "reply"),
        ("def other(message, session):\n    pass\n", None, "reply"),
        ("reply = 42\n", None, "reply"),
    ],
    ids=["syntax", "import", "raises", "arguments", "missing", "no callable"],
)
def test_broken_dialogue_is_named_with_file_and_line(
    tmp_path: Path, source: str, line: int | None, says: str
) -> None:
    (tmp_path / "broken.py").write_text(source)
    env = {**SETTINGS, "SMSD_DIALOGUE": "broken:reply", "PYTHONPATH": str(tmp_path)}
    done = smsd("serve", env=env)
    assert (done.returncode, done.stdout) == (2, "")
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("smsd: ")]
    assert said.startswith("smsd: SMSD_DIALOGUE: ")
    assert says in said
    assert "my-own-secret" not in said
    if line:
        assert f"{tmp_path / 'broken.py'}:{line}" in said


def test_dialogue_that_cannot_open_stops_the_start(tmp_path: Path) -> None:
    source = """
class Reply:
    def open(self):
        raise OSError("my-own-secret")
    async def __call__(self, message, session):
        return "hi"
"""
    (tmp_path / "shut.py").write_text(source)
    done = smsd(
        "serve", env={**SETTINGS, "SMSD_DIALOGUE": "shut:Reply", "PYTHONPATH": str(tmp_path)}
    )
    assert done.returncode == 2
    assert "SMSD_DIALOGUE: open() failed: OSError" in done.stderr
    assert "my-own-secret" not in done.stderr
    assert '"listening"' not in done.stderr


def test_arguments_win_over_the_environment() -> None:
    port, admin_port = free_port(), free_port()
    args = ("--host", "127.0.0.2", "--port", str(port), "--admin-port", str(admin_port))
    with Smsd({"SMSD_HOST": "127.0.0.1"}, args=args) as server:
        assert (server.port, server.admin_port) == (port, admin_port)
        assert listening(server.pid) == {("127.0.0.2", port), ("127.0.0.2", admin_port)}


def test_serve_warns_of_what_is_likely_a_mistake() -> None:
    with Smsd({"SMSD_GREETINGS": "hello"}) as server:
        assert "SMSD_GREETINGS: no such setting; is SMSD_GREETING meant?" in server.log()
        assert "SMSD_STORE: memory:// serves one process only" in server.log()


# --- serve --dev


def listening(pid: int) -> set[tuple[str, int]]:
    """Every address this process listens on, as the kernel knows it."""
    links = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # a connection closed between listing and reading
            links.append(os.readlink(link))
    inodes = {link[len("socket:[") : -1] for link in links if link.startswith("socket:[")}
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            columns = line.split()
            if columns[3] == "0A" and columns[9] in inodes:
                address, port = columns[1].split(":")
                shown = (
                    socket.inet_ntoa(bytes.fromhex(address)[::-1])
                    if table == "tcp"
                    else f"[{address}]"
                )
                found.add((shown, int(port, 16)))
    return found


def curl_line(server: Smsd) -> str:
    """The line that the development server prints."""
    found = re.search(r"^ +With curl +(curl .*)$", server.log(), re.MULTILINE)
    assert found, server.log()
    return found[1]


@pytest.mark.parametrize("is_given", [True, False])
def test_serve_dev_prints_phone_and_working_curl_line(is_given: bool) -> None:
    given = free_port() if is_given else 0
    with Smsd(NOTHING, args=("--dev", "--port", str(given), "--admin-port", "0")) as server:
        port = given or server.port
        assert f"http://127.0.0.1:{port}/phone\n" in server.log()
        assert wire.request(server.address, "GET", "/phone").status == 200
        for _ in range(2):
            done = subprocess.run(
                ["sh", "-c", curl_line(server)],
                capture_output=True,
                text=True,
                timeout=PATIENCE_S,
                check=True,
            )
            assert done.stdout == (
                '<?xml version="1.0" encoding="UTF-8"?><Response><Message>'
                f"Thanks for the new message! Rey has messaged {wire.TO} 1 times</Message></Response>"
            )
        assert listening(server.pid) == {("127.0.0.1", port), ("127.0.0.1", server.admin_port)}


def test_serve_dev_takes_the_settings_that_are_given() -> None:
    given = {
        **NOTHING,
        "TWILIO_AUTH_TOKEN": TOKEN,
        "TWILIO_ACCOUNT_SID": ACCOUNT,
        "SMSD_GREETING": "{count}!",
    }
    args = ("--dev", "--port", str(free_port()), "--admin-port", "0", "--host", "127.0.0.3")
    with Smsd(given, args=args) as server:
        assert ACCOUNT in curl_line(server)
        answer = wire.post(
            f"127.0.0.3:{server.port}", wire.message(), url=f"http://127.0.0.3:{server.port}/sms"
        )
        assert b"Thanks for the new message! 1!" in answer.body


@pytest.mark.parametrize("setting", ["SMSD_ADMIN_PORT", "SMSD_PORT"])
def test_serve_dev_replaces_a_taken_admin_port(setting: str) -> None:
    """Also when it is taken by the public port of this very process."""
    with taken_port() as taken:
        port = free_port()
        admin_port = taken if setting == "SMSD_ADMIN_PORT" else port
        ports = {"SMSD_PORT": str(port), "SMSD_ADMIN_PORT": str(admin_port)}
        with Smsd({**NOTHING, **ports}, args=("--dev",)) as server:
            assert server.port == port
            assert server.admin_port not in (taken, port)
            assert f"  Metrics       http://127.0.0.1:{server.admin_port}/metrics\n" in server.log()
            assert server.admin("/livez")[0] == 200


def test_serve_dev_names_the_taken_public_port() -> None:
    with taken_port() as port:
        done = smsd("serve", "--dev", "--port", str(port))
    assert done.returncode == 2
    assert f"smsd: SMSD_PORT: port {port} is in use already." in done.stderr
    assert f"such as --port {port + 1}" in done.stderr


def test_serve_dev_refuses_settings_that_are_wrong() -> None:
    done = smsd("serve", "--dev", "--port", "no", env={"SMSD_STORE": "redis://"})
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 2


# --- keys


def test_keys_are_fresh_each_time_and_serve_accepts_them() -> None:
    runs = [smsd("keys") for _ in range(2)]
    assert all((done.returncode, done.stderr) == (0, "") for done in runs)
    first, second = [dict(line.split("=", 1) for line in done.stdout.splitlines()) for done in runs]
    assert set(first) == {"SMSD_COOKIE_KEYS", "SMSD_HASH_KEY"}
    assert len(runs[0].stdout.splitlines()) == 2
    assert not set(first.values()) & set(second.values())
    assert len({*first.values(), first["SMSD_COOKIE_KEYS"].removeprefix("1:")}) == 3, (
        "two different secrets"
    )
    with Smsd({**first}) as server:
        assert wire.post(server.address, wire.message()).status == 200


def test_keys_are_written_once_to_a_private_file(tmp_path: Path) -> None:
    file = tmp_path / "my smsd.env"
    done = smsd("keys", "--output", str(file))
    assert (done.returncode, done.stdout) == (0, "")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    before = file.read_text()
    assert not any(line.split("=", 1)[1] in done.stderr for line in before.splitlines())
    (how,) = re.findall(r"^In a shell:   (.*)$", done.stderr, re.MULTILINE)
    told = subprocess.run(
        ["bash", "-euc", f"{how}; env"], capture_output=True, text=True, check=True
    ).stdout
    assert set(before.splitlines()) <= set(told.splitlines())
    again = smsd("keys", "--output", str(file))
    assert (again.returncode, again.stdout) == (2, "")
    assert again.stderr.startswith(f"smsd keys: {file} exists already")
    assert file.read_text() == before


def test_manifest_can_be_written_to_a_file(tmp_path: Path) -> None:
    file = tmp_path / "secret.yaml"
    done = smsd("keys", "--kubernetes", "--output", str(file), stdin=TOKEN)
    assert (done.returncode, done.stdout) == (0, "")
    assert yaml.safe_load(file.read_text())["stringData"]["TWILIO_AUTH_TOKEN"] == TOKEN
    assert f"kubectl apply -f {file}" in done.stderr
    assert TOKEN not in done.stderr


def test_keys_into_a_missing_folder_say_why(tmp_path: Path) -> None:
    done = smsd("keys", "--output", str(tmp_path / "missing" / "smsd.env"))
    assert (done.returncode, done.stdout) == (2, "")
    assert "cannot be written: No such file or directory" in done.stderr


def manifest(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """The values of the Secret that was printed."""
    assert (done.returncode, done.stderr) == (0, "")
    secret = yaml.safe_load(done.stdout)
    assert (secret["apiVersion"], secret["kind"], secret["type"]) == ("v1", "Secret", "Opaque")
    values: dict[str, str] = secret["stringData"]
    return values


def test_the_manifests_values_are_accepted_as_mounted_files(tmp_path: Path) -> None:
    token = "{it's-a-token:'with',#quotes}"
    (tmp_path / "token").write_text(f"{token}\n")
    values = manifest(smsd("keys", "--kubernetes", "--token-file", str(tmp_path / "token")))
    assert values["TWILIO_AUTH_TOKEN"] == token
    env: dict[str, str | None] = dict.fromkeys(SECRET_NAMES)
    for name, value in values.items():
        (tmp_path / name).write_text(value)
        env[f"{name}_FILE"] = str(tmp_path / name)
    with Smsd(env) as server:
        assert wire.post(server.address, wire.message(), token=token).status == 200


def test_secret_has_the_name_that_manifests_expect() -> None:
    names = [
        yaml.safe_load(smsd("keys", "--kubernetes", *args, stdin=TOKEN).stdout)["metadata"]
        for args in ([], ["--name", "other", "--namespace", "elsewhere"])
    ]
    assert names == [
        {"name": "smsd-secrets", "namespace": "smsd"},
        {"name": "other", "namespace": "elsewhere"},
    ]


@pytest.mark.parametrize("args", [[], ["--token-file", "-"]], ids=["piped", "dash"])
def test_the_token_comes_from_standard_input(args: list[str]) -> None:
    done = smsd("keys", "--kubernetes", *args, stdin=f"{TOKEN}\nanother line\n")
    assert manifest(done)["TWILIO_AUTH_TOKEN"] == TOKEN


def test_the_token_comes_from_the_environment() -> None:
    done = smsd("keys", "--kubernetes", env={"TWILIO_AUTH_TOKEN": TOKEN})
    assert manifest(done)["TWILIO_AUTH_TOKEN"] == TOKEN


@pytest.mark.parametrize("typed", [f"{TOKEN}\n", "\x04"], ids=["typed", "left"])
def test_token_prompt_does_not_show_the_token(typed: str) -> None:
    master, slave = pty.openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "smsd", "keys", "--kubernetes"],
            env={"PATH": os.environ["PATH"]},
            stdin=slave,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # else the question goes to the terminal of whoever runs the tests
        )
        assert process.stderr
        asked = b""
        while b"token: " not in asked:
            more = os.read(process.stderr.fileno(), 1000)
            assert more, asked
            asked += more
        os.write(master, typed.encode())
        out, rest = process.communicate(timeout=PATIENCE_S)
        os.set_blocking(master, False)
        try:
            shown = os.read(master, 10_000)
        except BlockingIOError:
            shown = b""
    finally:
        os.close(slave)
        os.close(master)
    assert TOKEN.encode() not in asked + rest + shown
    if typed.startswith(TOKEN):
        assert process.returncode == 0
        assert yaml.safe_load(out)["stringData"]["TWILIO_AUTH_TOKEN"] == TOKEN
    else:
        assert (process.returncode, out) == (2, b"")
        assert b"cannot be read" in rest


@pytest.mark.parametrize(
    "content", ["", "\n", None, b"\xff\xfe"], ids=["empty", "blank", "missing", "no UTF-8"]
)
def test_without_a_token_there_is_no_manifest(tmp_path: Path, content: str | bytes | None) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content.encode() if isinstance(content, str) else content)
    done = smsd("keys", "--kubernetes", "--token-file", str(file))
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"smsd keys: the Twilio auth token .*\n", done.stderr)
