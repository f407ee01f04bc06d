"""Comparison of a run with the committed results: each class of number, other orders, lacking rows, other parameters, the cost line."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from drstudy.core import paths, records
from drstudy.papers.transfer import params
from drstudy.study import cli, pairing, reference, verify

STAGE = "00_paper_audit"


def scores(shift: float = 0.0, qwk: float = 0.80, note: str = "as expected") -> pd.DataFrame:
    return pd.DataFrame(
        {
            "run": ["lite0_seed0", "lite0_seed0", "vgg16_seed0"],
            "metric": ["qwk", "nll", "qwk"],
            "value": [qwk, 0.5 + shift, 0.1],
            "lo": [0.7, 0.4 + shift, 0.0],
            "hi": [0.9, 0.6 + shift, 0.2],
            "seed": [0, 0, 0],
            "note": [note, "", ""],
            "shown": [f"{qwk:.2f} [0.70, 0.90]", f"{0.5 + shift:.2f}", "0.10"],
        }
    )


def stage(frame: pd.DataFrame, **metrics) -> records.Record:
    """A finished stage of the smoke profile with one table."""
    run = records.start(params.PaperAudit())
    run.table(frame, "scores")
    run.metric(cells=7, seconds_trunk=1.0, **metrics)
    run.finish()
    return records.load(run.folder)


@pytest.fixture
def committed(own_folders, monkeypatch):
    """Committed results of one stage, a folder for the other runs, and tolerances from one of them: 3 x 0.001 for the NLL."""
    monkeypatch.setattr(verify, "folder", lambda profile: own_folders / "reference" / profile)
    monkeypatch.setattr(reference, "_check", lambda *_: None)
    monkeypatch.setattr(reference, "_setting", lambda name, *_: {"setting": name})
    monkeypatch.setattr("drstudy.core.devices.calibration", lambda: 0.25)
    stage(scores(shift=0.001), macro_f1=0.25)
    other = own_folders / "other"
    paths.results().joinpath("smoke").rename(other)
    stage(scores(), macro_f1=0.25)
    reference.write("smoke", {"other": other})
    return other


def classes(**changes) -> dict[str, int]:
    stage(scores(**changes), macro_f1=0.25)
    return verify.compare("smoke", calibrate=False).counts


def test_the_same_run_is_identical(committed):
    found = verify.compare("smoke", calibrate=False)
    assert found.counts == {
        "identical": 11,
        "within tolerance": 0,
        "inside the interval": 0,
        "chaotic": 0,
        "outside": 0,
    }
    assert found.ok
    assert (
        found.line
        == "11 numbers: 11 identical, 0 within tolerance, 0 inside the interval, 0 chaotic, 0 outside; no verdicts compared"
    )
    assert "2 of 2 result files are the same to the byte" not in found.notes  # there is one file
    assert "1 of 1 result files are the same to the byte" in found.notes


def test_tolerance_is_the_factor_times_the_measured_spread(committed):
    limits = verify.tolerances("smoke").set_index("group")
    assert limits.loc["value of nll", "spread"] == pytest.approx(0.001)
    assert limits.loc["value of nll", "tolerance"] == pytest.approx(reference.FACTOR * 0.001)
    assert limits.loc["value of nll", "measured_in"] == "other"
    assert limits.loc["value of qwk", "tolerance"] == 0
    assert limits.loc["macro_f1", "tolerance"] == 0


def test_within_tolerance(committed):
    assert classes(shift=0.0029) == {
        "identical": 8,
        "within tolerance": 3,
        "inside the interval": 0,
        "chaotic": 0,
        "outside": 0,
    }


def test_inside_the_interval_value_and_limits(committed):
    assert classes(shift=0.05) == {
        "identical": 8,
        "within tolerance": 0,
        "inside the interval": 3,
        "chaotic": 0,
        "outside": 0,
    }
    assert classes(qwk=0.89) == {
        "identical": 10,
        "within tolerance": 0,
        "inside the interval": 1,
        "chaotic": 0,
        "outside": 0,
    }


def test_outside_the_interval(committed):
    assert classes(qwk=0.91)["outside"] == 1
    assert classes(shift=0.11)["outside"] == 3  # limits have moved by more than half the width


def test_a_tolerance_never_exceeds_a_share_of_the_interval(committed):
    file = verify.folder("smoke") / "tolerances.csv"
    limits = pd.read_csv(file).assign(tolerance=1.0)
    limits.to_csv(file, index=False)
    assert classes(shift=0.04)["within tolerance"] == 3
    assert classes(shift=0.06) == {
        "identical": 8,
        "within tolerance": 0,
        "inside the interval": 3,
        "chaotic": 0,
        "outside": 0,
    }


def test_a_number_without_interval_is_inside_nothing(committed):
    stage(scores(), macro_f1=0.2500001)
    found = verify.compare("smoke", calibrate=False)
    outside = found.numbers[found.numbers["class"] == "outside"]
    assert outside[["table", "column"]].to_numpy().tolist() == [["metrics", "macro_f1"]]
    assert not found.ok
    assert any(line.startswith("outside: 00_paper_audit metrics") for line in found.lines())


def test_rows_find_each_other_in_another_order(committed):
    stage(scores().iloc[::-1], macro_f1=0.25)
    found = verify.compare("smoke", calibrate=False)
    assert found.counts["identical"] == 11
    assert not len(found.words)


def test_a_row_that_is_lacking_or_new_is_outside(committed):
    stage(scores().iloc[:2], macro_f1=0.25)
    found = verify.compare("smoke", calibrate=False)
    assert found.counts == {
        "identical": 8,
        "within tolerance": 0,
        "inside the interval": 0,
        "chaotic": 0,
        "outside": 3,
    }
    assert any("not there, committed 0.1" in line for line in found.lines())
    stage(pd.concat([scores(), scores().tail(1).assign(run="new")]), macro_f1=0.25)
    assert verify.compare("smoke", calibrate=False).counts["outside"] == 3


def test_undefined_on_one_side_is_outside_and_on_both_identical(committed):
    stage(scores().assign(value=[np.nan, 0.5, 0.1]), macro_f1=0.25)
    assert verify.compare("smoke", calibrate=False).counts["outside"] == 1
    both = pairing.pair(pd.DataFrame({"a": [np.nan]}), pd.DataFrame({"a": [np.nan]}))
    assert verify.classify(both.assign(tolerance=0.0, measured=0.0, undefined=False)).tolist() == [
        "identical"
    ]


def test_a_remark_that_differs_is_told_and_takes_no_row_away(committed):
    stage(scores(note="unlike before"), macro_f1=0.25)
    found = verify.compare("smoke", calibrate=False)
    assert found.counts["identical"] == 11
    assert found.words[["column", "committed", "found"]].to_numpy().tolist() == [
        ["note", "as expected", "unlike before"]
    ]


def test_numbers_in_texts_are_no_words(committed):
    assert not len(verify.compare("smoke", calibrate=False).words)
    stage(scores(qwk=0.81), macro_f1=0.25)
    assert not len(verify.compare("smoke", calibrate=False).words)


def test_other_parameters_are_not_compared_but_named(committed):
    file = verify.folder("smoke") / STAGE / "run.json"
    data = json.loads(file.read_text())
    data["params"]["SEED"], data["params"]["THREADS"] = 5, 2
    file.write_text(json.dumps(data))
    found = verify.compare("smoke", calibrate=False)
    assert found.changed == {STAGE: "SEED 0 in place of 5"}
    assert not len(found.numbers)
    assert not found.ok
    assert any(
        line.startswith(f"not compared, as the recipe differs: {STAGE} (SEED") for line in found.lines()
    )


def test_a_parameter_that_is_younger_than_the_committed_run_counts_as_its_default(committed):
    file = verify.folder("smoke") / STAGE / "run.json"
    data = json.loads(file.read_text())
    default = data["params"].pop("SEED")
    file.write_text(json.dumps(data))
    assert not verify.compare("smoke", calibrate=False).changed
    run = records.start(params.PaperAudit(seed=default + 5))
    run.table(scores(), "scores")
    run.metric(cells=7, seconds_trunk=1.0)
    run.finish()
    assert verify.compare("smoke", calibrate=False).changed == {
        STAGE: f"SEED {default + 5} in place of {default}"
    }


def test_claims_without_a_committed_verdict_are_told_and_do_not_count(committed, monkeypatch):
    rows = [("a", "reproduced", "reproduced"), ("b", verify.ABSENT, "inconclusive")]
    monkeypatch.setattr(verify, "_verdicts", lambda *_: pd.DataFrame(rows, columns=verify.VERDICTS))
    found = verify.compare("smoke", calibrate=False)
    assert found.equal_verdicts == len(found.verdicts) == 1
    assert "1 claims have no committed verdict yet, such as: b" in found.notes
    rows[1] = ("b", "inconclusive", verify.ABSENT)  # a claim that got lost counts
    monkeypatch.setattr(verify, "_verdicts", lambda *_: pd.DataFrame(rows, columns=verify.VERDICTS))
    assert not verify.compare("smoke", calibrate=False).ok


def test_a_stage_that_is_missing_or_unknown_is_named(committed):
    run = records.start(params.BackboneComparison())
    run.finish()
    found = verify.compare("smoke", calibrate=False)
    assert found.unknown == ["04_backbone_comparison"]
    committed_stage = verify.folder("smoke") / STAGE
    other = verify.folder("smoke") / "01_data_audit"
    other.mkdir()
    data = json.loads((committed_stage / "run.json").read_text()) | {"notebook": "01_data_audit"}
    (other / "run.json").write_text(json.dumps(data))
    assert verify.compare("smoke", calibrate=False).missing == ["01_data_audit"]


def test_against_another_run(committed):
    found = verify.compare("smoke", against=committed, calibrate=False)
    assert found.counts["within tolerance"] == 3
    assert found.ok


def test_costs_are_scaled_by_the_calibration(committed, monkeypatch):
    machine = json.loads((verify.folder("smoke") / "machine.json").read_text())
    monkeypatch.setattr("drstudy.core.devices.calibration", lambda: 2 * machine["calibration"])
    found = verify.compare("smoke")
    assert found.speed == pytest.approx(2)
    assert "2.00 times as long" in found.cost_line
    assert "largest process" in found.cost_line


def test_other_versions_and_processors_are_told(committed):
    file = verify.folder("smoke") / STAGE / "run.json"
    data = json.loads(file.read_text())
    data["packages"]["torch"], data["processor"] = "1.0", "another one"
    file.write_text(json.dumps(data))
    notes = "\n".join(verify.compare("smoke", calibrate=False).notes)
    assert "committed: torch 1.0" in notes
    assert "committed: another one" in notes


def test_tables_of_photographs_and_long_ones_are_compared_by_bytes(committed):
    run = records.start(params.PaperAudit())
    run.table(scores(), "scores")
    run.table(pd.DataFrame({"image_id": ["a"], "p": [0.5]}), "eyes")
    run.table(pd.DataFrame({"p": np.zeros(pairing.MOST_ROWS + 1)}), "long")
    run.finish()
    assert set(pairing.tables(records.load(run.folder))) == {"scores"}


def test_metrics_that_stand_in_a_table_and_costs_are_not_counted_again(committed):
    record = stage(scores(), macro_f1=0.25, qwk=0.80)
    assert pairing.further_metrics(record, pairing.tables(record)) == {"cells": 7, "macro_f1": 0.25}


def test_write_lists_what_is_not_identical_worst_first(committed):
    stage(scores(shift=0.0029, qwk=0.95), macro_f1=0.25)
    found = verify.write("smoke", calibrate=False)
    rows = pd.read_csv(paths.results() / "smoke" / "verify.csv")
    assert rows["class"].tolist() == ["outside"] + 3 * ["within tolerance"]
    summary = json.loads((paths.results() / "smoke" / "verify.json").read_text())
    assert summary["line"] == found.line
    assert summary["numbers"] == found.counts
    assert not summary["ok"]


def test_the_command_says_one_line_and_its_status(committed):
    done = CliRunner().invoke(cli.app, ["verify", "--profile", "smoke"])
    assert done.exit_code == 0, done.output
    assert done.output.startswith("11 numbers: 11 identical")
    stage(scores(qwk=0.95), macro_f1=0.25)
    done = CliRunner().invoke(cli.app, ["verify", "--profile", "smoke"])
    assert done.exit_code == 1
    assert "outside: 00_paper_audit scores" in done.output


def test_errors_say_what_to_do(committed, own_folders):
    with pytest.raises(verify.VerifyError, match="no committed results of the profile 'paper'"):
        verify.compare("paper", calibrate=False)
    paths.results().joinpath("smoke").rename(own_folders / "gone")
    with pytest.raises(verify.VerifyError, match="drstudy reproduce --profile smoke"):
        verify.compare("smoke", calibrate=False)


def test_a_reference_needs_another_run_of_the_same_parameters(own_folders, monkeypatch):
    monkeypatch.setattr(verify, "folder", lambda profile: own_folders / "reference" / profile)
    stage(scores())
    with pytest.raises(verify.VerifyError, match="at least one run under another setting"):
        reference.write("smoke", {})
    with pytest.raises(verify.VerifyError, match="not finished: 01_data_audit"):
        reference.write("smoke", {"other": paths.results() / "smoke"})
    assert not verify.folder("smoke").exists()


def record(name: str, seconds: float, memory: float) -> records.Record:
    return records.Record(
        paths.root(), {"notebook": name, "variant": "", "cpu_seconds": seconds, "peak_rss_mb": memory}
    )


def test_costs_add_the_networks_of_a_notebook_and_take_the_largest_process():
    core = {"03_fine_tuning/efficientnet_lite0-seed0": record("03_fine_tuning", 60, 1024)}
    core["03_fine_tuning/densenet121-seed0"] = record("03_fine_tuning", 120, 512)
    more = core | {"11_ram": record("11_ram", 300, 2048)}
    table = reference.costs("smoke", {"a": more, "b": core}).set_index("notebook")
    assert table.index.tolist() == ["03_fine_tuning", "11_ram", "core study", "whole study"]
    assert table["a, core-minutes"].tolist() == [3, 5, 3, 8]
    assert table["a, GiB"].tolist() == [1, 2, 1, 2]
    assert table["b, core-minutes"].fillna(-1).tolist() == [3, -1, 3, -1]


def test_other_weights_are_not_compared_nor_what_builds_on_them(own_folders, monkeypatch):
    stages = {}
    for cls, metrics in (
        (params.FineTuning, {"weights_used": "bundled"}),
        (params.BackboneComparison, {}),
        (params.DataAudit, {}),
    ):
        run = records.start(cls())
        run.metric(**metrics)
        run.finish()
        stages[records.load(run.folder).name] = records.load(run.folder)
    name = "03_fine_tuning/efficientnet_lite0-seed0"
    data = json.loads(json.dumps(stages[name].data))
    data["metrics"]["weights_used"] = "imagenet"
    found = verify._changed("smoke", stages, stages | {name: records.Record(stages[name].folder, data)})
    assert found == {
        name: "weights_used 'imagenet' in place of 'bundled'",
        "04_backbone_comparison": f"it builds on {name}",
    }


def test_a_stage_that_no_other_run_has_is_left_out(committed, own_folders):
    """Its tolerances would be guesses."""
    records.start(params.BackboneComparison()).finish()
    reference.write("smoke", {"other": committed})
    assert set(verify.stages(verify.folder("smoke"))) == {STAGE}
    found = verify.compare("smoke", calibrate=False)
    assert found.unknown == ["04_backbone_comparison"]
    assert found.ok


def test_what_moves_as_far_as_was_measured_but_too_far_for_a_tolerance_is_chaotic(committed):
    """Measured with 1: a shift of 0.5 is more than a quarter of the interval and leaves it, one of 1.5 is more than was measured."""
    file = verify.folder("smoke") / "tolerances.csv"
    limits = pd.read_csv(file)
    limits.loc[limits["group"].str.contains("nll"), "tolerance"] = 1.0
    limits.to_csv(file, index=False)
    assert classes(shift=0.5) == {
        "identical": 8,
        "within tolerance": 0,
        "inside the interval": 0,
        "chaotic": 3,
        "outside": 0,
    }
    assert classes(shift=1.5)["outside"] == 3
    assert verify.compare("smoke", calibrate=False).line.startswith("11 numbers: 8 identical")


def test_undefined_on_one_side_is_chaotic_only_where_that_was_measured(committed):
    file = verify.folder("smoke") / "tolerances.csv"
    stage(scores().assign(value=[0.8, np.nan, 0.1]), macro_f1=0.25)
    assert verify.compare("smoke", calibrate=False).counts["outside"] == 1
    limits = pd.read_csv(file)
    limits.loc[limits["group"] == "value of nll", "undefined"] = True
    limits.to_csv(file, index=False)
    assert verify.compare("smoke", calibrate=False).counts["chaotic"] == 1


def test_networks_without_pretraining_share_no_tolerance_with_others():
    groups = pairing.long(
        scores().assign(label=["Lite0 (ImageNet)", "Lite0 (ImageNet)", "VGG16 (no pretraining)"]), []
    )["group"]
    assert {"value of qwk", "value of qwk without pretraining"} <= set(groups)
    assert "value of nll without pretraining" not in set(groups)


def test_a_number_of_a_network_without_pretraining_is_chaotic_where_it_would_be_outside(committed):
    labels = ["Lite0 (ImageNet)", "Lite0 (ImageNet)", "VGG16 (no pretraining)"]
    stage(scores().assign(label=labels), macro_f1=0.25)
    reference.write("smoke", {"other": paths.results() / "smoke"})
    stage(scores().assign(label=labels, value=[0.8, 0.5, 0.9]), macro_f1=0.25)
    assert verify.compare("smoke", calibrate=False).counts["chaotic"] == 1
    stage(scores().assign(label=labels, value=[0.99, 0.5, 0.1]), macro_f1=0.25)
    assert verify.compare("smoke", calibrate=False).counts["outside"] == 1


@pytest.mark.parametrize(("used", "expected"), [("none", True), ("bundled", False)])
def test_a_stage_of_one_network_is_that_of_its_training(used, expected):
    trained = records.Record(paths.root(), {"metrics": {"weights_used": used}})
    others = {
        "03_fine_tuning/vgg16-seed0": trained,
        "04_backbone_comparison": records.Record(paths.root(), {"metrics": {}}),
    }
    assert pairing.untrained("05_heatmap_analysis/vgg16-seed0", others) == expected
    assert pairing.untrained("03_fine_tuning/vgg16-seed0", others) == expected
    assert not pairing.untrained("04_backbone_comparison", others)
    assert not pairing.untrained("05_heatmap_analysis/vgg16-seed1", others)


def test_a_held_out_run_tests_the_tolerances_and_makes_none(committed, own_folders):
    before = verify.tolerances("smoke")
    here = own_folders / "here"
    shutil.copytree(paths.results() / "smoke", here)
    stage(scores(shift=0.05), macro_f1=0.25)
    paths.results().joinpath("smoke").rename(own_folders / "far")
    shutil.copytree(here, paths.results() / "smoke")
    reference.write("smoke", {"other": committed}, {"far": own_folders / "far"})
    pd.testing.assert_frame_equal(verify.tolerances("smoke"), before)
    settings = pd.read_csv(verify.folder("smoke") / "settings.csv")
    assert settings["setting"].tolist() == ["committed", "other", "far (held out)"]
