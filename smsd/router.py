"""Sends each message to one of several handlers, by its words, its number, or a form
that waits for an answer.

Must not read or write anything but the message and the session, and never calls a
handler itself: `smsd.dialogues.loading` does, so that a plain handler runs in a thread
and a coroutine function on the event loop.

A router asks its routes in this order:

1. `number`: a message to that number belongs to its handler alone;
2. words and patterns with `anywhere=True`;
3. a form that waits for an answer, or the handler that returned its question;
4. the other words and patterns, in the order of their registration;
5. `otherwise`. Without it, a message that no route takes gets no reply.

Two routes for the same word, or a route that no message can reach, are mistakes. They
raise `RouteError` where they are registered, so that smsd refuses to start.
"""

import re
from collections.abc import Callable
from typing import Any, TypeVar

from smsd.conversation.session import Session
from smsd.dialogues.matching import NO_GROUPS, Groups
from smsd.dialogues.route_table import (
    KINDS,
    Handler,
    Handlers,
    Route,
    TextRoutes,
    joined,
    note_of,
    number_address,
    place_of_caller,
    text_filters,
)
from smsd.errors import RouteError
from smsd.form import Form
from smsd.twilio.message import Message, address_without_channel

F = TypeVar("F", bound=Callable[..., Any])

_ASKED_BY = "@route"
"""Stands among a form's answers in `session.data`: no question has such a name."""


