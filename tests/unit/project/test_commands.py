"""Every command that a page tells a reader to type exists."""

import re

import pytest
import typer

from drstudy.core import paths
from drstudy.study import cli

CODE = re.compile(r"```[a-z]*\n(.*?)```|`([^`\n]+)`", re.DOTALL)
DRSTUDY = re.compile(r"(?:^|[\s/(])drstudy ((?:[a-z]+ ?)+|--[a-z]+)")
MAKE = re.compile(r"(?:^|[\s(])make ([a-z]+)\b")


def pages() -> list[str]:
    """Pages for readers; the changelog tells history and is left out."""
    root = paths.root()
    found = [
        *root.glob("*.md"),
        *root.glob("docs/*.md"),
        root / "params" / "README.md",
        root / "tests" / "README.md",
    ]
    return sorted(path.relative_to(root).as_posix() for path in found if path.name != "CHANGELOG.md")


def code(text: str) -> str:
    """Blocks and spans of code of a page, one after the other, without comments of any kind."""
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    found = "\n".join(block or span for block, span in CODE.findall(text))
    return re.sub(r"(^|\s)#.*", "", found)


def unknown(text: str) -> list[str]:
    """Commands in the code of a page that do not exist."""
    top = typer.main.get_command(cli.app)
    groups = {name: set(getattr(command, "commands", {})) for name, command in top.commands.items()}
    targets = set(re.findall(r"^([a-z]+):.*##", (paths.root() / "Makefile").read_text(), re.MULTILINE))
    found = []
    for words in DRSTUDY.findall(code(text)):
        first, *rest = words.split()
        if not first.startswith("-") and (
            first not in groups or (groups[first] and (not rest or rest[0] not in groups[first]))
        ):
            found.append(f"drstudy {words.strip()}")
    return found + [f"make {name}" for name in MAKE.findall(code(text)) if name not in targets]


@pytest.mark.parametrize("page", pages())
def test_commands_exist(page):
    assert unknown((paths.root() / page).read_text(encoding="utf-8")) == []


def test_the_rule_finds_what_does_not_exist():
    text = "`drstudy fly` and `make bread`, drstudy fly in prose\n```sh\n.venv/bin/drstudy data check folder  # make bread\ndrstudy data fly\n```\n`drstudy --help`"
    assert unknown(text) == ["drstudy fly", "drstudy data fly", "make bread"]
