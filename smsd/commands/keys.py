"""`smsd keys`: make fresh secrets, as settings or as a Kubernetes Secret manifest.

Must not show a secret anywhere but in its output, and must not replace a file: new keys
would end every conversation.
"""

import os
import secrets
import shlex
import sys
from collections.abc import Callable, Mapping
from getpass import getpass
from pathlib import Path

EXIT_USAGE = 2
PRIVATE_MODE = 0o600


def make_settings(output: Path | None) -> int:
    """Make two settings; print them or write them to a new file. The exit code."""
    return _deliver(settings_lines(_random_secret), output, kubernetes=False)


def make_manifest(
    output: Path | None,
    *,
    token_file: str | None,
    name: str,
    namespace: str,
    environ: Mapping[str, str],
) -> int:
    """Make a Secret manifest; print it or write it to a new file. The exit code."""
    try:
        auth_token = _auth_token(token_file, environ)
    except (OSError, UnicodeDecodeError, EOFError) as error:  # EOFError: Ctrl-D at the prompt
        reason = getattr(error, "strerror", None) or type(error).__name__
        return _refuse(f"the Twilio auth token cannot be read: {reason}")
    if not auth_token:
        return _refuse(
            "the Twilio auth token is empty; give it with --token-file or as TWILIO_AUTH_TOKEN"
        )
    manifest = secret_manifest(
        _random_secret, auth_token=auth_token, name=name, namespace=namespace
    )
    return _deliver(manifest, output, kubernetes=True)


def settings_lines(token: Callable[[], str]) -> str:
    """Two `NAME=value` lines, for a shell or for `docker run --env-file`."""
    return f"SMSD_COOKIE_KEYS=1:{token()}\nSMSD_HASH_KEY={token()}\n"


def secret_manifest(token: Callable[[], str], *, auth_token: str, name: str, namespace: str) -> str:
    """A Secret to be mounted as files, which smsd reads through NAME_FILE.

    smsd reads mounted files again when they change, so a new version needs no restart.
    """
    return f"""\
apiVersion: v1
kind: Secret
metadata:
  name: {name}
  namespace: {namespace}
type: Opaque
stringData:
  TWILIO_AUTH_TOKEN: {_quoted(auth_token)}
  TWILIO_AUTH_TOKEN_SECONDARY: ''
  SMSD_COOKIE_KEYS: {_quoted(f"1:{token()}")}
  SMSD_HASH_KEY: {_quoted(token())}
"""


def _deliver(content: str, output: Path | None, *, kubernetes: bool) -> int:
    """Print the keys, or write them to a file and say on stderr how to use it."""
    if output is None:
        sys.stdout.write(content)
        return 0
    try:
        _write_once(output, content)
    except FileExistsError:
        return _refuse(
            f"{output} exists already and was left as it is, since new keys would end all "
            "conversations. To make new ones, choose another FILE."
        )
    except OSError as error:
        return _refuse(f"{output} cannot be written: {error.strerror}")
    sys.stderr.write(f"Wrote {output}; only you can read it. Keep it, and do not commit it.\n")
    sys.stderr.write(_how_to_use(str(output), kubernetes=kubernetes))
    return 0


def _write_once(path: Path, content: str) -> None:
    """Write a new file that only its owner can read."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_MODE)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(content)


def _how_to_use(path: str, *, kubernetes: bool) -> str:
    if kubernetes:
        return f"Apply it with:  kubectl apply -f {shlex.quote(path)}\n"
    in_shell = path if "/" in path else f"./{path}"  # `.` looks up a bare name in PATH
    return (
        f"In a shell:   set -a; . {shlex.quote(in_shell)}; set +a\n"
        f"With Docker:  docker run --env-file {shlex.quote(path)} ...\n"
        "Add TWILIO_AUTH_TOKEN and SMSD_PUBLIC_URL to it; `smsd doctor` says what is missing.\n"
    )


def _refuse(reason: str) -> int:
    sys.stderr.write(f"smsd keys: {reason}\n")
    return EXIT_USAGE


def _random_secret() -> str:
    return secrets.token_urlsafe(32)


def _auth_token(file: str | None, environ: Mapping[str, str]) -> str:
    """From a file, standard input, the environment or a prompt; never from the command
    line."""
    if file == "-" or (
        file is None and not sys.stdin.isatty() and "TWILIO_AUTH_TOKEN" not in environ
    ):
        return sys.stdin.readline().strip()
    if file is not None:
        return Path(file).read_text(encoding="utf-8").strip()
    if "TWILIO_AUTH_TOKEN" in environ:
        return environ["TWILIO_AUTH_TOKEN"].strip()
    return getpass("Twilio auth token: ").strip()


def _quoted(text: str) -> str:
    """A YAML scalar in single quotes."""
    return "'" + text.replace("'", "''") + "'"