class Router:
    """A dialogue that is made of routes. Added in 0.2.

    `SMSD_DIALOGUE=mybot:router` serves it. A handler takes (message, session) and
    returns what a dialogue returns. It may be a coroutine function, a plain function,
    an object, another router, or a class, of which smsd makes one object at startup,
    with the settings if it requires an argument. smsd calls the handlers' `open`,
    `close` and `reload` too, and for `number` their `conversation_key`.

    A router may be called like any dialogue, as a test or another dialogue does:
    `await router(message, session)`.

    >>> import asyncio, re
    >>> from smsd import Message, Router, Session
    >>> router = Router()
    >>> @router.on("balance", "saldo")
    ... async def balance(message, session):
    ...     return "You have 7 tokens."
    >>> @router.on(re.compile(r"send ([0-9]+) to (\\w+)", re.IGNORECASE))
    ... async def send(message, session, tokens, name):
    ...     return f"{name} gets {tokens} tokens."
    >>> @router.otherwise
    ... async def explain(message, session):
    ...     return "Text BALANCE, or SEND 3 TO ADA."
    >>> def say(body):
    ...     message = Message("SM" + "0" * 32, "AC" + "0" * 32, "+14155550100", "+14155550199", body)
    ...     return asyncio.run(router(message, Session(1)))
    >>> say("Saldo!")
    'You have 7 tokens.'
    >>> say("send 3 to Ada")
    'Ada gets 3 tokens.'
    >>> say("hello")
    'Text BALANCE, or SEND 3 TO ADA.'
    >>> router
    Router('balance' | 'saldo' -> balance, /send ([0-9]+) to (\\w+)/ -> send, otherwise -> explain)
    """

    def __init__(self) -> None:
        self._place = place_of_caller()
        self._numbers: dict[str, Handler] = {}
        self._forms: list[tuple[Form, Handler]] = []
        self._texts = TextRoutes()
        self._otherwise: Handler | None = None
        self._by_key: dict[str, tuple[Handler, Groups]] = {}
        """The handlers that may ask the questions of a form, with groups for that."""
        self._registered: list[tuple[str, str, Handler, str]] = []  # kind, texts, handler, note
        self._handlers = Handlers()

    # --- registration

    def on(self, *words: str | re.Pattern[str], anywhere: bool = False) -> Callable[[F], F]:
        """Register a handler for words and patterns.

        words     a text is compared with the whole message, in any case, without
                  blanks, stops and exclamation marks around it. A compiled pattern must
                  match the whole message without the blanks around it; its flags decide
                  about case. Its groups are passed as further arguments, or by name if
                  they have names. A group that took no part in the match is None
        anywhere  also while a form waits for an answer

        Returns a decorator that leaves the handler as it is. Raises RouteError if a
        word is empty or taken already, if a route can never be reached, or if the
        handler does not take the arguments.

        >>> router = Router()
        >>> @router.on("menu", "start over", anywhere=True)
        ... def menu(message, session):
        ...     return "1 pizza, 2 pasta"
        >>> router
        Router(anywhere 'menu' | 'start over' -> menu)
        """
        place = place_of_caller()
        filters = text_filters(words, place, '@router.on("word") or @router.on(re.compile("…"))')
        if not filters:
            raise RouteError(f"{place}: a route needs a word or a pattern")

        def register(handler: F) -> F:
            registered = Handler(handler, place, key=str(filters[0]))
            for text in filters:
                count, names = text.arguments
                registered.check_arguments(2 + count, *names)
                self._texts.add(text, registered, self._otherwise, anywhere=anywhere)
            self._by_key[registered.key] = registered, filters[0].no_groups
            kind = "anywhere" if anywhere else "words"
            self._add(kind, joined(filters), registered, note_of(filters))
            return handler

        return register

    def number(self, *numbers: str) -> Callable[[F], F]:
        """Register a handler, often another router, for all messages to one of
        `numbers`.

        A number is written as "+14155550100", with or without blanks, a short code as
        "12345". Both mean SMS, WhatsApp and every other channel;
        "whatsapp:+14155550100" is that channel alone. Returns a decorator. Raises
        RouteError if a number is malformed or taken already.

        >>> router, pizzeria = Router(), Router()
        >>> router.number("+1 415 555 0100")(pizzeria) is pizzeria
        True
        >>> router
        Router(number '+14155550100' -> Router)
        """
        place = place_of_caller()
        addresses = [number_address(number, place) for number in numbers]
        if not addresses:
            raise RouteError(f'{place}: write @router.number("+14155550100")')

        def register(handler: F) -> F:
            registered = Handler(handler, place)
            registered.check_arguments(2)
            for address in addresses:
                if taken_by := self._numbers.get(address):
                    raise RouteError(
                        f"{address!r} of {registered} is taken by {taken_by}; remove one of them"
                    )
                self._numbers[address] = registered
            self._add("number", joined(map(repr, addresses)), registered)
            return handler

        return register

    def form(self, form: Form, *words: str | re.Pattern[str]) -> Callable[[F], F]:
        """Register a form, and the handler of its answers.

        While the form waits, a message is an answer to its question and nothing else,
        unless a route with `anywhere=True` takes it. The form is opened by `words`, or
        by another handler that returns `form.hear(message.body, session)`. After the
        last answer the handler is called with (message, session, answers).

        A form need not be registered: a handler may also call `form.hear` itself, until
        it returns the answers. Then the handler gets every message while the form
        waits, with None for the groups of its pattern.

        Returns a decorator. Raises RouteError as `on` does, and if the router has a
        form of that name.

        >>> from smsd.form import Ask
        >>> router = Router()
        >>> @router.form(Form(Ask("name", "Under what name?"), name="table"), "book a table")
        ... def booked(message, session, answers):
        ...     return f"See you, {answers['name']}!"
        >>> router
        Router(form table 'book a table' -> booked)
        """
        place = place_of_caller()
        if not isinstance(form, Form):
            raise RouteError(f'{place}: write @router.form(form, "a word that opens it")')
        filters = text_filters(words, place, '@router.form(form, "a word that opens it")')

        def register(handler: F) -> F:
            done = Handler(handler, place)
            done.check_arguments(3)
            for other, taken_by in self._forms:
                if other.name == form.name:
                    raise RouteError(
                        f"the form {form.name!r} of {done} is taken by {taken_by}; remove one of them"
                    )

            async def ask(message: Message, session: Session, *_: object, **__: object) -> Any:
                return await self._hear(form, done, message, session)

            opener = Handler(ask, place, done.name)
            self._handlers.add(opener)
            for text in filters:
                self._texts.add(text, opener, self._otherwise, anywhere=False)
            self._forms.append((form, done))
            shown = f"{form.name} {joined(filters)}".strip()
            self._add("form", shown, done, note_of(filters))
            return handler

        return register

    def otherwise(self, handler: F) -> F:
        """Register the handler of the messages that no other route takes.

        A decorator without parentheses. Raises RouteError if the router has such a
        handler already, or a pattern that takes every message.
        """
        registered = Handler(handler, place_of_caller(), key="otherwise")
        registered.check_arguments(2)
        if self._otherwise:
            raise RouteError(
                f"'otherwise' of {registered} is taken by {self._otherwise}; remove one of them"
            )
        self._texts.check_reachable(registered)
        self._otherwise = registered
        self._by_key[registered.key] = registered, NO_GROUPS
        self._add("otherwise", "", registered)
        return handler

    def _add(self, kind: str, shown: str, handler: Handler, note: str = "") -> None:
        self._registered.append((kind, shown, handler, note))
        self._handlers.add(handler)

    @property
    def routes(self) -> tuple[Route, ...]:
        """Every route, in the order in which the router asks them."""
        ordered = sorted(self._registered, key=lambda registered: KINDS.index(registered[0]))
        return tuple(
            Route(kind, shown, handler.name, handler.place, _routes_of(handler.target), note)
            for kind, shown, handler, note in ordered
        )

    def __repr__(self) -> str:
        return f"Router({', '.join(map(str, self.routes))})"

    # --- messages

    async def __call__(self, message: Message, session: Session) -> Any:
        """What the handler of this message returns, or None if no route takes it."""
        handler, groups, form = self._route(message, session)
        if handler is None:
            return None
        if form:
            return await self._hear(form, handler, message, session)
        returned = await self._handlers.call(handler, message, session, groups)
        self._note_form(handler, session)
        return returned

    def handler_of(self, message: Message, session: Session) -> object:
        """What will reply to this message. For smsd itself."""
        handler, _, _ = self._route(message, session)
        return self._handlers.dialogue(handler).handler_of(message, session) if handler else self

    def _route(
        self, message: Message, session: Session
    ) -> tuple[Handler | None, Groups, Form | None]:
        """The handler of this message, what its pattern found, and the form that hears
        the message first.
        """
        if number := self._for_number(message.to):
            return number, NO_GROUPS, None
        found = self._texts.find(message.body, anywhere=True)
        if found is None:
            for form, done in self._forms:
                if form.is_open(session):
                    return done, NO_GROUPS, form
            found = self._asking(session) or self._texts.find(message.body, anywhere=False)
        handler, groups = found or (self._otherwise, NO_GROUPS)
        return handler, groups, None

    def _asking(self, session: Session) -> tuple[Handler, Groups] | None:
        """The handler that asked a form's question last time, if it waits for the
        answer.
        """
        for value in session.data.values():
            key = value.get(_ASKED_BY) if isinstance(value, dict) else None
            if isinstance(key, str) and key in self._by_key:
                return self._by_key[key]
        return None

    def _note_form(self, handler: Handler, session: Session) -> None:
        """Note who asked the question of a form that was not registered by `form`."""
        name, session.waiting_form = session.waiting_form, None
        answers = session.data.get(name) if name else None
        is_registered = any(form.name == name for form, _ in self._forms)
        if isinstance(answers, dict) and handler.key and not is_registered:
            answers[_ASKED_BY] = handler.key

    def _for_number(self, address: str) -> Handler | None:
        return self._numbers.get(address) or self._numbers.get(address_without_channel(address))

    async def _hear(self, form: Form, done: Handler, message: Message, session: Session) -> Any:
        heard = form.hear(message.body, session)
        if isinstance(heard, str):
            return heard
        return await self._handlers.call(done, message, session, Groups((heard,)))

    # --- what a dialogue may have besides

    def conversation_key(self, message: Message) -> str | None:
        """The key that the handler of the message's number gives, if it gives one."""
        number = self._for_number(message.to)
        return self._handlers.dialogue(number).conversation_key(message) if number else None

    def bind_settings(self, settings: object) -> None:
        """Called by smsd at startup: makes the objects of handlers that are classes."""
        self._handlers.bind_settings(settings)

    async def open(self) -> None:
        """Open all handlers. If one fails, those opened before are closed again."""
        if not self._registered:
            raise RouteError(
                f"the router made at {self._place} has no routes; add one with @router.on"
            )
        await self._handlers.open()

    async def reload(self, settings: object) -> None:
        """Pass changed settings on to all handlers."""
        await self._handlers.reload(settings)

    async def close(self) -> None:
        """Close all handlers."""
        await self._handlers.close()


def _routes_of(target: Any) -> tuple[Route, ...]:
    return target.routes if isinstance(target, Router) else ()
