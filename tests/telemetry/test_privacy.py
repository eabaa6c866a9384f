"""Nothing private leaves: not in logs, metrics, status, memcached's keys or the answers
of others.

A varied session with planted values runs once in JSON and once in text; then everything
that can be read is read.
"""

import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest

from tests import raw_http as wire
from tests.processes import ACCOUNT, SETTINGS, TOKEN, Memcached, Smsd, wait_for

SENDER = "+14155550123"
OTHER_SENDER = "+442071838750"
RECEIVER = "+13125550187"
BODY = "the password is xyzzy-plugh"
PROFILE = "Ada Lovelace-Planted"
MEDIA = "https://api.example.com/planted-picture.jpg"
COOKIE = "planted-garbage-cookie"
SIGNATURE = "cGxhbnRlZC1zaWduYXR1cmU="
SECONDARY = "planted-secondary-token"
SUB_TOKEN = "planted-sub-account-token"
SHARED_SECRET = "planted-shared-secret-planted"
QUERY = "planted-query-value"
PATH = "planted-path"
DIALOGUE = """
import asyncio, logging, warnings

async def reply(message, session):
    if message.body.startswith("raise"):
        raise ValueError(f"cannot parse {message.body!r} from {message.from_} to {message.to}")
    if message.body.startswith("chain"):
        try:
            {}[message.from_]
        except KeyError as error:
            raise RuntimeError(f"no entry for {message.from_}: {message.body}") from error
    if message.body.startswith("log"):
        logging.getLogger("library").error("message %s from %s", message.body, message.from_)
        logging.getLogger("library").error(f"message from {message.from_}")
        logging.getLogger("library").exception("it failed", exc_info=ValueError(message.body))
        warnings.warn(f"number {message.from_}")
    if message.body.startswith("task"):
        async def fail():
            raise ValueError(message.body + message.from_)
        asyncio.get_running_loop().create_task(fail())
        await asyncio.sleep(0)
        import gc; gc.collect()
    if message.body.startswith("late"):
        await asyncio.sleep(60)
    session.data["last"] = message.body
    return f"{message.from_} wrote {message.body}"
"""


@dataclass
class Trace:
    """What a session left behind, by the place where it can be read."""

    places: dict[str, str]
    cookies: list[str]
    signatures: list[str]


def secrets_of_settings() -> list[str]:
    cookie_secret = SETTINGS["SMSD_COOKIE_KEYS"].partition(":")[2]
    return [TOKEN, cookie_secret, SETTINGS["SMSD_HASH_KEY"], SECONDARY, SUB_TOKEN, SHARED_SECRET]


def keys_in(node: Memcached) -> str:
    """Every key of a memcached node, and what else it tells about its items."""
    client = node.client()
    try:
        dump = client.raw_command(b"lru_crawler metadump all", b"END\r\n")
        assert b"key=" in dump
        return bytes(dump).decode()
    finally:
        client.close()


@pytest.fixture(scope="module", params=["json", "text"])
def trace(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Trace]:
    directory = tmp_path_factory.mktemp("privacy")
    (directory / "planted.py").write_text(DIALOGUE)
    accounts = directory / "accounts.toml"
    accounts.write_text(f"""
[AC{"2" * 32}]
tokens = ["{SUB_TOKEN}"]
shared_keys = {{ WK1 = {{ secret = "{SHARED_SECRET}", algorithm = "HMAC_SHA256" }} }}
""")
    people = directory / "people.toml"
    people.write_text(f'"{SENDER}" = "{PROFILE}"\n')
    with Memcached() as node:
        env = {
            "PYTHONPATH": str(directory),
            "SMSD_DIALOGUE": "planted:reply",
            "SMSD_DIALOGUE_TIMEOUT": "0.2",
            "SMSD_STORE": f"memcached://{node.node}",
            "SMSD_STORE_TIMEOUT": "2",
            "TWILIO_ACCOUNT_SID": ACCOUNT,
            "TWILIO_AUTH_TOKEN_SECONDARY": SECONDARY,
            "SMSD_ACCOUNTS": str(accounts),
            "SMSD_PEOPLE": str(people),
            "SMSD_LOG_FORMAT": str(request.param),
            "SMSD_LOG_LEVEL": "debug",
        }
        with Smsd(env) as server:
            session = Session(server)
            session.well()
            session.badly()
            keys = keys_in(node)
            break_files(server, accounts, people)
            node.kill()
            session.send(SENDER, BODY)
            session.send(OTHER_SENDER, f"raise {BODY}")
            places = {name: server.admin(f"/{name}")[1] for name in ("metrics", "status", "readyz")}
            server.terminate()
            places |= {"log": server.log(), "memcached's keys": keys}
            yield Trace(places, session.cookies, session.signatures)


