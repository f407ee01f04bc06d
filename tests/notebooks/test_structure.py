"""Every notebook keeps the rules that CONTRIBUTING.md gives. Nothing is executed here."""

from __future__ import annotations

import ast
import json
import re
import statistics
import subprocess
import sys

import expectations
import nbformat
import pytest

from drstudy.core import paths
from drstudy.papers.registry import NOTEBOOKS

FILES = sorted((paths.root() / "notebooks").glob("*.ipynb"))
MOST_CELLS, MEDIAN_LINES, MOST_LINES, MOST_PARAMETER_LINES, MOST_COLUMNS = 32, 6, 25, 25, 110
LARGEST_FILE = 1_000_000  # bytes
GUARDED_ELSEWHERE = {
    "20_side_by_side": "tests/papers/beside recomputes its numbers from predictions and maps; those of each system are guarded with its notebook",
    "22_external_validation": "tests/papers/external tests its measures; no trained number of its smoke run is guarded",
    "23_explorer": "tests/papers/explorer tests what it reads and shows; it computes no number of its own",
}
"""Notebooks with numbers that nbval does not compare and that have no entry in tests/expected, and what guards them. One with an entry may not stand here."""
OBVIOUS = {"VARIANT", "SEED", "WEIGHT_DECAY", "LABEL_SMOOTHING"}  # their names say what a comment would
LOCAL = re.compile(r"(?<![\w.])/(?:tmp|home|root|work|Users|var|mnt)/")
ABSOLUTE = re.compile(r"""["'](?:/[A-Za-z]|~|[A-Za-z]:\\)""")


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture
def notebook(path):
    return nbformat.read(path, as_version=4)


@pytest.fixture
def code(notebook):
    """Its code cells, as (number, cell)."""
    return [(number, cell) for number, cell in enumerate(notebook.cells) if cell.cell_type == "code"]


def tags(cell) -> list[str]:
    return cell.metadata.get("tags", [])


def parameters_cell(code):
    found = [cell for _, cell in code if "parameters" in tags(cell)]
    assert len(found) == 1, (
        f"{len(found)} cells are tagged `parameters`; papermill injects after the first, the next would win"
    )
    return found[0]


def definitions(code) -> list:
    """The cells that define parameters: that of `parameters`, after which papermill injects, and before it one of rarely changed `settings`, if any."""
    cell = parameters_cell(code)
    before = [other for _, other in code if "settings" in tags(other)]
    assert len(before) <= 1
    assert [other for _, other in code][: len(before) + 1] == [*before, cell], (
        "the settings stand directly before the parameters: what papermill injects then holds for both"
    )
    return [*before, cell]


def lines(cell) -> list[str]:
    return [line for line in cell.source.splitlines() if line.strip()]


def test_every_stage_has_its_notebook():
    assert [path.stem for path in FILES] == list(NOTEBOOKS)


def test_is_valid_notebook_for_python3(notebook):
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) >= (4, 5), "cell ids keep diffs small"
    assert notebook.metadata.kernelspec.name == "python3", "a name that every machine has"


def test_opens_with_a_title_and_says_the_time(notebook):
    first = notebook.cells[0]
    assert first.cell_type == "markdown"
    assert re.match(r"# \S", first.source), "the first line is an H1 title"
    assert "?" in first.source, "the question that the notebook answers"
    assert "../README.md#what-it-costs" in first.source, "where its measured times stand"
    for cell in notebook.cells[1:]:
        assert cell.cell_type != "markdown" or not re.search(r"^# ", cell.source, re.MULTILINE), "one H1 only"


def test_parameters_are_those_of_its_class(path, code):
    cls = NOTEBOOKS[path.stem].cls
    given = {}
    for cell in definitions(code):
        assert len(lines(cell)) < MOST_PARAMETER_LINES, "move rarely changed ones to the cell `settings`"
        for node in ast.parse(cell.source).body:
            assert isinstance(node, ast.AnnAssign), (
                f"line {node.lineno}: only `NAME: type = literal`, so that papermill can show the type"
            )
            assert node.target.id not in given, f"{node.target.id} is defined twice"
            given[node.target.id] = ast.literal_eval(node.value)
            last = cell.source.splitlines()[node.end_lineno - 1]
            assert node.target.id in OBVIOUS or "# " in last[node.end_col_offset :], (
                f"{node.target.id} has no comment"
            )
    assert {"PROFILE", "VARIANT", "SEED"} <= {
        node.target.id for node in ast.parse(parameters_cell(code).source).body
    }
    assert sorted(given) == sorted(cls.names()), "every field of the class, and nothing else"
    assert cls.check(given) == cls(), "the defaults of the class: the smoke profile"


def test_parameters_are_of_the_class_it_checks(path, code):
    """The cell that checks the parameters uses the class that its paper declares for this notebook."""
    checks = [
        name for _, cell in code for name in re.findall(r"params\.(\w+)\.check\(globals\(\)\)", cell.source)
    ]
    assert checks == [NOTEBOOKS[path.stem].cls.__name__]


