"""Times in prose are measured ones: they stand in tables that are generated, never in a sentence that someone typed."""

import json
import re

import pytest

from drstudy.core import paths

NUMBER = r"\d[\d.,]*|half a|(?:under|about|almost|within) a|a few|some|several|one|two|three|four|five|six|eight|ten|twelve|fifteen|twenty|thirty"
TYPED = re.compile(
    rf"\b(?:{NUMBER})(?:\s+(?:to|or|and)\s+(?:{NUMBER}))?[\s-]+(?:core-|wall-)?(?:minutes?|seconds|hours?|days?|min|s)\b|\d\s+second\b",
    re.IGNORECASE,
)
GENERATED = re.compile(r"<!-- begin: (\w+) -->.*?<!-- end: \1 -->", re.DOTALL)


def pages() -> list[str]:
    """What a reader reads as prose, by its path in the project; the changelog tells history and is left out."""
    root = paths.root()
    found = [
        *root.glob("*.md"),
        *root.glob("docs/*.md"),
        *root.glob("params/**/*.md"),
        root / "tests" / "README.md",
        root / "Makefile",
    ]
    found += [*root.glob("params/*/*.yaml"), *root.glob("notebooks/[0-9][0-9]_*.ipynb")]
    return sorted(path.relative_to(root).as_posix() for path in found if path.name != "CHANGELOG.md")


def prose(text: str, name: str) -> str:
    """The text of a page without what is generated; of a notebook its Markdown and the comments of its parameters."""
    if name.endswith(".ipynb"):
        cells = json.loads(text)["cells"]
        read = [
            c
            for c in cells
            if c["cell_type"] == "markdown" or {"parameters", "settings"} & set(c["metadata"].get("tags", []))
        ]
        return "\n".join("".join(cell["source"]) for cell in read)
    return GENERATED.sub("", text)


@pytest.mark.parametrize("page", pages())
def test_no_time_is_typed(page):
    found = TYPED.findall(prose((paths.root() / page).read_text(encoding="utf-8"), page))
    assert not found, f"{page}: {found}; a measured time belongs into a generated table (drstudy figures)."


@pytest.mark.parametrize(
    "text",
    [
        "about 12 minutes on two cores",
        "Under a minute as it stands",
        "three to five minutes",
        "half a minute first",
        "9.2 core-minutes",
        "it takes 40 s",
        "about 4 min",
        "two hours",
    ],
)
def test_the_rule_finds_typed_times(text):
    assert TYPED.search(text)


@pytest.mark.parametrize(
    "text",
    ["The second row", "images a second", "minutes", "10 epochs of 3 steps", "the 5 scores", "two stages"],
)
def test_and_nothing_else(text):
    assert not TYPED.search(text)


def test_generated_tables_are_left_out():
    assert prose("a <!-- begin: costs -->\n9 minutes\n<!-- end: costs --> b", "README.md") == "a  b"
