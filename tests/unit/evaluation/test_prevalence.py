"""Scores at another mix of grades: hand values, and agreement with the functions that know no weights."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from fabricated import eyes, graded
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from drstudy.evaluation import calibration, metrics, prevalence, statistics

SHARES = (0.4, 0.2, 0.2, 0.1, 0.1)


def decided(frame: pd.DataFrame, threshold: float = 0.4) -> pd.DataFrame:
    predicted = frame[metrics.PROBABILITIES].to_numpy().argmax(axis=1)
    return frame.assign(predicted=predicted, called=calibration.referable(frame)[0] >= threshold)


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return decided(graded(eyes(150, shares=SHARES)))


def by_hand() -> pd.DataFrame:
    """Six eyes: four of grade 0, two of grade 2; one error on either side."""
    p = np.zeros((6, 5))
    p[[0, 1, 2, 4], 0] = 1.0
    p[3] = p[5] = (0.5, 0, 0.5, 0, 0)
    p[5] = (0.1, 0, 0.9, 0, 0)
    table = pd.DataFrame(
        {"image_id": list("abcdef"), "patient_id": list("abcdef"), "grade": [0, 0, 0, 0, 2, 2]}
    )
    table = table.assign(**{name: p[:, k] for k, name in enumerate(metrics.PROBABILITIES)})
    return table.assign(predicted=[0, 0, 0, 2, 0, 2], called=[False, False, False, True, False, True])


def test_without_weights_it_is_what_others_compute(frame):
    ones = np.ones((1, len(frame)))
    found = {name: value[0] for name, value in prevalence.measures(frame, ones).items()}
    known = metrics.evaluate(frame)
    assert found["auc_ge1"] == pytest.approx(known["auc_ge1"], abs=1e-12)
    assert found["auc_ge2"] == pytest.approx(known["auc_ge2"], abs=1e-12)
    assert found["qwk"] == pytest.approx(
        cohen_kappa_score(frame["grade"], frame["predicted"], weights="quadratic"), abs=1e-12
    )
    probability, outcome = calibration.referable(frame)
    assert found["ece_ge2"] == pytest.approx(calibration.ece(probability, outcome, prevalence.BINS), abs=1e-9)
    assert found["sensitivity_ge2"] == frame["called"][frame["grade"] >= 2].mean()
    assert found["specificity_ge2"] == (~frame["called"])[frame["grade"] < 2].mean()


def test_a_weight_of_two_is_the_image_twice(frame):
    random = np.random.default_rng(0)
    times = random.integers(0, 3, len(frame))
    again = frame.loc[frame.index.repeat(times)].reset_index(drop=True)
    again["image_id"] = again.index.astype(str)
    weighted = prevalence.measures(frame, times[None])
    for name, value in prevalence.measures(again, np.ones((1, len(again)))).items():
        assert weighted[name] == pytest.approx(value, abs=1e-12), name
    score = calibration.referable(frame)[0]
    expected = roc_auc_score(frame["grade"] >= 2, score, sample_weight=times)
    assert weighted["auc_ge2"][0] == pytest.approx(expected, abs=1e-12)


def test_reweighting_by_hand():
    """Four eyes of grade 0 and two of grade 2 shall have equal shares: weights 3/4 and 3/2, which keep the sum of 6."""
    table = by_hand()
    wanted = np.array([0.5, 0, 0.5, 0, 0])
    weights = prevalence.reweighted(np.ones((1, 6)), table["grade"].to_numpy(), wanted)
    assert weights.tolist() == [[0.75, 0.75, 0.75, 0.75, 1.5, 1.5]]
    found = {name: value[0] for name, value in prevalence.measures(table, weights).items()}
    # truth (row) by prediction: 0: 2.25 right, 0.75 called 2; 2: 1.5 called 0, 1.5 right. Observed disagreement 2.25 / 6 = 0.375,
    # expected (3 * 2.25 + 3 * 3.75) / 36 = 0.5, so kappa is 0.25. Unweighted it is 1 - (2 / 6) / (16 / 36) = 0.25 as well.
    assert found["qwk"] == pytest.approx(0.25)
    assert (found["sensitivity_ge2"], found["specificity_ge2"]) == (0.5, 0.75)
    # pairs: a positive of score 0.9 beats all; the other, of score 0, ties with three of four negatives: (1 + 0.75 / 2) / 2
    assert found["auc_ge2"] == pytest.approx(0.6875)
    # bins: score 0: outcomes 1.5 of 3.75 (gap 1.5); score 0.5: 0.75 of a negative (gap 0.375); score 0.9: 1.5 (gap 0.15)
    assert found["ece_ge2"] == pytest.approx((1.5 + 0.375 + 0.15) / 6)


def test_prevalence_moves_what_it_should_and_nothing_else(frame):
    """Within one grade nothing changes, so sensitivity of a single positive grade stays, and a mix of one's own changes nothing."""
    grade = frame["grade"].to_numpy()
    own = prevalence.shares(grade)
    same = prevalence.drawn(frame, 20, 0, own)
    plain = prevalence.drawn(frame, 20, 0)
    for name in prevalence.MEASURES:
        assert same[name][0] == pytest.approx(plain[name][0], abs=1e-12)
    two = frame[frame["grade"].isin([0, 2])].reset_index(drop=True)
    rare = prevalence.drawn(two, 1, 0, np.array([0.95, 0, 0.05, 0, 0]))
    usual = prevalence.drawn(two, 1, 0)
    for name in ("sensitivity_ge2", "specificity_ge2", "auc_ge2"):
        assert rare[name][0] == pytest.approx(usual[name][0], abs=1e-12)
    assert rare["qwk"][0] < usual["qwk"][0] - 0.05