def test_ends_with_its_limits_and_its_record(notebook, code):
    assert code[-1][1].source.rstrip().splitlines()[-1] == "run.finish()"
    assert notebook.cells[-1] is code[-1][1], "nothing after the record"
    prose = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    assert re.search(r"^## What this shows, and what it does not$", prose[-1], re.MULTILINE)


def test_is_short(notebook, code):
    rest = [(number, cell) for number, cell in code if not {"parameters", "settings"} & set(tags(cell))]
    assert len(notebook.cells) - len(definitions(code)) < MOST_CELLS
    assert statistics.median(len(lines(cell)) for _, cell in rest) <= MEDIAN_LINES
    long = {number: len(lines(cell)) for number, cell in rest if len(lines(cell)) > MOST_LINES}
    assert not long, f"cells with more than {MOST_LINES} lines: {long}; move code to the library"


def test_code_is_thin_and_runs_anywhere(code):
    problems = []
    for number, cell in code:
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                problems.append(
                    f"cell {number} defines {node.name}: it belongs in the library, where it can be tested"
                )
        for line in cell.source.splitlines():
            if line.rstrip().endswith(";"):
                problems.append(
                    f"cell {number} ends in `;`: nbval shows the value all the same. Use `_ = ...`"
                )
            if ABSOLUTE.search(line):
                problems.append(f"cell {number} has an absolute path: {line.strip()}")
            if ".cuda(" in line or "cuda:0" in line:
                problems.append(f"cell {number} asks for CUDA: use compute.device")
    assert not problems, "\n".join(problems)


def test_lines_are_short_and_have_one_statement(code):
    problems = []
    for number, cell in code:
        problems += [
            f"cell {number}: {len(line)} columns: {line}"
            for line in cell.source.splitlines()
            if len(line) > MOST_COLUMNS
        ]
        statements = [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.stmt)]
        begun = [node.lineno for node in statements]
        problems += [
            f"cell {number}, line {line}: several statements" for line in {*begun} if begun.count(line) > 1
        ]
    assert not problems, "\n".join(problems)


def test_notebooks_are_linted_like_the_library():
    """Every rule of pyproject.toml holds for them too; the formatter leaves them alone (comments of parameters stand in a column)."""
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format", "concise", "notebooks"]
    done = subprocess.run(command, cwd=paths.root(), capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout + done.stderr
    listed = subprocess.run(
        [*command[:4], "--show-files", "notebooks"], cwd=paths.root(), capture_output=True, encoding="utf-8"
    )
    assert len([line for line in listed.stdout.splitlines() if line.endswith(".ipynb")]) == len(FILES)


def test_was_executed_in_order_without_error(code):
    """Readers see what a fresh run prints, and nbval compares it: stripped outputs would switch nbval off."""
    assert [cell.execution_count for _, cell in code] == list(range(1, len(code) + 1)), "run `make notebooks`"
    problems = [
        f"cell {number} shows an error: {output.ename}"
        for number, cell in code
        for output in cell.outputs
        if output.output_type == "error"
    ]
    assert not problems, "\n".join(problems)
    shown = sum(bool(cell.outputs) for _, cell in code)
    assert shown >= len(code) / 2, (
        f"only {shown} of {len(code)} code cells have outputs: run `make notebooks`"
    )


def test_nbval_compares_at_least_half(path, code):
    """At least half of the code cells are compared. (nbval leaves pictures out: of a cell with a figure it compares the size of the figure.)"""
    compared = [cell for _, cell in code if "nbval-ignore-output" not in tags(cell)]
    shown = [cell for cell in compared if cell.outputs]
    assert shown, "no output is compared"
    share = len(compared) / len(code)
    assert share >= 0.5, f"{len(compared)} of {len(code)} code cells are compared"


def test_numbers_that_nbval_does_not_compare_are_guarded_elsewhere(path, code):
    """(The line on the machine at the top, and the line of the record at the end, have no result.)"""
    ignored = [
        cell
        for _, cell in code
        if "nbval-ignore-output" in tags(cell)
        and "records.environment(" not in cell.source
        and cell.source != "run.finish()"
    ]
    expected = path.stem in {one.stage.partition("/")[0] for one in expectations.load()}
    elsewhere = path.stem in GUARDED_ELSEWHERE
    if ignored:
        assert expected != elsewhere, "an entry in tests/expected, or else a reason"


def test_outputs_are_clean(path, notebook, code):
    assert path.stat().st_size < LARGEST_FILE
    assert "papermill" not in notebook.metadata
    problems = []
    for number, cell in enumerate(notebook.cells):
        if set(cell.metadata) - {"tags"}:
            problems.append(f"cell {number} has metadata {sorted(set(cell.metadata) - {'tags'})}")
        if "injected-parameters" in tags(cell):
            problems.append(f"cell {number} was injected by papermill")
    for number, cell in code:
        if any(output.get("name") == "stderr" for output in cell.outputs):
            problems.append(f"cell {number} shows stderr")
        text = [
            {k: v for k, v in output.get("data", output).items() if not k.startswith("image/")}
            for output in cell.outputs
        ]
        if LOCAL.search(json.dumps(text)):
            problems.append(f"cell {number} shows a path of one machine")
    assert not problems, "\n".join([*problems, "`make notebooks` cleans most of this"])
