"""What a newcomer meets on the phone page: verdicts, failures, restarts, mistakes,
small screens, dark mode."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page, expect

from smsd.dev.page_handlers import PAGE
from tests.browser.conftest import ARTEFACTS
from tests.browser.pages import TO, Open, Scheme, be_a_stranger, expect_verdict, replies, say
from tests.dev.processes import DevServer

BOT = """
import asyncio
import os
from pathlib import Path

from smsd import Reply

async def reply(message, session):
    if message.body == "boom":
        return str({"key": 1}[message.body])
    if message.body == "wait":
        while not Path("go").exists():
            await asyncio.sleep(0.02)
    if message.body == "three":
        return Reply("one", "two", "three")
    if message.body == "picture":
        return Reply("look", media=("https://pictures.example/cats/mittens.jpg",))
    if message.body == "own picture":
        return Reply(media=(f"http://127.0.0.1:{os.environ['SMSD_PORT']}/phone/icon.svg",))
    session.data["word"] = message.body
    return f"{session.count}: {message.body}"
"""
BROKEN = BOT + "\nraise LookupError('half-written')\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bot")
    (folder / "first_bot.py").write_text(BOT)
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[DevServer]:
    with DevServer(
        folder,
        SMSD_DIALOGUE="first_bot:reply",
        PYTHONPATH=str(folder),
        SMSD_ANSWER_WITHIN="1",
        SMSD_ONE_MOMENT="One moment",
    ) as server:
        yield server


def switch(page: Page, name: str) -> Locator:
    return page.get_by_role("switch", name=name)


def talk(page: Page, *texts: str) -> None:
    """Text one after the other, each when the one before is answered."""
    for text in texts:
        count = page.locator("li.exchange").count()
        say(page, text)
        expect(page.locator("li.exchange")).to_have_count(count + 1)
        expect(page.locator(".typing")).to_have_count(0)


# --- accessibility


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", ["desk", "pocket"])
def test_axe_finds_no_violation(open_page: Open, size: str, scheme: Scheme) -> None:
    page = open_page(size, scheme)
    be_a_stranger(page)
    found = Axe().run(page).response["violations"]  # the empty thread
    page.locator("#twice").evaluate("node => node.click()")
    talk(page, "hi")
    talk(page, "boom", "picture", "three")
    page.locator("#hours").evaluate("node => node.click()")
    page.get_by_label("To", exact=True).fill("nobody")
    say(page, "x")
    expect(page.locator("#number-error")).to_be_visible()
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    views = ("Phone", "Switches", "Inspector") if size == "pocket" else ("",)
    for view in views:
        if view:
            page.get_by_role("button", name=view, exact=True).click()
        page.screenshot(path=ARTEFACTS / f"first-hour-{size}-{scheme}-{view.lower()}.png")
        found += Axe().run(page).response["violations"]
    page.locator("#present").evaluate("node => node.click()")
    assert [f"{one['id']}: {node['target']}" for one in found for node in one["nodes"]] == []


# --- verdicts and captions


def test_the_inspector_begins_with_a_verdict(open_page: Open) -> None:
    page = open_page()
    be_a_stranger(page)
    talk(page, "a")
    expect_verdict(page, "No cookie, no record: counted as 1.")
    talk(page, "b")
    expect_verdict(page, "Cookie and record said 1: counted as 2.")
    switch(page, "Send an old cookie").check()
    talk(page, "c")
    expect_verdict(page, "Old cookie (1), record said 2: counted as 3.")
    switch(page, "Lose the cookie").check()
    talk(page, "d")
    expect_verdict(page, "Cookie lost, record said 3: counted as 4.")
    page.get_by_role("button", name="Flush the store").click()
    talk(page, "e")
    expect_verdict(page, "Cookie (4), no record: counted as 5.")
    switch(page, "Deliver twice").check()
    talk(page, "f")
    expect_verdict(page, "Delivered twice: counted once, same reply.")
    switch(page, "Sign with a wrong token").check()
    talk(page, "g")
    expect_verdict(page, "Wrong signature: refused with 403, nothing counted.")
    tags = page.locator(".tag").all_inner_texts()
    assert tags == ["old cookie", "cookie lost", "delivered twice", "wrong token"]
    first = page.locator("#inspector .summary").bounding_box()
    step = page.locator("#inspector .step").first.bounding_box()
    assert first is not None
    assert step is not None
    assert first["y"] < step["y"]


def test_verdict_says_for_now_while_the_store_is_down(open_page: Open) -> None:
    page = open_page()
    be_a_stranger(page)
    talk(page, "a", "b")
    switch(page, "Take the store down").check()
    expect(page.locator("#pill-store")).to_have_text("store down")
    switch(page, "Send an old cookie").check()
    talk(page, "c")
    expect(page.locator(".verdict")).to_have_text(
        re.compile(r"^Old cookie \(1\), store down: counted as \d for now; merged when")
    )
    expect(page.locator("#stale-note")).to_contain_text("a number may show twice")
    switch(page, "Take the store down").uncheck()
    expect(page.locator("#pill-store")).to_have_text("store up")
    talk(page, "d")
    expect(page.locator(".step", has_text="Record in the store")).to_contain_text("count 4")


def test_three_messages_are_three_segments_and_times_are_rounded(open_page: Open) -> None:
    page = open_page()
    be_a_stranger(page)
    talk(page, "three")
    expect(page.locator(".meta").last).to_have_text(
        re.compile(r"^\d+ ms · 3 messages, 3 segments$")
    )
    expect(page.locator(".badge")).to_have_text(re.compile(r"^200 in \d+ ms$"))


def test_record_comes_before_headers_and_cookies_fold(open_page: Open) -> None:
    page = open_page()
    be_a_stranger(page)
    talk(page, "a", "b")
    titles = page.locator(".step h3").all_inner_texts()
    assert titles.index("Record in the store") < titles.index("Request, as signed")
    expect(page.get_by_label("session.data")).to_have_text('{"word": "b"}')
    page.get_by_text("Request, as signed").click()
    request = page.get_by_role("group", name="Request line and headers")
    cookie = request.locator("details.header", has_text="Cookie")
    expect(cookie.locator(".whole")).to_be_hidden()
    cookie.locator("summary").click()
    expect(cookie.locator(".whole")).to_contain_text("smsd=2|")


# --- failures


def test_a_failed_dialogue_shows_its_traceback(open_page: Open, folder: Path) -> None:
    page = open_page()
    be_a_stranger(page)
    talk(page, "boom")
    expect_verdict(page, "The dialogue failed: KeyError: 'boom'")
    expect(page.locator(".verdict-note")).to_contain_text("The sender got the apology.")
    expect(page.locator(".summary")).to_have_class(re.compile("bad"))
    expect(page.locator(".badge")).to_contain_text("failed, 200 in")
    expect(page.get_by_label("Traceback")).to_contain_text(f'{folder}/first_bot.py", line')
    expect(page.locator(".thread .trouble")).to_have_text("The dialogue failed. KeyError: 'boom'")


def test_refused_version_is_a_banner_until_fixed(open_page: Open, folder: Path) -> None:
    page = open_page()
    expect(page.locator("#dialogue")).to_have_text("first_bot:reply")
    expect(page.locator("#loaded")).to_have_text(re.compile(r"^loaded \d\d:\d\d"))
    (folder / "first_bot.py").write_text(BROKEN)
    expect(page.locator("#refused")).to_contain_text("The new version cannot be loaded.")
    expect(page.locator("#refused")).to_contain_text("LookupError")
    page.locator("#refused summary").click()
    expect(page.locator("#refused pre")).to_contain_text("half-written")
    page.screenshot(path=ARTEFACTS / "refused.png")
    be_a_stranger(page)
    talk(page, "still there?")
    assert replies(page) == ["1: still there?"]
    (folder / "first_bot.py").write_text(BOT)
    expect(page.locator("#refused")).to_be_hidden()


# --- mistakes and second thoughts


@pytest.mark.parametrize(
    ("field", "typed", "told"),
    [
        ("To", "", "To: a number is missing."),
        ("Number", "not a number", "From: “not a number” is no phone number."),
    ],
)
def test_a_wrong_number_is_said_and_the_text_stays(
    open_page: Open, field: str, typed: str, told: str
) -> None:
    page = open_page()
    be_a_stranger(page)
    page.get_by_label(field, exact=True).fill(typed)
    say(page, "keep me")
    expect(page.locator("#number-error")).to_contain_text(told)
    expect(page.get_by_label(field, exact=True)).to_be_focused()
    expect(page.get_by_label("Message", exact=True)).to_have_value("keep me")
    expect(page.locator("li.exchange")).to_have_count(0)
    page.get_by_label(field, exact=True).fill("whatsapp:+14155550177")
    page.get_by_label(field, exact=True).press("Enter")
    expect(page.locator("#number-error")).to_be_hidden()


def test_a_thread_can_be_cleared(open_page: Open) -> None:
    page, other = open_page(), open_page()
    number = be_a_stranger(page)
    other.get_by_label("From", exact=True).select_option(label="Another number…")
    other.get_by_label("Number", exact=True).fill(number)
    other.get_by_label("Number", exact=True).press("Enter")
    talk(page, "a")
    expect(other.locator("li.exchange")).to_have_count(1)
    page.get_by_role("button", name="Clear this thread").click()
    for one in (page, other):
        expect(one.locator("li.exchange")).to_have_count(0)
        expect(one.get_by_role("button", name="Clear this thread")).to_be_hidden()
    page.reload()
    expect(page.locator(".welcome")).to_be_visible()
    talk(page, "b")
    assert replies(page) == ["2: b"], "the conversation goes on"


def test_four_hours_can_be_taken_back(open_page: Open) -> None:
    page = open_page()
    be_a_stranger(page)
    talk(page, "a")
    back = page.get_by_role("button", name="Back to the present")
    expect(back).to_be_hidden()
    page.get_by_role("button", name="Let four hours pass").click()
    expect(page.locator("#pill-clock")).to_have_text("clock +4 h")
    back.click()
    expect(page.locator("#pill-clock")).to_have_text("clock on time")
    expect(back).to_be_hidden()
    expect(page.locator(".event").last).to_have_text("Back to the present")
    talk(page, "b")
    assert replies(page)[-1] == "2: b"


def test_a_restart_keeps_the_thread_and_the_unsent_text(open_page: Open, server: DevServer) -> None:
    page = open_page(may_complain=True)
    number = be_a_stranger(page)
    talk(page, "before")
    page.get_by_label("Message", exact=True).fill("half a thou")
    server.process.kill()
    expect(page.locator("#banner")).to_contain_text("The server is gone")
    server.again()
    expect(page.locator("#pill-live")).to_have_text("live")
    expect(page.locator(".bubble.out")).to_have_text("before")
    expect(page.locator(".event").last).to_contain_text("The server was restarted")
    page.reload()
    expect(page.locator("#pill-live")).to_have_text("live")
    expect(page.locator(".bubble.out")).to_have_text("before")
    expect(page.get_by_label("Number", exact=True)).to_have_value(number)
    expect(page.get_by_label("Message", exact=True)).to_have_value("half a thou")
    talk(page, "after")
    assert replies(page) == ["1: before", "1: after"]


def test_page_works_without_session_storage(open_page: Open) -> None:
    page = open_page()
    number = be_a_stranger(page)
    page.evaluate("() => { Storage.prototype.setItem = () => { throw new Error('full'); }; }")
    talk(page, "a")
    assert replies(page) == ["1: a"]
    page.reload()
    expect(page.get_by_label("Number", exact=True)).to_have_value(number)
    page.evaluate(
        "() => Object.keys(sessionStorage).forEach((key) => { sessionStorage[key] = '{'; })"
    )
    page.reload()
    expect(page.locator("#pill-live")).to_have_text("live")
    expect(page.get_by_label("To", exact=True)).to_have_value(TO)


def test_text_under_way_outlives_a_reload_and_not_the_server(
    open_page: Open, server: DevServer
) -> None:
    page = open_page(may_complain=True)
    number = be_a_stranger(page)
    say(page, "wait")
    expect(page.locator(".typing")).to_be_visible()
    expect_verdict(page, "A reply is on its way.")
    page.reload()
    expect(page.get_by_label("Number", exact=True)).to_have_value(number)
    expect(page.locator(".typing")).to_be_visible()
    server.process.kill()
    server.again()
    expect(page.locator(".trouble")).to_have_text("The server stopped before the reply came.")


def test_slow_reply_shows_typing_and_redirects(open_page: Open, folder: Path) -> None:
    page = open_page()
    be_a_stranger(page)
    say(page, "wait")
    expect(page.locator(".typing")).to_be_visible()
    expect(page.locator(".bubble.in:not(.typing)")).to_have_text("One moment")
    expect(page.locator(".thread .meta").last).to_have_text("Twilio was asked to come again twice")
    expect(page.locator(".verdict-note")).to_contain_text("Twilio was asked to come again")
    page.screenshot(path=ARTEFACTS / "on-its-way.png")
    page.get_by_role("button", name="You: wait").focus()
    (folder / "go").touch()
    expect(page.locator(".typing")).to_have_count(0)
    (folder / "go").unlink()
    expect(page.get_by_role("button", name="You: wait")).to_be_focused()
    assert replies(page) == ["One moment", "1: wait"]
    expect_verdict(page, "No cookie, no record: counted as 1.")
    expect(page.locator(".verdict-note")).to_contain_text("the reply took")
    expect(page.locator(".thread .meta").last).to_contain_text("Twilio came again")


# --- looks


RULES = """() => Object.fromEntries([...document.styleSheets].map((sheet) => {
  const count = (rules) => [...rules].reduce((sum, rule) => sum + 1 + (rule.cssRules ? count(rule.cssRules) : 0), 0);
  return [new URL(sheet.href).pathname.split("/").at(-1), count(sheet.cssRules)];
}))"""


def test_browser_understands_every_style_rule(open_page: Open) -> None:
    """A browser drops a rule that it cannot read without a word."""
    written = {
        file.name: re.sub(r"/\*.*?\*/", "", file.read_text(), flags=re.DOTALL).count("{")
        for file in PAGE.glob("*.css")
    }
    assert open_page().evaluate(RULES) == written


def test_the_avatar_shows_the_other_party(open_page: Open) -> None:
    page = open_page()
    expect(page.locator("#avatar")).to_have_text(TO[-2:])
    page.get_by_label("To", exact=True).fill("+14155550142")
    page.get_by_label("To", exact=True).press("Enter")
    expect(page.locator("#avatar")).to_have_text("42")


def test_the_empty_thread_suggests_a_first_experiment(open_page: Open) -> None:
    page = open_page()
    be_a_stranger(page)
    expect(page.locator(".welcome")).to_contain_text("Lose the cookie")
    page.get_by_role("button", name="Text “hi”").click()
    expect(page.locator(".bubble.in:not(.typing)")).to_have_text("1: hi")


def test_picture_from_elsewhere_is_a_placeholder(open_page: Open) -> None:
    page = open_page()
    be_a_stranger(page)
    talk(page, "own picture")
    image = page.locator(".picture img")
    expect(image).to_be_visible()
    assert image.evaluate("node => node.decode().then(() => node.naturalWidth)") > 0
    talk(page, "picture")
    absent = page.locator(".picture.absent")
    expect(absent).to_contain_text("mittens.jpg")
    expect(absent).to_contain_text("pictures.example, not loaded here")


def test_on_a_desk_every_switch_is_in_view(open_page: Open) -> None:
    page = open_page()
    page.get_by_role("button", name="Let four hours pass").click()
    for item in page.locator(".switch, .action, .link").all():
        box = item.bounding_box()
        assert box is not None
        assert box["y"] + box["height"] <= 800 - 24
    page.get_by_role("button", name="Back to the present").click()


def test_on_a_phone_a_tapped_bubble_opens_the_inspector(open_page: Open) -> None:
    page = open_page("pocket")
    be_a_stranger(page)
    talk(page, "hi")
    expect(page.locator("#count")).to_be_hidden()
    page.get_by_role("button", name="You: hi. Show what happened.").tap()
    expect(page.locator("#inspector .verdict")).to_be_visible()
    expect(page.get_by_role("button", name="Inspector", exact=True)).to_have_attribute(
        "aria-current", "page"
    )


def test_on_a_phone_the_header_never_wraps(open_page: Open) -> None:
    page = open_page("pocket")
    page.get_by_role("button", name="Switches", exact=True).click()
    before = page.locator(".bar").bounding_box()
    page.get_by_role("button", name="Let four hours pass").click()
    expect(page.locator("#pill-clock")).to_be_visible()
    assert page.locator(".bar").bounding_box() == before
    page.get_by_role("button", name="Back to the present").click()


KNOB = """(node) => {
  const canvas = Object.assign(document.createElement("canvas"), { width: 1, height: 1 });
  const shine = (color) => {
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.fillStyle = color;
    context.fillRect(0, 0, 1, 1);
    return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3).map((c) => c / 255)
      .map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
      .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  };
  const own = getComputedStyle(node).backgroundColor;
  const track = own === "rgba(0, 0, 0, 0)" ? getComputedStyle(node.closest("label")).backgroundColor : own;
  const [a, b] = [shine(getComputedStyle(node, "::before").backgroundColor), shine(track)].sort((x, y) => y - x);
  return { ratio: (a + 0.05) / (b + 0.05), filled: own !== "rgba(0, 0, 0, 0)" };
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_switch_that_is_off_looks_off(open_page: Open, scheme: Scheme) -> None:
    page = open_page("desk", scheme)
    one = switch(page, "Deliver twice")
    off = one.evaluate(KNOB)
    one.check()
    on = one.evaluate(KNOB)
    assert (off["filled"], on["filled"]) == (False, True)
    assert off["ratio"] >= 3
    assert on["ratio"] >= 3
