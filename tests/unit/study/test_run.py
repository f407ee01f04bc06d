"""One stage and what counts as its success: only a finished record of the very run."""

from __future__ import annotations

import ast
import builtins
import importlib
import json
import os
import subprocess
import sys
import time

import nbclient
import nbformat
import pytest

from drstudy.core import paths, records
from drstudy.core.params import ParameterError
from drstudy.papers.base import AUDIT, Stage
from drstudy.papers.transfer import params
from drstudy.study import digests, failures, plan, remedies, run

FINISH = """
from drstudy.core import records
from drstudy.papers.transfer import params
run = records.start(params.DataAudit.check(globals()))
"""


def test_lines_are_whole_and_prefixed(capsys):
    lines = run.Lines("03 x")
    lines.write("half")
    assert capsys.readouterr().out == ""
    lines.write(" a line\n\nnext\n")
    assert capsys.readouterr().out == "[03 x]   half a line\n[03 x]   next\n"


def test_papermill_is_imported_without_what_costs_seconds_and_is_not_needed():
    code = (
        "import sys\nfrom drstudy.study import run\nassert run.load_papermill() is sys.modules['papermill']\n"
        "assert not {'pyarrow', 'rfc3987_syntax', 'lark', 'torch', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_module_that_was_imported_stays_where_another_is_hidden():
    with run.without("json", "sched"):
        assert sys.modules["json"] is json
        with pytest.raises(ImportError):
            importlib.import_module("sched")
    assert importlib.import_module("sched") is sys.modules["sched"]


def test_two_processes_cannot_work_in_one_folder(tmp_path):
    code = "import sys, pathlib; from drstudy.study import run\nwith run.alone(pathlib.Path(sys.argv[1]), 'it'): print('in')"

    def other():
        return subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)

    with run.alone(tmp_path, "it"):
        refused = other()
    assert refused.returncode == 1
    assert "Another process is running it" in refused.stderr
    assert other().stdout == "in\n"


def test_unknown_parameter_is_refused_before_a_kernel_starts(own_folders, monkeypatch):
    monkeypatch.setattr("papermill.execute_notebook", lambda *_, **__: pytest.fail("a kernel was started"))
    stage = plan.stage("03", "smoke", "densenet121-seed0")
    with pytest.raises(
        ParameterError, match=r"EPOHCS is not a parameter of this notebook; did you mean EPOCHS\?"
    ):
        run.run(stage, {"EPOHCS": 3})
    with pytest.raises(ParameterError, match="EPOCHS = 0"):
        run.run(stage, {"EPOCHS": 0})
    with pytest.raises(ParameterError, match=r"WITHOUT_PRETRAINING: EPOHCS .* did you mean EPOCHS\?"):
        run.run(stage, {"WITHOUT_PRETRAINING": {"EPOHCS": 3}})
    assert not stage.record.parent.exists()


@pytest.fixture
def root(own_folders, monkeypatch):
    """A root of its own, for stand-ins of notebook 01."""
    (own_folders / "notebooks").mkdir()
    monkeypatch.setattr(paths, "root", lambda: own_folders)
    return own_folders