class Session:
    """Sends messages and remembers what must not be seen."""

    def __init__(self, server: Smsd) -> None:
        self.server = server
        self.cookies: list[str] = []
        self.signatures: list[str] = []

    def send(self, sender: str, body: str, cookie: str = "", **more: str) -> None:
        form = wire.message(
            From=sender, To=RECEIVER, Body=body, ProfileName=PROFILE, MediaUrl0=MEDIA, **more
        )
        self.signatures.append(wire.signature(form))
        answer = wire.post(self.server.address, form, headers={"Cookie": cookie} if cookie else {})
        assert answer.status == 200
        self.cookies.append(
            str(answer.header("Set-Cookie")).partition(";")[0].removeprefix("smsd=")
        )

    def well(self) -> None:
        """Messages that are answered, whatever the dialogue makes of them."""
        self.send(SENDER, BODY)
        self.send(SENDER, BODY, cookie=f"smsd={self.cookies[-1]}")
        self.send(OTHER_SENDER, BODY, cookie=f"smsd={self.cookies[-1]}")
        self.send(f"whatsapp:{SENDER}", BODY)
        for kind in ("raise", "chain", "log", "task", "late"):
            self.send(SENDER, f"{kind} {BODY}")
        for garbage in (
            COOKIE,
            f'"{COOKIE}"',
            f"2|1:1|10:1|4:smsd|4:{COOKIE}|00",
            self.cookies[0][:-9],
        ):
            self.send(SENDER, BODY, cookie=f"smsd={garbage}")
        self.send(SENDER, BODY, ErrorCode="11200", ErrorUrl=f"https://example.com/{QUERY}")
        status = wire.status("undelivered", From=RECEIVER, To=SENDER, ErrorCode="30007")
        assert wire.post(self.server.address, status, "/sms/status").status == 204

    def badly(self) -> None:
        """Requests that are refused, in all the ways there are."""
        address = self.server.address
        form = wire.message(From=SENDER, To=RECEIVER, Body=BODY)
        body = urlencode(form).encode()
        wire.post(address, form, token=SUB_TOKEN)
        wire.post(
            address, form, headers={"X-Twilio-Signature": SIGNATURE, "Cookie": f"smsd={COOKIE}"}
        )
        wire.post(address, form, f"/sms?{QUERY}", url="http://elsewhere.example.com/sms")
        wire.post(address, {**form, "MessageSid": SENDER})
        wire.post(address, {**form, "AccountSid": "AC" + "9" * 32})
        wire.request(address, "POST", f"/{PATH}?{QUERY}", body, {"Cookie": f"smsd={COOKIE}"})
        wire.request(
            address, "POST", "/sms", body, {"Content-Type": f"multipart/form-data; boundary={PATH}"}
        )
        headers = {"Content-Type": wire.FORM, "Content-Encoding": PATH}
        wire.request(address, "POST", "/sms", body, headers)
        for raw in (
            f"GET /{PATH}?{QUERY} HTTP/9.9\r\n\r\n",
            f"{PATH} {SENDER}\r\n\r\n",
            f"POST /sms HTTP/1.1\r\nHost: x\r\nCookie {COOKIE}\r\n\r\n",
            f"POST /sms HTTP/1.1\r\nHost: {PATH}:{QUERY}\r\nX-Twilio-Signature: {SIGNATURE}\r\n\r\n",
            f"POST /sms HTTP/1.1\r\nHost: x\r\nContent-Length: {SENDER}\r\n\r\n{BODY}",
            f"POST /sms HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{BODY}\r\n\r\n",
        ):
            wire.talk(address, raw.encode(), wait_s=0.2)