def test_each_resample_has_the_wanted_mix_exactly(frame):
    wanted = np.array([0.6, 0.1, 0.1, 0.1, 0.1])
    weights = statistics.image_weights(frame["patient_id"], 50, 1)
    grade = frame["grade"].to_numpy()
    found = prevalence.reweighted(weights, grade, wanted)
    shares = np.stack([found[:, grade == g].sum(axis=1) for g in range(5)], axis=1) / found.sum(
        axis=1, keepdims=True
    )
    assert np.allclose(shares, wanted, atol=1e-12)
    assert np.allclose(found.sum(axis=1), weights.sum(axis=1))


def test_a_resample_without_a_grade_is_left_out():
    table = by_hand()
    weights = np.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])
    found = prevalence.reweighted(weights, table["grade"].to_numpy(), np.array([0.5, 0, 0.5, 0, 0]))
    assert np.isnan(found[1]).all()
    assert np.isnan(prevalence.measures(table, found)["qwk"]).tolist() == [False, True]


def test_a_grade_that_a_set_lacks_is_no_part_of_the_common_mix():
    first, second = np.array([0, 0, 1, 2]), np.array([0, 2, 2, 2])
    assert prevalence.common([first, second]).tolist() == pytest.approx([0.375 / 0.875, 0, 0.5 / 0.875, 0, 0])
    with pytest.raises(prevalence.PrevalenceError, match="Fewer than two grades"):
        prevalence.common([np.array([0, 0]), np.array([1, 1])])
    with pytest.raises(prevalence.PrevalenceError, match="No image has grade 3"):
        prevalence.reweighted(np.ones((1, 4)), first, np.array([0.5, 0, 0, 0.5, 0]))


def test_parts_of_a_change_add_up_and_only_prevalence_explains_a_change_of_prevalence(frame):
    """Each healthy eye of the first set occurs twice, which changes its prevalence and nothing else: the rest is 0."""
    again = frame[frame["grade"] == 0]
    again = again.assign(image_id=again["image_id"] + "_2", patient_id=again["patient_id"] + "_2")
    whole = pd.concat([frame, again], ignore_index=True)
    wanted = prevalence.common([one["grade"].to_numpy() for one in (whole, frame)])
    inside, outside = (
        {"own": prevalence.drawn(one, 300, seed), "common": prevalence.drawn(one, 300, seed, wanted)}
        for one, seed in ((whole, 0), (frame, 1))
    )
    table = prevalence.separate(inside, outside).set_index(["metric", "part"])
    for name in prevalence.MEASURES:
        total, due, rest = (table.loc[(name, part), "value"] for part in ("total", "prevalence", "rest"))
        assert total == pytest.approx(due + rest, abs=1e-12)
        assert rest == pytest.approx(0, abs=1e-12)
    assert table.loc[("specificity_ge2", "total"), "value"] < -0.01, "fewer healthy eyes among the negatives"
    assert table.loc[("qwk", "rest"), "lo"] < 0 < table.loc[("qwk", "rest"), "hi"]
