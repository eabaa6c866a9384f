"""`smsd phone` against a real development server: over a pipe, with --send, in a
terminal, and when things go wrong."""

import io
import os
import pty
import re
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self, TextIO

import pytest

from smsd.dev.terminal import Display, Terminal, completion, duration_s
from smsd.dev.terminal_target import Target, _request, explain, explain_403, find_target
from smsd.simulator import Account, Failure, Inbound, Notice, Outcome, Request, Response
from smsd.simulator.values import Attempt, Headers
from tests.dev.processes import DevServer
from tests.processes import ACCOUNT, TOKEN, Smsd, free_port, wait_for

TO = "+14158141829"
THANKS = "Thanks for the new message!"


@pytest.fixture(scope="module")
def server() -> Iterator[DevServer]:
    with DevServer() as server:
        yield server


def phone(
    *arguments: str, typed: str = "", env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "smsd", "phone", *arguments],
        input=typed,
        env={"PATH": os.environ["PATH"], **(env or {})},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_phone_over_a_pipe_texts_a_development_server(server: DevServer) -> None:
    lines = [
        "hi",
        "/twice again",
        "/from finn",
        "hello",
        "/lose-cookie a",
        "/old-cookie b",
        "/to +15550001",
        "x",
        "",
    ]
    done = phone(server.url, typed="\n".join(lines))
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        f"{THANKS} Rey has messaged {TO} 1 times",
        f"Rey has messaged {TO} 2 times",
        f"Rey has messaged {TO} 2 times",
        "from Finn +14158675310",
        f"{THANKS} Finn has messaged {TO} 1 times",
        f"Finn has messaged {TO} 2 times",
        f"Finn has messaged {TO} 3 times",
        "to +15550001",
        f"{THANKS} Finn has messaged +15550001 1 times",
    ]
    assert done.returncode == 0


def test_send_exits_0_only_for_a_reply(server: DevServer) -> None:
    sent = phone(server.url, "--send", "hi", "--from", "+15550002", "--to", "+15550003")
    assert (sent.stdout, sent.returncode) == (
        f"{THANKS} Friend has messaged +15550003 1 times\n",
        0,
    )
    stopped = phone(server.url, "--send", "STOP", "--from", "+15550002")
    assert "Twilio itself answers: You have" in stopped.stdout
    assert stopped.returncode == 1


def test_wait_moves_both_clocks(server: DevServer) -> None:
    done = phone(server.url, "--from", "+15550004", typed="a\nb\n/wait 4h\nc\n/wait soon\n")
    assert [line.split(" ")[0] for line in done.stdout.splitlines()] == [
        "Thanks",
        "Friend",
        "4h",
        "Thanks",
        "/wait",
    ]


def test_raw_help_and_quit(server: DevServer) -> None:
    done = phone(server.url, typed="/raw\nhi\n/raw\n/help\n/nonsense\n\n/quit\nnever sent\n")
    assert done.stdout.startswith("nothing was sent yet")
    for text in (
        "X-Twilio-Signature: ",
        "  Body = 'hi'",
        "<Response>",
        "Set-Cookie: smsd=",
        "/old-cookie",
    ):
        assert text in done.stdout
    assert "/nonsense is not a command" in done.stdout
    assert "never sent" not in done.stdout


@pytest.mark.parametrize("env", [{}, {"TWILIO_AUTH_TOKEN": "x"}], ids=["no token", "token"])
def test_nothing_listening_is_said_first(env: dict[str, str]) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    done = phone(url, "--send", "hi", env=env)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"smsd phone: nothing listens at {url}. "
        "Start the service (`smsd serve --dev`), or check the port\n"
    )


def test_a_service_that_goes_away_meanwhile_is_explained() -> None:
    with DevServer() as own:
        account = find_target(own.url, None, None, None).account
    said = io.StringIO()
    Terminal(Target(account), "+1", "+2", Display(said)).text("hi")
    assert said.getvalue().splitlines() == [
        (
            "11202: nothing listens there. Is the service running, and is the port right? "
            f"[{own.url}/sms]"
        )
    ]


