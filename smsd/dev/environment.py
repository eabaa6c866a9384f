"""What `smsd serve --dev` changes before settings are read: the import path, ports, log format.

Reads and sets no environment variable: it returns another mapping.
"""

import os
import socket
import sys
from collections.abc import Mapping

DEV_HOST = "127.0.0.1"


def prepare(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for a development server.

    The working directory comes first on sys.path, so that the dialogue in front of the
    developer wins over an installed copy. Port 0 becomes a real port, because the server
    signs requests for its own URL. A taken admin port becomes a free one.
    """
    here = os.getcwd()
    sys.path[:] = [here, *(entry for entry in sys.path if entry not in ("", here))]
    prepared = dict(environ)
    host = environ.get("SMSD_HOST") or DEV_HOST
    if environ.get("SMSD_PORT") == "0":
        prepared["SMSD_PORT"] = str(_free_port(host))
    if not environ.get("SMSD_ADMIN_PORT_FILE"):
        admin_port = environ.get("SMSD_ADMIN_PORT") or "9090"
        port = prepared.get("SMSD_PORT") or "8080"
        if admin_port == port or _is_taken(host, admin_port):
            prepared["SMSD_ADMIN_PORT"] = "0"
    return prepared


def _free_port(host: str) -> int:
    with socket.create_server(
        ("::1" if ":" in host else DEV_HOST, 0), family=_family(host)
    ) as sock:
        port: int = sock.getsockname()[1]
        return port


def _is_taken(host: str, port: str) -> bool:
    """Whether somebody listens there. A port that is no number is for the settings to refuse."""
    try:
        socket.create_server((host, int(port)), family=_family(host)).close()
    except OSError:
        return True
    except (ValueError, OverflowError):
        return False
    return False


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
