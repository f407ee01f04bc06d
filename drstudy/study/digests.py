"""What a result is made of, as digests: the text of its notebook, and the code of every module that it imports.

The digest of a module is that of what it computes: comments, docstrings and formatting are left out, and so are the dates of files. A
checkout of another branch and back, or a better sentence in a docstring, is no reason to compute anything again.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from drstudy.core import paths
from drstudy.papers import registry
from drstudy.papers.base import Stage

PACKAGE = Path(__file__).parents[1]
LENGTH = 16
"""Hexadecimal digits that are kept: enough to tell any two versions apart."""


def of_text(text: str) -> str:
    """Digest of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:LENGTH]


def cells(notebook: str) -> list[tuple[str, str]]:
    """Kind and text of a notebook's cells, without outputs."""
    content = json.loads((paths.root() / "notebooks" / f"{notebook}.ipynb").read_text(encoding="utf-8"))
    return [(cell["cell_type"], "".join(cell["source"])) for cell in content["cells"]]


def of_notebook(notebook: str) -> str:
    """Digest of a notebook's cells, prose included, without their outputs."""
    return of_text(json.dumps(cells(notebook)))


def library(notebook: str) -> dict[str, str]:
    """Digest of each module of this package that a notebook imports, directly or through others, by its path in the project."""
    code = "\n".join(text for kind, text in cells(notebook) if kind == "code")
    return of_modules(_modules(_imports(ast.parse(code), "")))


def imported_by(modules: Iterable[str]) -> dict[str, str]:
    """Digest of each of these modules and of each that they import, as :func:`library`.

    Args:
        modules: Full names, such as ``drstudy.study.report``.
    """
    return of_modules(_modules({name for module in modules for name in _with_parents(module)}))


def made_by(stage: Stage) -> dict[str, Any]:
    """What makes the result of a stage, as its record keeps it.

    Returns:
        ``notebook``, a digest; ``library``, path of a module to its digest; ``needs``, result folder of each finished stage that it needs
        to the digest of its record.
    """
    records = {folder: paths.resolve(folder) / "run.json" for folder in stage.needs}
    return {
        "notebook": of_notebook(stage.notebook),
        "library": library(stage.notebook),
        "needs": {folder: paths.sha256(file) for folder, file in records.items() if file.is_file()},
    }


def of_report(profile: str) -> dict[str, dict[str, str]]:
    """What makes the report of a profile beside its results.

    Returns:
        ``library``, path of a module to its digest, and ``files``, path of a file that the report reads to its digest.
    """
    modules = ["drstudy.study.report", *(f"drstudy.papers.{paper.id}.paper" for paper in registry.PAPERS)]
    read = [path for paper in registry.PAPERS for path in (paper.claims, *paper.checklists) if path]
    read += [path for path in (PACKAGE / "study" / "templates").iterdir() if path.is_file()]
    read += [path for path in (paths.root() / "reference" / profile).rglob("*") if path.is_file()]
    own = (paths.root() / "CITATION.cff", paths.root() / "params" / profile / "profile.yaml")
    return {
        "library": imported_by(modules),
        "files": files([*read, *(path for path in own if path.is_file())]),
    }


def of_modules(files: Iterable[Path]) -> dict[str, str]:
    """Digest of each file of this package, by its path in the project, in the order of the paths."""
    base = PACKAGE.parent
    return {file.relative_to(base).as_posix(): _parsed(*_version(file))[0] for file in sorted(files)}


def files(found: Iterable[Path]) -> dict[str, str]:
    """Digest of each file's bytes, by its path in the project, for files that are read and not run."""
    return {paths.show(file): paths.sha256(file)[:LENGTH] for file in sorted(found)}


def changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Names whose digests differ, and names that only one of the two has."""
    return [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]


def _modules(names: set[str]) -> set[Path]:
    """Files of the named modules, and of all that they import."""
    found: dict[str, Path] = {}
    unread = set(names)
    while unread:
        name = unread.pop()
        base = PACKAGE.parent.joinpath(*name.split("."))
        if (file := base / "__init__.py").is_file():
            package = name
        elif (file := base.with_suffix(".py")).is_file():
            package = name.rpartition(".")[0]
        else:
            continue  # a function or class of a module that is already there
        found[name] = file
        unread |= _imported(file, package) - found.keys()
    return set(found.values())


def _imported(file: Path, package: str) -> set[str]:
    names = _parsed(*_version(file))[1]
    return {
        part
        for name in names
        for part in _with_parents(importlib.util.resolve_name(name, package) if name[0] == "." else name)
    }


def _version(file: Path) -> tuple[Path, int, int]:
    """A file as it is now: what a cached reading of it is valid for."""
    state = file.stat()
    return file, state.st_mtime_ns, state.st_size


@functools.cache
def _parsed(file: Path, _changed: int, _size: int) -> tuple[str, frozenset[str]]:
    """Digest of a module's code, and the names that it imports as they are written."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    names = frozenset(_written(tree))
    return of_text(ast.unparse(_Code().visit(tree))), names


class _Code(ast.NodeTransformer):
    """Leaves out docstrings, and texts that stand alone to describe a name."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        return None if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str) else node

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        if hasattr(node, "body") and node.body == [] and not isinstance(node, ast.Module):
            node.body = [ast.Pass()]
        return node


def _written(tree: ast.AST) -> set[str]:
    """Every module that code may import when it runs, at its top or inside functions, as it is written; relative ones with dots."""
    names: set[str] = set()
    unread = [tree]
    while unread:
        node = unread.pop()
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            unread += node.orelse
            continue
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            names.update(
                f"{base}.{alias.name}" if node.module else f"{base}{alias.name}" for alias in node.names
            )
        unread += ast.iter_child_nodes(node)
    return {name for name in names if name.startswith(".") or name.split(".")[0] == "drstudy"}


def _imports(tree: ast.AST, package: str) -> set[str]:
    return {part for name in _written(tree) for part in _with_parents(name)}


def _with_parents(name: str) -> set[str]:
    """A module with the packages above it."""
    parts = name.split(".")
    return {".".join(parts[:end]) for end in range(1, len(parts) + 1)}
