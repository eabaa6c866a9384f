"""A dialogue that books a table: three questions, asked by a form."""

from datetime import date

from smsd import Message, Reply, Session
from smsd.form import Ask, Form, yes

form = Form(
    Ask("name", "Welcome to the café! Under what name?"),
    Ask(
        "day",
        "Hello {name}. Which day?",
        read=date.fromisoformat,
        hint="Write the day like 2026-12-24.",
    ),
    Ask("sure", "A table for {name} on {day:%d %B}? Write yes, or back.", read=yes),
)


async def reply(message: Message, session: Session) -> Reply | str:
    answers = form.hear(message.body, session)
    if isinstance(answers, str):
        return answers
    return Reply(f"See you on {answers['day']:%d %B}!", media="https://example.com/map.png")
