"""Tables and figures of notebook 06 against the functions and formulas that they gather."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from fabricated import eyes, fine_tuning, graded

from drstudy.evaluation import calibration, statistics, tests
from drstudy.show import figures, style, tables

NETWORKS = {"densenet121": 1.5, "vgg16": 0.7, "resnet101": 1.4}


@pytest.fixture
def runs(own_folders):
    images = eyes(100, seed=4, shares=(0.4, 0.15, 0.2, 0.15, 0.1))
    made = [
        fine_tuning(graded(images, skill, seed=i), name, "imagenet")
        for i, (name, skill) in enumerate(NETWORKS.items())
    ]
    return tables.read_runs(made)


def test_both_intervals_are_those_of_either_method(runs):
    table = tables.both_intervals(runs, 60, seed=1).set_index(["run", "metric"])
    for run in runs:
        for method, columns in (("percentile", ["lo", "hi"]), ("bca", ["bca_lo", "bca_hi"])):
            expected = statistics.bootstrap(run.predictions, 60, 1, method).set_index("metric")
            found = table.loc[run.name]
            np.testing.assert_array_equal(found[columns], expected.loc[found.index, ["lo", "hi"]])
            np.testing.assert_array_equal(found["value"], expected.loc[found.index, "value"])


def test_paired_tests_are_adjusted_within_each_metric(runs):
    table = tables.paired_tests(runs, 400, seed=1)
    assert set(table["run"]) == {"vgg16_seed0", "resnet101_seed0"}
    assert set(table["reference"]) == {runs[0].label}
    alone = tests.paired_tests(runs[1].predictions, runs[0].predictions, 400, seed=1)
    found = table[table["run"] == "vgg16_seed0"].reset_index(drop=True)
    pd.testing.assert_frame_equal(found[list(alone.columns)], alone)
    for _, rows in table.groupby("metric"):
        low, high = sorted(rows["p_patients"])
        assert sorted(rows["p_patients_holm"]) == pytest.approx(
            sorted([min(1, 2 * low), max(high, min(1, 2 * low))])
        )
    assert (table["p_patients_holm"] > table["p_patients"]).any()


def test_nothing_is_tested_without_a_reference(runs):
    table = tables.paired_tests(runs[1:], 20, seed=1)
    assert table.empty
    assert list(table.columns) == list(tables.paired_tests(runs, 20, seed=1).columns)


def test_variance_parts_stand_side_by_side(own_folders):
    images = eyes(60, seed=4)
    made = [fine_tuning(graded(images, seed=i), "vgg16", "imagenet", seed=i) for i in range(3)]
    scores = tables.scores(tables.read_runs([*made, fine_tuning(graded(images), "densenet121")]), 50, seed=0)
    parts = tables.variance_parts(scores, {"qwk": "QWK", "mae": "error"})
    assert parts["metric"].tolist() == ["QWK", "error"]
    assert parts["seeds"].tolist() == [3, 3]
    rows = scores[(scores["backbone"] == "vgg16") & (scores["metric"] == "qwk")]
    assert parts.loc[0, "over seeds"] == pytest.approx(rows["value"].std())
    assert parts.loc[0, "over patients"] == pytest.approx(((rows["hi"] - rows["lo"]) / 3.92).mean())
    assert tables.variance_parts(scores[scores["backbone"] == "densenet121"], {"qwk": "QWK"}).empty


def test_reliability_curves_show_both_states(runs):
    curves = {
        run.label: (
            calibration.reliability(*calibration.referable(run.predictions)),
            calibration.reliability(*calibration.referable(calibration.scaled(run.predictions, 2.0))),
        )
        for run in runs
    }
    figure = figures.reliability_curves(curves, [style.backbone_colour(run.backbone) for run in runs])
    for ax, (before, after) in zip(figure.axes, curves.values()):
        for drawn, table in zip(ax.collections, (before, after)):
            np.testing.assert_allclose(drawn.get_offsets(), 100 * table[["said", "seen"]])


def test_decision_curves_show_network_all_and_none(runs):
    tables_ = {
        run.label: calibration.decision_curve(run.predictions, [0.1, 0.3, 0.5], 30, seed=0) for run in runs
    }
    ax = figures.decision_curves(tables_, ["red", "green", "blue"]).axes[0]
    lines = {line.get_label(): line.get_ydata() for line in ax.get_lines()}
    assert list(lines) == [*tables_, "refer all", "refer none"]
    for label, table in tables_.items():
        np.testing.assert_allclose(lines[label], 100 * table["value"])
    np.testing.assert_allclose(lines["refer all"], 100 * tables_[runs[0].label]["refer_all"])
    assert set(lines["refer none"]) == {0}
