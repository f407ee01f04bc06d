"""A copy of the project in a folder of its own, to which the paper of docs/adding_a_paper.md can be added."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat

from drstudy.core import paths

PAGE = "docs/adding_a_paper.md"
COPIED = ("drstudy", "notebooks", "params", "Snakefile", "pyproject.toml", "CITATION.cff")
BLOCK = re.compile(r"^```\w+ (file|line)=(\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CELL = re.compile(r"^# %%(?P<head>.*)\n", re.MULTILINE)


class Copy:
    """The project in a folder of its own, with its own data and results."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "project"
        self.results = folder / "results" / "smoke"
        for name in COPIED:
            source, target = paths.root() / name, self.root / name
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                self.root.mkdir(exist_ok=True)
                shutil.copy2(source, target)
        self.environment = os.environ | {
            "PYTHONPATH": str(self.root),
            "PYTHONDONTWRITEBYTECODE": "1",  # a module that is changed twice in a second is read anew
            "DRSTUDY_RESULTS": str(folder / "results"),
            "DRSTUDY_DATA": str(folder / "data"),
        }

    def files(self) -> dict[str, bytes]:
        """Content of every file, by its path."""
        found = (path for path in self.root.rglob("*") if path.is_file())
        return {path.relative_to(self.root).as_posix(): path.read_bytes() for path in found}

    def write(self, name: str, text: str) -> None:
        """Write a file; the text of a notebook has its cells after ``# %%``."""
        file = self.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".ipynb":
            nbformat.write(notebook(text), file)
        else:
            file.write_text(text, encoding="utf-8")

    def add_line(self, name: str, line: str) -> None:
        """Add a line at the end of the first parenthesis that ends on a line of its own."""
        file = self.root / name
        before, after = file.read_text(encoding="utf-8").split("\n)\n", 1)
        file.write_text(f"{before}\n{line.rstrip()}\n)\n{after}", encoding="utf-8")

    def python(self, *arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=self.environment, cwd=self.root)

    def drstudy(self, *arguments: str) -> str:
        """Run the command line of the copy; returns what it prints."""
        done = self.python("-m", "drstudy.study.cli", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def notebook(text: str) -> nbformat.NotebookNode:
    """A notebook from its cells, as jupytext writes them."""
    parts = CELL.split(text)[1:]
    cells = []
    for head, body in zip(parts[::2], parts[1::2]):
        if "[markdown]" in head:
            prose = "\n".join(line.removeprefix("#").removeprefix(" ") for line in body.strip().splitlines())
            cells.append(nbformat.v4.new_markdown_cell(prose))
        else:
            metadata = {"tags": ["parameters"]} if "parameters" in head else {}
            cells.append(nbformat.v4.new_code_cell(body.strip(), metadata=metadata))
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})


def add_example(copy: Copy) -> None:
    """Add the paper of the page to a copy, as the page says."""
    for kind, name, text in BLOCK.findall((paths.root() / PAGE).read_text(encoding="utf-8")):
        copy.write(name, text) if kind == "file" else copy.add_line(name, text)