def write_notebook(root, code: str) -> None:
    cells = [
        nbformat.v4.new_markdown_cell("# A stand-in"),
        nbformat.v4.new_code_cell("SEED: int = 0", metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(code),
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(notebook, root / "notebooks" / f"{AUDIT}.ipynb")


STAGE = Stage(params.DataAudit, "smoke")


def attempt(root, code: str) -> dict:
    """Run a stand-in that must fail; returns its ``failure.json``."""
    write_notebook(root, code)
    with pytest.raises(run.StageError, match=r"failure\.json") as caught:
        run.run(STAGE, {"SEED": 5})
    failure = json.loads(STAGE.record.with_name("failure.json").read_text())
    assert failure["params"]["SEED"] == 5
    assert failure["reason"] in str(caught.value)
    assert str(caught.value) == f"01 failed. {failures.read(STAGE)}"
    assert "drstudy run 01_data_audit --profile smoke" in str(caught.value)
    with pytest.raises(records.RecordError):
        records.load(STAGE.folder)
    return failure


@pytest.mark.notebook
def test_finished_record_is_success_and_clears_an_older_failure(root):
    attempt(root, "raise OSError('the disk is full')")
    write_notebook(root, FINISH + "run.metric(seed=SEED)\nrun.finish()")
    record = run.run(STAGE, {"SEED": 5})
    assert record.metrics == {"seed": 5}
    assert record.params["SEED"] == 5
    assert not STAGE.record.with_name("failure.json").exists()
    assert record.data["made_by"] == digests.made_by(STAGE), "what reasons.why compares"
    assert not {records.RUN_ID, records.MADE_BY} & set(os.environ)
    executed = nbformat.read(record.path("executed.ipynb"), 4)
    assert "SEED = 5" in executed.cells[2].source


@pytest.mark.notebook
def test_what_is_set_holds_for_the_cell_of_settings_too_and_papermill_does_not_warn(root, caplog):
    """papermill knows the cell tagged `parameters` only, and injects after it."""
    write_notebook(root, FINISH + "run.metric(seed=SEED, size=IMAGE_SIZE)\nrun.finish()")
    file = root / "notebooks" / f"{AUDIT}.ipynb"
    notebook = nbformat.read(file, 4)
    settings = nbformat.v4.new_code_cell("IMAGE_SIZE: int = 128", metadata={"tags": ["settings"]})
    notebook.cells.insert(1, settings)
    nbformat.write(notebook, file)
    assert run.run(STAGE, {"SEED": 5, "IMAGE_SIZE": 96}).metrics == {"seed": 5, "size": 96}
    assert "Passed unknown parameter" not in caplog.text


@pytest.mark.notebook
def test_the_kernel_is_of_the_interpreter_that_runs(root, monkeypatch):
    """A kernel that is named python3 and starts something else is not taken."""
    kernel = root / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    other = {"argv": ["/bin/false", "{connection_file}"], "display_name": "Python 3", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(other))
    monkeypatch.setenv("JUPYTER_PATH", str(root / "jupyter"))
    write_notebook(root, "import sys\n" + FINISH + "run.metric(interpreter=sys.executable)\nrun.finish()")
    assert run.run(STAGE).metrics == {"interpreter": sys.executable}


@pytest.mark.notebook
def test_failing_cell_is_told_with_its_error(root):
    failure = attempt(root, "raise OSError('the disk is full')")
    assert failure["reason"] == "OSError: the disk is full"
    assert failure["cell"] == {
        "number": 3,
        "heading": "A stand-in",
        "lines": [">   1 | raise OSError('the disk is full')"],
    }
    assert any("OSError" in line for line in failure["traceback"])
    assert not any("\x1b" in line for line in failure["traceback"])
    assert (paths.resolve(failure["executed"])).is_file()


@pytest.mark.notebook
def test_killed_kernel_is_no_success(root):
    failure = attempt(root, "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    assert "died" in failure["reason"]


@pytest.mark.notebook
def test_leaving_early_is_no_success(root):
    """papermill itself exits 0 here."""
    failure = attempt(root, FINISH + "import sys\nsys.exit(0)\nrun.finish()")
    assert failure["reason"].startswith("it ended without a finished record")


@pytest.mark.notebook
def test_record_of_another_run_is_no_success(root):
    failure = attempt(root, FINISH + "import os\nos.environ['DRSTUDY_RUN_ID'] = 'another'\nrun.finish()")
    assert failure["reason"] == "its record is of another run"


@pytest.mark.notebook
def test_record_does_not_outlive_a_failure_after_it(root):
    failure = attempt(root, FINISH + "run.finish()\nraise ValueError('too late')")
    assert failure["reason"] == "ValueError: too late"


LONG = """def work(n):
    return 1 / n

a = 1
b = 2
c = 3
d = 4
e = work(0)
f = 5
g = 6
h = 7
i = 8"""


@pytest.mark.notebook
def test_a_long_cell_is_shown_around_its_failing_line(root):
    failure = attempt(root, LONG)
    said = failures.read(STAGE)
    assert failure["cell"]["lines"] == [
        "      | ...",
        "    5 | b = 2",
        "    6 | c = 3",
        "    7 | d = 4",
        ">   8 | e = work(0)",
        "    9 | f = 5",
        "   10 | g = 6",
        "   11 | h = 7",
        "      | ...",
    ]
    assert said.splitlines()[:2] == ["ZeroDivisionError: division by zero", '  Cell [3], under "A stand-in":']
    assert f"What to do: {remedies.UNFORESEEN}" in said
    assert "Run this stage alone: drstudy run 01_data_audit --profile smoke" in said
    assert failures.read(STAGE, since=time.time() + 60) == "", "an older failure is not of this run"


@pytest.mark.parametrize(
    ("name", "message", "remedy"),
    [
        ("OSError", "[Errno 28] No space left on device: '/x'", remedies.REMEDIES[28]),
        ("MemoryError", "", remedies.MEMORY),
        ("RuntimeError", "[enforce fail] DefaultCPUAllocator: can't allocate memory", remedies.MEMORY),
        ("OutOfMemoryError", "CUDA out of memory. Tried to allocate 2 GiB", remedies.MEMORY),
        ("DeadKernelError", "Kernel died", remedies.BY_NAME["DeadKernelError"]),
        ("ModuleNotFoundError", "No module named 'x'", remedies.BY_NAME["ModuleNotFoundError"]),
        ("RecordError", "results/x is missing", remedies.BY_NAME["RecordError"]),
        ("ZeroDivisionError", "division by zero", remedies.UNFORESEEN),
    ],
)
def test_every_error_has_a_remedy(name, message, remedy):
    assert remedies.of(name, message) == remedy


def test_every_class_with_a_remedy_exists():
    """Names in the table are of Python, of the packages that raise them, or of this project."""
    own = {
        node.name
        for file in (paths.root() / "drstudy").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    }
    others = {"OutOfMemoryError", "DeadKernelError"}
    assert {name for name in remedies.BY_NAME if not hasattr(builtins, name)} - own == others
    assert hasattr(nbclient.exceptions, "DeadKernelError")
