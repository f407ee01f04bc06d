"""Why a stage has to run: each kind of change gives its own reason, and nothing else does."""

from __future__ import annotations

import json
import os

import pytest

from drstudy.core import paths, records
from drstudy.study import digests, execute, plan, reasons

SMOKE = {stage.name: stage for stage in plan.plan("smoke", "all")}
FIRST, NEXT = SMOKE["01"], SMOKE["03 densenet121-seed0"]


def finish(stage, **changes) -> None:
    """A finished record of a stage, as the runner and the notebook leave it together, with one artefact."""
    folder = paths.resolve(stage.folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "made.csv").write_text("1\n")
    record = {
        "status": "finished",
        "notebook": stage.notebook,
        "profile": stage.profile,
        "variant": stage.variant,
        "params": stage.parameters().upper(),
        "metrics": {},
        "inputs": {
            f"{need}/run.json": paths.sha256(paths.resolve(need) / "run.json") for need in stage.needs
        },
        "outputs": {"made.csv": paths.sha256(folder / "made.csv")},
        "made_by": digests.made_by(stage),
    }
    records.write_json(record | changes, stage.record)


@pytest.fixture
def finished(own_folders):
    """Two finished stages, one of which needs the other."""
    finish(FIRST)
    finish(NEXT)


def change(stage, **fields) -> None:
    data = json.loads(stage.record.read_text())
    records.write_json(data | fields, stage.record)


def test_what_is_up_to_date_has_no_reason(finished):
    assert reasons.why(NEXT) == []
    for stage in (FIRST, NEXT):
        os.utime(stage.record, (1, 1))
    assert reasons.why(NEXT) == [], "dates of files say nothing"


def test_what_is_not_finished_has_to_run_with_all_that_needs_it(own_folders):
    assert reasons.why(FIRST) == ["no finished record"]
    assert reasons.why(NEXT) == ["no finished record", "01 will run"]
    finish(FIRST)
    FIRST.record.write_text(FIRST.record.read_text().replace("finished", "running"))
    assert reasons.why(FIRST) == [
        "no finished record (results/smoke/01_data_audit is 'running', not finished)"
    ]


def test_another_parameter_says_from_what_to_what(finished):
    given = FIRST.parameters().upper()
    change(FIRST, params={n: v for n, v in given.items() if n != "SEED"} | {"N_PATIENTS": 41, "OLD": 1})
    assert reasons.own(FIRST) == [
        "parameter SEED is new (0)",
        "parameter N_PATIENTS changed from 41 to 40",
        "parameter OLD no longer exists",
    ]
    assert reasons.why(NEXT) == ["01 will run"]


def test_another_text_of_the_notebook(finished):
    made_by = digests.made_by(NEXT)
    change(NEXT, made_by=made_by | {"notebook": "another"})
    assert reasons.why(NEXT) == ["notebook text changed"]


@pytest.mark.parametrize(
    ("modules", "says"),
    [
        ({"drstudy/core/paths.py": "other"}, "drstudy/core/paths.py changed"),
        ({"drstudy/gone.py": "some"}, "drstudy/gone.py changed"),
        (
            dict.fromkeys((f"drstudy/m{n}.py" for n in range(5)), "x"),
            "drstudy/m0.py, drstudy/m1.py, drstudy/m2.py and 2 more changed",
        ),
    ],
)
def test_another_module(finished, modules, says):
    made_by = digests.made_by(NEXT)
    change(NEXT, made_by=made_by | {"library": made_by["library"] | modules})
    assert reasons.why(NEXT) == [says]


def test_a_record_that_does_not_say_what_made_it_is_made_again(finished):
    """As after Run All in JupyterLab, where cells may have been changed."""
    change(NEXT, made_by=None)
    assert reasons.why(NEXT) == [
        "its record does not say which code made it (run it by `drstudy run`, not by hand)"
    ]


def test_a_stage_before_it_that_has_run_since(finished):
    finish(FIRST, metrics={"another": 1})
    assert reasons.why(NEXT) == ["01 has run since"]


def test_a_stage_before_it_that_the_notebook_does_not_note_as_an_input(finished):
    change(NEXT, inputs={})
    assert reasons.why(NEXT) == []
    finish(FIRST, metrics={"another": 1})
    assert reasons.why(NEXT) == ["01 has run since"], "the runner noted it"


def test_a_missing_artefact(finished):
    (paths.resolve(NEXT.folder) / "made.csv").unlink()
    assert reasons.why(NEXT) == ["made.csv is missing"]
    assert reasons.why(FIRST) == []


def test_a_stage_of_another_profile_is_named_with_it(own_folders):
    stage = plan.stage("05", "idrid_mini")
    assert reasons.why(stage)[-1] == "01, eyepacs_mini 03 efficientnet_lite0-seed0 will run"
    assert list(execute.pending("idrid_mini")) == [
        "01",
        "eyepacs_mini 01",
        "eyepacs_mini 03 efficientnet_lite0-seed0",
        "05 efficientnet_lite0-seed0",
        "report",
    ]


def test_pending_has_a_line_for_each_stage(own_folders):
    """Nothing is there: all is to do; `until` leaves out what follows."""
    found = execute.pending("smoke")
    assert list(found) == [stage.name for stage in plan.plan("smoke")] + ["report"]
    assert found["01"] == "01: no finished record"
    assert found["report"].startswith("report: 00, 01, 02 and ")
    names = ["01", "03 efficientnet_lite0-seed0"]
    assert list(execute.pending("smoke", "03")) == [*names, "03 densenet121-seed0"]
    with pytest.raises(KeyError, match="no notebook '11' in the study core; use --study all"):
        execute.pending("smoke", "11")
    assert list(execute.pending("smoke", "11", "all")) == [*names, "11"]
    with pytest.raises(KeyError, match=r"no notebook '99'\."):
        execute.pending("smoke", "99", "all")
    finish(FIRST)
    assert list(execute.pending("smoke", "03")) == [names[1], "03 densenet121-seed0"]


def test_the_report_follows_its_code_its_files_and_its_results(finished):
    folder = paths.results() / "smoke" / "report"
    assert reasons.of_report("smoke", [FIRST]) == ["no report"]
    folder.mkdir()
    (folder / "index.html").touch()
    made_by = digests.of_report("smoke") | {"results": {FIRST.result: paths.sha256(FIRST.record)}}
    records.write_json(made_by, folder / "made_by.json")
    assert reasons.of_report("smoke", [FIRST]) == []
    records.write_json(made_by | {"files": made_by["files"] | {"CITATION.cff": "x"}}, folder / "made_by.json")
    assert reasons.of_report("smoke", [FIRST]) == ["CITATION.cff changed"]
    records.write_json(made_by, folder / "made_by.json")
    finish(FIRST, metrics={"another": 1})
    assert reasons.of_report("smoke", [FIRST]) == ["01 has run since"]


def test_finished_records_are_brought_into_the_order_of_their_dates(finished):
    """A copy of results may have them in any order, and Snakemake goes by dates."""
    os.utime(NEXT.record, (1, 1))
    execute._settle(reasons.find([NEXT]))
    assert NEXT.record.stat().st_mtime >= FIRST.record.stat().st_mtime
    os.utime(FIRST.record, (1, 1))
    before = NEXT.record.stat().st_mtime_ns
    execute._settle(reasons.find([NEXT]))
    assert NEXT.record.stat().st_mtime_ns == before, "only where it must be"
