"""The process: sockets, signals, reload, drain.

SIGTERM and SIGINT drain it: readiness fails, the listener goes on until the load
balancer has noticed, then it closes, and what was begun is finished. A second signal
ends the process at once. SIGHUP, or a changed file, reloads the settings.
"""

import asyncio
import contextlib
import errno
import logging
import signal
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from tornado.httputil import ParseBodyConfig, ParseUrlEncodedConfig, set_parse_body_config

from smsd import descriptors
from smsd.app import Routes, Service
from smsd.errors import SettingsError
from smsd.exchange.runner import task_factory
from smsd.settings.reload import Reloader
from smsd.telemetry import logs
from smsd.web.accept import BoundedServer, bind
from smsd.web.gate import MAX_BODY_BYTES
from smsd.web.refusals import TornadoRefusals

Job = Callable[[], Coroutine[Any, Any, None]]

log = logging.getLogger("smsd.server")

FINISH_S = 20.0
"""After the listener is closed, requests and dialogues have this long to finish."""

GIVE_BACK_S = 1.0
"""What has not finished by then is given back to other replicas. The requests that
waited for it are asked to come again, and have this long to be answered."""

IDLE_GRACE_S = 1.0
"""And connections without a request this long: one may be on its way, or an answer may
not be written out yet.
"""

SOCKETS = 8
"""Descriptors that are opened later: for listening, reloading, looking up names."""

RELOAD_EVERY_S = 1.0
WATCH_EVERY_S = 1.0
LAG_EVERY_S = 0.05
LAG_WINDOW_S = 15.0


