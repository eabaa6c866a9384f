"""A peer: Starlette, aiomcache, a signed cookie by itsdangerous, Twilio's SDK. Run by
uvicorn."""

import json
import os
import secrets

import aiomcache
from itsdangerous import BadSignature, TimestampSigner
from prometheus_client import Counter
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from twilio.request_validator import RequestValidator
from twilio.twiml.messaging_response import MessagingResponse

PEOPLE = {"+14158675309": "Rey", "+14158675310": "Finn", "+14158675311": "Chewy"}
TTL_S = 14400

host, port = os.environ["BENCH_MEMCACHED"].split(":")
memcached = aiomcache.Client(host, int(port), pool_size=64)
signer = TimestampSigner(os.environ["BENCH_SECRET"])
validator = RequestValidator(os.environ["BENCH_TOKEN"])
messages = Counter("messages", "Messages answered.")


def session_id(request: Request) -> str:
    try:
        return signer.unsign(request.cookies.get("session", ""), max_age=TTL_S).decode()
    except BadSignature:
        return secrets.token_urlsafe(32)


async def sms(request: Request) -> Response:
    async with request.form() as form:
        url = os.environ["BENCH_URL"] + request.url.path
        if not validator.validate(url, form, request.headers.get("X-Twilio-Signature", "")):
            return Response(status_code=403)
        key = session_id(request)
        stored = await memcached.get(b"session:" + key.encode())
        session = json.loads(stored) if stored else {"count": 0}
        session["count"] += 1
        await memcached.set(b"session:" + key.encode(), json.dumps(session).encode(), exptime=TTL_S)
        messages.inc()
        answer = MessagingResponse()
        name = PEOPLE.get(form["From"], "Friend")
        answer.message(f"{name} has messaged {form['To']} {session['count']} times")
    response = Response(str(answer), media_type="text/xml")
    response.set_cookie(
        "session", signer.sign(key).decode(), max_age=TTL_S, httponly=True, secure=True
    )
    return response


app = Starlette(routes=[Route("/sms", sms, methods=["POST"])])
