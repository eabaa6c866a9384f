"""`smsd serve --dev`: the service, opened up so that the phone page can look inside.

The page reads cookies and records, stops the store and moves the clock through
`Workbench`. Production must never import this module.
"""

import asyncio
import logging
import sys
import time
from collections.abc import Callable, Mapping

import msgspec

from smsd.app import Service
from smsd.clock import now_ms
from smsd.conversation.identity import storage_key
from smsd.conversation.record import Record
from smsd.conversation.turns import shows_running
from smsd.dev import page_handlers
from smsd.dev.counting import CountingWatch
from smsd.dev.dev_server import container_engine, welcome
from smsd.dev.failures import ErrorWatch, FailureWatch, traceback_text
from smsd.dev.hooks import Counting, DialogueState, Problem
from smsd.dev.live_reload import Source
from smsd.dev.switch import Switch
from smsd.dialogues.loading import LoadedDialogue
from smsd.errors import CookieError, SettingsError, StoreUnavailable
from smsd.server import Server
from smsd.settings.reload import Reloader
from smsd.store import Remote
from smsd.telemetry import logs

LOOK_EVERY_S = 0.5
MOST_FAILURES = 50

log = logging.getLogger("smsd.dev.dev_service")


def server(reloader: Reloader, loaded: LoadedDialogue) -> tuple[Server, Callable[[int, int], str]]:
    """The development server, and what makes its welcome text from its two ports."""
    bench = Workbench(reloader, loaded)
    bench.watch_failures()
    made = Server(
        bench.service, reloader, extra=page_handlers.routes(bench), jobs=[bench.watch_dialogue]
    )

    def greet(port: int, admin_port: int) -> str:
        engine = container_engine()
        return welcome(reloader.settings, bench.source, port, admin_port, engine=engine)

    return made, greet


class Workbench:
    """What the phone page may do to the service (`smsd.dev.hooks.Hooks`).

    source          the dialogue's source, which is watched
    loaded_ms       when the running version was loaded, in milliseconds since 1970
    reload_problem  why the version on disk was refused, with the traceback; None if it runs
    failures        MessageSid to traceback, for the last failures of the dialogue
    """

    def __init__(self, reloader: Reloader, loaded: LoadedDialogue) -> None:
        self.source = Source(reloader.settings.dialogue)
        self.loaded_ms = now_ms()
        self.reload_problem: str | None = None
        self.failures: dict[str, str] = {}
        self._countings = CountingWatch()
        self._ahead_ms = 0
        self._switch: Switch | None = None
        self.service = Service(
            reloader.settings, loaded, now_ms=self._now_ms, clock_s=time.monotonic, wrap=self._wrap
        )

    def _now_ms(self) -> int:
        return now_ms() + self._ahead_ms

    def watch_failures(self) -> None:
        """Print what the dialogue raises from now on, and keep what happens for the
        phone page."""
        FailureWatch(self._on_failure).install()
        ErrorWatch(_print_error).install()
        self._countings.install()

    def _on_failure(self, sid: str, error: BaseException) -> None:
        text = traceback_text(error)
        self.failures[sid] = text
        while len(self.failures) > MOST_FAILURES:
            self.failures.pop(next(iter(self.failures)))
        _print(f"The dialogue failed, and the sender got the apology:\n{text}")

    async def watch_dialogue(self) -> None:
        """Load the dialogue again when its source changes.

        If the new version cannot be loaded, the old one keeps answering.
        """
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            if self.source.changed():
                await self._load_dialogue()

    async def _load_dialogue(self) -> None:
        try:
            loaded = await self.source.load(self.service.settings)
        except SettingsError as error:
            self.reload_problem = "\n".join(error.problems)
            if error.__cause__:
                self.reload_problem += "\n\n" + traceback_text(error.__cause__)
            logs.event(log, logging.ERROR, "dialogue not reloaded", problems=list(error.problems))
            _print(
                "The new version of the dialogue cannot be loaded; the old one keeps answering:\n"
                f"{self.reload_problem}"
            )
            return
        self.reload_problem = None
        self.loaded_ms = now_ms()
        await self.service.replace_dialogue(loaded)
        logs.event(log, logging.INFO, "dialogue reloaded", dialogue=self.service.settings.dialogue)

    def _wrap(self, remote: Remote) -> Remote:
        self._switch = Switch(remote)
        return self._switch

    @property
    def token(self) -> str:
        return self.service.settings.auth_token.reveal().decode()

    @property
    def account_sid(self) -> str | None:
        return self.service.settings.account_sid

    @property
    def public_url(self) -> str:
        return self.service.settings.public_url

    def people(self) -> Mapping[str, str]:
        return self.service.settings.people

    def dialogue(self) -> DialogueState:
        name = self.service.settings.dialogue
        return DialogueState(name, self.loaded_ms / 1000, self.reload_problem)

    def counting(self, sid: str) -> Counting | None:
        return self._countings.of(sid)

    def problem(self, sid: str) -> Problem | None:
        text = self.failures.get(sid)
        return Problem(text.strip().rpartition("\n")[2], text) if text else None

    def open_cookie(self, value: str, account: str, to: str, from_: str) -> object:
        whose = self.service.exchange.conversation_of(account, to, from_)
        try:
            return shown(self.service.exchange.cookies.open(value, whose, self._now_ms()).record())
        except CookieError as error:
            return {"refused": error.state}

    async def record(self, account: str, to: str, from_: str) -> object | None:
        if self._switch is None or not self._switch.up:
            return None
        key = storage_key(self.service.exchange.conversation_of(account, to, from_))
        try:
            record, _ = await self._switch.load(key)
        except StoreUnavailable:
            return None
        return shown(record) if record else None

    async def flush(self) -> None:
        if self._switch:
            await self._switch.flush()

    def set_store_up(self, up: bool) -> None:
        if self._switch:
            self._switch.up = up

    def store_up(self) -> bool:
        return self._switch is None or self._switch.up

    def advance(self, seconds: float) -> None:
        self._ahead_ms += round(seconds * 1000)

    def stopping(self) -> bool:
        return self.service.draining


def _print_error(message: str, error: BaseException) -> None:
    _print(f"{message}:\n{traceback_text(error)}")


def _print(text: str) -> None:
    sys.stderr.write(f"\n{text}\n")
    sys.stderr.flush()


def shown(record: Record) -> object:
    """A record as values that JSON can express."""
    unanswered = [entry for line in record.lineages for entry in line.tail if entry.is_open]
    return {
        "count": record.count,
        "last": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.last_ms / 1000)),
        "data": msgspec.json.decode(record.data or b"{}"),
        "running": [entry.number for entry in unanswered if shows_running(entry)],
        "waiting": [entry.number for entry in unanswered if not shows_running(entry)],
        "lineages": [
            {
                "id": f"{line.id:016x}",
                "open": line.id > record.floor,
                "own": line.id == record.own,
                "messages": line.top,
                "counted elsewhere": list(line.redundant),
                "ids": [entry.digest.hex() for entry in line.tail],
            }
            for line in record.lineages
        ],
    }
