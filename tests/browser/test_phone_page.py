"""The phone page in a browser, before a real `smsd serve --dev`: a conversation, every
switch, every error state."""

from itertools import combinations

import pytest
from playwright.sync_api import FloatRect, expect

from tests.browser.conftest import ARTEFACTS
from tests.browser.pages import (
    REY,
    SIZES,
    TO,
    Open,
    Scheme,
    be_a_stranger,
    expect_reply,
    expect_verdict,
    replies,
    say,
)
from tests.dev.processes import DevServer


def friend(number: int) -> str:
    return f"Friend has messaged {TO} {number} times"


def thanked() -> str:
    return f"Thanks for the new message! {friend(1)}"


def overlap(one: FloatRect | None, other: FloatRect | None) -> bool:
    """Whether two parts of the page cover each other; each has a margin of some pixels."""
    assert one is not None
    assert other is not None
    across = min(one["x"] + one["width"], other["x"] + other["width"]) - max(one["x"], other["x"])
    down = min(one["y"] + one["height"], other["y"] + other["height"]) - max(one["y"], other["y"])
    return across > 8 and down > 8


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", list(SIZES))
def test_a_whole_conversation(open_page: Open, size: str, scheme: Scheme) -> None:
    page = open_page(size, scheme)
    be_a_stranger(page)
    expect(page.locator(".welcome")).to_contain_text("No messages yet")
    page.screenshot(path=ARTEFACTS / f"{size}-{scheme}-empty.png")
    say(page, "hi")
    expect_reply(page, 0, thanked())
    say(page, "How are you? This one is longer, so that the bubble has to wrap its text 😀")
    expect_reply(page, 1, friend(2))
    expect(page.locator(".pending")).to_have_count(0)
    assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size]["width"]
    page.screenshot(path=ARTEFACTS / f"{size}-{scheme}.png")
    if size != "pocket":
        boxes = [
            page.locator(name).bounding_box() for name in (".phone", ".switches", ".inspector")
        ]
        assert not any(overlap(one, other) for one, other in combinations(boxes, 2))
    else:
        for view in ("Switches", "Inspector"):
            page.get_by_role("button", name=view, exact=True).click()
            page.screenshot(path=ARTEFACTS / f"{size}-{scheme}-{view.lower()}.png")
            section = page.locator(f".{view.lower()}")
            expect(section).to_be_visible()
            assert section.evaluate("node => node.scrollWidth - node.clientWidth") <= 0


def test_each_sender_has_a_thread_of_their_own(open_page: Open) -> None:
    page = open_page()
    page.get_by_label("From", exact=True).select_option(REY)
    say(page, "hi")
    expect_reply(page, 0, f"Thanks for the new message! Rey has messaged {TO} 1 times")
    page.get_by_label("From", exact=True).select_option("+14158675310")
    expect(page.locator(".bubble")).to_have_count(0)
    say(page, "hi")
    expect_reply(page, 0, f"Thanks for the new message! Finn has messaged {TO} 1 times")
    page.get_by_label("From", exact=True).select_option(REY)
    expect(page.locator(".bubble.in")).to_have_count(1)
    page.get_by_label("To", exact=True).fill("+14155550199")
    page.get_by_label("To", exact=True).press("Enter")
    expect(page.locator(".bubble.in")).to_have_count(0)


def test_the_inspector_takes_an_exchange_apart(open_page: Open) -> None:
    page = open_page()
    number = be_a_stranger(page)
    say(page, "look")
    expect_reply(page, 0, thanked())
    say(page, "again")
    expect_reply(page, 1, friend(2))
    inspector = page.get_by_role("region", name="What happened")
    for text in (
        "X-Twilio-Signature",
        "POST",
        "200 in",
        "1 segment, GSM-7",
        "<Message>",
        "count 2",
        "count 1",
    ):
        expect(inspector).to_contain_text(text)
    inspector.get_by_text("Request, as signed").click()
    inspector.get_by_text("Form:").click()
    expect(inspector.get_by_role("row", name=f"From {number}")).to_be_visible()
    expect(inspector.get_by_role("row", name="FromState")).to_be_visible()
    inspector.get_by_text("The text that is signed").click()
    expect(inspector.get_by_label("Signed text")).to_contain_text("/smsAccountSidAC")
    page.get_by_role("button", name="You: look").click()
    expect(inspector.locator(".quote")).to_have_text("look")


def test_delivered_twice_is_one_bubble_and_one_count(open_page: Open) -> None:
    page = open_page()
    be_a_stranger(page)
    page.get_by_role("switch", name="Deliver twice").check()
    say(page, "one")
    expect(page.get_by_text("delivered twice", exact=True)).to_be_visible()
    expect_verdict(page, "Delivered twice: counted once, same reply.")
    page.get_by_role("button", name="Delivery 2").click()
    expect(page.get_by_role("button", name="Delivery 2")).to_be_focused()
    assert replies(page) == [thanked()]
    expect(page.get_by_role("switch", name="Deliver twice")).not_to_be_checked()
    say(page, "two")
    expect_reply(page, 1, friend(2))


