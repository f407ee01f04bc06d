"""Settings of Sphinx for `make docs`: the pages and the executed notebooks as one site, built offline. No notebook runs again."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

project = "drstudy"
author = "The drstudy maintainers"
extensions = ["myst_nb"]
root_doc = "README"
include_patterns = [
    "*.md",
    "docs/*.md",
    "notebooks/*.md",
    "notebooks/[0-9][0-9]_*.ipynb",
    "params/README.md",
    "tests/README.md",
    "benchmarks/RESULTS.md",
]
nb_execution_mode = "off"
myst_heading_anchors = 6
html_theme = "alabaster"
html_theme_options = {"page_width": "1240px", "sidebar_width": "260px", "body_max_width": "none"}
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_title = project
html_show_copyright = False
html_show_sourcelink = False
html_sidebars = {"**": ["about.html", "searchfield.html", "navigation.html"]}

PARTS = {
    "Documentation": ("docs/README", "docs/results", "docs/profiles", "docs/*"),
    "Notebooks": ("notebooks/README", "notebooks/*"),
    "For contributors": ("params/README", "tests/README", "benchmarks/RESULTS", "CONTRIBUTING", "CHANGELOG"),
}
"""Captions of the navigation, and the pages below each."""

LINK = re.compile(r"\[([^]\n]+)\]\(([^()\s:#]+)\)")


def contents() -> str:
    """The table of contents, which GitHub would show as text, so that the README does not have it."""
    parts = []
    for caption, names in PARTS.items():
        listed = "\n".join(names)
        parts.append(f"\n\n```{{toctree}}\n:hidden:\n:glob:\n:caption: {caption}\n\n{listed}\n```\n")
    return "".join(parts)


def without_folders(text: str, place: Path) -> str:
    """The text of a page without links to folders of the project, which are no pages of the site.

    Args:
        text: Markdown.
        place: Folder of the page.
    """
    return LINK.sub(lambda link: link[1] if (place / link[2]).is_dir() else link[0], text)


def prepare(app, name, source):
    """Handle the text of each page before it is read (the event ``source-read`` of Sphinx)."""
    if (ROOT / f"{name}.md").is_file():
        source[0] = without_folders(source[0], (ROOT / name).parent)
    if name == root_doc:
        source[0] += contents()


def setup(app):
    """Register :func:`prepare`."""
    app.connect("source-read", prepare)
