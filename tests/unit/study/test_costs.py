"""Measured costs, the estimate that follows from them, and the lines on the progress of a run."""

from __future__ import annotations

import json
import os
import time

import pytest

from drstudy.core import paths, records
from drstudy.papers.transfer import params
from drstudy.study import costs, plan, progress, reproduce
from drstudy.study.costs import Cost


@pytest.fixture
def committed(own_folders, monkeypatch):
    """An empty folder of committed costs."""
    monkeypatch.setattr(costs, "file", lambda profile: own_folders / "costs" / f"{profile}.json")
    return own_folders / "costs"


def finish(seconds: float, core_seconds: float, **data) -> records.Record:
    """A finished record of notebook 00 of the profile smoke that says what it took."""
    records.start(params.PaperAudit()).finish()
    file = paths.results() / "smoke" / "00_paper_audit" / "run.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    content.pop("digest")  # it may say anything else then
    content |= {"seconds": seconds, "cpu_seconds": core_seconds, "processor": "a processor"} | data
    records.write_json(content, file)
    return records.load(file.parent)


def stages(*names: str):
    own = {one.name: one for one in plan.plan("demo", "all")}
    return {name: own[name] for name in names}


def test_costs_are_those_of_the_records_of_a_run(committed):
    finish(30, 90)
    costs.write("smoke")
    assert costs.read("smoke") == {"00_paper_audit": Cost(0.5, 1.5, "a processor")}


def test_a_run_that_found_trained_networks_does_not_say_what_a_full_run_takes(committed):
    assert costs.of_record(finish(30, 90, trainings={"keys": ["a", "b"], "found": 1, "code": {}})) is None
    with pytest.raises(records.RecordError, match="No stage of smoke has a measured cost"):
        costs.write("smoke")
    assert costs.of_record(finish(30, 90, trainings={"keys": ["a"], "found": 0, "code": {}}))


def test_what_a_run_did_not_measure_keeps_its_earlier_entry(committed):
    committed.mkdir()
    earlier = {"minutes": 2.0, "core_minutes": 3.0, "processor": "another"}
    (committed / "smoke.json").write_text(json.dumps({"stages": {"21_views": earlier}}), encoding="utf-8")
    finish(30, 90)
    costs.write("smoke")
    found = costs.read("smoke")
    assert found["21_views"] == Cost(2.0, 3.0, "another")
    assert "00_paper_audit" in found


def test_the_own_last_run_counts_before_the_committed_one(committed):
    stage = plan.stage("00", "smoke")
    assert costs.known([stage]) == {}
    finish(30, 90)
    costs.write("smoke")
    assert costs.known([stage])[stage.folder] == Cost(0.5, 1.5, costs.HERE)
    (paths.results() / "smoke" / "00_paper_audit" / "run.json").unlink()
    assert costs.known([stage])[stage.folder].processor == "a processor"


@pytest.mark.parametrize("profile", ["demo", "smoke"])
def test_the_committed_costs_are_of_stages_that_exist(profile):
    names = set(costs.read(profile))
    assert names
    assert names <= set(plan.result_names(profile, "all"))


def test_every_stage_of_the_main_command_has_a_measured_cost():
    assert set(plan.result_names("demo", "core")) - {"01_data_audit/fine", "01_data_audit/amd"} <= set(
        costs.read("demo")
    )


@pytest.mark.parametrize(
    ("cores", "minutes"),
    [(1, 3 + 4 + 4 + 5), (2, 3 + 4 + 5), (9, 3 + 4 + 5)],  # 01 alone, then both of 03, then 05
)
def test_stages_run_side_by_side_after_what_they_need(cores, minutes):
    found = stages("01", "03 densenet121-seed0", "03 resnet101-seed0", "05 densenet121-seed0")
    table = {"01": 3.0, "03": 4.0, "05": 5.0}
    known = {one.folder: Cost(table[one.notebook[:2]], 0.1, "x") for one in found.values()}
    assert costs.together(found.values(), known, cores) == minutes


