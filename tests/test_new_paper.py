"""A new paper is one folder, one notebook and one line: the page that says so, done in a copy of the project."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from example_paper import Copy, add_example

pytestmark = [pytest.mark.notebook, pytest.mark.slow]

STAGE = "19_example"


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    made = Copy(tmp_path_factory.mktemp("copy"))
    before = made.files()
    add_example(made)
    made.before, made.after = before, made.files()
    return made


def test_only_one_line_of_a_shared_file_changes(copy):
    changed = {name for name in copy.before if copy.after.get(name) != copy.before[name]}
    assert changed == {"drstudy/papers/registry.py"}
    lines = [side["drstudy/papers/registry.py"].decode().splitlines() for side in (copy.before, copy.after)]
    assert len(lines[1]) == len(lines[0]) + 1
    assert set(lines[1]) - set(lines[0]) == {'    "example",'}
    new = {name for name in copy.after if name not in copy.before}
    folder = {name for name in new if name.startswith("drstudy/papers/example/")}
    assert new - folder == {f"notebooks/{STAGE}.ipynb"}


def test_its_stage_is_planned_runs_and_is_reported(copy):
    planned = copy.drstudy("reproduce", "--profile", "smoke", "--study", "all", "--dry-run")
    assert "19: no finished record" in planned.splitlines()
    assert "19:" not in copy.drstudy("reproduce", "--profile", "smoke", "--dry-run"), (
        "the core study is as it was"
    )
    said = copy.drstudy("reproduce", "--profile", "smoke", "--study", "all", "--until", "19")
    assert "done in" in said
    record = json.loads((copy.results / STAGE / "run.json").read_text())
    assert record["status"] == "finished"
    assert "drstudy/papers/example/tables.py" in record["made_by"]["library"]
    assert "nothing to do" in copy.drstudy(
        "reproduce", "--profile", "smoke", "--study", "all", "--until", "19"
    )
    copy.drstudy("report", "--profile", "smoke")
    page = (copy.results / "report" / "index.html").read_text(encoding="utf-8")
    assert f'id="{STAGE}"' in page
    assert "What the printed class counts imply." in page
    assert (
        '<td class="number" data-order="0.196">0.196 <span class="range">[0.196, 0.196]</span></td>' in page
    )
    ledger = pd.read_csv(copy.results / "claims.csv").set_index("place")
    assert ledger.loc["Example et al. 2030, Table 1", "verdict"] == "reproduced"
    assert ledger.loc["Example et al. 2030, Table 1", "found"] == "0.196 [0.196, 0.196]"