def test_the_switches_of_the_page_are_commands(server: DevServer) -> None:
    lines = [
        "a",
        "/wrong-token b",
        "c",
        "/store down",
        "d",
        "/store up",
        "/flush",
        "e",
        "/store no",
    ]
    done = phone(server.url, "--from", "+15550010", typed="\n".join(lines))
    assert done.stdout.splitlines() == [
        f"{THANKS} Friend has messaged {TO} 1 times",
        "403: refused, as it should be, because the token was wrong",
        f"Friend has messaged {TO} 2 times",
        "the store is down",
        f"Friend has messaged {TO} 3 times",
        "the store is up",
        "the store is empty",
        f"Friend has messaged {TO} 4 times",
        "/store takes down or up",
    ]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["127.0.0.1:8080"], "a URL such as"),
        (["http://no-such-host.invalid"], "there is no host named no-such-host.invalid"),
        (["http://127.0.0.1:70000"], "Port out of range"),
    ],
)
def test_unusable_url_is_refused_with_the_reason(arguments: list[str], problem: str) -> None:
    done = phone(*arguments, "--send", "hi", env={"TWILIO_AUTH_TOKEN": "x"})
    assert done.stderr.startswith("smsd phone: ")
    assert problem in done.stderr
    assert done.returncode == 2


def test_a_production_service_needs_the_token() -> None:
    with Smsd() as smsd:
        done = phone(f"http://{smsd.address}", "--send", "hi")
        assert (done.returncode, done.stdout) == (2, "")
        assert "TWILIO_AUTH_TOKEN is not set" in done.stderr


@pytest.mark.parametrize("typed", ["\x04", "\n"], ids=["Ctrl-D", "nothing"])
def test_empty_token_prompt_leaves_with_a_reason(typed: str) -> None:
    with Smsd() as smsd, Screen(f"http://{smsd.address}") as screen:
        screen.until("not shown): ")
        screen.type(typed)
        screen.until("without the service's auth token no message can be signed")
        assert screen.process.wait(15) == 2


def test_another_public_url_behind_tls_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"

        def hang_up_twice() -> None:
            for _ in range(2):
                listener.accept()[0].close()

        thread = threading.Thread(target=hang_up_twice)
        thread.start()
        done = phone(url, "--public-url", "https://other.example", "--send", "hi")
        thread.join()
    assert done.returncode == 2
    assert "must be reached with http://" in done.stderr


def test_containers_phone_hint_is_given_from_outside(
    monkeypatch: pytest.MonkeyPatch, server: DevServer
) -> None:
    """Through a published port nobody is a loopback peer; here a proxy's header stands
    for that."""
    monkeypatch.setattr("smsd.dev.terminal_target._request", _as_from_outside)
    with pytest.raises(ValueError, match="docker exec -it CONTAINER smsd phone"):
        find_target(server.url, None, None, None)
    assert find_target(server.url, "t", None, None).order is None


def _as_from_outside(url: str, path: str, headers: Headers) -> Response | Failure:
    return _request(url, path, [*headers, ("X-Forwarded-For", "192.0.2.1")])


def test_production_service_is_texted_with_the_given_token() -> None:
    with Smsd() as smsd:
        token = {"TWILIO_AUTH_TOKEN": TOKEN}
        base = f"http://{smsd.address}"
        good = phone(
            base,
            "--public-url",
            "https://sms.example.com",
            "--send",
            "hi",
            "--account",
            ACCOUNT,
            env=token,
        )
        assert good.stdout.startswith(THANKS)
        bad = phone(base, "--send", "hi", env=token)
        assert "another URL" in bad.stdout
        wrong = phone(
            base,
            "--public-url",
            "https://sms.example.com",
            "--send",
            "hi",
            env={"TWILIO_AUTH_TOKEN": "x"},
        )
        assert "another token" in wrong.stdout
        assert (bad.returncode, wrong.returncode) == (1, 1)
        waited = phone(
            base, "--public-url", "https://sms.example.com", typed="/wait 4h\n", env=token
        )
        assert "only `smsd serve --dev` can do that" in waited.stdout


def test_a_403_names_the_cause_and_counts_nothing(server: DevServer) -> None:
    localhost = server.url.replace("127.0.0.1", "localhost")
    done = phone(server.url, "--public-url", localhost, "--send", "hi", "--from", "+15550009")
    assert f"SMSD_PUBLIC_URL is {server.url}. Use --public-url {server.url}" in done.stdout
    assert "1 times" in phone(server.url, "--send", "hi", "--from", "+15550009").stdout


def test_another_account_is_told_from_a_bad_signature() -> None:
    with Smsd({"TWILIO_ACCOUNT_SID": ACCOUNT}) as smsd:
        done = phone(
            f"http://{smsd.address}",
            *("--public-url", "https://sms.example.com", "--send", "hi"),
            env={"TWILIO_AUTH_TOKEN": TOKEN},
        )
        assert "the service does not serve the account" in done.stdout


