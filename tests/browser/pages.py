"""What a person does on the phone page, for the browser tests."""

from collections.abc import Callable
from itertools import count
from typing import Literal
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Page, ViewportSize, expect

REY, TO = "+14158675309", "+14158141829"
Scheme = Literal["light", "dark"]
Open = Callable[..., Page]
_stranger = count(100)
SIZES: dict[str, ViewportSize] = {
    "desk": {"width": 1280, "height": 800},
    "tablet": {"width": 900, "height": 900},
    "pocket": {"width": 390, "height": 844},
}


class Watch:
    """What a page must not do: complain on the console, or ask another host for
    anything."""

    def __init__(self, page: Page, host: str) -> None:
        self.complaints: list[str] = []
        self.strangers: list[str] = []
        page.on(
            "console",
            lambda m: self.complaints.append(m.text) if m.type in ("error", "warning") else None,
        )
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on(
            "request",
            lambda r: self.strangers.append(r.url) if urlsplit(r.url).netloc != host else None,
        )


class Browsing:
    """Opens pages of one server; at the end it tells which of them did what a page must
    not do."""

    def __init__(self, browser: Browser, url: str) -> None:
        self._browser = browser
        self._url = url
        self._opened: list[tuple[Page, Watch, bool]] = []

    def open(
        self, size: str = "desk", scheme: Scheme = "light", *, may_complain: bool = False
    ) -> Page:
        context = self._browser.new_context(
            viewport=SIZES[size],
            color_scheme=scheme,
            reduced_motion="reduce",
            has_touch=size == "pocket",
        )
        page = context.new_page()
        self._opened.append((page, Watch(page, urlsplit(self._url).netloc), may_complain))
        page.goto(f"{self._url}/phone")
        expect(page.locator("#pill-live")).to_have_text("live")
        return page

    def close(self) -> None:
        """Close the pages, and fail if one complained or asked another host for
        anything."""
        for page, watch, may_complain in self._opened:
            page.context.close()
            assert watch.strangers == []
            assert may_complain or watch.complaints == []


def be_a_stranger(page: Page) -> str:
    """Text from a number that nobody used before, so that tests share a server and no
    conversation."""
    number = f"+1415555{next(_stranger):04}"
    page.get_by_label("From", exact=True).select_option(label="Another number…")
    page.get_by_label("Number", exact=True).fill(number)
    page.get_by_label("Number", exact=True).press("Enter")
    return number


def say(page: Page, text: str) -> None:
    """Type a text and send it."""
    page.get_by_label("Message", exact=True).fill(text)
    page.get_by_role("button", name="Send", exact=True).click()


def replies(page: Page) -> list[str]:
    """The bubbles that came back."""
    return page.locator(".bubble.in:not(.typing)").all_inner_texts()


def expect_reply(page: Page, number: int, text: str) -> None:
    """Wait for the reply with that index."""
    expect(page.locator(".bubble.in:not(.typing)").nth(number)).to_have_text(text)


def expect_verdict(page: Page, text: str) -> None:
    """Wait for the sentence above the inspector."""
    expect(page.locator(".verdict")).to_have_text(text)
