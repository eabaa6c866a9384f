"""A dialogue made of routes: words, a pattern, a form, and a second number."""

import re

from smsd import Message, Router, Session
from smsd.form import Ask, Form

router = Router()
order = Form(Ask("cake", "Which cake?"), Ask("day", "For which day?"), name="order")


@router.on("hours", "opening hours", anywhere=True)
async def hours(message: Message, session: Session) -> str:
    return "Open from 7 to 18, except Mondays."


@router.on(re.compile(r"price of (\w+)", re.IGNORECASE))
async def price(message: Message, session: Session, cake: str) -> str:
    return f"{cake.capitalize()}: 24 dollars."


@router.form(order, "order")
async def ordered(message: Message, session: Session, answers: dict[str, str]) -> str:
    return f"{answers['cake']} for {answers['day']}: ordered."


@router.number("+14155550142")
async def suppliers(message: Message, session: Session) -> str:
    return "Deliveries: back door, before 6."


@router.otherwise
async def explain(message: Message, session: Session) -> str:
    return "Write HOURS, ORDER, or PRICE OF and a cake."
