"""A router: which handler a message reaches, and which mistakes keep smsd from
starting."""

import asyncio
import re
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from smsd import Message, Router, Session
from smsd.dialogues.loading import find, load, make
from smsd.errors import RouteError, SettingsError
from smsd.form import Ask, Form
from tests.processes import SETTINGS as SERVE

pytestmark = pytest.mark.asyncio

TO = "+14155550100"
ROOT = str(Path(__file__).parents[2])


def message(body: str, to: str = TO) -> Message:
    return Message("SM" + "0" * 32, "AC" + "0" * 32, "+14158675309", to, body)


async def say(router: Any, body: str, to: str = TO, session: Session | None = None) -> object:
    return await router(message(body, to), session or Session(1))


def answering(text: str) -> Callable[..., Any]:
    """A handler that says who it is and what it was given."""

    async def handler(message: Message, session: Session, *groups: object, **named: object) -> str:
        return " ".join([text, *map(str, groups), *map(str, named.values())])

    handler.__qualname__ = text.replace(" ", "_")
    return handler


# --- words and patterns


@pytest.mark.parametrize(
    "body", ["balance", "BALANCE", " Balance \n", "balance.", "Saldo!", "saldo"]
)
async def test_word_matches_the_whole_message_in_any_case(body: str) -> None:
    router = Router()
    router.on("balance", "saldo")(answering("balance"))
    assert await say(router, body) == "balance"


@pytest.mark.parametrize("body", ["my balance", "balance please", "balances", "", "!"])
async def test_word_within_a_longer_message_does_not_match(body: str) -> None:
    router = Router()
    router.on("balance", "saldo")(answering("balance"))
    assert await say(router, body) is None
    router.otherwise(answering("otherwise"))
    assert await say(router, body) == "otherwise"


async def test_word_of_several_words_matches_with_any_blanks_between() -> None:
    router = Router()
    router.on("Start over")(answering("again"))
    assert await say(router, "start \t OVER") == "again"


async def test_accented_word_matches_however_its_accents_are_encoded() -> None:
    router = Router()
    router.on("Men\u00fc")(answering("menu"))
    assert await say(router, "menu\u0308") == "menu"


async def test_groups_of_a_pattern_are_arguments() -> None:
    router = Router()
    router.on(re.compile(r"send (\d+) to (\w+)( now)?", re.IGNORECASE))(answering("send"))
    assert await say(router, " Send 3 to Ada\n") == "send 3 Ada None"
    assert await say(router, "please send 3 to Ada") is None


async def test_named_groups_are_passed_by_name() -> None:
    router = Router()

    @router.on(re.compile(r"(?P<amount>\d+) for (?P<name>\w+)"))
    def pay(message: Message, session: Session, name: str, amount: str) -> str:
        return f"{name}: {amount}"

    assert await say(router, "7 for Ada") == "Ada: 7"


async def test_first_of_several_routes_in_order_of_registration_wins() -> None:
    router = Router()
    router.on("order 12")(answering("special"))
    router.on(re.compile(r"order (\d+)"))(answering("order"))
    router.on(re.compile(r"order (.+)"))(answering("unclear"))
    assert await say(router, "Order 12") == "special"
    assert await say(router, "order 13") == "order 13"
    assert await say(router, "order x") == "unclear x"


async def test_one_handler_may_have_several_routes() -> None:
    router = Router()
    handler = answering("help")
    assert router.on("help")(router.otherwise(router.number("12345")(handler))) is handler
    assert (
        await say(router, "help")
        == await say(router, "what?")
        == await say(router, "", to="12345")
        == "help"
    )


# --- handlers


async def test_plain_handler_does_not_run_on_the_event_loop() -> None:
    router = Router()

    @router.on("here")
    async def here(message: Message, session: Session) -> int:
        return threading.get_ident()

    @router.on("there")
    def there(message: Message, session: Session) -> int:
        return threading.get_ident()

    assert await say(router, "here") == threading.get_ident()
    assert await say(router, "there") != threading.get_ident()