@pytest.mark.parametrize("switch", ["Lose the cookie", "Send an old cookie"])
def test_a_lost_or_an_old_cookie_changes_no_count(open_page: Open, switch: str) -> None:
    page = open_page()
    be_a_stranger(page)
    for number in (1, 2):
        say(page, "hi")
        expect_reply(page, number - 1, thanked() if number == 1 else friend(number))
    page.get_by_role("switch", name=switch).check()
    expect(page.get_by_role("button", name=f"{switch}: undo")).to_be_visible()
    say(page, "hi")
    expect_reply(page, 2, friend(3))
    carried = page.locator(".step", has_text="Cookie that came along")
    expect(carried).to_contain_text("none" if "Lose" in switch else "count 1")


def test_lost_and_old_cookie_exclude_each_other(open_page: Open) -> None:
    page = open_page()
    lost, old = (
        page.get_by_role("switch", name=name) for name in ("Lose the cookie", "Send an old cookie")
    )
    lost.check()
    old.check()
    expect(lost).not_to_be_checked()
    lost.check()
    expect(old).not_to_be_checked()
    page.get_by_role("button", name="Lose the cookie: undo").click()
    expect(lost).not_to_be_checked()


def test_a_wrong_signature_is_refused_and_counts_nothing(open_page: Open) -> None:
    page = open_page()
    be_a_stranger(page)
    page.get_by_role("switch", name="Sign with a wrong token").check()
    say(page, "let me in")
    expect(page.locator(".trouble")).to_contain_text("Refused with 403")
    page.screenshot(path=ARTEFACTS / "403.png")
    say(page, "hi")
    expect_reply(page, 0, thanked())


def test_after_a_flush_the_count_goes_on(open_page: Open) -> None:
    page = open_page()
    be_a_stranger(page)
    for number in (1, 2):
        say(page, "hi")
        expect_reply(page, number - 1, thanked() if number == 1 else friend(number))
    page.get_by_role("button", name="Flush the store").click()
    expect(page.get_by_text("The store was flushed").last).to_be_visible()
    say(page, "hi")
    expect_reply(page, 2, friend(3))


def test_texts_are_answered_while_the_store_is_down(open_page: Open) -> None:
    page = open_page()
    be_a_stranger(page)
    say(page, "hi")
    expect_reply(page, 0, thanked())
    down = page.get_by_role("switch", name="Take the store down")
    down.check()
    expect(page.locator("#pill-store")).to_have_text("store down")
    for number in (2, 3):
        say(page, "hi")
        expect_reply(page, number - 1, friend(number))
    page.screenshot(path=ARTEFACTS / "store-down.png")
    down.uncheck()
    expect(page.locator("#pill-store")).to_have_text("store up")
    say(page, "hi")
    expect_reply(page, 3, friend(4))
    expect(page.locator(".step", has_text="Record in the store")).to_contain_text("count 4")


def test_four_hours_later_the_conversation_is_new(open_page: Open) -> None:
    page = open_page()
    be_a_stranger(page)
    for number in (1, 2):
        say(page, "hi")
        expect_reply(page, number - 1, thanked() if number == 1 else friend(number))
    page.get_by_role("button", name="Let four hours pass").click()
    expect(page.get_by_text("4 hours later").last).to_be_visible()
    expect(page.locator("#pill-clock")).to_have_text("clock +4 h")
    say(page, "hi")
    expect_reply(page, 2, thanked())


def test_twilios_own_answer_and_silence_are_told_apart(open_page: Open) -> None:
    page = open_page()
    be_a_stranger(page)
    say(page, "STOP")
    expect(page.locator(".bubble.twilio")).to_contain_text("unsubscribed")
    say(page, "hello?")
    expect(page.locator(".trouble")).to_contain_text("opted out")
    say(page, "START")
    expect(page.locator(".bubble.twilio").last).to_contain_text("re-subscribed")


def test_a_text_is_never_markup(open_page: Open) -> None:
    page = open_page()
    be_a_stranger(page)
    evil = "<img src=x onerror=alert(1)> & <b>bold</b>"
    say(page, evil)
    expect(page.locator(".bubble.out")).to_have_text(evil)
    expect_reply(page, 0, thanked())
    assert page.locator(".thread img, .inspector img").count() == 0


def test_segments_are_counted_while_typing(open_page: Open) -> None:
    page = open_page()
    page.get_by_label("Message", exact=True).fill("x" * 161)
    expect(page.locator("#count")).to_have_text("161 units, GSM-7: 2 segments")
    page.get_by_label("Message", exact=True).fill("x")
    expect(page.locator("#count")).to_have_text("1 unit, GSM-7: 1 segment")
    page.get_by_label("Message", exact=True).fill("😀")
    expect(page.locator("#count")).to_have_text("2 units, UCS-2: 1 segment")


