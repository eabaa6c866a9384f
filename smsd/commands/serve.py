"""`smsd serve`: turn settings into a running process.

Without `--dev` it must not import anything of the development server: `smsd.dev` is
imported only inside `if dev`.
"""

import asyncio
import gc
import logging
import os
import sys
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import uvloop

from smsd.app import Service
from smsd.clock import now_ms
from smsd.commands import checks
from smsd.dialogues import loading
from smsd.errors import SettingsError
from smsd.server import Server
from smsd.settings.reload import Reloader
from smsd.telemetry import logs
from smsd.version import VERSION

EXIT_SETTINGS = 2
END_S = 1.0
"""Tasks that are left when the server has ended have this long to end as well."""

GARBAGE_THRESHOLD = 10_000
"""New objects between two searches for reference cycles.

With Python's default of 700 a message costs about 2 % more CPU, because some 32
messages are in progress at a time.
"""

Welcome = Callable[[int, int], str]
"""Makes the text that the development server prints, from the public and the admin
port."""

log = logging.getLogger("smsd.commands.serve")


def main(environ: Mapping[str, str], *, dev: bool) -> int:
    """Serve until a signal arrives. If it cannot start, print every problem and return
    2."""
    try:
        if dev:
            from smsd.dev import environment

            environ = environment.prepare(environ)
        reloader = Reloader(environ, dev=dev)
    except SettingsError as error:
        problems = *error.problems, *checks.dialogue_problems(environ)
        return refuse(SettingsError(*problems, hint=error.hint), dev=dev)
    settings = reloader.settings
    logs.setup(settings.log_format, settings.log_level)
    try:
        loaded = loading.load(settings.dialogue, settings)
    except SettingsError as error:
        return refuse(error, dev=dev)
    for warning in settings.warnings:
        logs.event(log, logging.WARNING, "setting", warning=warning)
    return _run(_serve(reloader, loaded, dev=dev))


def _run(serving: Coroutine[Any, Any, int]) -> int:
    """Run on uvloop, and end whatever the dialogue's coroutines do. `uvloop.run` would
    wait for a coroutine that swallows its cancellation as long as it likes.
    """
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        code = loop.run_until_complete(serving)
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left, timeout=END_S))
    if any(not task.done() for task in left):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # nothing else ends the interpreter without waiting for them
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
    return code


async def _serve(reloader: Reloader, loaded: loading.LoadedDialogue, *, dev: bool) -> int:
    try:
        await loaded.open()
    except SettingsError as error:
        return refuse(error, dev=dev)
    if dev:
        from smsd.dev import dev_server

        return await listen(*dev_server.make(reloader, loaded))
    service = Service(reloader.settings, loaded, now_ms=now_ms, clock_s=time.monotonic)
    return await listen(Server(service, reloader, extra=[]))


def refuse(error: SettingsError, *, dev: bool = False) -> int:
    """Print a line for each problem; with `dev` also the traceback of what the dialogue
    raised."""
    if dev and error.__cause__:
        from smsd.dev import failures

        sys.stderr.write(failures.traceback_text(error.__cause__))
    for line in filter(None, (*error.problems, error.hint)):
        sys.stderr.write(f"smsd: {line}\n")
    return EXIT_SETTINGS


async def listen(server: Server, welcome: Welcome = lambda _port, _admin_port: "") -> int:
    """Listen, announce it, and run until a signal. Return 2 if a port cannot be had."""
    settings = server.service.settings
    try:
        port, admin_port = server.start()
    except SettingsError as error:
        await server.service.close(within_s=0)
        return refuse(error)
    sys.stdout.write(welcome(port, admin_port))
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
    gc.freeze()  # what is loaded by now stays: the collector need not look at it again
    gc.set_threshold(GARBAGE_THRESHOLD)
    await server.run()
    return 0
