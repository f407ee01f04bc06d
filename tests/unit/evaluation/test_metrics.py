"""Every metric against scikit-learn or numbers worked out by hand."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics as reference
from fabricated import eyes, graded

from drstudy.evaluation import metrics

ROUNDING = 1e-12  # both sides are double precision; a wrong definition moves a metric by at least 1/N > 1e-3
GRADES = list(range(5))


def frame(grade: list[int], predicted: list[int]) -> pd.DataFrame:
    """Predictions that are certain of one grade."""
    p = np.eye(5)[predicted]
    return pd.DataFrame({"grade": grade} | {f"p{g}": p[:, g] for g in GRADES})


@pytest.fixture(params=[False, True], ids=["distinct scores", "tied scores"])
def predictions(request) -> pd.DataFrame:
    """About 600 images on which all grades are present and predicted."""
    made = graded(eyes(320, seed=3), tied=request.param)
    p = made[metrics.PROBABILITIES].to_numpy()
    assert set(made["grade"]) == set(p.argmax(1)) == set(GRADES)
    return made


def test_grade_metrics_equal_scikit_learn(predictions):
    found = metrics.evaluate(predictions)
    y, p = predictions["grade"].to_numpy(), predictions[metrics.PROBABILITIES].to_numpy()
    predicted = p.argmax(1)
    expected = {
        "qwk": reference.cohen_kappa_score(y, predicted, weights="quadratic"),
        "accuracy": reference.accuracy_score(y, predicted),
        "balanced_accuracy": reference.balanced_accuracy_score(y, predicted),
        "mae": reference.mean_absolute_error(y, predicted),
        "macro_auc": reference.roc_auc_score(y, p, multi_class="ovr", average="macro"),
        "nll": reference.log_loss(y, p, labels=GRADES),
        "brier": reference.brier_score_loss(y, p, labels=GRADES, scale_by_half=False),
        "sensitivity_macro": reference.recall_score(y, predicted, average="macro"),
        "grades_present": 5,
    }
    for g in GRADES:
        expected[f"recall_grade{g}"] = reference.recall_score(y, predicted, average=None)[g]
        expected[f"precision_grade{g}"] = reference.precision_score(y, predicted, average=None)[g]
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=ROUNDING)


def test_metrics_of_each_cut_equal_scikit_learn(predictions):
    found = metrics.evaluate(predictions)
    y, p = predictions["grade"].to_numpy(), predictions[metrics.PROBABILITIES].to_numpy()
    for cut in metrics.CUTS:
        truth, decision = y >= cut, p.argmax(1) >= cut
        expected = {
            f"sensitivity_ge{cut}": reference.recall_score(truth, decision),
            f"specificity_ge{cut}": reference.recall_score(truth, decision, pos_label=False),
            f"accuracy_ge{cut}": reference.accuracy_score(truth, decision),
            f"prevalence_ge{cut}": truth.mean(),
            f"auc_ge{cut}": reference.roc_auc_score(truth, p[:, ::-1].cumsum(1)[:, 4 - cut]),
        }
        assert {name: found[name] for name in expected} == pytest.approx(expected, abs=ROUNDING)


def test_macro_specificity_and_accuracy_equal_the_mean_over_binary_tasks(predictions):
    found = metrics.evaluate(predictions)
    y, predicted = predictions["grade"].to_numpy(), predictions[metrics.PROBABILITIES].to_numpy().argmax(1)
    specificity = [reference.recall_score(y == g, predicted == g, pos_label=False) for g in GRADES]
    accuracy = [reference.accuracy_score(y == g, predicted == g) for g in GRADES]
    assert found["specificity_macro"] == pytest.approx(np.mean(specificity), abs=ROUNDING)
    assert found["accuracy_macro"] == pytest.approx(np.mean(accuracy), abs=ROUNDING)
    # Each error is wrong in two of the five one-vs-rest tasks.
    assert found["accuracy_macro"] == pytest.approx(1 - 2 * (1 - found["accuracy"]) / 5, abs=ROUNDING)


def test_hand_worked_example():
    # truth 0 0 0 1 2 2 3 4, prediction 0 0 1 1 2 0 3 3
    found = metrics.evaluate(frame([0, 0, 0, 1, 2, 2, 3, 4], [0, 0, 1, 1, 2, 0, 3, 3]))
    # Squared errors 1 + 4 + 1 = 6. True counts 3 1 2 1 1, predicted 3 2 1 2 0, expected squared error / 8:
    # 3(2*1 + 1*4 + 2*9) + 1(3*1 + 1*1 + 2*4) + 2(3*4 + 2*1 + 2*1) + 1(3*9 + 2*4 + 1*1)
    # + 1(3*16 + 2*9 + 1*4 + 2*1) = 72 + 12 + 32 + 36 + 72 = 224, so kappa = 1 - 6 / (224 / 8) = 1 - 6/28.
    assert found["qwk"] == pytest.approx(1 - 6 / 28)
    assert found["accuracy"] == pytest.approx(5 / 8)
    assert found["balanced_accuracy"] == pytest.approx((2 / 3 + 1 + 1 / 2 + 1 + 0) / 5)
    assert found["mae"] == pytest.approx(4 / 8)
    assert found["sensitivity_ge1"] == pytest.approx(4 / 5)
    assert found["specificity_ge1"] == pytest.approx(2 / 3)
    assert found["accuracy_ge1"] == pytest.approx(6 / 8)
    assert found["prevalence_ge1"] == pytest.approx(5 / 8)
    # >= 1 scores: positives 1 1 0 1 1, negatives 0 0 1. Pairs won 4*2, tied 4*1 + 1*2, of 15.
    assert found["auc_ge1"] == pytest.approx((8 + 6 / 2) / 15)
    assert found["brier"] == pytest.approx(3 * 2 / 8)
    assert found["nll"] == pytest.approx(3 * -math.log(np.finfo(float).eps) / 8)
    assert math.isnan(found["precision_grade4"])  # never predicted
    assert found["precision_grade3"] == pytest.approx(1 / 2)


def test_decision_and_score_of_a_cut_may_disagree():
    disagreeing = pd.DataFrame(
        {"grade": [1, 0], "p0": [0.4, 0.9], "p1": [0.3, 0.1], "p2": [0.3, 0.0], "p3": 0, "p4": 0}
    )
    found = metrics.evaluate(disagreeing)
    assert found["sensitivity_ge1"] == 0  # arg-max says grade 0
    assert found["auc_ge1"] == 1  # p1 + ... + p4 = .6 ranks it first


def test_equal_probabilities_decide_for_the_lower_grade():
    even = pd.DataFrame({"grade": [0], "p0": [0.5], "p1": [0.5], "p2": 0, "p3": 0, "p4": 0})
    assert metrics.evaluate(even)["accuracy"] == 1


def test_absent_grades_are_undefined_and_macro_is_over_present_ones():
    # No grade 3 or 4; grade 4 is predicted once.
    y, predicted = [0, 0, 1, 2, 2], [0, 4, 1, 2, 0]
    found = metrics.evaluate(frame(y, predicted))
    for name in (
        "recall_grade3",
        "recall_grade4",
        "sensitivity_ge3",
        "auc_ge3",
        "auc_ge4",
        "precision_grade3",
    ):
        assert math.isnan(found[name]), name
    assert found["precision_grade4"] == 0  # predicted, never true: defined
    assert found["specificity_ge4"] == 4 / 5
    assert found["grades_present"] == 3
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns that grade 4 is predicted but never true
        balanced = reference.balanced_accuracy_score(y, predicted)
    assert found["balanced_accuracy"] == pytest.approx(balanced) == pytest.approx((1 / 2 + 1 + 1 / 2) / 3)
    assert found["specificity_macro"] == pytest.approx((2 / 3 + 1 + 1) / 3)
    assert found["accuracy_macro"] == pytest.approx((3 / 5 + 1 + 4 / 5) / 3)
    # Pairs won and half of those tied: grade 0 3.5 of 6, grade 1 4 of 4, grade 2 4.5 of 6.
    assert found["macro_auc"] == pytest.approx((3.5 / 6 + 1 + 4.5 / 6) / 3)


def test_one_grade_only_is_no_crash():
    found = metrics.evaluate(frame([0, 0, 0], [0, 0, 0]))
    assert found["accuracy"] == found["balanced_accuracy"] == 1
    for name in ("qwk", "macro_auc", "specificity_macro", "sensitivity_ge1", "auc_ge1"):
        assert math.isnan(found[name]), name
    assert metrics.evaluate(frame([0, 0, 0], [1, 1, 1]))["qwk"] == 0  # constant, but wrong: defined


def test_accuracy_is_prevalence_weighted(predictions):
    gaps = metrics.identity_gaps(metrics.evaluate(predictions))
    assert list(gaps) == ["ge1", "ge2", "ge3", "ge4"]
    assert max(map(abs, gaps.values())) < ROUNDING
    broken = metrics.evaluate(predictions) | {"accuracy_ge2": 0.5}
    assert abs(metrics.identity_gaps(broken)["ge2"]) > 0.01


def test_implied_prevalence_of_the_paper():
    # sources A5 prints .217, .244, .210
    assert metrics.implied_prevalence(0.29, 0.89, 0.76) == pytest.approx(0.217, abs=5e-4)
    assert metrics.implied_prevalence(0.06, 0.96, 0.74) == pytest.approx(0.244, abs=5e-4)
    assert metrics.implied_prevalence(0.77, 0.913, 0.883) == pytest.approx(0.210, abs=5e-4)
    assert math.isnan(metrics.implied_prevalence(0.5, 0.5, 0.5))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.drop(columns=["p3", "grade"]), r"missing: grade, p3"),
        (lambda d: d.iloc[:0], r"no row"),
        (lambda d: d.assign(p0=d["p0"] + 1e-3), r"sum to 1"),
        (lambda d: d.assign(p0=d["p0"].where(d.index != 2)), r"1 of \d+ rows .*missing.*00001_left"),
        (lambda d: d.assign(p0=np.inf), r"not a finite number"),
        (lambda d: d.assign(p0=-0.2, p1=1.2, p2=0.0, p3=0.0, p4=0.0), r"outside 0 to 1"),
        (lambda d: d.assign(grade=5), r"not 0, 1, 2, 3 or 4"),
        (lambda d: d.assign(grade=1.5), r"not 0, 1, 2, 3 or 4"),
        (
            lambda d: d.assign(grade=d["grade"].astype("Int64").where(d.index > 0)),
            r"1 of \d+ rows have a grade",
        ),
        (lambda d: d.assign(image_id="same"), r"repeat an image_id"),
        (lambda d: d.assign(patient_id=None), r"have no patient_id"),
        (
            lambda d: d.assign(split=["test"] * (len(d) - 1) + ["validation"]),
            r"splits test, validation are mixed",
        ),
    ],
)
def test_bad_predictions_are_refused(change, message):
    good = graded(eyes(12, seed=5))
    assert good["image_id"][2] == "00001_left"
    metrics.check_predictions(good)
    with pytest.raises(metrics.PredictionError, match=message):
        metrics.evaluate(change(good))


def test_float32_probabilities_are_accepted():
    made = graded(eyes(40))
    made[metrics.PROBABILITIES] = made[metrics.PROBABILITIES].astype("float32")
    metrics.check_predictions(made)


def test_reading_keeps_digits_and_leading_zeros(tmp_path):
    made = graded(eyes(12))
    mixed = pd.concat([made, made.assign(split="validation")])
    mixed.to_csv(tmp_path / "predictions.csv", index=False)
    pd.testing.assert_frame_equal(
        metrics.read_predictions(tmp_path / "predictions.csv"), made, check_exact=True
    )
    with pytest.raises(
        metrics.PredictionError, match=r"no row has split 'train'; there are \['test', 'validation'\]"
    ):
        metrics.read_predictions(tmp_path / "predictions.csv", "train")