def test_everything_works_by_keyboard(open_page: Open) -> None:
    page = open_page()
    be_a_stranger(page)
    page.get_by_label("Message", exact=True).focus()
    for text in ("first", "second"):
        page.keyboard.type(text)
        page.keyboard.press("Enter")
        expect(page.locator(".pending")).to_have_count(0)
    page.keyboard.press("ArrowUp")
    expect(page.get_by_label("Message", exact=True)).to_have_value("second")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("line")
    expect(page.get_by_label("Message", exact=True)).to_have_value("second\nline")
    page.keyboard.press("Shift+Tab")
    expect(page.get_by_role("button", name="You: second")).to_be_focused()
    page.keyboard.press("ArrowUp")
    expect(page.get_by_role("button", name="You: first")).to_be_focused()
    expect(page.locator(".quote")).to_have_text("first")
    for _ in range(3):
        page.keyboard.press("Tab")
    expect(page.get_by_role("switch", name="Deliver twice")).to_be_focused()
    page.keyboard.press("Space")
    expect(page.get_by_role("switch", name="Deliver twice")).to_be_checked()


def test_the_first_tab_stop_skips_to_the_message(open_page: Open) -> None:
    page = open_page()
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_label("Message", exact=True)).to_be_focused()


def test_messages_arrive_live_in_another_window(open_page: Open) -> None:
    here, there = open_page(), open_page()
    here.get_by_label("From", exact=True).select_option("+14158675311")
    there.get_by_label("From", exact=True).select_option("+14158675311")
    say(here, "hello from here")
    expect(there.locator(".bubble.out").last).to_have_text("hello from here")
    expect(there.locator(".bubble.in").last).to_contain_text("Chewy has messaged")


def test_a_page_opened_later_shows_what_was_said(open_page: Open) -> None:
    number = be_a_stranger(page := open_page())
    say(page, "remember me")
    expect_reply(page, 0, thanked())
    later = open_page()
    later.get_by_label("From", exact=True).select_option(label="Another number…")
    later.get_by_label("Number", exact=True).fill(number)
    later.get_by_label("Number", exact=True).press("Enter")
    expect(later.locator(".bubble.out")).to_have_text("remember me")


CONTRAST = """() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const shine = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const color = rgb(getComputedStyle(node).backgroundColor);
      if (color.length === 3 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (!own || !node.checkVisibility() || node.closest("option, .skip, .hidden")) continue;
    const [a, b] = [shine(rgb(getComputedStyle(node).color)), shine(behind(node))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) poor.push(`${node.className || node.tagName}: ${ratio.toFixed(2)}`);
  }
  return poor;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_have_contrast_and_controls_have_names(open_page: Open, scheme: Scheme) -> None:
    page = open_page("desk", scheme)
    be_a_stranger(page)
    page.get_by_role("switch", name="Deliver twice").check()
    say(page, "hi")
    expect_reply(page, 0, thanked())
    page.get_by_role("switch", name="Sign with a wrong token").check()
    say(page, "no")
    expect(page.locator(".trouble")).to_be_visible()
    page.get_by_role("switch", name="Lose the cookie").check()
    assert page.evaluate(CONTRAST) == []
    for control in page.locator(
        "button:visible, input:visible, select:visible, textarea:visible"
    ).all():
        assert control.evaluate(
            "n => n.ariaLabel || n.innerText || [...(n.labels || [])].map((l) => l.innerText).join()"
        )


def test_page_finds_a_server_that_comes_back(open_page: Open, server: DevServer) -> None:
    page = open_page(
        may_complain=True
    )  # the browser itself reports refused connections on the console
    number = be_a_stranger(page)
    server.process.kill()
    expect(page.get_by_role("alert").first).to_contain_text("The server is gone")
    say(page, "anybody?")
    expect(page.locator(".trouble")).to_contain_text("Not sent: the server is gone")
    page.screenshot(path=ARTEFACTS / "server-gone.png")
    page.get_by_role("button", name="Flush the store").click()
    expect(page.locator("#banner")).to_be_visible()
    server.again()
    expect(page.locator("#pill-live")).to_have_text("live")
    expect(page.locator("#banner")).to_be_hidden()
    assert page.get_by_label("Number", exact=True).input_value() == number
    say(page, "back?")
    expect_reply(page, 0, thanked())


def test_unsent_message_can_be_tried_again(open_page: Open, server: DevServer) -> None:
    page = open_page(may_complain=True)
    be_a_stranger(page)
    page.route("**/api/messages", lambda route: route.abort())
    say(page, "try")
    expect(page.locator(".trouble")).to_contain_text("Not sent")
    page.unroute("**/api/messages")
    page.get_by_role("button", name="Try again").click()
    expect_reply(page, 0, thanked())


def test_a_deploy_closes_the_page_without_delay(open_page: Open, server: DevServer) -> None:
    page = open_page(may_complain=True)
    assert server.process.terminate() == 0  # the streams end within a second
    expect(page.locator("#pill-live")).to_have_text("server gone")
    server.again()
    expect(page.locator("#pill-live")).to_have_text("live")