def break_files(server: Smsd, *files: Path) -> None:
    """A broken version of mounted files, with secrets and numbers in what is wrong."""
    for file in files:
        file.write_text(f'"{SENDER}" = {SHARED_SECRET} {BODY}')
    server.signal(signal.SIGHUP)
    wait_for(lambda: "reload refused" in server.log(), "the broken version to be refused")


def spellings(value: str) -> set[str]:
    """A value as it is, percent-encoded, and with its special characters left away."""
    return {
        value,
        quote(value),
        quote(value, safe=""),
        value.removeprefix("+"),
        value.replace("+", "%2B"),
    }


PLANTED = {
    "a number": [SENDER, OTHER_SENDER, RECEIVER],
    "a body": [BODY, "xyzzy-plugh"],
    "a name": [PROFILE],
    "a URL": [MEDIA, "planted-picture"],
    "a cookie": [COOKIE],
    "a signature": [SIGNATURE],
    "a secret": secrets_of_settings(),
    "a query": [QUERY],
    "a path": [PATH],
}


@pytest.mark.parametrize("kind", PLANTED)
def test_no_planted_value_is_seen_anywhere(trace: Trace, kind: str) -> None:
    for place, text in trace.places.items():
        for value in PLANTED[kind]:
            for spelling in spellings(value):
                assert spelling not in text, f"{kind} in {place}"


def test_no_cookie_or_signature_is_logged(
    trace: Trace,
) -> None:
    assert len(trace.cookies) > 10
    for place, text in trace.places.items():
        for cookie in trace.cookies:
            payload = cookie.split("|")[4].partition(":")[2]
            for part in (cookie, payload, cookie.rpartition("|")[2]):
                assert part not in text, place
        for signature in trace.signatures:
            assert signature not in text, place
            assert signature.rstrip("=") not in text, place


def test_long_numbers_are_logged_as_ids_and_times_only(trace: Trace) -> None:
    """Not even a number that nobody planted."""
    known = (
        r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z",  # times
        r"\b(SM|MM|AC)[0-9a-f]{32}\b",
        r"\b[0-9a-f]{36}\b",  # conversations
        r"127\.0\.0\.1:[0-9]+",
    )
    for line in trace.places["log"].splitlines():
        assert not re.search(r"[0-9]{7,}", re.sub("|".join(known), "", line)), line


def test_memcacheds_keys_are_hashes(trace: Trace) -> None:
    keys = re.findall(r"(?m)^key=(\S+)", trace.places["memcached's keys"])
    assert len(keys) >= 3
    assert all(re.fullmatch(r"smsd(:|%3A)(probe|[0-9a-f]{36})", key) for key in keys), keys


def test_session_of_the_test_covered_every_event(trace: Trace) -> None:
    """Else the other tests could pass by not having happened."""
    log, metrics = trace.places["log"], trace.places["metrics"]
    for sign in (
        "dialogue failed",
        "DialogueTimeout",
        "signature mismatch",
        "reload refused",
        "delivery",
        "library",
    ):
        assert sign in log, sign
    for series in (
        'smsd_messages_total{outcome="failed"}',
        'smsd_messages_total{outcome="degraded"}',
        'smsd_cookies_total{state="forged"}',
        'smsd_cookies_total{state="foreign"}',
        'smsd_cookies_total{state="valid"}',
        'smsd_rejected_total{reason="malformed"}',
        'smsd_rejected_total{reason="account"}',
        'smsd_rejected_total{reason="signature_mismatch"}',
        'smsd_fallbacks_total{error_code="11200"}',
        'smsd_reloads_total{result="refused"}',
    ):
        (value,) = re.findall(rf"(?m)^{re.escape(series)} (\S+)$", metrics)
        assert float(value) >= 1, series
    assert "Traceback" not in log
