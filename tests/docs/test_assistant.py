"""The assistant of docs/examples as a real process: a model that takes 20 s still
answers."""

import sys
import time
from pathlib import Path
from threading import Thread

import pytest

from docs.tools.pages import ROOT
from smsd.simulator import BlockingClient
from tests.processes import ACCOUNT, PUBLIC_URL, TOKEN, cluster

EXAMPLES = ROOT / "docs" / "examples"
SLOW_S = 20.0


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = EXAMPLES / "assistant"
    monkeypatch.syspath_prepend(str(folder))
    return folder


def test_assistant_whose_model_takes_20_seconds_replies_once(
    example: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in = __import__("test_assistant")  # the example's own model server
    monkeypatch.delitem(sys.modules, "test_assistant")
    with stand_in.Model() as model:
        Thread(target=model.serve_forever, args=(0.01,), daemon=True).start()
        env = {
            "SMSD_DIALOGUE": "assistant:reply",
            "PYTHONPATH": str(example),
            "SMSD_DIALOGUE_TIMEOUT": "60",
            "SMSD_HISTORY": "8",
            "SMSD_ONE_MOMENT": "One moment ...",
            "ASSISTANT_URL": f"http://127.0.0.1:{model.server_port}/v1",
            "ASSISTANT_KEY": "sesame",
            "ASSISTANT_MODEL": "small",
        }
        with cluster(1, 2, env) as (_, servers):
            phone = BlockingClient(f"{PUBLIC_URL}/sms", token=TOKEN, sid=ACCOUNT)
            model.delay_s = SLOW_S
            began_s = time.monotonic()
            first = phone.text("What is in the rye bread?", connect_to=servers[0].address)
            assert time.monotonic() - began_s >= SLOW_S
            assert [reply.body for reply in first.replies] == ["One moment ...", model.answer]
            model.delay_s = 0
            again = phone.text("And in the white?", connect_to=servers[1].address)
            assert again.text == model.answer
            assert "sesame" not in "".join(server.log() for server in servers)
        assert [len(body["messages"]) for _, _, body in model.asked] == [2, 4]
        model.shutdown()


def test_both_sides_of_the_ported_tutorial_are_python() -> None:
    for side in ("before", "after"):
        source = (EXAMPLES / "twilio_tutorial" / f"{side}.py").read_text(encoding="utf-8")
        compile(source, side, "exec")
