"""The pictures of the documentation are current, without taking them again."""

import re

from docs.tools.pages import page
from docs.tools.pictures import PICTURES, SCHEMES, diagrams, is_current

RETAKE = "the phone page or a diagram has changed: run `make screenshots` and look at the pictures"


def test_screenshots_show_the_current_phone_page() -> None:
    assert is_current(), RETAKE


def test_every_diagram_has_its_picture_and_no_other() -> None:
    assert {path.name for path in PICTURES.glob("diagram-*.svg")} == set(diagrams()), RETAKE


def test_readme_shows_the_phone_page_in_both_color_schemes() -> None:
    shown = re.findall(r"docs/pictures/(phone-\w+\.png)", page("README.md").text)
    assert sorted(shown) == sorted(f"phone-{scheme}.png" for scheme in SCHEMES)
    for name in shown:
        assert (PICTURES / name).read_bytes().startswith(b"\x89PNG")
