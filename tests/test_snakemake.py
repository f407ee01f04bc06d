"""Snakemake runs what the reasons say, for every kind of change, and nothing for a change that changes nothing.

In a copy of the project with two small notebooks: the one of docs/adding_a_paper.md, and one that reads its result.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time

import pytest
from example_paper import Copy, add_example

pytestmark = [pytest.mark.notebook, pytest.mark.slow]

AFTER = {
    "drstudy/papers/after/__init__.py": "",
    "drstudy/papers/after/params.py": """
from typing import ClassVar
from drstudy.core.params import Parameters, Variant

class After(Parameters):
    notebook: ClassVar[str] = "30_after"
    variant: Variant = "a-seed0"
    example: str = "results/smoke/19_example"
""",
    "drstudy/papers/after/paper.py": """
from drstudy.papers.after.params import After
from drstudy.papers.base import Notebook, Paper, Stage

def stages(profile):
    example = f"results/{profile.name}/19_example"
    return [Stage(After, profile.name, "a-seed0", {"EXAMPLE": example}, (example,))]

PAPER = Paper(id="after", citation="After", question="?", notebooks=(Notebook(After),), stages=stages)
""",
    "notebooks/30_after.ipynb": """# %% tags=["parameters"]
PROFILE: str = "smoke"
# %%
from drstudy.core import records
from drstudy.papers.after.params import After
run = records.start(After.check(globals()))
# %%
run.metric(rows=len(records.upstream(run.parameters.example, run).path("tables/prevalence.csv").read_text()))
# %%
run.finish()
""",
}
REGISTRY = "drstudy/papers/registry.py"
TABLES, NOTEBOOK = "drstudy/papers/example/tables.py", "notebooks/30_after.ipynb"
EXAMPLE, THEN = "19_example", "30_after/a-seed0"
ASK = """
import json, sys
from drstudy.study import execute
found = execute.pending("smoke", "", "all")
print(json.dumps([found, execute.command("smoke", "all", "", 1, "--dry-run")]))
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """Both stages and the report, finished."""
    made = Copy(tmp_path_factory.mktemp("copy"))
    add_example(made)
    for name, text in AFTER.items():
        made.write(name, text)
    text = re.sub(
        r"NAMES = \(.*?\n\)", 'NAMES = ("example", "after")', made.files()[REGISTRY].decode(), flags=re.DOTALL
    )
    made.write(REGISTRY, text)
    assert "done in" in made.drstudy("reproduce", "--profile", "smoke", "--study", "all")
    return made


def edit(name: str, old: str, new: str):
    """A function that replaces text in a file of the copy, and returns what undoes that."""

    def change(copy: Copy):
        file = copy.root / name
        before = file.read_text()
        assert old in before
        file.write_text(before.replace(old, new))
        return lambda: file.write_text(before)

    return change


def move_away(name: str):
    """A function that removes a file of the results, and returns what undoes that."""

    def change(copy: Copy):
        file, kept = copy.results / name, copy.results.parent / "kept"
        shutil.move(file, kept)
        return lambda: shutil.move(kept, file)

    return change


def new_file(name: str, text: str):
    """A function that adds a file to the copy, and returns what undoes that."""

    def change(copy: Copy):
        copy.write(name, text)
        return lambda: (copy.root / name).unlink()

    return change


def touch(copy: Copy):
    """Every file of the copy gets the present date, as after a checkout."""
    for file in copy.root.rglob("*"):
        os.utime(file)
    return lambda: None


def decided(copy: Copy, command: list[str]) -> set[str]:
    """Names of the results that Snakemake would make."""
    loud = [word for word in command if word not in ("--quiet", "rules", "progress", "host")]
    done = copy.python(*loud[1:])
    assert done.returncode == 0, done.stdout + done.stderr
    outputs = re.findall(r"^ +output: (.+)$", done.stdout + done.stderr, re.MULTILINE)
    folder = copy.results.parent  # targets are relative to it
    return {(folder / output).parent.relative_to(copy.results).as_posix() for output in outputs}


def asked(copy: Copy) -> tuple[dict[str, str], set[str], set[str]]:
    """What the reasons say; what Snakemake would run as `drstudy reproduce` calls it; and what it would run by itself."""
    done = copy.python("-c", ASK)
    assert done.returncode == 0, done.stderr
    lines, command = json.loads(done.stdout)
    by_hand = [*command[: command.index("--rerun-triggers")], "--config", "profile=smoke", "study=all"]
    return lines, decided(copy, command), decided(copy, [*by_hand, "--cores", "1", "--dry-run"])


ALL = {"19", "30 a-seed0", "report"}
RESULTS = {"19": EXAMPLE, "30 a-seed0": THEN, "report": "report"}


@pytest.mark.parametrize(
    ("change", "runs", "says", "by_hand"),
    [
        pytest.param(touch, set(), "", True, id="dates"),
        pytest.param(
            edit(TABLES, '"""Tables of notebook 19."""', '"""The tables."""  # of notebook 19'),
            set(),
            "",
            True,
            id="prose",
        ),
        pytest.param(edit("Snakefile", "# The study", "# Our study"), set(), "", True, id="comment"),
        pytest.param(edit(TABLES, "2443", "2444"), ALL, f"19: {TABLES} changed", True, id="module"),
        pytest.param(
            edit(NOTEBOOK, "rows=len(", "rows=1 + len("),
            ALL - {"19"},
            "30 a-seed0: notebook text changed",
            True,
            id="notebook",
        ),
        pytest.param(
            new_file("params/smoke/19_example.yaml", "CUT: 3\n"),
            ALL,
            "19: parameter CUT changed from 2 to 3",
            True,
            id="parameter",
        ),
        pytest.param(
            edit("drstudy/papers/example/paper.py", "An example", "One example"),
            {"report"},
            "report: drstudy/papers/example/paper.py changed",
            True,
            id="caption",
        ),
        pytest.param(
            edit("drstudy/papers/example/claims.yaml", "about a fifth", "a fifth"),
            {"report"},
            "report: drstudy/papers/example/claims.yaml changed",
            True,
            id="claim",
        ),
        pytest.param(move_away(f"{EXAMPLE}/run.json"), ALL, "19: no finished record", False, id="record"),
        pytest.param(
            move_away(f"{EXAMPLE}/tables/prevalence.csv"),
            ALL,
            "19: tables/prevalence.csv is missing",
            False,
            id="artefact",
        ),
        pytest.param(move_away("report/index.html"), {"report"}, "report: no report", True, id="report"),
    ],
)
def test_snakemake_and_the_reasons_agree(copy, change, runs, says, by_hand):
    """Where ``by_hand`` is False, Snakemake without `drstudy reproduce` makes a missing file again only if something reads it that runs."""
    undo = change(copy)
    try:
        lines, reproduced, alone = asked(copy)
    finally:
        undo()
    assert set(lines) == runs
    assert says in {*lines.values(), ""}
    expected = {RESULTS[name] for name in runs}
    assert reproduced == expected
    if by_hand:
        assert alone == expected


def test_a_stage_that_has_run_by_hand_is_followed_by_what_reads_it(copy):
    time.sleep(1)
    copy.drstudy("run", "19", "--profile", "smoke")
    lines, reproduced, alone = asked(copy)
    assert lines["30 a-seed0"] == "30 a-seed0: 19 has run since"
    assert set(lines) == ALL - {"19"}
    assert reproduced == alone == {THEN, "report"}
    copy.drstudy("reproduce", "--profile", "smoke", "--study", "all")
    assert asked(copy) == ({}, set(), set())
