"""What `smsd serve --dev` changes before settings are read: import path, dialogue,
ports, log format.

Reads and sets no environment variable: it returns another mapping.
"""

import os
import re
import shlex
import shutil
import socket
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

from smsd.errors import SettingsError

DEV_HOST = "127.0.0.1"


def prepare(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for a development server; SettingsError for a broken
    pyproject.toml.

    Unless SMSD_DIALOGUE is given, the dialogue is that of the project in the working
    directory: `[tool.smsd]` in its pyproject.toml.

    The working directory comes first on sys.path, so that the dialogue in front of the
    developer wins over an installed copy. Port 0 becomes a real port, because the
    server signs requests for its own URL. A taken admin port becomes a free one.
    """
    here = os.getcwd()
    sys.path[:] = [here, *(entry for entry in sys.path if entry not in ("", here))]
    prepared = dict(environ)
    if not _is_given(environ, "SMSD_DIALOGUE"):
        prepared.update(_project_dialogue(Path("pyproject.toml")))
    if not _is_given(environ, "SMSD_LOG_FORMAT") and sys.stderr.isatty():
        prepared["SMSD_LOG_FORMAT"] = "pretty"
    host = environ.get("SMSD_HOST") or DEV_HOST
    if environ.get("SMSD_PORT") == "0":
        prepared["SMSD_PORT"] = str(_free_port(host))
    if not environ.get("SMSD_ADMIN_PORT_FILE"):  # its content is for the settings to read
        admin_port = environ.get("SMSD_ADMIN_PORT") or "9090"
        port = prepared.get("SMSD_PORT") or "8080"
        if admin_port == port or _is_taken(host, admin_port):
            prepared["SMSD_ADMIN_PORT"] = "0"
    return prepared


def program() -> str:
    """How to call smsd in this shell: by name, or else by the script beside this
    Python."""
    script = Path(sys.executable).with_name("smsd")
    return "smsd" if shutil.which("smsd") else shlex.quote(str(script))


def _is_given(environ: Mapping[str, str], name: str) -> bool:
    return bool(environ.get(name) or environ.get(f"{name}_FILE"))


def _project_dialogue(project: Path) -> dict[str, str]:
    """The setting that `[tool.smsd] dialogue = "module:callable"` stands for, if it is
    there."""
    try:
        content = tomllib.loads(project.read_text("utf-8"))
    except OSError:
        return {}
    except ValueError as error:  # not UTF-8, or not TOML
        place = re.search(r"\(at .*\)$", str(error))
        problem = f"SMSD_DIALOGUE: {project} is not valid TOML {place[0] if place else ''}".rstrip()
        raise SettingsError(problem) from None
    section = content.get("tool", {}).get("smsd", {})
    dialogue = section.get("dialogue") if isinstance(section, dict) else None
    return {"SMSD_DIALOGUE": str(dialogue)} if dialogue else {}


def _free_port(host: str) -> int:
    with _listen("::1" if ":" in host else DEV_HOST, 0) as listener:
        port: int = listener.getsockname()[1]
        return port


def _is_taken(host: str, port: str) -> bool:
    """Whether somebody listens there. A port that is no number is for the settings to
    refuse."""
    try:
        _listen(host, int(port)).close()
    except OSError:
        return True
    except (ValueError, OverflowError):
        return False
    return False


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family)
