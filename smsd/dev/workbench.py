"""`smsd serve --dev`: the service with its hood open. The phone page looks in, stops the store, moves the
clock.

Never imported by production.
"""

import asyncio
import logging
import shlex
import time
from collections.abc import Mapping
from urllib.parse import urlencode

import msgspec
from twilio.request_validator import RequestValidator

from smsd.app import Service
from smsd.clock import now_ms
from smsd.conversation.record import Record
from smsd.dev import web
from smsd.dev.refresh import Source
from smsd.dev.switch import Switch
from smsd.dialogues.loading import LoadedDialogue
from smsd.errors import CookieError, SettingsError, StoreUnavailable
from smsd.exchange.exchange import storage_key
from smsd.server import Server
from smsd.settings.reload import Reloader
from smsd.settings.table import Settings
from smsd.store import Remote
from smsd.telemetry import logs

LOOK_EVERY_S = 0.5
CURL_FROM = "+14158675309"
CURL_TO = "+14158141829"
CURL_ACCOUNT = "AC" + "0" * 32

log = logging.getLogger("smsd.dev.workbench")


def server(reloader: Reloader, loaded: LoadedDialogue) -> tuple[Server, str]:
    """The development server, and what it says when it listens."""
    bench = Workbench(reloader, loaded)
    made = Server(bench.service, reloader, extra=web.routes(bench), jobs=[bench.watch_dialogue])
    return made, welcome(reloader.settings)


def welcome(settings: Settings) -> str:
    """What a developer sees first: the page, and a request that is signed."""
    base = settings.public_url
    return (
        f"\n  The phone     {base}/phone\n"
        f"  In a terminal smsd phone {base}\n"
        f"  With curl     {curl_line(settings)}\n\n"
    )


def curl_line(settings: Settings) -> str:
    """A message from Rey, signed as Twilio signs, for a shell."""
    form = {
        "MessageSid": "SM" + "0" * 32,
        "AccountSid": settings.account_sid or CURL_ACCOUNT,
        "From": CURL_FROM,
        "To": CURL_TO,
        "Body": "Hello",
        "NumMedia": "0",
    }
    url = f"{settings.public_url}/sms"
    signature = RequestValidator(settings.auth_token.reveal().decode()).compute_signature(url, form)
    return shlex.join(
        ["curl", "-s", "-H", f"X-Twilio-Signature: {signature}", "-d", urlencode(form), url]
    )


class Workbench:
    """What the phone page may do to the service (`simulator.desk.Workbench`)."""

    def __init__(self, reloader: Reloader, loaded: LoadedDialogue) -> None:
        self._ahead_ms = 0
        self._switch: Switch | None = None
        self.service = Service(
            reloader.settings, loaded, now_ms=self._now_ms, clock_s=time.monotonic, wrap=self._wrap
        )

    def _now_ms(self) -> int:
        return now_ms() + self._ahead_ms

    async def watch_dialogue(self) -> None:
        """Load the dialogue anew when its source changes. A broken version is named, and the old one goes on."""
        source = Source(self.service.settings.dialogue)
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            if source.changed():
                await self._load_dialogue(source)

    async def _load_dialogue(self, source: Source) -> None:
        try:
            loaded = await source.load(self.service.settings)
        except SettingsError as error:
            logs.event(log, logging.ERROR, "dialogue not reloaded", problems=list(error.problems))
            return
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


def shown(record: Record) -> object:
    """A record as JSON can say it."""
    return {
        "count": record.count,
        "last": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.last_ms / 1000)),
        "data": msgspec.json.decode(record.data or b"{}"),
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
