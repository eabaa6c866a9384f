"""The composition root: what settings become, what changes while running, and what a
reload does to a process."""

import re
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlencode

import pytest
from tornado.httpclient import AsyncHTTPClient
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port

from smsd.app import Service
from smsd.clock import now_ms
from smsd.conversation.session import Session
from smsd.dialogues import loading as dialogue
from smsd.dialogues.loading import LoadedDialogue
from smsd.errors import DataError, SettingsError, SignatureMismatch, WrongAccount
from smsd.exchange.events import Answer, Counted, Observer
from smsd.settings import table as settings
from smsd.settings.table import Settings
from smsd.store import Remote
from smsd.twilio.message import Message
from tests import raw_http as wire
from tests.processes import ACCOUNT, SETTINGS, TOKEN, Memcached, Smsd, wait_for

NEW_TOKEN = "new-token-new-token-new-token"
SUB_ACCOUNT = "AC" + "2" * 32
REY = "+14158675309"


def load(**env: str) -> Settings:
    return settings.load({**SETTINGS, **env})


class LastEvent(Observer):
    """Remembers how the last message was counted."""

    event: Counted

    def counted(self, event: Counted) -> None:
        self.event = event


class Watched(Service):
    """A service, and how it counted the last message."""

    def __init__(
        self, settings: Settings, dialogue: LoadedDialogue, wrap: Callable[[Remote], Remote]
    ) -> None:
        self.last = LastEvent()
        super().__init__(
            settings,
            dialogue,
            now_ms=now_ms,
            clock_s=time.monotonic,
            wrap=wrap,
            observers=[self.last],
        )


@asynccontextmanager
async def running(
    given: Settings | None = None,
    asked: LoadedDialogue | None = None,
    wrap: Callable[[Remote], Remote] = lambda remote: remote,
) -> AsyncIterator[Watched]:
    """A service, closed afterwards."""
    chosen = given or load()
    service = Watched(chosen, asked or dialogue.load(chosen.dialogue, chosen), wrap)
    try:
        yield service
    finally:
        await service.close()


def params(form: Mapping[str, str]) -> dict[str, list[bytes]]:
    return {name: [value.encode()] for name, value in form.items()}


async def answer(service: Service, *copies: bytes) -> Answer:
    """A new message with cookies of these payloads, as it comes through the gate."""
    message = Message.from_params(params(wire.message(From=REY)))
    return await service.exchange.answer(message, copies, "absent")


async def post(service: Service, port: int, cookie: str = "") -> tuple[int, str]:
    """Post a new message; its number, and the cookie that was set."""
    form = wire.message(From=REY)
    headers = {"X-Twilio-Signature": wire.signature(form), "Cookie": f"smsd={cookie}"}
    answered = await AsyncHTTPClient().fetch(
        f"http://127.0.0.1:{port}/sms", method="POST", headers=headers, body=urlencode(form)
    )
    number = re.search(rb"(\d+) times", answered.body)
    assert number
    return int(number[1]), value(answered.headers["Set-Cookie"])


def admitted(service: Service, token: str, account: str = ACCOUNT) -> str:
    """The label of the key that lets a message in; or what the gate raises."""
    form = wire.message(AccountSid=account)
    signature = wire.signature(form, token=token)
    label = service.gate.check("/sms", urlencode(form).encode(), params(form), signature, "")
    service.gate.check_account(account)
    return label


def value(line: str) -> str:
    """The cookie's value in a Set-Cookie line."""
    return line.partition(";")[0].partition("=")[2]


# --- stores


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", ["memory", "cookie", "memcached"])
async def test_each_kind_of_store_counts_and_is_told_by_the_status(kind: str) -> None:
    with Memcached() as node:
        names = [node.node] if kind == "memcached" else []
        chosen = load(SMSD_STORE=f"{kind}://{','.join(names)}", SMSD_STORE_TIMEOUT="5")
        async with running(chosen) as service:
            first = await answer(service)
            assert service.last.event.number == 1
            await answer(service, first.copy)
            assert service.last.event.number == 2
            told = service.status()
            assert (told["store"], told["pending"], told["draining"]) == (kind, 0, False)
            assert told["nodes"] == dict.fromkeys(names, "up")
            await answer(service)
            assert service.last.event.number == (1 if kind == "cookie" else 3)


@pytest.mark.asyncio
async def test_what_is_wrapped_around_the_remote_store_is_asked() -> None:
    wrapped: list[Remote] = []

    def wrap(remote: Remote) -> Remote:
        wrapped.append(remote)
        return remote

    async with running(wrap=wrap) as service:
        await answer(service)
        assert len(wrapped) == 1