class Server:
    """Both listeners of a service, from `start` to the end of `run`.

    service   what is served
    reloader  reads the settings again
    extra     the development server's pages
    jobs      coroutine functions that run as long as the server listens
    """

    def __init__(
        self, service: Service, reloader: Reloader, *, extra: Routes, jobs: Sequence[Job] = ()
    ) -> None:
        # The gate counts fields itself, so that it can name the reason.
        set_parse_body_config(
            ParseBodyConfig(urlencoded=ParseUrlEncodedConfig(max_arguments=MAX_BODY_BYTES + 1))
        )
        self.service = service
        self._reloader = reloader
        limit = descriptors.raise_limit()
        needed = SOCKETS + 2 * len(service.settings.store.nodes)
        budget = descriptors.budget(limit.now, descriptors.open_now() + needed)
        logs.event(
            log,
            logging.INFO,
            "file descriptors",
            limit=limit.now,
            limit_before=limit.before,
            connections=budget.public,
        )
        self._public = BoundedServer(
            service.public(extra),
            name="public",
            max_body_bytes=MAX_BODY_BYTES,
            max_connections=budget.public,
        )
        self._admin = BoundedServer(
            service.admin(),
            name="admin",
            max_body_bytes=MAX_BODY_BYTES,
            max_connections=budget.admin,
        )
        tornado_log = logging.getLogger("tornado.general")
        tornado_log.setLevel(logging.INFO)
        tornado_log.addFilter(TornadoRefusals(service.refusals))
        self._stop = asyncio.Event()
        self._reload_now = asyncio.Event()
        self._jobs: tuple[Job, ...] = (
            self._watch_files,
            self._watch_lag,
            self._watch_connections,
            *jobs,
        )
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> tuple[int, int]:
        """Handle signals and listen; return the ports of both listeners.

        Raises SettingsError if a port or the address cannot be had.
        """
        loop = asyncio.get_running_loop()
        loop.set_task_factory(task_factory)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop)
        loop.add_signal_handler(signal.SIGHUP, self._reload_now.set)
        settings = self.service.settings
        ports = []
        for name, server, port in (
            ("SMSD_PORT", self._public, settings.port),
            ("SMSD_ADMIN_PORT", self._admin, settings.admin_port),
        ):
            try:
                sockets = bind(settings.host, port)
            except OSError as error:
                raise SettingsError(_cannot_listen(name, port, error)) from None
            server.add_sockets(sockets)
            ports.append(sockets[0].getsockname()[1])
        return ports[0], ports[1]

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then drain."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(job()) for job in self._jobs]
        await self._stop.wait()
        await self._drain()

    def _on_stop(self) -> None:
        if self._stop.is_set():
            raise SystemExit(130)
        self._stop.set()

    async def _drain(self) -> None:
        """Fail readiness, wait for the load balancer, close the listener, finish what
        was begun."""
        settings = self.service.settings
        logs.event(log, logging.INFO, "draining", seconds=settings.drain_delay_s)
        self.service.draining = True
        # Answers say so, and clients take their next request elsewhere.
        self._public.conn_params.no_keep_alive = True
        await asyncio.sleep(settings.drain_delay_s)
        self._public.stop()
        exchange = self.service.exchange
        exchange.stop_waiting()
        await self._until(lambda: not self._public.connections, IDLE_GRACE_S)
        admission = self.service.admission
        await self._until(lambda: not (admission.under_way or exchange.is_busy), FINISH_S)
        await exchange.give_back()
        await self._until(lambda: not admission.under_way, GIVE_BACK_S)
        await self._public.close_all_connections()
        await self.service.close()
        self._admin.stop()
        await self._admin.close_all_connections()
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        logs.event(log, logging.INFO, "stopped")

    async def _until(self, done: Callable[[], bool], at_most_s: float) -> None:
        give_up_s = time.monotonic() + at_most_s
        while not done() and time.monotonic() < give_up_s:
            await asyncio.sleep(0.01)

    async def _watch_files(self) -> None:
        """Check the files every second, and reload them at once on SIGHUP."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RELOAD_EVERY_S):
                    await self._reload_now.wait()
            if self._reload_now.is_set() or self._reloader.changed():
                self._reload_now.clear()
                await self._reload()

    async def _reload(self) -> None:
        try:
            settings = self._reloader.reload()
            if settings is not None:
                await self.service.apply(settings)
        except SettingsError as error:
            self.service.metrics.reloaded(accepted=False)
            logs.event(log, logging.ERROR, "reload refused", problems=list(error.problems))
            return
        self.service.metrics.reloaded(accepted=True)
        logs.event(
            log, logging.INFO, "reloaded", restart_needed=list(self._reloader.restart_needed)
        )

    async def _watch_connections(self) -> None:
        while True:
            await asyncio.sleep(WATCH_EVERY_S)
            self._public.watch()
            self._admin.watch()
            self.service.admission.release_late()

    async def _watch_lag(self) -> None:
        """Measure how late a sleep ends: the worst of this window and of the one
        before."""
        worst_s, before_s = 0.0, 0.0
        window_ends_s = time.monotonic() + LAG_WINDOW_S
        while True:
            asked_s = time.monotonic()
            await asyncio.sleep(LAG_EVERY_S)
            now_s = time.monotonic()
            if now_s > window_ends_s:
                worst_s, before_s, window_ends_s = 0.0, worst_s, now_s + LAG_WINDOW_S
            worst_s = max(worst_s, now_s - asked_s - LAG_EVERY_S)
            self.service.metrics.event_loop_lag.set(max(worst_s, before_s))


def _cannot_listen(name: str, port: int, error: OSError) -> str:
    """Name the port that cannot be had, and what to do about it."""
    option = {"SMSD_PORT": "--port", "SMSD_ADMIN_PORT": "--admin-port"}[name]
    if error.errno == errno.EADDRINUSE:
        return (
            f"{name}: port {port} is in use already. "
            f"Stop the program that uses it, or choose another port, such as {option} {port + 1}"
        )
    if error.errno == errno.EACCES:
        return f"{name}: port {port} needs privileges. Choose one above 1023, such as {option} 8080"
    return f"SMSD_HOST: cannot listen on this address: {error.strerror}. Use * for all addresses"
