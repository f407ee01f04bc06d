"""Calibration, operating points and net benefit against hand values and scikit-learn."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from fabricated import eyes, graded
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, confusion_matrix, log_loss

from drstudy.evaluation import calibration, metrics, statistics

ROUNDING = 1e-12  # the same sums in another order


@pytest.fixture(scope="module")
def test():
    return graded(eyes(200, seed=2, shares=(0.5, 0.15, 0.15, 0.1, 0.1)))


@pytest.fixture(scope="module")
def validation():
    return graded(eyes(150, seed=12, shares=(0.5, 0.15, 0.15, 0.1, 0.1)), seed=3)


def two_class(score: list[float], positive: list[bool], patients: list[str] | None = None) -> pd.DataFrame:
    """Predictions whose probability of grade >= 2 is given; grades 0 and 2."""
    s = np.array(score)
    found = pd.DataFrame(
        {"patient_id": patients or [str(i) for i in range(len(s))], "grade": 2 * np.array(positive, int)}
    )
    return found.assign(p0=1 - s, p1=0.0, p2=s, p3=0.0, p4=0.0)


def test_ece_by_hand():
    """Two bins: .1 and .3 with one hit of two (off by .6 together), .8 and .9 with two of two (off by .3)."""
    probability, outcome = np.array([0.1, 0.3, 0.8, 0.9]), np.array([True, False, True, True])
    assert calibration.ece(probability, outcome, bins=2) == pytest.approx((0.6 + 0.3) / 4)
    curve = calibration.reliability(probability, outcome, bins=2)
    assert curve["images"].tolist() == [2, 2]
    assert curve["said"].tolist() == pytest.approx([0.2, 0.85])
    assert curve["seen"].tolist() == [0.5, 1]
    assert curve[["lower", "upper"]].to_numpy().tolist() == [[0, 0.5], [0.5, 1]]
    # the bound belongs to the bin below; equal values never part
    assert calibration.reliability(np.array([0.5, 0.6]), np.array([True, False]), bins=2)[
        "images"
    ].tolist() == [1, 1]
    assert len(calibration.reliability(np.full(7, 0.4), np.arange(7) > 3, bins=5, adaptive=True)) == 1
    assert calibration.ece(np.full(4, 0.4), np.array([1, 1, 0, 0], bool), adaptive=True) == pytest.approx(0.1)
    assert np.isnan(calibration.ece(probability[:0], outcome[:0]))


@pytest.mark.parametrize("adaptive", [False, True], ids=["equal width", "equal mass"])
def test_reliability_equals_scikit_learn(test, adaptive):
    for probability, outcome in (calibration.confidence(test), calibration.referable(test)):
        seen, said = calibration_curve(
            outcome, probability, n_bins=15, strategy="quantile" if adaptive else "uniform"
        )
        curve = calibration.reliability(probability, outcome, adaptive=adaptive)
        np.testing.assert_allclose(curve["seen"], seen, rtol=0, atol=ROUNDING)
        np.testing.assert_allclose(curve["said"], said, rtol=0, atol=ROUNDING)
        assert curve["images"].sum() == len(test)
        expected = (curve["images"] * (curve["said"] - curve["seen"]).abs()).sum() / len(test)
        assert calibration.ece(probability, outcome, adaptive=adaptive) == pytest.approx(
            expected, abs=ROUNDING
        )


def test_summary_equals_other_libraries_and_has_their_intervals(test):
    table = calibration.summary(test, 300, seed=1).set_index("metric")
    score, positive = calibration.referable(test)
    assert table.loc["brier_ge2", "value"] == pytest.approx(brier_score_loss(positive, score), abs=ROUNDING)
    assert table.loc["nll_ge2", "value"] == pytest.approx(log_loss(positive, score), abs=ROUNDING)
    bootstrap = statistics.bootstrap(test, 300, seed=1).set_index("metric")
    for name in ("nll", "brier"):
        both = [frame.loc[name, ["value", "lo", "hi"]].astype(float) for frame in (table, bootstrap)]
        np.testing.assert_allclose(*both, rtol=0, atol=ROUNDING)
    counts = statistics.resample_counts(test["patient_id"], 300, seed=1)
    bins = np.searchsorted(np.linspace(0, 1, 16)[1:-1], score)
    draws = []
    for drawn in counts:
        weight = pd.Series(drawn, index=np.unique(test["patient_id"]))[test["patient_id"]].to_numpy()
        draws.append(
            sum(abs((weight * (positive - score))[bins == b].sum()) for b in range(15)) / weight.sum()
        )
    assert table.loc["ece_ge2", ["lo", "hi"]].tolist() == pytest.approx(
        np.percentile(draws, [2.5, 97.5]), abs=ROUNDING
    )


def test_ece_of_right_probabilities_is_what_chance_gives():
    """Grades drawn from the very probabilities. Over 20 such sets the mean ECE is if_calibrated's, within
    its noise."""
    random = np.random.default_rng(0)
    base = graded(eyes(150, seed=1))
    p = base[metrics.PROBABILITIES].to_numpy()
    found, chance = [], []
    for seed in range(20):
        drawn = (random.random((len(p), 1)) > p.cumsum(axis=1)).sum(axis=1).clip(0, 4)
        row = calibration.summary(base.assign(grade=drawn), 2, seed=seed).set_index("metric").loc["ece"]
        found.append(row["value"])
        chance.append(row["if_calibrated"])
    # One ECE varies by about a quarter of itself; the mean of 20 by 6 %, so a fifth is three of them.
    # Overconfident probabilities (test below) are off by several times that.
    assert np.mean(found) == pytest.approx(np.mean(chance), rel=0.2)


def test_temperature_recovers_what_was_done_to_the_probabilities(validation):
    """Grades drawn from p; the network says p^2, normed. T = 2 undoes it, within the noise of 20,000
    images."""
    random = np.random.default_rng(5)
    many = pd.concat([validation] * 70, ignore_index=True).drop(columns="image_id")
    p = many[metrics.PROBABILITIES].to_numpy()
    many["grade"] = (random.random((len(p), 1)) > p.cumsum(axis=1)).sum(axis=1).clip(0, 4)
    sharp = calibration.scaled(many, 0.5)
    np.testing.assert_allclose(
        sharp[metrics.PROBABILITIES], p**2 / (p**2).sum(1, keepdims=True), atol=ROUNDING
    )
    assert calibration.fit_temperature(sharp) == pytest.approx(2, rel=0.05)
    assert calibration.fit_temperature(many) == pytest.approx(1, rel=0.05)


def test_temperature_is_the_best_there_is_and_changes_no_decision(validation):
    t = calibration.fit_temperature(validation)
    nll = {k: metrics.evaluate(calibration.scaled(validation, t * k))["nll"] for k in (0.97, 1, 1.03)}
    assert nll[1] < min(nll[0.97], nll[1.03])
    after = calibration.scaled(validation, t)
    assert (metrics.arrays(after)[2] == metrics.arrays(validation)[2]).all()
    metrics.check_predictions(after)
    pd.testing.assert_frame_equal(calibration.scaled(validation, 1.0), validation, rtol=0, atol=ROUNDING)


def test_temperature_ends_where_none_in_between_is_best():
    """Without an error the sharpest is best; with answers that are worse than none, equal probabilities
    are."""
    right = two_class([0.9, 0.8, 0.1, 0.2], [True, True, False, False])
    assert calibration.fit_temperature(right) == 0.01
    wrong = pd.DataFrame({"grade": [4, 3], "p0": 0.6, "p1": 0.1, "p2": 0.1, "p3": 0.1, "p4": 0.1})
    assert calibration.fit_temperature(wrong) == 100
    one_wrong = two_class([0.9, 0.8, 0.1, 0.2, 0.4], [True, True, False, False, True])
    assert 0.01 < calibration.fit_temperature(one_wrong) < 100


def test_certain_and_wrong_stays_finite():
    predictions = two_class([1.0, 0.0, 0.0, 1.0, 0.0], [True, False, False, False, False])
    t = calibration.fit_temperature(predictions)
    assert np.isfinite(calibration.scaled(predictions, t)[metrics.PROBABILITIES].to_numpy()).all()


def test_threshold_by_hand():
    validation = two_class([0.1, 0.2, 0.3, 0.4, 0.35, 0.9], [False, False, False, False, True, True])
    assert calibration.threshold(validation, 0.75) == pytest.approx(0.325)  # three of four negatives below
    assert calibration.threshold(validation, 0.7) == pytest.approx(0.325)  # two would be .5: too few
    assert calibration.threshold(validation, 0.5) == pytest.approx(0.25)
    assert calibration.threshold(validation, 1.0) == pytest.approx(0.65)
    assert calibration.threshold(validation, 0.0) == 0
    tied = two_class([0.2, 0.2, 0.2, 0.6], [False, False, False, True])
    assert calibration.threshold(tied, 0.3) == pytest.approx(0.4)  # equal scores fall together
    assert calibration.threshold(two_class([0.7, 0.7], [False, False]), 0.9) > 0.7
    with pytest.raises(calibration.CalibrationError, match="below grade 2"):
        calibration.threshold(two_class([0.7], [True]), 0.9)


def test_threshold_reaches_the_wanted_specificity_and_no_lower_one_does(validation):
    score, positive = calibration.referable(validation)
    for wanted in (0.8, 0.9, 0.95):
        at = calibration.threshold(validation, wanted)
        assert (score < at)[~positive].mean() >= wanted
        lower = score[score < at].max()
        assert (score < lower)[~positive].mean() < wanted


def test_operating_points_on_test(validation, test):
    table = calibration.operating_points(validation, test, [0.9], 300, seed=0).set_index("metric")
    at = table["threshold"].iloc[0]
    assert at == calibration.threshold(validation, 0.9)
    score, positive = calibration.referable(test)
    tn, fp, fn, tp = confusion_matrix(positive, score >= at).ravel()
    expected = {
        "sensitivity": tp / (tp + fn),
        "specificity": tn / (tn + fp),
        "ppv": tp / (tp + fp),
        "npv": tn / (tn + fn),
    }
    assert table["value"].to_dict() == pytest.approx(expected, abs=ROUNDING)
    assert table.loc["specificity", "on_validation"] >= 0.9
    assert ((table["lo"] < table["value"]) & (table["value"] < table["hi"])).all()
    nobody = calibration.operating_points(validation, test[test["grade"] < 2], [0.9], 20, seed=0).set_index(
        "metric"
    )
    assert nobody.loc["sensitivity", ["value", "lo", "hi"]].isna().all()
    assert nobody.loc["sensitivity", "n_valid"] == 0


def test_operating_point_at_the_decision_equals_the_table_of_metrics():
    """Scores 0 and 1 only: the threshold's sensitivity is the decision's, and so is its interval."""
    predictions = two_class([1, 1, 0, 1, 0, 0] * 10, [True, True, True, False, False, False] * 10)
    table = calibration.operating_points(predictions, predictions, [0.5], 200, seed=4).set_index("metric")
    known = statistics.bootstrap(predictions, 200, seed=4).set_index("metric")
    for name in ("sensitivity", "specificity"):
        found = table.loc[name, ["value", "lo", "hi", "n_valid"]].astype(float).tolist()
        assert found == pytest.approx(
            known.loc[f"{name}_ge2", ["value", "lo", "hi", "n_valid"]].tolist(), abs=ROUNDING
        )


def test_net_benefit_by_hand():
    """At t = .2 four eyes: two true positives, one false one of odds 1/4: (2 - .25) / 4; all: (2 - .5) /
    4."""
    predictions = two_class([0.9, 0.3, 0.25, 0.1], [True, True, False, False])
    row = calibration.decision_curve(predictions, [0.2], 50, seed=0).iloc[0]
    assert row["value"] == pytest.approx(1.75 / 4)
    assert row["refer_all"] == pytest.approx(1.5 / 4)
    assert row["gain"] == pytest.approx(0.25 / 4)
    # at .8 referring all costs 4 an eye: worse than none, so the gain is over none
    row = calibration.decision_curve(predictions, [0.8], 50, seed=0).iloc[0]
    assert row["refer_all"] == pytest.approx((2 - 8) / 4)
    assert row["gain"] == row["value"] == pytest.approx(1 / 4)
    with pytest.raises(ValueError, match="between 0 and 1"):
        calibration.decision_curve(predictions, [0.2, 1.0], 50, seed=0)


def test_net_benefit_of_referring_all_is_that_of_a_threshold_nobody_is_below(test):
    curve = calibration.decision_curve(test, [1e-9], 50, seed=0).iloc[0]
    assert curve["value"] == pytest.approx(curve["refer_all"], abs=ROUNDING)
    assert curve["refer_all"] == pytest.approx(
        (test["grade"] >= 2).mean(), abs=1e-8
    )  # the cost is 1e-9 an eye
    assert curve[["gain", "gain_lo", "gain_hi"]].abs().max() < ROUNDING
