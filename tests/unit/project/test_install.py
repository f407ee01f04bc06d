"""The installation shows how far it is: pip's lines are counted, and what is in its place."""

from __future__ import annotations

import importlib.util
import io
import sys

import pytest

from drstudy.core import paths

SAID = """
Obtaining file:///study
Collecting torch>=2.6 (from drstudy==0.1.0)
  Downloading torch-2.9.1-cp311-cp311-manylinux_2_28_x86_64.whl.metadata (30 kB)
Requirement already satisfied: numpy>=2.0 in ./site-packages (2.1)
Processing /wheels/psutil-7.2.2-cp36-abi3-manylinux2010_x86_64.whl (from drstudy==0.1.0)
Collecting filelock>=3.16 (from drstudy==0.1.0)
  Using cached filelock-4.2.11-py3-none-any.whl (15 kB)
Downloading torch-2.9.1-cp311-cp311-manylinux_2_28_x86_64.whl (899.7 MB)
"""


@pytest.fixture
def install():
    spec = importlib.util.spec_from_file_location("install_script", paths.root() / "tools" / "install.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def progress(install, tmp_path):
    (tmp_path / "pip-25.dist-info").mkdir()
    return install.Progress(tmp_path, known=250)


def read(progress, text: str) -> None:
    for line in text.splitlines():
        progress.read(line)


def test_packages_and_megabytes_are_counted_while_pip_downloads(progress):
    read(progress, SAID)
    assert progress.found == {"torch", "numpy", "filelock", "psutil"}
    assert progress.megabytes == pytest.approx(899.7 + 0.015)
    said = progress.text(75)
    assert said == "downloading: 4 of at most 250 packages, 900 MB, now torch (899.7 MB), 1:15"


def test_packages_in_their_place_are_counted_while_pip_installs(progress, tmp_path):
    read(progress, SAID + "Installing collected packages: mpmath, filelock, torch, drstudy\n")
    assert progress.text(0) == "installing: 0 of 4 packages are in their place, 0:00"
    for name in ("mpmath-1", "filelock-4"):
        (tmp_path / f"{name}.dist-info").mkdir()
    assert progress.text(100) == "installing: 2 of 4 packages are in their place, 1:40"


def run(install, progress, tmp_path, code: str):
    out = io.StringIO()
    status, last = install.run([sys.executable, "-u", "-c", code], progress, tmp_path / "log", out)
    return status, last, out.getvalue(), (tmp_path / "log").read_text(encoding="utf-8")


def test_a_log_gets_a_line_now_and_then_and_pips_output_is_kept(install, progress, tmp_path, monkeypatch):
    monkeypatch.setattr(install, "EVERY_TERMINAL", 0.05)
    monkeypatch.setattr(install, "EVERY_LOG", 0.1)
    code = "import time\nprint('Collecting torch')\ntime.sleep(1)\nprint('Installing collected packages: torch, sympy')"
    status, _, shown, log = run(install, progress, tmp_path, code)
    assert status == 0
    lines = shown.splitlines()
    assert len(lines) > 2
    assert "downloading: 1 of at most 250 packages, 0 MB, 0:00" in lines
    assert lines[-1].startswith("installed 2 packages in ")
    assert "\r" not in shown
    assert log.splitlines()[0] == "Collecting torch"


def test_a_terminal_gets_one_line_that_is_written_over(install, progress, tmp_path, monkeypatch):
    monkeypatch.setattr(install, "EVERY_TERMINAL", 0.05)

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    out = Terminal()
    code = "import time; print('Collecting torch'); time.sleep(0.6)"
    install.run([sys.executable, "-u", "-c", code], progress, tmp_path / "log", out)
    assert out.getvalue().count("\r") > 2
    assert out.getvalue().count("\n") == 2, "one at its end, one after what was installed"


def test_a_failure_ends_with_pips_last_lines(install, progress, tmp_path):
    code = "import sys\nprint('ERROR: No matching distribution found for torch')\nsys.exit(1)"
    status, last, shown, _ = run(install, progress, tmp_path, code)
    assert status == 1
    assert last == ["ERROR: No matching distribution found for torch"]
    assert "installed" not in shown


def test_the_makefile_installs_by_this_script_and_nothing_is_silent():
    text = (paths.root() / "Makefile").read_text(encoding="utf-8")
    assert text.count("tools/install.py $(VENV)") == 2
    assert "-qq" not in text
