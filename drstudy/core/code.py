"""Which code a result depends on, by its text: imports followed through the package, and digests that prose does not change."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
from collections.abc import Iterable, Iterator
from pathlib import Path

PACKAGE = "drstudy"

ROOT = Path(__file__).resolve().parents[2]
"""The folder that holds the package; paths of modules are relative to it."""


def file_of(module: str) -> Path | None:
    """The file of a module or package of this project by its dotted name; ``None`` for a name that is neither."""
    base = ROOT.joinpath(*module.split("."))
    if (file := base / "__init__.py").is_file():
        return file
    return file if (file := base.with_suffix(".py")).is_file() else None


def imported(text: str, package: str = "") -> set[str]:
    """Names of all modules of this project that code may import when it runs, at its top or inside functions, with the packages
    above them. What only a type checker imports (``if TYPE_CHECKING:``) does not count.

    Args:
        text: Python source.
        package: In which it stands, for relative imports.
    """
    names: set[str] = set()
    for node in _running(ast.parse(text)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            names.update(f"{base}.{alias.name}" for alias in node.names)
    parts = [name.split(".") for name in names if name.split(".")[0] == PACKAGE]
    found = {".".join(part[:end]) for part in parts for end in range(1, len(part) + 1)}
    return {name for name in found if file_of(name)}


def _running(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes of code, without those that only a type checker reads."""
    unread = [tree]
    while unread:
        node = unread.pop()
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            unread += node.orelse
        else:
            yield node
            unread += ast.iter_child_nodes(node)


@functools.cache
def _imports_of(module: str, stamp: int) -> frozenset[str]:
    file = file_of(module)
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    return frozenset(imported(file.read_text(encoding="utf-8"), package))


def closure(modules: Iterable[str]) -> set[str]:
    """The modules and all that they import, directly or through others."""
    found: set[str] = set()
    unread = [name for name in modules if file_of(name)]
    while unread:
        name = unread.pop()
        if name not in found:
            found.add(name)
            unread += _imports_of(name, file_of(name).stat().st_mtime_ns) - found
    return found


def digest(file: Path) -> str:
    """SHA-256 of Python code as it runs: comments, docstrings and layout do not count."""
    return _digest(file, file.stat().st_mtime_ns)


@functools.cache
def _digest(file: Path, stamp: int) -> str:
    return digest_of_text(file.read_text(encoding="utf-8"))


def digest_of_text(text: str) -> str:
    """As :func:`digest`, of source text."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            kept = [one for one in body if not _is_prose(one)]
            node.body = kept or [ast.Pass()] if body else kept
    return hashlib.sha256(ast.unparse(tree).encode()).hexdigest()


def _is_prose(node: ast.stmt) -> bool:
    """Whether a statement is a string that nothing uses: a docstring of a module, class, function or constant."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def digests(modules: Iterable[str]) -> dict[str, str]:
    """Path of each module's file (``drstudy/show/style.py``) to :func:`digest`, sorted."""
    files = sorted(file_of(name) for name in modules)
    return {file.relative_to(ROOT).as_posix(): digest(file) for file in files}
