"""`smsd phone` against a real development server: over a pipe, with --send, in a terminal, and when things go wrong."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Self

import pytest

from smsd.dev.console import Ink, completion, duration_s, explain, shown_raw
from smsd.dev.probe import explain_403
from smsd.dev.terminal import Service, Terminal, find
from smsd.simulator import Account, Answer, Failure, Inbound, Notice, Outcome, Request
from smsd.simulator.values import Attempt
from tests.dev.processes import DevServer
from tests.processes import ACCOUNT, TOKEN, Smsd, free_port

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


def test_it_knows_a_development_server_and_works_over_a_pipe(server: DevServer) -> None:
    lines = [
        "hi",
        "/twice again",
        "/from finn",
        "hello",
        "/lose-cookie a",
        "/stale-cookie b",
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


def test_send_exits_0_if_a_reply_came_and_1_if_not(server: DevServer) -> None:
    sent = phone(server.url, "--send", "hi", "--from", "+15550002", "--to", "+15550003")
    assert (sent.stdout, sent.returncode) == (
        f"{THANKS} Friend has messaged +15550003 1 times\n",
        0,
    )
    stopped = phone(server.url, "--send", "STOP", "--from", "+15550002")
    assert "Twilio itself answers: You have" in stopped.stdout
    assert stopped.returncode == 1


def test_four_hours_pass_in_the_phone_and_in_the_service(server: DevServer) -> None:
    done = phone(server.url, "--from", "+15550004", typed="a\nb\n/wait 4h\nc\n/wait soon\n")
    assert [line.split(" ")[0] for line in done.stdout.splitlines()] == [
        "Thanks",
        "Friend",
        "4h",
        "Thanks",
        "a",
    ]


def test_raw_help_and_quit(server: DevServer) -> None:
    done = phone(server.url, typed="/raw\nhi\n/raw\n/help\n/nonsense\n\n/quit\nnever sent\n")
    assert done.stdout.startswith("nothing was sent yet")
    for text in (
        "X-Twilio-Signature: ",
        "  Body = 'hi'",
        "<Response>",
        "Set-Cookie: smsd=",
        "/stale-cookie",
    ):
        assert text in done.stdout
    assert "/nonsense is no command" in done.stdout
    assert "never sent" not in done.stdout


def test_a_refused_connection_is_said_plainly() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    done = phone(url, "--send", "hi", env={"TWILIO_AUTH_TOKEN": "x"})
    assert (
        done.stdout
        == f"11202: nothing listens there. Is the service running, and is the port right? [{url}/sms]\n"
    )
    assert done.returncode == 1


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["127.0.0.1:8080"], "a URL such as"),
        ([f"http://127.0.0.1:{free_port()}"], "TWILIO_AUTH_TOKEN is not set"),
        (
            ["https://service.example", "--public-url", "https://other.example"],
            "must be reached with http://",
        ),
    ],
)
def test_what_is_missing_is_said_and_exits_2(arguments: list[str], problem: str) -> None:
    token = {"TWILIO_AUTH_TOKEN": "x"} if "--public-url" in arguments else None
    done = phone(*arguments, "--send", "hi", env=token)
    assert problem in done.stderr
    assert done.returncode == 2


def test_a_production_service_is_texted_with_the_token_of_the_environment() -> None:
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
        assert "cannot be moved" in waited.stdout


def test_a_403_names_the_cause_and_counts_nothing(server: DevServer) -> None:
    localhost = server.url.replace("127.0.0.1", "localhost")
    done = phone(server.url, "--public-url", localhost, "--send", "hi", "--from", "+15550009")
    assert f"SMSD_PUBLIC_URL is {server.url}" in done.stdout
    assert "1 times" in phone(server.url, "--send", "hi", "--from", "+15550009").stdout


def test_another_account_is_told_from_a_bad_signature() -> None:
    with Smsd({"TWILIO_ACCOUNT_SID": ACCOUNT}) as smsd:
        done = phone(
            f"http://{smsd.address}",
            *("--public-url", "https://sms.example.com", "--send", "hi"),
            env={"TWILIO_AUTH_TOKEN": TOKEN},
        )
        assert "the service serves another account" in done.stdout


def test_in_a_terminal_it_prompts_colours_and_completes(server: DevServer) -> None:
    with Screen(server.url) as screen:
        screen.until(f"Rey > {TO}: ")
        screen.type("/fr\tCh\t\n")
        assert "from Chewy" in screen.until(f"Chewy > {TO}: ")
        screen.type("hello\n")
        assert "Chewy has messaged" in screen.until(f" ms\r\nChewy > {TO}: ")
        screen.type("half a line")
        screen.until("half a line")
        screen.until(f"Chewy > {TO}: ", interrupt=True)
        screen.type("\x1b[A\n")  # the line before comes back from history
        assert "2 times" in screen.until(f" ms\r\nChewy > {TO}: ")
        screen.type("\x04")
        assert screen.process.wait(15) == 0


class Screen:
    """`smsd phone` in a terminal of its own."""

    def __init__(self, url: str) -> None:
        self._leader, follower = pty.openpty()
        self._seen = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "smsd", "phone", url],
            stdin=follower,
            stdout=follower,
            stderr=follower,
            env={"PATH": os.environ["PATH"], "TERM": "xterm"},
        )
        os.close(follower)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._leader)

    def type(self, keys: str) -> None:
        os.write(self._leader, keys.encode())

    def until(self, text: str, *, interrupt: bool = False) -> str:
        """What is shown up to and with this text, escape sequences taken out; with Ctrl-C meanwhile if told so."""
        give_up_s = time.monotonic() + 15
        while text not in self._seen:
            assert time.monotonic() < give_up_s, self._seen
            if select.select([self._leader], [], [], 0.1)[0]:
                self._seen += re.sub(
                    r"\x1b\[[0-9;?]*[a-zA-Z]", "", os.read(self._leader, 65536).decode()
                )
            elif (
                interrupt
            ):  # again and again: a signal just before readline waits is seen only after it
                self.process.send_signal(signal.SIGINT)
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


def _terminal(said: list[str], advance: Exception | None = None) -> Terminal:
    def fail(_: float) -> None:
        if advance:
            raise advance

    service = Service(Account("AC1", "t", "http://127.0.0.1:1/sms"), None, {"+1": "Rey"}, fail)
    return Terminal(service, "+1", "+2", say=said.append, ink=Ink(False))


def test_completion_offers_commands_then_people() -> None:
    terminal = _terminal([])
    offered = [completion(terminal, terminal.commands, "/t", "/t", state) for state in range(3)]
    assert offered == ["/to ", "/twice ", None]
    assert completion(terminal, terminal.commands, "/from r", "r", 0) == "Rey"
    assert completion(terminal, terminal.commands, "hello t", "t", 0) is None


def test_a_clock_that_cannot_be_moved_is_said() -> None:
    said: list[str] = []
    _terminal(said, OSError("gone")).line("/wait 4h")
    assert said == ["the service's clock was not moved: gone"]


def test_media_and_silence_are_shown() -> None:
    said: list[str] = []
    terminal = _terminal(said)
    body = b"<Response><Message><Body>look</Body><Media>https://a.example/1.png</Media></Message></Response>"
    answers = [Answer(200, [("Content-Type", "text/xml")], xml) for xml in (body, b"<Response/>")]
    terminal.client.perform = lambda request, *, connect_to=None: answers.pop(0)  # type: ignore[method-assign]
    terminal.line("one")
    terminal.line("/twice")
    terminal._deliveries = 1
    terminal.line("two")
    assert said == [
        "look",
        "media: https://a.example/1.png",
        "the next message is delivered twice",
        "no reply",
    ]


def test_bad_twiml_is_explained_with_its_detail() -> None:
    message = Inbound("AC1", "+1", "+2", "hi", "SM1", ())
    request = Request("POST", "https://a.example/sms", (), b"", 5, 15, 15)
    attempts = (Attempt(request, Answer(200, (), b"<"), 0, 1),)
    outcome = Outcome(
        message, (), (Notice(12100, "not well-formed: line 1"), Notice(21617, "too long")), attempts
    )
    assert explain(outcome) == [
        "12100: the answer is not well-formed XML: Twilio would send nothing at all. (not well-formed: line 1)",
        "21617: too long",
    ]
    failed = Outcome(message, (), (), (Attempt(request, Failure("refused", "no"), 0, 1),))
    assert shown_raw(failed).endswith("failed: refused (no)")


def test_a_probe_that_gets_no_answer_names_the_usual_causes() -> None:
    request = Request("POST", "https://a.example/sms", (), b"", 5, 15, 15)
    lines = explain_403(Account("AC1", "t", request.url), request, lambda _: Failure("refused"))
    assert lines[0].startswith("403")
    assert "https://a.example/sms was signed" in lines[2]


def test_a_full_webhook_url_is_kept() -> None:
    service = find("https://a.example/texts/sms", "t", None, None)
    assert (service.account.url, service.connect_to, service.advance) == (
        "https://a.example/texts/sms",
        None,
        None,
    )