@pytest.mark.asyncio
async def test_a_small_store_limits_the_dialogues_data() -> None:
    async def hoard(message: Message, session: Session) -> str:
        session.data["hoard"] = "x" * 1000
        return "kept"

    async with running(load(SMSD_STORE="cookie://"), LoadedDialogue(hoard)) as service:
        await answer(service)
        assert isinstance(service.last.event.error, DataError)


# --- what changes while running


@pytest.mark.asyncio
async def test_new_tokens_and_accounts_count_at_once() -> None:
    async with running() as service:
        assert admitted(service, TOKEN) == "primary"
        await service.apply(
            load(
                TWILIO_AUTH_TOKEN=NEW_TOKEN,
                TWILIO_AUTH_TOKEN_SECONDARY=TOKEN,
                TWILIO_ACCOUNT_SID=SUB_ACCOUNT,
            )
        )
        assert admitted(service, NEW_TOKEN, SUB_ACCOUNT) == "primary"
        assert admitted(service, TOKEN, SUB_ACCOUNT) == "secondary"
        with pytest.raises(WrongAccount):
            admitted(service, NEW_TOKEN, ACCOUNT)
        await service.apply(load(TWILIO_AUTH_TOKEN=NEW_TOKEN))
        with pytest.raises(SignatureMismatch):
            admitted(service, TOKEN)


@pytest.mark.asyncio
async def test_sub_accounts_are_served_beside_the_account_and_others_are_not(
    tmp_path: Path,
) -> None:
    file = tmp_path / "accounts.toml"
    file.write_text(f'[{SUB_ACCOUNT}]\ntokens = ["{NEW_TOKEN}"]\n')

    async with running(load(TWILIO_ACCOUNT_SID=ACCOUNT, SMSD_ACCOUNTS=str(file))) as service:
        assert admitted(service, NEW_TOKEN, SUB_ACCOUNT) == "account"
        assert admitted(service, TOKEN, ACCOUNT) == "primary"
        with pytest.raises(WrongAccount):
            admitted(service, TOKEN, "AC" + "9" * 32)


@pytest.mark.asyncio
async def test_cookies_of_the_old_key_are_good_as_long_as_it_is_in_the_list() -> None:
    old, new = SETTINGS["SMSD_COOKIE_KEYS"], "2:" + "n" * 40

    async with running(load(SMSD_STORE="cookie://")) as service:
        server, (sock, port) = HTTPServer(service.public()), bind_unused_port()
        server.add_socket(sock)
        _, before = await post(service, port)
        await service.apply(load(SMSD_COOKIE_KEYS=f"{new},{old}", SMSD_STORE="cookie://"))
        number, after = await post(service, port, before)
        assert number == 2
        assert before.startswith("2|1:1|")
        assert after.startswith("2|1:2|"), "the new one signs"
        await service.apply(load(SMSD_COOKIE_KEYS=new, SMSD_STORE="cookie://"))
        assert (await post(service, port, before))[0] == 1, "forged"
        assert (await post(service, port, after))[0] == 3
        server.stop()
        await server.close_all_connections()


@pytest.mark.asyncio
async def test_people_templates_and_apology_change_at_once(tmp_path: Path) -> None:
    people = tmp_path / "people.toml"
    people.write_text(f'"{REY}" = "Ben"\n')

    async with running() as service:
        assert b"Rey has messaged" in (await answer(service)).twiml
        await service.apply(
            load(SMSD_PEOPLE=str(people), SMSD_GREETING="{name}, {count}", SMSD_APOLOGY="Oh")
        )
        assert b"<Message>Ben, 2</Message>" in (await answer(service)).twiml
        assert service.exchange.policy.apology == "Oh"


