"""`smsd serve --dev`: the development server, and what it prints first: which file runs,
the phone, and a signed request.

Must not print a secret. The curl line holds a signature, which is good for that one
message only.
"""

import os
import shlex
import socket
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlencode

from twilio.request_validator import RequestValidator

from smsd.dev import page_handlers
from smsd.dev.dev_service import DevService
from smsd.dev.environment import program
from smsd.dev.failures import show_author_errors
from smsd.dev.live_reload import Source
from smsd.dev.phone_page import PhonePage
from smsd.dialogues.loading import LoadedDialogue
from smsd.server import Server
from smsd.settings.casts import LOOPBACK
from smsd.settings.reload import Reloader
from smsd.settings.table import Settings
from smsd.simulator.edge import DEFAULT_FROM, DEFAULT_TO

INITS = {"catatonit", "docker-init", "dumb-init", "tini"}
CURL_ACCOUNT = "AC" + "0" * 32


def make(reloader: Reloader, loaded: LoadedDialogue) -> tuple[Server, Callable[[int, int], str]]:
    """The development server, and what makes its welcome text from its two ports. Call
    it in the running event loop."""
    show_author_errors()
    dev = DevService(reloader.settings, loaded)
    server = Server(
        dev.service,
        reloader,
        extra=page_handlers.routes(PhonePage(dev)),
        jobs=[dev.live_reload.run],
    )

    def greet(port: int, admin_port: int) -> str:
        source = dev.live_reload.source
        return welcome(reloader.settings, source, port, admin_port, engine=container_engine())

    return server, greet


def welcome(
    settings: Settings, source: Source, port: int, admin_port: int, *, engine: str | None = None
) -> str:
    """The text. `engine` is the program that runs commands in this container, if it is
    one.

    The phone and curl get the address at which this machine listens, also if
    SMSD_PUBLIC_URL is that of a tunnel: through a tunnel smsd serves no phone page and
    tells no token.
    """
    local = local_url(settings, port)
    phone = f"{program()} phone {local}"
    if engine:  # the token is told only to this machine's own loopback: ask from inside
        phone = f"{engine} exec -it {socket.gethostname()} smsd phone {local}"
    lines = [
        ("Dialogue", described(settings.dialogue, source)),
        ("The phone", f"{local}/phone"),
        ("In a terminal", phone),
        ("With curl", curl_line(settings, local)),
        ("Metrics", f"{local_url(settings, admin_port)}/metrics"),
    ]
    if engine and settings.host in LOOPBACK.values():
        lines.append(("Note", "only this container reaches that; add --host 0.0.0.0 for the host"))
    if settings.public_url != local:
        lines.append(("Twilio calls", f"{settings.public_url}/sms (SMSD_PUBLIC_URL)"))
    return "\n" + "".join(f"  {label:<13} {text}\n" for label, text in lines) + "\n"


def local_url(settings: Settings, port: int) -> str:
    """Where this machine reaches a listener of its own."""
    host = LOOPBACK.get(settings.host, settings.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def described(spec: str, source: Source) -> str:
    """The dialogue, its file, and whether saving the file is enough to run it."""
    if source.is_installed_copy and not spec.startswith("smsd."):
        return (
            f"{spec} in {source.file}\n"
            "                This is an INSTALLED COPY: your edits are not seen. Start smsd in the\n"
            "                folder of your source, or install that with `pip install -e .`"
        )
    if not source.is_reloadable:
        return f"{spec} (comes with smsd; SMSD_DIALOGUE=module:callable runs yours)"
    return f"{spec} in {source.file}; reloads when you save it"


def container_engine() -> str | None:
    """The program that runs commands in this container, if smsd is its main process.

    Then the developer sits outside. None also in a container that a developer works in.
    """
    if not is_main_process(os.getpid(), os.getppid(), Path("/proc/1/comm")):
        return None
    for marker, engine in (("/run/.containerenv", "podman"), ("/.dockerenv", "docker")):
        if os.path.exists(marker):
            return engine
    return None


def is_main_process(pid: int, parent: int, first_name: Path) -> bool:
    """Whether a process is number 1, or the child of an init program such as tini."""
    return pid == 1 or (parent == 1 and first_name.read_text().strip() in INITS)


def curl_line(settings: Settings, local: str) -> str:
    """A message from Rey for a shell: signed for the public URL, sent to this machine."""
    form = {
        "MessageSid": "SM" + "0" * 32,
        "AccountSid": settings.account_sid or CURL_ACCOUNT,
        "From": DEFAULT_FROM,
        "To": DEFAULT_TO,
        "Body": "Hello",
        "NumMedia": "0",
    }
    url = f"{settings.public_url}/sms"
    validator = RequestValidator(settings.auth_token.reveal().decode())
    header = f"X-Twilio-Signature: {validator.compute_signature(url, form)}"
    return shlex.join(["curl", "-s", "-H", header, "-d", urlencode(form), f"{local}/sms"])
