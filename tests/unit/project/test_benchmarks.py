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


def test_commands_that_start_afresh_need_no_run_before_they_are_measured():
    from side_by_side import alternate

    called = []
    seconds, results = alternate({"a": lambda: called.append("a") or 1}, 3, warm=False)
    assert called == ["a"] * 3
    assert results == {"a": 1}
    assert list(seconds) == ["a"]


@pytest.mark.parametrize(
    ("name", "sizes", "title"),
    [
        ("bootstrap", (), "bootstrap"),
        (
            "paired",
            ("--patients=200", "--resamples=50", "--few=80", "--compared=100"),
            "bootstrap of a paired difference, against scipy",
        ),
    ],
)
def test_a_benchmark_prints_one_line_with_its_ratio(name, sizes, title):
    done = script(name, "--quick", *sizes)
    assert done.returncode == 0, done.stderr
    (line,) = map(json.loads, done.stdout.splitlines())
    assert line["name"] == title
    assert line["same_result"] is True
    assert line["ratio"] == pytest.approx(line["other"] / line["ours"], rel=1e-2)  # four digits are printed


def test_a_statistic_of_scipys_side_is_the_difference_of_two_models_on_the_drawn_patients():
    import numpy as np
    from bootstrap import cohort
    from paired import Users, every_metric, second_model
    from sklearn.metrics import accuracy_score

    first = cohort(60)
    second = second_model(first)
    users = Users(first, second, {"accuracy": every_metric()["accuracy"]})
    drawn = np.array([5, 5, 17])
    ids = np.unique(first["patient_id"])[drawn]
    some = [frame.set_index("patient_id").loc[ids] for frame in (first, second)]
    columns = [f"p{k}" for k in range(5)]
    accuracy = [accuracy_score(one["grade"], one[columns].to_numpy().argmax(1)) for one in some]
    assert len(some[0]) == 6
    assert users(drawn) == pytest.approx([accuracy[0] - accuracy[1]])
