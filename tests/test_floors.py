"""The law of the house: every module has a room, imports go down only, and no module or function is too long to be read at once."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

import pytest

from drstudy.core import paths
from drstudy.papers import registry

ROOT = paths.root()
FLOORS = ("study", "papers", "show", "explain", "training", "evaluation", "models", "data", "core")
"""From top to bottom: a module imports from its own floor and from those after it."""

MOST_LINES, MOST_OF_A_FUNCTION = 450, 60
LONG_BY_NATURE = "drstudy/data/phantom/"
"""The drawing of synthetic eyes: its modules are left as they are, since what they draw must stay the same to the byte."""

FILES = sorted((ROOT / "drstudy").rglob("*.py"))


def name_of(file: Path) -> str:
    """``drstudy.show.figures``; of a package the package."""
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


NAMES = {name_of(file): file for file in FILES}


def package_of(file: Path) -> str:
    name = name_of(file)
    return name if file.stem == "__init__" else name.rpartition(".")[0]


class Imports(ast.NodeVisitor):
    """Modules of this package that a module imports, anywhere in it: (line, module, the names taken from it)."""

    def __init__(self, file: Path) -> None:
        self.package, self.found, self.modules = package_of(file), [], {}
        self.tree = ast.parse(file.read_text(encoding="utf-8"))
        self.visit(self.tree)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            if alias.name in NAMES:
                self.found.append((node.lineno, alias.name, ""))
                if alias.asname:
                    self.modules[alias.asname] = alias.name

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        base = importlib.util.resolve_name("." * node.level + (node.module or ""), self.package)
        for alias in node.names:
            if f"{base}.{alias.name}" in NAMES:
                self.found.append((node.lineno, f"{base}.{alias.name}", ""))
                self.modules[alias.asname or alias.name] = f"{base}.{alias.name}"
            elif base in NAMES:
                self.found.append((node.lineno, base, alias.name))


IMPORTS = {name: Imports(file) for name, file in NAMES.items()}


def floor(module: str) -> int:
    room = module.split(".")[1]
    return -1 if room == "__main__" else FLOORS.index(room)  # `python -m drstudy` is above all rooms


def paper(module: str) -> str:
    """The paper whose folder a module is in; empty for shared modules."""
    parts = module.split(".")
    return parts[2] if parts[1] == "papers" and len(parts) > 2 and parts[2] in registry.NAMES else ""


def at(module: str, line: int) -> str:
    return f"{NAMES[module].relative_to(ROOT)}:{line}"


def test_every_module_is_in_a_room():
    assert {file.name for file in (ROOT / "drstudy").glob("*.py")} == {"__init__.py", "__main__.py"}
    rooms = {file.relative_to(ROOT).parts[1] for file in FILES} - {"__init__.py", "__main__.py"}
    assert rooms == set(FLOORS)
    without = {file.parent for file in FILES if not (file.parent / "__init__.py").is_file()}
    assert not without, "every folder is a package"


def test_every_paper_has_its_folder_and_every_folder_is_of_a_paper():
    folders = {
        path.name for path in (ROOT / "drstudy" / "papers").iterdir() if (path / "__init__.py").is_file()
    }
    assert folders == set(registry.NAMES)
    assert (ROOT / "drstudy" / "papers" / "__init__.py").read_text() == "", (
        "or every paper would depend on all"
    )


def imports_where(wrong) -> list[str]:
    """Every import for which ``wrong(module, imported)`` holds, with its place."""
    return [
        f"{at(module, line)} imports {other}"
        for module, imports in IMPORTS.items()
        for line, other, _ in imports.found
        if wrong(module, other)
    ]


def test_imports_go_down():
    def wrong(module, other):
        return "drstudy" not in (module, other) and floor(other) < floor(module)

    problems = imports_where(wrong)
    assert not problems, "\n".join(problems)


def test_no_paper_imports_another_and_none_the_registry():
    def wrong(module, other):
        own = ("", paper(module))
        return paper(module) and (other == "drstudy.papers.registry" or paper(other) not in own)

    problems = imports_where(wrong)
    assert not problems, "\n".join(problems)


def test_shared_modules_do_not_import_a_paper():
    """The registry names the papers, by the names of their folders."""
    problems = imports_where(lambda module, other: not paper(module) and paper(other))
    assert not problems, "\n".join(problems)


def test_what_is_common_to_all_papers_names_no_notebook_and_no_paper():
    """Planning, report, ledger and figures go by what papers declare. (The help of the command line has examples.)"""
    words = {*registry.NOTEBOOKS, *(paper.citation for paper in registry.PAPERS if paper.claims)}
    files = [
        ROOT / "Snakefile",
        *(file for file in FILES if file.parent.name == "study" and file.name != "cli.py"),
    ]
    problems = [
        f"{file.relative_to(ROOT)} names {word}"
        for file in files
        for word in words
        if word in file.read_text(encoding="utf-8")
    ]
    assert not problems, "\n".join(problems)


def test_no_circle():
    """Modules can be put in an order in which each imports only modules before it."""
    left = {
        module: {other for _, other, _ in imports.found if other != module}
        for module, imports in IMPORTS.items()
    }
    while ready := [
        module
        for module, others in left.items()
        if not others & left.keys() or not any(module in others for others in left.values())
    ]:
        for module in ready:
            del left[module]
    assert not left, f"in a circle, or between two: {', '.join(sorted(left))}"


def test_no_module_uses_a_private_name_of_another():
    problems = []
    for module, imports in IMPORTS.items():
        problems += [
            f"{at(module, line)} imports {name} from {other}"
            for line, other, name in imports.found
            if name.startswith("_") and not name.startswith("__")
        ]
        for node in ast.walk(imports.tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                private = node.attr.startswith("_") and not node.attr.startswith("__")
                if private and node.value.id in imports.modules:
                    problems.append(f"{at(module, node.lineno)} uses {node.value.id}.{node.attr}")
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("name", registry.NAMES)
def test_a_declaration_is_light(name):
    """The command line reads all declarations at its start."""
    heavy = {"torch", "torchvision", "pandas", "numpy", "matplotlib", "scipy", "sklearn", "cv2"}
    seen, unread = set(), [f"drstudy.papers.{name}.paper"]
    while unread:
        module = unread.pop()
        seen.add(module)
        for node in IMPORTS[
            module
        ].tree.body:  # what stands at the top, and not inside a function or behind TYPE_CHECKING
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not heavy & {name.split(".")[0] for name in names}, f"{module} imports {names}"
            lines = range(node.lineno, node.end_lineno + 1)
            if isinstance(node, ast.Import | ast.ImportFrom):
                unread += [
                    other for line, other, _ in IMPORTS[module].found if line in lines and other not in seen
                ]


def test_modules_can_be_read_at_once():
    long = {}
    for file in FILES:
        name = file.relative_to(ROOT).as_posix()
        lines = len(file.read_text(encoding="utf-8").splitlines())
        if lines > MOST_LINES and not name.startswith(LONG_BY_NATURE):
            long[name] = lines
    assert not long, f"modules of more than {MOST_LINES} lines: {long}"


def test_functions_can_be_read_at_once():
    long = {}
    for module, imports in IMPORTS.items():
        if NAMES[module].relative_to(ROOT).as_posix().startswith(LONG_BY_NATURE):
            continue
        for node in ast.walk(imports.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = node.end_lineno - node.lineno + 1
                if lines > MOST_OF_A_FUNCTION:
                    long[f"{at(module, node.lineno)} {node.name}"] = lines
    assert not long, f"functions of more than {MOST_OF_A_FUNCTION} lines: {long}"
