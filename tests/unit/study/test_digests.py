"""Digests of what makes a result: they change with what is computed, and with nothing else."""

from __future__ import annotations

import ast
import os
import subprocess
import sys

import nbformat
import pytest

from drstudy.core import paths
from drstudy.papers import registry
from drstudy.papers.base import AUDIT
from drstudy.study import digests, plan


def test_a_file_that_was_only_touched_has_the_same_digest():
    before = digests.library(AUDIT)
    for name in before:
        os.utime(paths.root() / name)
    assert digests.library(AUDIT) == before


def test_the_digest_of_a_notebook_is_of_its_text_not_of_its_outputs(own_folders, monkeypatch):
    (own_folders / "notebooks").mkdir()
    monkeypatch.setattr(paths, "root", lambda: own_folders)
    file = own_folders / "notebooks" / f"{AUDIT}.ipynb"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 + 1")])
    nbformat.write(notebook, file)
    before = digests.of_notebook(AUDIT)
    notebook.cells[-1].outputs = [nbformat.v4.new_output("stream", text="2")]
    notebook.cells[-1].execution_count = 7
    nbformat.write(notebook, file)
    assert digests.of_notebook(AUDIT) == before
    notebook.cells[-1].source = "1 + 2"
    nbformat.write(notebook, file)
    assert digests.of_notebook(AUDIT) != before


@pytest.mark.parametrize("notebook", list(registry.NOTEBOOKS))
def test_library_holds_every_module_that_importing_loads(notebook):
    """Against the interpreter: the notebook's own import lines, run, and the drstudy modules that are then there."""
    lines = [
        ast.unparse(node)
        for kind, text in digests.cells(notebook)
        if kind == "code"
        for node in ast.parse(text).body
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    show = "import sys\nfor m in list(sys.modules.values()):\n    if m.__name__.split('.')[0] == 'drstudy': print(m.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", "\n".join([*lines, show])], capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert len(loaded) > 5
    assert loaded <= {str(paths.root() / name) for name in digests.library(notebook)}


def test_library_sees_imports_inside_functions_but_not_those_of_type_checkers():
    found = digests.library(AUDIT)
    assert "drstudy/data/phantom/rendering.py" in found, "sources imports the phantom where it is asked for"
    assert "drstudy/training/loop.py" not in found
    assert not [name for name in found if name.startswith("drstudy/study/")]


def test_what_the_report_reads_is_among_what_makes_it():
    found = digests.of_report("demo")
    for name in (
        "study/report",
        "study/claims",
        "papers/transfer/facts",
        "papers/ram/measures",
        "papers/ram/paper",
    ):
        assert f"drstudy/{name}.py" in found["library"]
    for name in (
        "params/demo/profile.yaml",
        "drstudy/papers/ram/claims.yaml",
        "reference/demo/tolerances.csv",
    ):
        assert name in found["files"]


def test_no_notebook_depends_on_the_declarations_of_papers():
    """Another caption, claim or figure of the README must not run a stage again, but for one that shows what papers declare."""
    showing = {one.name for paper in registry.PAPERS if paper.across for one in paper.notebooks}
    assert showing == {"20_side_by_side", "23_explorer"}
    for notebook in showing:
        found = digests.library(notebook)
        assert {f"drstudy/papers/{name}/paper.py" for name in registry.NAMES} <= found.keys()
        assert "drstudy/papers/glam/claims.yaml" in found
    for notebook in registry.NOTEBOOKS.keys() - showing:
        assert not [
            name for name in digests.library(notebook) if name.endswith(("/paper.py", "/registry.py"))
        ]


def test_made_by_names_the_records_of_the_stages_before(own_folders):
    stage = plan.stage("02", "smoke")
    assert digests.made_by(stage)["needs"] == {}
    record = paths.resolve(stage.needs[0]) / "run.json"
    record.parent.mkdir(parents=True)
    record.write_text("{}")
    assert digests.made_by(stage)["needs"] == {"results/smoke/01_data_audit": paths.sha256(record)}
