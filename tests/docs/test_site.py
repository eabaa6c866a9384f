"""The site is built strictly, works from the disk, searches offline and asks the
network for nothing."""

import re
import subprocess
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from docs.tools import site
from docs.tools.pages import Page, pages


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built."""
    folder = tmp_path_factory.mktemp("site") / "site"
    site.build(folder)
    return folder / "html"


@pytest.mark.parametrize("each", pages(), ids=lambda each: each.path)
def test_every_page_is_on_the_site(each: Page, html: Path) -> None:
    assert (html / site.address(each)).with_suffix(".html").exists()


@pytest.mark.parametrize("broken", ["[there](nowhere.md)", "[there](twilio.md#no-such-heading)"])
def test_a_broken_link_fails_the_build(
    broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_broken_link(page: Page) -> str:
        return moved(page) + (f"\n\n{broken}\n" if page.path == "docs/index.md" else "")

    moved = site.moved
    monkeypatch.setattr(site, "moved", with_broken_link)
    with pytest.raises(subprocess.CalledProcessError):
        site.build(tmp_path / "site")


def test_links_to_files_outside_the_site_become_text(html: Path) -> None:
    text = (html / "readme.html").read_text(encoding="utf-8")
    assert "see LICENSE" in re.sub(r"<[^>]+>", "", text)


def test_site_works_from_the_disk_without_the_network(html: Path, browser: Browser) -> None:
    page = browser.new_page()
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    page.goto((html / "index.html").as_uri())
    page.locator(".sidebar-search").first.fill("rendezvous")
    page.locator(".sidebar-search").first.press("Enter")
    expect(page.locator("#search-results li").first).to_contain_text("Performance")
    page.close()
    assert [url for url in requested if not url.startswith(("file:", "data:"))] == []
