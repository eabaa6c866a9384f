"""Before: a conversation in Flask, the way Twilio's tutorial on SMS conversations does it."""

from flask import Flask, request, session
from twilio.twiml.messaging_response import MessagingResponse

app = Flask(__name__)
app.config.from_prefixed_env()  # FLASK_SECRET_KEY signs the session's cookie

callers = {"+14158675309": "Rey", "+14158675310": "Finn"}


@app.post("/sms")
def hello() -> str:
    counter = session.get("counter", 0) + 1
    session["counter"] = counter

    name = callers.get(request.values.get("From"), "Friend")
    response = MessagingResponse()
    response.message(f"{name} has messaged {request.values.get('To')} {counter} times.")
    return str(response)
