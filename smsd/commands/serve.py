"""`smsd serve`: from settings to a running process. Production imports nothing of the development server."""

import gc
import logging
import socket
import sys
import time
from collections.abc import Mapping

import uvloop

from smsd.app import Service
from smsd.clock import now_ms
from smsd.dialogues import loading as dialogue
from smsd.errors import SettingsError
from smsd.server import Server
from smsd.settings.reload import Reloader
from smsd.telemetry import logs
from smsd.version import VERSION

EXIT_SETTINGS = 2
GARBAGE = 10_000
"""Objects made and not gone again until Python looks for cycles among them. At its usual 700 a message costs two
hundredths more, since 32 of them are under way at a time.
"""

log = logging.getLogger("smsd.commands.serve")


def main(environ: Mapping[str, str], *, dev: bool) -> int:
    """Serve until a signal. 2, and a line for each problem, if the settings do not allow it."""
    try:
        reloader = Reloader(_with_port(environ) if dev else environ, dev=dev)
        settings = reloader.settings
        logs.setup(settings.log_format, settings.log_level)
        loaded = dialogue.load(settings.dialogue, settings)
    except SettingsError as error:
        return refuse(error)
    for warning in settings.warnings:
        logs.event(log, logging.WARNING, "setting", warning=warning)
    return uvloop.run(_serve(reloader, loaded, dev=dev))


def _with_port(environ: Mapping[str, str]) -> Mapping[str, str]:
    """Port 0 made a real one before it is listened on: the development server signs for its own address."""
    if environ.get("SMSD_PORT") != "0":
        return environ
    with socket.create_server(("127.0.0.1", 0)) as found:
        return {**environ, "SMSD_PORT": str(found.getsockname()[1])}


async def _serve(reloader: Reloader, loaded: dialogue.LoadedDialogue, *, dev: bool) -> int:
    try:
        await loaded.open()
    except SettingsError as error:
        return refuse(error)
    if dev:
        from smsd.dev import workbench

        return await listen(*workbench.server(reloader, loaded))
    service = Service(reloader.settings, loaded, now_ms=now_ms, clock_s=time.monotonic)
    return await listen(Server(service, reloader, extra=[]))


def refuse(error: SettingsError) -> int:
    """A line for each problem."""
    for line in filter(None, (*error.problems, error.hint)):
        sys.stderr.write(f"smsd: {line}\n")
    return EXIT_SETTINGS


async def listen(server: Server, welcome: str = "") -> int:
    """Listen, say so, run to the end. 2 if a port is taken."""
    settings = server.service.settings
    try:
        port, admin_port = server.start()
    except OSError as error:
        await server.service.close(within_s=0)
        return refuse(SettingsError(f"SMSD_HOST, SMSD_PORT, SMSD_ADMIN_PORT: {error.strerror}"))
    sys.stdout.write(welcome)
    sys.stdout.flush()
    logs.event(
        log,
        logging.INFO,
        "listening",
        version=VERSION,
        host=settings.host,
        port=port,
        admin_port=admin_port,
        store=settings.store.kind,
        dialogue=settings.dialogue,
    )
    gc.collect()
    gc.freeze()  # what is loaded stays: no collection needs to look at it again
    gc.set_threshold(GARBAGE)
    await server.run()
    return 0
