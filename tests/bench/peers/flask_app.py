"""A peer: Flask, Flask-Session on memcached with a signed cookie, Twilio's SDK. Run by
gunicorn."""

import os

import pymemcache
from flask import Flask, Response, abort, request, session
from flask_session import Session
from prometheus_client import Counter
from twilio.request_validator import RequestValidator
from twilio.twiml.messaging_response import MessagingResponse

PEOPLE = {"+14158675309": "Rey", "+14158675310": "Finn", "+14158675311": "Chewy"}

host, port = os.environ["BENCH_MEMCACHED"].split(":")
app = Flask(__name__)
app.config.update(
    SECRET_KEY=os.environ["BENCH_SECRET"],
    SESSION_TYPE="memcached",
    SESSION_MEMCACHED=pymemcache.HashClient([(host, int(port))], use_pooling=True),
    SESSION_USE_SIGNER=True,
    SESSION_PERMANENT=True,
    PERMANENT_SESSION_LIFETIME=14400,
)
Session(app)
validator = RequestValidator(os.environ["BENCH_TOKEN"])
messages = Counter("messages", "Messages answered.")


@app.post("/sms")
def sms() -> Response:
    url = os.environ["BENCH_URL"] + request.full_path.rstrip("?")
    if not validator.validate(url, request.form, request.headers.get("X-Twilio-Signature", "")):
        abort(403)
    session["count"] = session.get("count", 0) + 1
    messages.inc()
    answer = MessagingResponse()
    name = PEOPLE.get(request.form["From"], "Friend")
    answer.message(f"{name} has messaged {request.form['To']} {session['count']} times")
    return Response(str(answer), mimetype="text/xml")
