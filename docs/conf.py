"""Sphinx's settings for the site: `make docs`. It needs no network, neither to build nor to read."""

project = "smsd"
extensions = ["myst_parser"]
myst_heading_anchors = 4
suppress_warnings = ["misc.highlighting_failure"]  # "…" in a listing is no JSON
html_theme = "furo"
html_title = "smsd"
html_static_path: list[str] = []
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False
