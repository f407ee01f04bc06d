"""The benchmarks run, alternate, compare results and say so in one JSON line each."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from drstudy.core import paths

FOLDER = paths.root() / "benchmarks"
SHARED = ("side_by_side", "run_all", "results_page")
SCRIPTS = sorted(file.stem for file in FOLDER.glob("*.py") if file.stem not in SHARED)


@pytest.fixture(autouse=True)
def beside_the_scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))


def script(name: str, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(FOLDER / f"{name}.py"), *arguments], capture_output=True, text=True
    )


def test_run_all_knows_every_script():
    import run_all

    assert sorted(run_all.SCRIPTS) == SCRIPTS


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_says_what_its_sizes_are(name):
    done = script(name, "--help")
    assert done.returncode == 0, done.stderr
    assert "--quick" in done.stdout


def test_sides_alternate_and_the_order_turns():
    from side_by_side import alternate

    called = []
    seconds, results = alternate(
        {"a": lambda: called.append("a") or 1, "b": lambda: called.append("b") or 2}, 4
    )
    assert "".join(called) == "ab" + "ab" + "ba" + "ab" + "ba"
    assert results == {"a": 1, "b": 2}
    assert set(seconds) == {"a", "b"}
    assert all(value >= 0 for value in seconds.values())


def test_a_benchmark_prints_one_line_with_its_ratio():
    done = script("bootstrap", "--quick")
    assert done.returncode == 0, done.stderr
    (line,) = map(json.loads, done.stdout.splitlines())
    assert line["name"] == "bootstrap"
    assert line["same_result"] is True
    assert line["ratio"] == pytest.approx(line["other"] / line["ours"], rel=1e-2)  # four digits are printed
