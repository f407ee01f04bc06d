"""The benchmarks run, alternate, compare results and say so in one JSON line each."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from drstudy.core import paths

FOLDER = paths.root() / "benchmarks"
SCRIPTS = sorted(file.stem for file in FOLDER.glob("*.py") if file.stem not in ("side_by_side", "run_all"))


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


def test_the_page_names_what_is_not_the_same():
    import run_all

    row = {"script": "x", "options": "", "name": "x", "ours": 1.0, "other": 3.0, "ratio": 3.0, "unit": "s"}
    page = run_all.page(
        [row | {"same_result": False, "gap": 0.5, "processor": "P, 2 cores"}, row | {"same_result": None}]
    )
    assert "| x | P, 2 cores | 3.00 | - | 1.0 | 3.0 | s | **no** | gap 0.5 |" in page
    assert "| x |  | 3.00 |" in page, "a row that is older than the column"
    assert "not asked" in page


@pytest.mark.parametrize(
    ("name", "ratio", "told"),
    [
        ("heatmaps densenet121, three layers, against grad-cam", 9.99, "10 **(missed)**"),
        ("heatmaps densenet121, three layers, against medcam", 2.0, "-"),
        ("prepare_images", 5.0, "5"),
        ("prepare_images_two_processes", 1.7, "1.8 **(missed)**"),
        ("fine_tune densenet121 against the same recipe", 19.0, "25 **(missed)**"),
    ],
)
def test_the_page_says_what_was_wanted_and_missed(name, ratio, told):
    import run_all

    assert run_all.wanted({"name": name, "ratio": ratio}) == told