def test_in_a_terminal_it_prompts_colours_and_completes(server: DevServer) -> None:
    with Screen(server.url) as screen:
        screen.until(f"Rey > {TO}: ")
        screen.type("/fr\tCh\t\n")
        assert "from Chewy" in screen.until(f"Chewy > {TO}: ")
        screen.type("hello\n")
        assert "Chewy has messaged" in screen.until(f" ms\r\nChewy > {TO}: ")
        screen.type("half a line")
        screen.until("half a line")
        screen.type(CTRL_C)  # discards the line
        screen.until(f"Chewy > {TO}: ")
        screen.type("\x1b[A\n")  # the line before comes back from history
        assert "2 times" in screen.until(f" ms\r\nChewy > {TO}: ")
        screen.type("\x04")
        assert screen.process.wait(15) == 0


@pytest.mark.parametrize("keys", ["\x04", "\x03", "/quit\n"], ids=["Ctrl-D", "Ctrl-C", "/quit"])
def test_ways_out_are_named_and_work(server: DevServer, keys: str) -> None:
    with Screen(server.url) as screen:
        opening = screen.until(f"Rey > {TO}: ")
        assert "/quit, Ctrl-D or Ctrl-C leaves" in opening
        screen.type(keys)
        assert screen.process.wait(15) == 0


def test_ctrl_c_ends_only_the_wait_for_a_reply(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        "import asyncio\nasync def reply(m, s):\n  await asyncio.sleep(600)\n"
    )
    with (
        DevServer(SMSD_DIALOGUE="slow:reply", PYTHONPATH=str(tmp_path)) as dev,
        Screen(dev.url) as screen,
    ):
        screen.until(f"Rey > {TO}: ")
        screen.type("hi\n")
        screen.until("…")
        screen.type(CTRL_C)
        screen.until("stopped waiting for the reply")
        screen.until(f"Rey > {TO}: ")
        screen.type("/quit\n")
        assert screen.process.wait(15) == 0


CTRL_C = "\x03"


TAKE_TERMINAL = """
import fcntl, runpy, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
runpy.run_module("smsd", run_name="__main__")
"""
"""Makes standard input the controlling terminal first, so that Ctrl-C becomes a signal."""


class Screen:
    """`smsd phone` in a terminal of its own."""

    def __init__(self, url: str) -> None:
        self._leader, follower = pty.openpty()
        self._seen = ""
        self.process = subprocess.Popen(
            [sys.executable, "-c", TAKE_TERMINAL, "phone", url],
            stdin=follower,
            stdout=follower,
            stderr=follower,
            env={"PATH": os.environ["PATH"], "TERM": "xterm"},
            start_new_session=True,
        )
        os.close(follower)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._leader)

    def type(self, keys: str) -> None:
        """Press keys, once the program waits for them: readline misses a Ctrl-C before."""
        stat = Path(f"/proc/{self.process.pid}/stat")
        wait_for(lambda: stat.read_text().rpartition(")")[2].split()[0] == "S", "it waits")
        os.write(self._leader, keys.encode())

    def until(self, text: str) -> str:
        """What is shown up to and with this text, escape sequences taken out."""
        give_up_s = time.monotonic() + 15
        while text not in self._seen:
            assert time.monotonic() < give_up_s, self._seen
            if select.select([self._leader], [], [], 0.1)[0]:
                self._seen += re.sub(
                    r"\x1b\[[0-9;?]*[a-zA-Z]", "", os.read(self._leader, 65536).decode()
                )
        shown, _, self._seen = self._seen.partition(text)
        return shown + text


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ("90s", 90),
        ("30m", 1800),
        ("4h", 14400),
        ("1d", 86400),
        ("4", None),
        ("h", None),
        ("", None),
    ],
)
def test_durations(given: str, seconds: float | None) -> None:
    assert duration_s(given) == seconds


def _terminal(said: TextIO) -> Terminal:
    target = Target(Account("AC1", "t", "http://127.0.0.1:1/sms"), None, {"+1": "Rey"})
    return Terminal(target, "+1", "+2", Display(said))


def test_documentation_lists_every_command() -> None:
    page = (Path(__file__).parents[2] / "docs" / "dialogues.md").read_text("utf-8")
    listed = re.findall(r"^\| `(/[a-z-]+)", page, re.MULTILINE)
    assert listed == list(_terminal(io.StringIO()).commands)


