"""Tests of the assistant against a small model server on this machine."""

import json
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import assistant
import pytest

pytestmark = pytest.mark.dialogue("assistant:reply")


class Model(ThreadingHTTPServer):
    """Answers whatever a test wants. It does not stream."""

    answer = "Fresh bread at 7."
    status = 200
    delay_s = 0.0

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked = []

    def says(self):
        return json.dumps({"choices": [{"message": {"content": self.answer}}]})


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, self.headers["Authorization"], body))
        time.sleep(self.server.delay_s)
        answer = self.server.says().encode()
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        """Print nothing."""


@pytest.fixture
def model(monkeypatch):
    with Model() as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setenv("ASSISTANT_URL", f"http://127.0.0.1:{server.server_port}/v1")
        monkeypatch.setenv("ASSISTANT_KEY", "sesame")
        monkeypatch.setenv("ASSISTANT_MODEL", "small")
        yield server
        server.shutdown()


@pytest.fixture
def smsd_environ():
    return {"SMSD_HISTORY": "8", "SMSD_DIALOGUE_TIMEOUT": "30", "SMSD_ANSWER_WITHIN": "1"}


def test_the_model_gets_the_prompt_and_what_was_said_before(model, phone):
    assert phone.text("When do you open?") == "Fresh bread at 7."
    model.answer = "Yes!"
    assert phone.text("And on Sunday?") == "Yes!"
    path, key, body = model.asked[-1]
    assert (path, key, body["model"]) == ("/v1/chat/completions", "Bearer sesame", "small")
    assert body["messages"] == [
        {"role": "system", "content": assistant.PROMPT},
        {"role": "user", "content": "When do you open?"},
        {"role": "assistant", "content": "Fresh bread at 7."},
        {"role": "user", "content": "And on Sunday?"},
    ]


def test_a_slow_model_is_asked_once_and_its_reply_still_arrives(model, phone):
    model.delay_s = 2.5
    assert phone.text("What is in the rye bread?", deliveries=2) == "Fresh bread at 7."
    assert len(model.asked) == 1


def test_the_sender_waits_while_twilio_comes_again(model, phone):
    model.delay_s = 2.5
    phone.text("What is in the rye bread?")
    assert phone.hops == 2


def test_a_long_answer_is_cut_at_a_word(model, phone):
    model.answer = "bread " * 1000
    answer = phone.text("List all breads")
    assert len(answer) <= assistant.LONGEST_REPLY + 4
    assert answer.endswith("bread ...")


@pytest.mark.parametrize("status", [401, 429, 500])
def test_a_model_that_refuses_gets_an_excuse(model, phone, status):
    model.status = status
    assert phone.text("hi") == assistant.SORRY


@pytest.mark.parametrize("answer", ["", "[]", '{"choices": []}', '{"choices": null}', "<html>"])
def test_an_answer_of_another_form_gets_an_excuse(model, phone, answer):
    model.says = lambda: answer
    assert phone.text("hi") == assistant.SORRY


def test_a_model_that_takes_too_long_gets_an_excuse(model, phone, monkeypatch):
    monkeypatch.setattr(assistant, "TIME_LIMIT_S", 0.3)
    model.delay_s = 1.5
    assert phone.text("hi") == assistant.SORRY


def test_a_model_that_is_away_gets_an_excuse(model, phone, monkeypatch):
    monkeypatch.setenv("ASSISTANT_URL", "http://127.0.0.1:1")
    assert phone.text("hi") == assistant.SORRY