async def test_blocked_plain_handler_does_not_hold_up_other_messages() -> None:
    router, gate = Router(), threading.Event()

    @router.on("slow")
    def slow(message: Message, session: Session) -> str:
        return "slow" if gate.wait(60) else "never"

    router.otherwise(answering("fast"))
    slow_one = asyncio.ensure_future(router(message("slow"), Session(1)))
    fast = await router(message("hi"), Session(1))
    assert not slow_one.done()
    gate.set()
    assert [fast, await slow_one] == ["fast", "slow"]


async def test_plain_handler_may_return_an_awaitable() -> None:
    router = Router()

    @router.on("hi")
    def plain(message: Message, session: Session) -> Any:
        return answering("late")(message, session)

    assert await say(router, "hi") == "late"


@pytest.mark.parametrize("word", ["", "async "])
async def test_what_a_handler_raises_arrives(word: str) -> None:
    scope: dict[str, Any] = {"router": Router()}
    exec(  # noqa: S102 - both kinds of function from one text
        f"@router.on('x')\n{word}def fail(message, session): raise KeyError('x')", scope
    )
    with pytest.raises(KeyError):
        await say(scope["router"], "x")


# --- numbers and nesting


async def test_number_takes_its_messages_before_everything_else() -> None:
    router, pizzeria = Router(), Router()
    router.on("menu", anywhere=True)(answering("general menu"))
    router.otherwise(answering("general"))
    router.number("+1 (415) 555-0199")(pizzeria)
    pizzeria.on("menu")(answering("pizza menu"))
    assert await say(router, "menu") == "general menu"
    assert await say(router, "menu", to="+14155550199") == "pizza menu"
    assert await say(router, "hi", to="+14155550199") is None, "a number's messages stay there"


async def test_number_means_every_channel_unless_it_names_one() -> None:
    router = Router()
    router.number(TO)(answering("all"))
    router.number(f"whatsapp:{TO}")(answering("whatsapp"))
    router.number("rcs:acme_agent")(answering("rcs"))
    assert await say(router, "hi") == "all"
    assert await say(router, "hi", to=f"messenger:{TO}") == "all"
    assert await say(router, "hi", to=f"whatsapp:{TO}") == "whatsapp"
    assert await say(router, "hi", to="rcs:acme_agent") == "rcs"


@pytest.mark.parametrize("number", ["14155550100", "415-555-0100", "+0123", "", "+", "12"])
def test_what_is_no_number_is_refused(number: str) -> None:
    with pytest.raises(RouteError, match=rf"{Path(__file__).name}:\d+: .* is not a number"):
        Router().number(number)


# --- forms


def booking() -> tuple[Router, Form]:
    router = Router()
    form = Form(Ask("name", "Under what name?"), Ask("day", "Which day, {name}?"), name="table")

    @router.form(form, "book", re.compile(r"book (.+)"))
    async def booked(message: Message, session: Session, answers: dict[str, str]) -> str:
        return f"{answers['name']} on {answers['day']}"

    router.on("balance")(answering("balance"))
    router.on("menu", anywhere=True)(answering("menu"))
    router.otherwise(answering("otherwise"))
    return router, form


async def test_form_that_waits_gets_the_message_before_words_do() -> None:
    router, _ = booking()
    session = Session(1)
    bodies = ["balance", "book", "balance", "menu", "Book", "balance"]
    assert [await say(router, body, session=session) for body in bodies] == [
        "balance",
        "Under what name?",
        "Which day, balance?",
        "menu",
        "balance on Book",
        "balance",
    ]


async def test_form_is_left_and_words_work_again() -> None:
    router, _ = booking()
    session = Session(1)
    bodies = ["book a table", "never mind", "balance"]
    assert [await say(router, body, session=session) for body in bodies] == [
        "Under what name?",
        "All right, forgotten.",
        "balance",
    ]


