"""`smsd serve`: from settings to a running process. Production imports nothing of the development server."""

import asyncio
import logging
import sys
import time
from collections.abc import Mapping

from smsd import dialogue, logs
from smsd.app import Service
from smsd.errors import SettingsError
from smsd.reload import Reloader
from smsd.server import Server
from smsd.version import VERSION

EXIT_SETTINGS = 2

log = logging.getLogger("smsd.serve")


def main(environ: Mapping[str, str], *, dev: bool) -> int:
    """Serve until a signal. 2, and a line for each problem, if the settings do not allow it."""
    try:
        reloader = Reloader(environ, dev=dev)
        settings = reloader.settings
        logs.setup(settings.log_format, settings.log_level)
        loaded = dialogue.load(settings.dialogue, settings)
    except SettingsError as error:
        for problem in error.problems:
            sys.stderr.write(f"smsd: {problem}\n")
        return EXIT_SETTINGS
    for warning in settings.warnings:
        logs.event(log, logging.WARNING, "setting", warning=warning)
    if dev:
        from smsd import workbench

        return asyncio.run(workbench.serve(reloader, loaded))
    return asyncio.run(_serve(reloader, loaded))


async def _serve(reloader: Reloader, loaded: dialogue.LoadedDialogue) -> int:
    await loaded.open()
    service = Service(reloader.settings, loaded, now_ms=now_ms, clock_s=time.monotonic)
    server = Server(service, reloader, extra=[])
    return await listen(server)


async def listen(server: Server) -> int:
    """Listen, say so, run to the end. 2 if a port is taken."""
    settings = server.service.settings
    try:
        port, admin_port = server.start()
    except OSError as error:
        sys.stderr.write(f"smsd: SMSD_HOST, SMSD_PORT or SMSD_ADMIN_PORT: {error.strerror}\n")
        return EXIT_SETTINGS
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
    await server.run()
    return 0


def now_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000