def test_a_stage_that_uses_the_whole_machine_runs_alone():
    found = stages("00", "01")  # 01 uses all cores, 00 needs nothing
    known = {one.folder: Cost(2.0, 0.1, "x") for one in found.values()}
    assert costs.together(found.values(), known, 2) == 4.0


def test_a_stage_that_is_told_to_work_in_one_process_runs_beside_others():
    found = stages("00", "01 amd")
    assert found["01 amd"].parameters().upper()["WORKERS"] == 1
    known = {one.folder: Cost(2.0, 0.1, "x") for one in found.values()}
    assert costs.together(found.values(), known, 2) == 2.0


def test_a_long_chain_goes_first_and_the_estimate_counts_on_it():
    """01, then 03 lite0 (1), 11 (6), 14 (6) one after the other, beside 02, 13 and 15 (4 each): last, the chain would leave a core idle."""
    found = stages("01", "01 fine", "02", "03 efficientnet_lite0-seed0", "11", "13", "14", "15")
    table = {"01": 0.0, "02": 4.0, "03": 1.0, "11": 6.0, "13": 4.0, "14": 6.0, "15": 4.0}
    known = {one.folder: Cost(table[one.notebook[:2]], 0.0, "x") for one in found.values()}
    order = sorted(found.values(), key=lambda one: one.notebook[:2] in ("11", "14"))
    first = costs.urgent(order, known, 2)
    assert first is not None
    assert first.notebook.startswith(("11", "14"))
    assert costs.estimate({one.name: one for one in order}, known, 2).minutes == 13.0
    assert costs.together(order, known, 2) > 13.0
    assert costs.urgent([found["01"]], known, 2) is None


def test_the_estimate_names_what_it_leaves_out_and_where_it_was_measured():
    found = stages("00", "01", "21")
    known = {found["00"].folder: Cost(1.0, 1.0, "P"), found["01"].folder: Cost(2.0, 4.0, "Q")}
    made = costs.estimate(found, known, 2)
    assert made.unmeasured == ("21",)
    assert made.core_minutes == 5.0
    assert made.sentence.startswith("about 3 minutes on 2 cores (5.0 core-minutes, as measured on P and Q")
    assert made.sentence.endswith("not counted, since never measured: 21")
    assert "none" in costs.estimate(found, {}, 1).sentence


@pytest.mark.parametrize(
    ("minutes", "said"),
    [(0.01, "10 seconds"), (0.7, "40 seconds"), (1.4, "80 seconds"), (5.2, "5 minutes"), (150, "2.5 hours")],
)
def test_times_in_words(minutes, said):
    assert costs.spoken(minutes) == said


def test_a_stage_that_finishes_is_told_once_with_what_is_left(own_folders, monkeypatch):
    found = {one.name: one for one in plan.plan("smoke") if one.name in ("00", "01")}
    monkeypatch.setattr(costs, "known", lambda _: {one.folder: Cost(2.0, 0.1, "x") for one in found.values()})
    finish(60, 60)
    old = time.time() - 1000
    os.utime(found["00"].record, (old, old))
    watch = progress.Watch(found, 2)
    assert watch.look() == "", "a record from before the run is not of it"
    finish(240, 60)
    os.utime(found["00"].record, (time.time() + 1, time.time() + 1))
    line = watch.look()
    assert line.startswith("progress: 1 of 2 stages finished after ")
    assert line.endswith("about 4 minutes left"), "it took twice what was measured, so the rest will too"
    assert watch.look() == ""


def test_progress_without_measured_costs_says_so(own_folders, monkeypatch):
    monkeypatch.setattr(costs, "known", lambda _: {})
    found = {one.name: one for one in plan.plan("smoke") if one.name in ("00", "01")}
    watch = progress.Watch(found, 2)
    finish(60, 60)
    os.utime(found["00"].record, (time.time() + 1, time.time() + 1))
    assert watch.look().endswith("no estimate of the rest, which was never measured")


def test_the_stages_of_another_profile_are_found_by_their_names():
    found = reproduce.named(["demo 01", "22", "report"], "eyepacs_mini")
    assert [(one.profile, one.notebook[:2]) for one in found.values()] == [
        ("demo", "01"),
        ("eyepacs_mini", "22"),
    ]