async def test_form_may_be_opened_by_another_handler() -> None:
    router, form = booking()
    router.on("hungry")(lambda message, session: form.hear(message.body, session))
    session = Session(1)
    assert await say(router, "hungry", session=session) == "Under what name?"
    assert await say(router, "balance", session=session) == "Which day, balance?"


def by_hand() -> Router:
    """A form that the router does not know: its handler hears the answers itself."""
    router = Router()
    form = Form(Ask("name", "Name?"), Ask("seats", "How many?", read=int), name="table")

    @router.on("book", "reserve")
    def book(message: Message, session: Session) -> str:
        heard = form.hear(message.body, session)
        return heard if isinstance(heard, str) else f"{heard['name']} {heard['seats']}"

    @router.on(re.compile("rate (.+)"))
    async def rate(message: Message, session: Session, what: str | None) -> str:
        rating = Form(Ask("stars", f"Stars for {what}?"), name="rating")
        heard = rating.hear(message.body, session)
        return heard if isinstance(heard, str) else f"{heard['stars']} {what}"

    router.on("balance")(answering("balance"))
    router.on("menu", anywhere=True)(answering("menu"))
    router.otherwise(answering("otherwise"))
    return router


async def test_handler_that_asked_a_question_gets_the_answer_before_words_do() -> None:
    packed = b""
    said = []
    for body in ["balance", "reserve", "balance", "menu", "many", "4", "balance"]:
        session = Session(1, packed_data=packed)  # nothing but data is kept between messages
        said.append(await say(by_hand(), body, session=session))
        packed = session.packed_data()
    assert said == [
        "balance", "Name?", "How many?", "menu", "How many?", "balance 4", "balance"
    ]  # fmt: skip
    assert packed == b""


async def test_handler_of_a_pattern_gets_the_answer_without_groups() -> None:
    session = Session(1)
    assert await say(by_hand(), "rate cake", session=session) == "Stars for cake?"
    assert await say(by_hand(), "balance", session=session) == "balance None"
    assert await say(by_hand(), "balance", session=session) == "balance"


async def test_form_is_left_by_hand_and_words_work_again() -> None:
    session = Session(1)
    bodies = ["book", "never mind", "balance", "book", "start over", "back", "balance"]
    assert [await say(by_hand(), body, session=session) for body in bodies] == [
        "Name?", "All right, forgotten.", "balance", "Name?", "Name?", "Name?", "How many?"
    ]  # fmt: skip


async def test_question_of_a_route_that_is_gone_leaves_the_words_alone() -> None:
    session = Session(1)
    await say(by_hand(), "book", session=session)
    new = Router()
    new.on("balance")(answering("balance"))
    assert await say(new, "balance", session=session) == "balance"


async def test_two_forms_keep_their_answers_apart() -> None:
    router, _ = booking()
    router.form(Form(Ask("city", "Where?"), name="delivery"), "deliver")(
        lambda message, session, answers: f"to {answers['city']}"
    )
    session = Session(1)
    assert await say(router, "deliver", session=session) == "Where?"
    assert await say(router, "book", session=session) == "to book"


async def test_failing_form_callback_leaves_the_message_to_the_apology() -> None:
    router = Router()
    router.form(Form(Ask("n", "N?", read=lambda answer: {}.fail)), "go")(  # type: ignore[attr-defined]
        lambda message, session, answers: "done"
    )
    session = Session(1)
    assert await say(router, "go", session=session) == "N?"
    with pytest.raises(AttributeError):
        await say(router, "7", session=session)


# --- mistakes

