"""After: the same conversation as a dialogue of smsd."""

from twilio.twiml.messaging_response import MessagingResponse

from smsd import Message, Session

callers = {"+14158675309": "Rey", "+14158675310": "Finn"}


def hello(message: Message, session: Session) -> MessagingResponse:
    counter = session.data.get("counter", 0) + 1
    session.data["counter"] = counter

    name = callers.get(message.from_, "Friend")
    response = MessagingResponse()
    response.message(f"{name} has messaged {message.to} {counter} times.")
    return response