def test_completion_offers_commands_then_people() -> None:
    terminal = _terminal(io.StringIO())
    offered = [completion(terminal, "/t", "/t", state) for state in range(3)]
    assert offered == ["/to ", "/twice ", None]
    assert completion(terminal, "/from r", "r", 0) == "Rey"
    assert completion(terminal, "hello t", "t", 0) is None


def test_order_that_the_service_does_not_obey_is_said() -> None:
    with DevServer() as own:
        target = find_target(own.url, None, None, None)
        done = phone(own.url, typed="/wait 7d\n/wait 7d\n/wait 7d\n/wait 7d\n")
    assert done.stdout.splitlines()[-2:] == [
        "7d later, also in the service",
        "the service did not do it: status 400",
    ]
    said = io.StringIO()
    Terminal(target, "+1", "+2", Display(said)).line("/wait 4h")
    assert said.getvalue().startswith("the service did not do it: [Errno")


@pytest.mark.parametrize("answer", [b"no JSON", b"[]"])
def test_other_servers_facts_are_passed_over(answer: bytes) -> None:
    with in_turn(answer) as address:
        target = find_target(f"http://{address}", "t", None, None)
    assert (target.people, target.order) == ({}, None)


def test_media_and_silence_are_shown() -> None:
    said = io.StringIO()
    terminal = _terminal(said)
    body = b"<Response><Message><Body>look</Body><Media>https://a.example/1.png</Media></Message></Response>"
    answers = [Response(200, [("Content-Type", "text/xml")], xml) for xml in (body, b"<Response/>")]
    terminal.client.perform = lambda request, *, connect_to=None: answers.pop(0)  # type: ignore[method-assign]
    terminal.line("one")
    terminal.line("/twice")
    terminal._deliveries = 1
    terminal.line("two")
    assert said.getvalue().splitlines() == [
        "look",
        "media: https://a.example/1.png",
        "the next message is delivered twice",
        "no reply",
    ]


def test_bad_twiml_is_explained_with_its_detail() -> None:
    message = Inbound("AC1", "+1", "+2", "hi", "SM1", ())
    request = Request("POST", "https://a.example/sms", (), b"", 5, 15, 15)
    attempts = (Attempt(request, Response(200, (), b"<"), 0, 1),)
    outcome = Outcome(
        message, (), (Notice(12100, "not well-formed: line 1"), Notice(21617, "too long")), attempts
    )
    assert explain(outcome) == [
        (
            "12100: the answer is not well-formed XML, so Twilio would send nothing. "
            "(not well-formed: line 1)"
        ),
        "21617: too long",
    ]
    said = io.StringIO()
    terminal = _terminal(said)
    terminal.last = Outcome(message, (), (), (Attempt(request, Failure("refused", "no"), 0, 1),))
    terminal.line("/raw")
    assert said.getvalue().endswith("failed: refused (no)\n")


def test_unanswered_probe_names_the_usual_causes() -> None:
    request = Request("POST", "https://a.example/sms", (), b"", 5, 15, 15)
    lines = explain_403(Account("AC1", "t", request.url), request, lambda _: Failure("refused"))
    assert lines[0].startswith("403")
    assert "https://a.example/sms was signed" in lines[2]


def test_a_full_webhook_url_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smsd.dev.terminal_target._check_listening", lambda _: None)
    target = find_target("https://a.example/texts/sms", "t", None, None)
    assert (target.account.url, target.connect_to, target.order) == (
        "https://a.example/texts/sms",
        None,
        None,
    )


HOP = b"<Response><Message>one moment</Message><Redirect>?hop=1</Redirect></Response>"
DONE = b"<Response><Message>done</Message></Response>"


def test_phone_shows_that_a_reply_is_coming() -> None:
    """Twilio is asked to come again: by a service that answers so, over a real socket."""
    for is_colored in (False, True):
        shown = io.StringIO()
        with in_turn(HOP, DONE) as address:
            account = Account("AC1", "t", f"http://{address}/sms")
            display = Display(shown, is_colored=is_colored)
            Terminal(Target(account), "+1", "+2", display).line("hi")
        steps = "one moment", "a reply is on its way; asked to come again (1)", "done"
        places = [shown.getvalue().index(step) for step in steps]
        assert places == sorted(places)
        assert ("Twilio was asked to come again once" in shown.getvalue()) is is_colored


@contextmanager
def in_turn(*bodies: bytes) -> Iterator[str]:
    """A server that gives these documents, one to each request; yields host:port."""
    left = list(bodies)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.do_POST()

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            body = left.pop(0)
            self.send_response(200)
            self.send_header("Content-Type", "text/xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