A, B, C = answering("a"), answering("b"), answering("c")
DIGITS = re.compile(r"(\d+)")
MISTAKES: dict[str, tuple[Callable[[Router], object], str]] = {
    "a word twice": (
        lambda r: (r.on("balance")(A), r.on(" Balance!")(B)),
        "' Balance!' of b .* is taken by a ",
    ),
    "a word twice in one route": (lambda r: r.on("x", "X")(A), "'X' of a .* is taken by a "),
    "a word anywhere and not": (
        lambda r: (r.on("x")(A), r.on("x", anywhere=True)(B)),
        "'x' of b .* is taken by a ",
    ),
    "a pattern twice": (
        lambda r: (r.on(DIGITS)(A), r.on(re.compile(r"(\d+)"))(B)),
        r"of b .* is taken by a ",
    ),
    "a word after a pattern that takes it": (
        lambda r: (r.on(re.compile("bal.*"))(A), r.on("Balance")(B)),
        "'Balance' of b .* is unreachable: a .* takes it",
    ),
    "a word before a pattern that takes it anywhere": (
        lambda r: (r.on("balance")(A), r.on(re.compile("bal.*"), anywhere=True)(B)),
        "'balance' of a .* is unreachable: b .* takes it",
    ),
    "a form's word after a pattern that takes it": (
        lambda r: (r.on(re.compile("b.*"))(A), r.form(Form(Ask("a", "A?")), "book")(B)),
        "'book' of b .* is unreachable: a ",
    ),
    "a plain pattern after its word": (
        lambda r: (r.on("balance")(A), r.on(re.compile("^Balance$"))(B)),
        "of b .* is unreachable: a ",
    ),
    "a pattern after one that takes every text": (
        lambda r: (r.on(re.compile("(.+)"))(A), r.on(DIGITS)(B)),
        "of b .* is unreachable: a ",
    ),
    "otherwise after a pattern that takes everything": (
        lambda r: (r.on(re.compile("(?s:.*)"))(A), r.otherwise(B)),
        "b .* is unreachable: a .* takes every message",
    ),
    "otherwise before a pattern that takes everything": (
        lambda r: (r.otherwise(B), r.on(re.compile(".*", re.DOTALL))(A)),
        "b .* is unreachable: a .* takes every message",
    ),
    "otherwise twice": (
        lambda r: (r.otherwise(A), r.otherwise(B)),
        "'otherwise' of b .* is taken by a ",
    ),
    "a number twice": (
        lambda r: (r.number(TO)(A), r.number("+1 415 555 0100")(B)),
        r"'\+14155550100' of b .* is taken by a ",
    ),
    "a form's name twice": (
        lambda r: (r.form(Form(Ask("a", "A?")))(A), r.form(Form(Ask("b", "B?")))(B)),
        "the form 'form' of b .* is taken by a ",
    ),
    "no word": (lambda r: r.on(), "needs a word"),
    "no number": (lambda r: r.number(), "write @router.number"),
    "a word of blanks": (lambda r: r.on(" ! "), "nothing but blanks and full stops"),
    "no parentheses": (lambda r: r.on(A), r'write @router.on\("word"\)'),  # type: ignore[arg-type]
    "a pattern of bytes": (lambda r: r.on(re.compile(b"x")), "write @router.on"),  # type: ignore[arg-type]
    "no form": (lambda r: r.form("table"), "write @router.form"),  # type: ignore[arg-type]
    "a form's word that is none": (lambda r: r.form(Form(Ask("a", "A?")), 7), "write @router.form"),  # type: ignore[arg-type]
    "a handler without session": (
        lambda r: r.on("x")(lambda message: "x"),
        r"<lambda> .* must take \(message, session\)",
    ),
    "a handler without its groups": (
        lambda r: r.on(DIGITS)(lambda message, session: "x"),
        r"must take \(message, session, argument 3\)",
    ),
    "a handler without a named group": (
        lambda r: r.on(re.compile("(?P<tokens>.)"))(lambda message, session, x: "x"),
        r"must take \(message, session, tokens\)",
    ),
    "a form's handler without answers": (
        lambda r: r.form(Form(Ask("a", "A?")))(lambda message, session: "x"),
        "must take",
    ),
    "a number's handler without session": (lambda r: r.number(TO)(lambda m: "x"), "must take"),
    "otherwise without session": (lambda r: r.otherwise(lambda m: "x"), "must take"),
    "no handler": (lambda r: r.on("x")(7), "must take"),  # type: ignore[type-var]
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistaken_route_is_refused_with_file_and_line(mistake: str) -> None:
    register, complaint = MISTAKES[mistake]
    with pytest.raises(RouteError, match=complaint) as caught:
        register(Router())
    assert f"{__file__}:" in str(caught.value)


async def test_routes_that_only_overlap_are_no_mistake() -> None:
    router = Router()
    router.on("order")(A)
    router.on(re.compile("order.*"))(A)
    router.on(re.compile(r"(\w+) (\w+)"))(B)
    router.on(re.compile("(.+)"))(C)
    router.on(re.compile(r"(?s)(.*)\n(.*)"))(answering("lines"))
    router.otherwise(A)
    assert await say(router, "a\nb") == "lines a b"
    assert await say(router, "order x") == "a"
    assert await say(router, "one two") == "b one two"
    assert await say(router, "one") == "c one"
    assert await say(router, "") == "a", "a picture without a text"


# --- as a dialogue

MODULE = """
    import re
    from smsd import Router

    router, pizzeria = Router(), Router()
    log = []

    @router.on("balance", "saldo")
    async def balance(message, session):
        return "7"

    class Pizza:
        def __init__(self, settings): self.settings = settings
        def open(self): log.append("open")
        def close(self): log.append("close")
        def reload(self, settings): log.append(settings)
        def conversation_key(self, message): return "pizza"
        async def __call__(self, message, session): return f"pizza {self.settings}"

    router.number("+14155550199")(pizzeria)
    pizzeria.number("+14155550199")(Pizza)

    @router.otherwise
    def anything(message, session):
        return "?"
    """


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Path]]:
    """Makes the module `mybot` of a text; it is found in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])

    def module(code: str) -> Path:
        path = tmp_path / "mybot.py"
        path.write_text(textwrap.dedent(code))
        return path

    yield module
    sys.modules.pop("mybot", None)


async def test_class_behind_a_nested_router_is_made_opened_and_closed(
    write: Callable[[str], Path],
) -> None:
    write(MODULE)
    dialogue = load("mybot:router", "settings")
    log = sys.modules["mybot"].log
    await dialogue.open()
    await dialogue.reload("new")
    said = [
        await dialogue(message("Saldo"), Session(1)),
        await dialogue(message("saldo", "+14155550199"), Session(1)),
        await dialogue(message("x"), Session(1)),
    ]
    await dialogue.close()
    assert said == ["7", "pizza settings", "?"]
    assert log == ["open", "new", "close"]
    assert dialogue.conversation_key(message("x", "+14155550199")) == "pizza"
    assert dialogue.conversation_key(message("x")) is None


async def test_handler_that_is_a_class_needs_smsd_to_make_it() -> None:
    class Pizza:
        async def __call__(self, message: Message, session: Session) -> str:
            return "pizza"

    router = Router()
    router.otherwise(Pizza)
    with pytest.raises(RouteError, match="is a class"):
        await say(router, "hi")
    assert await say(make(router, None, "router"), "hi") == "pizza"


async def test_router_whose_second_handler_cannot_open_closes_the_first() -> None:
    log: list[str] = []

    class Handler:
        def __init__(self, name: str) -> None:
            self.name = name

        async def open(self) -> None:
            log.append(f"open {self.name}")
            if self.name == "b":
                raise OSError

        async def close(self) -> None:
            log.append(f"close {self.name}")

        async def __call__(self, message: Message, session: Session) -> str:
            return self.name

    router = Router()
    router.on("a")(Handler("a"))
    router.on("b")(Handler("b"))
    with pytest.raises(SettingsError, match=r"open\(\) failed: OSError at .*test_router.py:\d+$"):
        await make(router, None, "router").open()
    assert log == ["open a", "open b", "close a"]


async def test_router_without_routes_does_not_start() -> None:
    with pytest.raises(
        SettingsError, match=r"the router made at .*test_router.py:\d+ has no routes"
    ):
        await make(Router(), None, "router").open()


def test_routes_and_repr_list_everything_in_the_order_asked(write: Callable[[str], Path]) -> None:
    path = write(MODULE)
    mybot = find("mybot:router")
    mybot.on("menu", anywhere=True)(A)
    mybot.on(re.compile(r"order (\d+)"))(B)
    mybot.form(Form(Ask("a", "A?"), name="table"), "book")(B)
    assert repr(mybot) == (
        "Router(number '+14155550199' -> Router, anywhere 'menu' -> a, form table 'book' -> b, "
        r"'balance' | 'saldo' -> balance, /order (\d+)/ -> b, otherwise -> anything)"
    )
    number, menu, *_ = mybot.routes
    assert number.place == f"{path}:20"
    assert [str(route) for route in number.nested] == ["number '+14155550199' -> Pizza"]
    assert menu.place.startswith(__file__)


def test_serve_with_a_mistaken_route_names_both_places(
    write: Callable[[str], Path],
) -> None:
    path = write(MODULE + '\n    @router.on("SALDO")\n    def again(message, session): ...\n')
    ended = subprocess.run(
        [sys.executable, "-m", "smsd", "serve"],
        env={**SERVE, "PYTHONPATH": ROOT, "SMSD_DIALOGUE": "mybot:router"},
        cwd=path.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert (
        f"SMSD_DIALOGUE: mybot:router cannot be imported: 'SALDO' of again ({path}:27) "
        f"is taken by balance ({path}:8)"
    ) in ended.stderr


def test_word_that_twilio_keeps_to_itself_is_noted() -> None:
    router = Router()
    router.on("menu", "Help", "quit")(A)
    router.on(re.compile("stop"), "cake")(B)
    router.form(Form(Ask("a", "A?")), "end")(lambda message, session, answers: "x")
    assert [route.note.partition(":")[0] for route in router.routes] == [
        "'end'",
        "'Help', 'quit'",
        "",
    ]


def run_routes(folder: Path, spec: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "smsd", "routes", spec],
        env={"PYTHONPATH": ROOT},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_routes_command_lists_kind_words_handler_and_place(write: Callable[[str], Path]) -> None:
    path = write(MODULE)
    listed = run_routes(path.parent, "mybot:router")
    assert (listed.returncode, listed.stderr) == (0, "")
    assert [line.split("  ")[0] for line in listed.stdout.splitlines()] == [
        "number",
        "",
        "words",
        "otherwise",
    ]
    number, nested, words, otherwise = map(str.split, listed.stdout.splitlines())
    assert number == ["number", "'+14155550199'", "Router", f"{path}:20"]
    assert nested == ["number", "'+14155550199'", "Pizza", f"{path}:21"]
    assert words == ["words", "'balance'", "|", "'saldo'", "balance", f"{path}:8"]
    assert otherwise == ["otherwise", "anything", f"{path}:23"]


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ("mybot:Pizza", "mybot:Pizza is not a Router but a type"),
        ("mybot:nothing", "mybot:nothing cannot be imported: AttributeError"),
        ("nowhere:router", "nowhere:router cannot be imported: ModuleNotFoundError"),
    ],
)
def test_routes_command_without_a_router_exits_2(
    spec: str, complaint: str, write: Callable[[str], Path]
) -> None:
    path = write(MODULE)
    listed = run_routes(path.parent, spec)
    assert (listed.returncode, listed.stdout) == (2, "")
    assert listed.stderr.startswith(f"smsd routes: {complaint}")
