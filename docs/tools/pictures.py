"""Takes the pictures of the documentation: `make screenshots`.

The phone page is the real one, served by `smsd serve --dev` and shown by Chromium,
light and dark. The diagrams are drawn by Mermaid from the pages' own text. Neither
needs the network once npm has installed Mermaid.

The tests know whether the pictures are current without taking them:
`docs/pictures/stamp.json` holds a hash of the page's sources, and a diagram's file is
named after a hash of its text.
"""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import Browser, expect, sync_playwright

from docs.tools.pages import ROOT, pages
from tests.browser.conftest import ARGUMENTS, CHROMIUM
from tests.dev.processes import DevServer

PICTURES = ROOT / "docs/pictures"
STAMP = PICTURES / "stamp.json"
PHONE_PAGE = ROOT / "smsd/dev/page"
SCHEMES = ("light", "dark")
MERMAID = ROOT / ".artefacts/mermaid"
_LOCK = Path(__file__).parent / "mermaid"
_TEXTS = ("Hello!", "Do you remember me?")


def stamp() -> dict[str, str]:
    """What the pictures were taken of: a hash of the phone page's sources."""
    digest = hashlib.sha256()
    for file in sorted(PHONE_PAGE.iterdir()):
        if file.is_file():
            digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return {"phone": digest.hexdigest()}


def is_current() -> bool:
    """Whether the pictures of the phone page show its current sources."""
    return STAMP.exists() and json.loads(STAMP.read_text(encoding="utf-8")) == stamp()


def diagrams() -> dict[str, str]:
    """The text of every Mermaid diagram, by the name of its picture."""
    texts = [block.text for page in pages() for block in page.blocks("mermaid")]
    return {diagram_name(text): text for text in texts}


def diagram_name(text: str) -> str:
    """The file name of a diagram's picture."""
    return f"diagram-{hashlib.sha256(text.encode()).hexdigest()[:12]}.svg"


def main() -> None:
    """Take every picture that is not current; with `--all`, every picture."""
    PICTURES.mkdir(exist_ok=True)
    _install_mermaid()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        _draw(browser)
        if not is_current() or "--all" in sys.argv:
            _photograph(browser)
        browser.close()
    STAMP.write_text(json.dumps(stamp(), indent=2) + "\n", encoding="utf-8")


def _install_mermaid() -> None:
    lock = (_LOCK / "package-lock.json").read_bytes()
    installed = MERMAID / "package-lock.json"
    if installed.exists() and installed.read_bytes() == lock:
        return
    MERMAID.mkdir(parents=True, exist_ok=True)
    (MERMAID / "package.json").write_bytes((_LOCK / "package.json").read_bytes())
    installed.write_bytes(lock)
    command = ["npm", "ci", "--silent", "--ignore-scripts", "--no-audit", "--no-fund"]
    try:
        subprocess.run(command, cwd=MERMAID, check=True)
    except BaseException:
        installed.unlink()
        raise


def _draw(browser: Browser) -> None:
    """Every diagram as SVG, on white: readable in both color schemes."""
    for old in PICTURES.glob("diagram-*.svg"):
        old.unlink()
    page = browser.new_page()
    page.set_content("<main></main>")
    page.add_script_tag(path=MERMAID / "node_modules/mermaid/dist/mermaid.min.js")
    for name, text in diagrams().items():
        svg = page.evaluate(
            """async text => {
                mermaid.initialize({startOnLoad: false, theme: 'neutral', deterministicIds: true,
                    htmlLabels: false, flowchart: {htmlLabels: false}});
                const drawn = (await mermaid.render('diagram', text)).svg;
                document.querySelector('main').innerHTML = drawn;
                const root = document.querySelector('main svg');
                const {width, height} = root.viewBox.baseVal;
                root.setAttribute('width', width);
                root.setAttribute('height', height);
                root.style.background = 'white';
                return new XMLSerializer().serializeToString(root);
            }""",
            text,
        )
        (PICTURES / name).write_text(svg + "\n", encoding="utf-8")
        sys.stdout.write(f"docs/pictures/{name}\n")
    page.close()


def _photograph(browser: Browser) -> None:
    """The phone page after a short conversation, with the inspector open on its last
    message."""
    for scheme in SCHEMES:
        with DevServer() as server:
            context = browser.new_context(
                viewport={"width": 1280, "height": 800},
                color_scheme=scheme,  # type: ignore[arg-type]
                reduced_motion="reduce",
            )
            page = context.new_page()
            page.goto(f"{server.url}/phone")
            for number, text in enumerate(_TEXTS, start=1):
                page.get_by_label("Message", exact=True).fill(text)
                page.get_by_role("button", name="Send", exact=True).click()
                expect(page.locator(".bubble.in:not(.typing)")).to_have_count(number)
            name = f"phone-{scheme}.png"
            page.screenshot(path=PICTURES / name)
            context.close()
        sys.stdout.write(f"docs/pictures/{name}\n")


if __name__ == "__main__":
    main()
