"""The two applications in the test's own event loop, through pytest-tornado: quick to
ask, real sockets."""

import json
import time
from collections.abc import Iterator
from urllib.parse import urlencode

import pytest
from tornado.httpclient import AsyncHTTPClient, HTTPRequest
from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop
from tornado.web import Application
from twilio.request_validator import RequestValidator

from smsd.app import Service
from smsd.clock import now_ms
from smsd.dialogues import loading as dialogue
from smsd.settings.table import load
from tests.processes import ACCOUNT, PUBLIC_URL, SETTINGS, TOKEN


@pytest.fixture
def service(io_loop: IOLoop) -> Iterator[Service]:
    settings = load(SETTINGS)

    async def make() -> Service:
        loaded = dialogue.load(settings.dialogue, settings)
        return Service(settings, loaded, now_ms=now_ms, clock_s=time.monotonic)

    service = io_loop.run_sync(make)
    yield service
    io_loop.run_sync(service.close)


@pytest.fixture
def app(service: Service) -> Application:
    """What pytest-tornado serves."""
    return service.public()


def signed(base_url: str, sid: int, body: str) -> HTTPRequest:
    form = {
        "MessageSid": f"SM{sid:032x}",
        "AccountSid": ACCOUNT,
        "From": "whatsapp:+14158675310",
        "To": "whatsapp:+14158141829",
        "Body": body,
    }
    signature = RequestValidator(TOKEN).compute_signature(f"{PUBLIC_URL}/sms", form)
    return HTTPRequest(
        f"{base_url}/sms",
        method="POST",
        headers={"X-Twilio-Signature": signature},
        body=urlencode(form),
    )


@pytest.mark.gen_test
async def test_a_message_is_answered(
    http_client: AsyncHTTPClient, base_url: str, service: Service
) -> None:
    for sid, expected in (
        (1, "Thanks for the new message! Finn"),
        (2, "Finn"),
        (1, "Thanks for the new message! Finn"),
    ):
        answer = await http_client.fetch(signed(base_url, sid, "hi"))
        assert f"<Message>{expected} has messaged".encode() in answer.body
    assert service.status()["pending"] == 0


@pytest.mark.gen_test
async def test_readiness_fails_while_draining(
    http_client: AsyncHTTPClient, service: Service, io_loop: IOLoop
) -> None:
    server = HTTPServer(service.admin())
    server.listen(0, "127.0.0.1")
    port = next(iter(server._sockets.values())).getsockname()[1]
    assert (await http_client.fetch(f"http://127.0.0.1:{port}/readyz")).code == 200
    service.draining = True
    answer = await http_client.fetch(f"http://127.0.0.1:{port}/readyz", raise_error=False)
    status = await http_client.fetch(f"http://127.0.0.1:{port}/status")
    assert (answer.code, json.loads(status.body)["draining"]) == (503, True)
    server.stop()
