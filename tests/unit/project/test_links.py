"""Every relative link of the pages and notebooks leads to a file that git has, and every anchor to a heading."""

import json
import re
from pathlib import Path

import pytest

from drstudy.core import paths

FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
CODE = re.compile(r"`[^`\n]*`")
LINK = re.compile(r"\]\(([^()\s]+)\)")


def pages() -> list[str]:
    """All Markdown pages and notebooks, by their path in the project."""
    root = paths.root()
    found = [*root.glob("*.md"), *root.glob("docs/*.md"), *root.glob("params/**/*.md")]
    found += [root / "tests" / "README.md", *root.glob("notebooks/*.md"), *root.glob("benchmarks/*.md")]
    found += root.glob("notebooks/[0-9][0-9]_*.ipynb")
    return sorted(path.relative_to(root).as_posix() for path in found)


def prose(path: Path) -> str:
    """The Markdown of a page or of a notebook's cells, without code."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    return FENCED.sub("", text)


def anchors(text: str) -> set[str]:
    """What GitHub makes of the headings: lower case, without marks, spaces as hyphens, repeated ones numbered."""
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6} +(.+?) *$", text, re.MULTILINE):
        heading = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        name = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        number, one = 0, name
        while one in found:
            number += 1
            one = f"{name}-{number}"
        found.add(one)
    return found


def broken(page: str) -> list[str]:
    """Links of a page that lead nowhere, each with the reason."""
    path = paths.root() / page
    found = []
    for link in LINK.findall(CODE.sub("", prose(path))):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        if not target.exists():
            found.append(f"{link}: there is no such file")
        elif anchor and anchor not in anchors(prose(target)):
            found.append(f"{link}: there is no such heading")
    return found


@pytest.mark.parametrize("page", pages())
def test_links_lead_somewhere(page):
    assert broken(page) == []


@pytest.mark.parametrize("page", ["README.md", "docs/README.md"])
def test_every_page_of_docs_is_linked(page):
    """A reader finds each page from the index, and the most important ones from the README."""
    root = paths.root()
    text = prose(root / page)
    linked = {(root / page).parent.joinpath(link.partition("#")[0]).resolve() for link in LINK.findall(text)}
    wanted = {path.resolve() for path in root.glob("docs/*.md")} - {root.resolve() / "docs" / "README.md"}
    if page == "README.md":
        wanted = {root.resolve() / "docs" / f"{name}.md" for name in WANTED}
    assert wanted <= linked, sorted(path.name for path in wanted - linked)


WANTED = (
    "results",
    "profiles",
    "gpu",
    "architecture",
    "adding_a_paper",
    "data_card",
    "model_card",
    "glossary",
    "README",
)
"""Pages of docs/ that the README links itself."""


def test_the_rule_finds_broken_links(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "root", lambda: tmp_path)
    (tmp_path / "b.md").write_text("# A *fine* heading, no. 1\n\n## Same\n\n## Same\n")
    (tmp_path / "a.md").write_text(
        "[x](b.md#a-fine-heading-no-1) [y](b.md#same-1) [z](https://example.org) `[n](no.md)`\n"
        "```\n[n](no.md)\n# no heading\n```\n[k](c.md) [l](b.md#same-2) ![m](m.png) [o](#no-heading)\n"
    )
    assert broken("a.md") == [
        "c.md: there is no such file",
        "b.md#same-2: there is no such heading",
        "m.png: there is no such file",
        "#no-heading: there is no such heading",
    ]