class Choosy:
    """A dialogue that takes no new settings, and notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def reload(self, _: object) -> None:
        raise ValueError("no")

    def close(self) -> None:
        self.told.append("closed")

    async def __call__(self, message: Message, session: Session) -> str:
        return f"choosy {session.count}"


@pytest.mark.asyncio
async def test_a_dialogue_that_refuses_new_settings_leaves_everything_as_it_was() -> None:
    async with running(asked=LoadedDialogue(Choosy())) as service:
        before = service.settings
        with pytest.raises(SettingsError):
            await service.apply(load(TWILIO_AUTH_TOKEN=NEW_TOKEN))
        assert service.settings is before
        assert admitted(service, TOKEN) == "primary"


@pytest.mark.asyncio
async def test_a_dialogue_is_closed_when_it_is_replaced_and_when_the_service_ends() -> None:
    one, other = Choosy(), Choosy()

    async with running(asked=LoadedDialogue(one)) as service:
        assert b"choosy 1" in (await answer(service)).twiml
        await service.replace_dialogue(LoadedDialogue(other))
        assert (one.told, other.told) == (["closed"], [])
        assert b"choosy 2" in (await answer(service)).twiml
    assert (one.told, other.told) == (["closed"], ["closed"])


# --- a process whose files change


class Mounted:
    """Settings as files in a folder, as Kubernetes mounts them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.write(
            TWILIO_AUTH_TOKEN=TOKEN,
            TWILIO_AUTH_TOKEN_SECONDARY="",
            SMSD_COOKIE_KEYS=SETTINGS["SMSD_COOKIE_KEYS"],
            SMSD_HASH_KEY=SETTINGS["SMSD_HASH_KEY"],
            SMSD_PEOPLE=f'"{REY}" = "Rey"\n',
        )
        names = [path.name for path in folder.iterdir()]
        self.env: dict[str, str | None] = dict.fromkeys(names)
        self.env |= {f"{name}_FILE": str(folder / name) for name in names}

    def write(self, **files: str) -> None:
        """All of a file at once, as a mounted Secret changes."""
        for name, content in files.items():
            new = self._folder / f"{name}.new"
            new.write_text(content)
            new.replace(self._folder / name)


def reloads(server: Smsd, result: str) -> float:
    return server.metric(f'smsd_reloads_total{{result="{result}"}}')


def test_a_token_is_rotated_without_refusing_one_message(tmp_path: Path) -> None:
    """The three steps of the README, while messages arrive that are signed with what
    Twilio uses then."""
    mounted = Mounted(tmp_path)
    statuses: list[int] = []
    signing = TOKEN
    done = threading.Event()

    def keep_posting(address: str) -> None:
        while not done.is_set():
            statuses.append(wire.post(address, wire.message(), token=signing).status)

    with Smsd(mounted.env) as server:
        posting = threading.Thread(target=keep_posting, args=(server.address,))
        posting.start()
        try:
            mounted.write(TWILIO_AUTH_TOKEN_SECONDARY=NEW_TOKEN)
            wait_for(lambda: reloads(server, "ok") == 1, "the secondary token to be taken")
            signing = NEW_TOKEN
            secondary = 'smsd_signatures_total{key="secondary"}'
            wait_for(lambda: server.metric(secondary) > 0, "a message signed with it")
            mounted.write(TWILIO_AUTH_TOKEN=NEW_TOKEN)
            server.signal(signal.SIGHUP)
            wait_for(lambda: reloads(server, "ok") == 2, "the token to be moved")
            mounted.write(TWILIO_AUTH_TOKEN_SECONDARY="")
            wait_for(lambda: reloads(server, "ok") == 3, "the secondary to be emptied")
        finally:
            done.set()
            posting.join()
        assert set(statuses) == {200}
        assert wire.post(server.address, wire.message(), token=TOKEN).status == 403


def test_people_change_with_their_file_and_a_broken_one_changes_nothing(tmp_path: Path) -> None:
    mounted = Mounted(tmp_path)
    with Smsd(mounted.env) as server:
        mounted.write(SMSD_PEOPLE="this is no TOML")
        wait_for(lambda: reloads(server, "refused") == 1, "the broken version to be refused")
        assert b"Rey has" in wire.post(server.address, wire.message(From=REY)).body
        assert '"event":"reload refused","problems":["SMSD_PEOPLE:' in server.log()
        assert server.metric("smsd_last_reload_successful") == 0
        mounted.write(SMSD_PEOPLE=f'"{REY}" = "Ben"\n')
        wait_for(lambda: reloads(server, "ok") == 1, "the good version to be taken")
        assert b"Ben has" in wire.post(server.address, wire.message(From=REY)).body
        assert (reloads(server, "ok"), reloads(server, "refused")) == (1, 1)
        assert server.metric("smsd_last_reload_successful") == 1


def test_what_needs_a_restart_is_named_and_waits_for_it(tmp_path: Path) -> None:
    mounted = Mounted(tmp_path)
    with Smsd(mounted.env) as server:
        wire.post(server.address, wire.message(From=REY))
        mounted.write(SMSD_HASH_KEY="another-hash-key-another-hash-key-another")
        server.signal(signal.SIGHUP)
        wait_for(
            lambda: '"restart_needed":["SMSD_HASH_KEY"]' in server.log(), "the setting to be named"
        )
        assert b"2 times" in wire.post(server.address, wire.message(From=REY)).body
