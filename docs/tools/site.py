"""Builds the documentation as a site: `python -m docs.tools.site FOLDER`.

The same Markdown serves readers of the repository and of the site. In the repository a
link such as `../deploy/k8s/README.md` is right. On the site that page has another
address, so a copy of every page is made first, in which links lead to pages of the
site. A link to a file that is no page, such as the license, becomes plain text. Mermaid
diagrams are shown as the pictures that `make screenshots` renders.

Sphinx with MyST builds the copy: `-n -W` makes every broken link or heading an error.
"""

import posixpath
import re
import shutil
import subprocess
import sys
from pathlib import Path

from docs.tools.pages import ROOT, Page, pages
from docs.tools.pictures import diagram_name

MOVED = {
    "README.md": "readme.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "deploy/k8s/README.md": "operations.md",
    "tests/README.md": "tests.md",
}
"""Pages from outside docs/, and their places on the site."""

_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#]*)(#[^)\s]*)?\)")
_ATTRIBUTE = re.compile(r'\b(src|srcset)="([^":]+)"')
_MERMAID = re.compile(r"^```mermaid\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"(^ *```.*?^ *```$)", re.MULTILINE | re.DOTALL)

_CONTENTS = """
```{toctree}
:hidden:
:caption: Writing bots

readme
dialogues
recipes
api
```

```{toctree}
:hidden:
:caption: Running it

twilio
settings
operations
performance
```

```{toctree}
:hidden:
:caption: How it works

promises
architecture
tests
contributing
security
releasing
changelog
```
"""


def address(page: Page) -> str:
    """The page's place on the site."""
    return MOVED.get(page.path) or page.path.removeprefix("docs/")


def moved(page: Page) -> str:
    """The page's text with links that lead to pages of the site."""
    places = {each.path: address(each) for each in pages()}

    def place(target: str) -> str | None:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(page.path), target))
        return places.get(path) or (path[5:] if path.startswith("docs/") else None)

    def moved_link(match: re.Match[str]) -> str:
        picture, text, target, anchor = match.groups()
        if not target or ":" in target:
            return match[0]
        found = place(target)
        return f"{picture}[{text}]({found}{anchor or ''})" if found else text

    def moved_attribute(match: re.Match[str]) -> str:
        return f'{match[1]}="{place(match[2]) or match[2]}"'

    def picture(match: re.Match[str]) -> str:
        return f"![Diagram](pictures/{diagram_name(match[1])})"

    parts = _CODE.split(page.text)
    parts[::2] = [
        _ATTRIBUTE.sub(moved_attribute, _LINK.sub(moved_link, part)) for part in parts[::2]
    ]
    return _MERMAID.sub(picture, "".join(parts))


def build(folder: Path) -> None:
    """Build the site into a folder; raises `subprocess.CalledProcessError` if a link is
    broken."""
    source = folder / "pages"
    shutil.rmtree(folder, ignore_errors=True)
    source.mkdir(parents=True)
    shutil.copytree(ROOT / "docs/pictures", source / "pictures")
    missing = {"security"} - {Path(address(each)).stem for each in pages()}
    for page in pages():
        text = moved(page)
        if page.path == "docs/index.md":
            text += "".join(
                line for line in _CONTENTS.splitlines(keepends=True) if line.strip() not in missing
            )
        (source / address(page)).write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "sphinx", "-q", "-n", "-W", "--keep-going"]
    subprocess.run([*command, "-c", ROOT / "docs", source, folder / "html"], check=True)
    shutil.copytree(source / "pictures", folder / "html/pictures")  # for <picture>, unknown to MyST


if __name__ == "__main__":
    build(Path(sys.argv[1]))
    sys.stdout.write(f"The site: {sys.argv[1]}/html/index.html\n")
