"""BCa against SciPy, DeLong against a plain double loop, McNemar and Holm by hand, and intervals that cover
the truth."""

from __future__ import annotations

import numpy as np
import pytest
from fabricated import eyes, graded
from scipy import stats

from drstudy.evaluation import metrics, statistics, tests

ROUNDING = 1e-12  # the same sums in another order; one pair of the images below weighs 1e-4 or more


def test_bca_equals_scipy_on_the_same_draws():
    """One eye a patient, so that SciPy, which knows no patients, resamples the same units."""
    one = graded(eyes(90, seed=3)).drop_duplicates("patient_id")
    table = statistics.bootstrap(one, 400, seed=2, method="bca").set_index("metric")
    draws = statistics.resampled(one, 400, seed=2)
    percentile = statistics.bootstrap(one, 400, seed=2).set_index("metric")
    p = one[metrics.PROBABILITIES].to_numpy()
    values = {
        "accuracy": p.argmax(1) == one["grade"],
        "mae": np.abs(p.argmax(1) - one["grade"]),
        "brier": ((p - np.eye(5)[one["grade"]]) ** 2).sum(1),
    }
    for name, of_image in values.items():
        made = stats.bootstrap(
            (np.asarray(of_image, float),), np.mean, n_resamples=9, method="percentile", axis=-1
        )
        made.bootstrap_distribution = draws[name].to_numpy()
        expected = stats.bootstrap(
            (np.asarray(of_image, float),),
            np.mean,
            n_resamples=0,
            bootstrap_result=made,
            method="BCa",
            axis=-1,
        ).confidence_interval
        assert table.loc[name, ["lo", "hi"]].tolist() == pytest.approx(list(expected), abs=ROUNDING)
        assert table.loc[name, "lo"] != percentile.loc[name, "lo"]
        assert table.loc[name, "n_valid"] == 400


def test_jackknife_leaves_out_one_patient_at_a_time():
    predictions = graded(eyes(12, seed=5))
    found = statistics.jackknife(predictions)
    for row, patient in enumerate(sorted(predictions["patient_id"].unique())):
        alone = metrics.evaluate(predictions[predictions["patient_id"] != patient])
        assert found.iloc[row].to_dict() == pytest.approx(alone, nan_ok=True, abs=ROUNDING)
    assert (
        statistics.jackknife(predictions[predictions["patient_id"] == "00000"])
        .drop(columns="grades_present")
        .isna()
        .all(axis=None)
    )


def test_bca_is_undefined_where_all_hangs_on_one_patient():
    images = eyes(40, seed=1, shares=(0.6, 0.4, 0, 0, 0))
    images.loc[images["patient_id"] == "00000", "grade"] = 4
    predictions = graded(images[images["grade"].isin([0, 1, 4])])
    bca = statistics.bootstrap(predictions, 100, seed=0, method="bca").set_index("metric")
    percentile = statistics.bootstrap(predictions, 100, seed=0).set_index("metric")
    assert bca.loc["auc_ge4", ["lo", "hi"]].isna().all()
    assert percentile.loc["auc_ge4", ["lo", "hi"]].notna().all()
    assert bca.loc["auc_ge4", "n_valid"] == percentile.loc["auc_ge4", "n_valid"] < 100
    assert bca.loc["accuracy", ["lo", "hi"]].notna().all()


def test_bca_of_a_difference_and_of_draws_on_one_side():
    images = eyes(60, seed=2)
    a, b = graded(images, skill=2), graded(images, skill=1, seed=4)
    found = statistics.paired_difference(a, b, 200, seed=1, method="bca").set_index("metric").loc["qwk"]
    draws = (statistics.resampled(a, 200, 1) - statistics.resampled(b, 200, 1))["qwk"].to_numpy()
    left_out = (statistics.jackknife(a) - statistics.jackknife(b))["qwk"].to_numpy()
    assert (found["lo"], found["hi"]) == statistics.bca_interval(found["value"], draws, left_out)
    assert np.isnan(statistics.bca_interval(2.0, np.array([1.0, 1.5]), np.array([1.9, 2.1]))).all()
    assert statistics.bca_interval(1.0, np.ones(5), np.ones(4)) == (
        1.0,
        1.0,
    )  # a perfect score in every resample


def naive_delong(positive: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every pair of a positive and a negative, as DeLong, DeLong & Clarke-Pearson (1988) wrote it."""
    k = len(scores)
    up, down = np.flatnonzero(positive), np.flatnonzero(~positive)
    won = np.empty((k, len(up), len(down)))
    for model in range(k):
        for i, u in enumerate(up):
            for j, d in enumerate(down):
                x, y = scores[model, u], scores[model, d]
                won[model, i, j] = 1 if x > y else 0.5 if x == y else 0
    v10, v01 = won.mean(axis=2), won.mean(axis=1)
    areas = won.mean(axis=(1, 2))
    s10 = (v10 - areas[:, None]) @ (v10 - areas[:, None]).T / (len(up) - 1)
    s01 = (v01 - areas[:, None]) @ (v01 - areas[:, None]).T / (len(down) - 1)
    return areas, s10 / len(up) + s01 / len(down)


@pytest.mark.parametrize("digits", [0, 1, 12], ids=["many ties", "some ties", "no ties"])
def test_delong_equals_every_pair(digits):
    random = np.random.default_rng(digits)
    positive = random.random(90) < 0.3
    scores = np.round(random.normal(size=(3, 90)) + positive * np.array([[0.5], [1], [1.5]]), digits)
    areas, covariance = tests.delong(positive, scores)
    expected_areas, expected_covariance = naive_delong(positive, scores)
    np.testing.assert_allclose(areas, expected_areas, rtol=0, atol=ROUNDING)
    np.testing.assert_allclose(covariance, expected_covariance, rtol=0, atol=ROUNDING)
    assert areas[0] == pytest.approx(metrics.auc(positive, scores[0]), abs=ROUNDING)
    variance = expected_covariance[0, 0] + expected_covariance[1, 1] - 2 * expected_covariance[0, 1]
    difference, p = tests.delong_test(positive, scores[0], scores[1])
    assert difference == pytest.approx(expected_areas[0] - expected_areas[1], abs=ROUNDING)
    assert p == pytest.approx(2 * stats.norm.sf(abs(difference) / np.sqrt(variance)), abs=1e-9)


def test_delong_by_hand():
    """Positives 3, 1 and negatives 2, 0: three of four pairs are won. V10 = (1, .5), V01 = (.5, 1), each of
    variance 1/8, so the area's is 1/16 + 1/16."""
    positive = np.array([True, True, False, False])
    areas, covariance = tests.delong(positive, np.array([[3.0, 1, 2, 0]]))
    assert areas.tolist() == [0.75]
    assert covariance.tolist() == [[0.125]]
    difference, p = tests.delong_test(positive, np.array([3.0, 1, 2, 0]), np.array([3.0, 2, 1, 0]))
    assert difference == -0.25
    assert p == pytest.approx(2 * stats.norm.sf(0.25 / np.sqrt(0.125)))


def test_delong_of_one_class_and_of_equal_scores():
    score = np.arange(6.0)
    assert np.isnan(tests.delong(np.ones(6, bool), score)[0]).all()
    assert np.isnan(tests.delong_test(np.zeros(6, bool), score, score)).all()
    areas, covariance = tests.delong(score == 5, np.stack([score, -score]))
    assert areas.tolist() == [1, 0]
    assert np.isnan(covariance).all()  # one positive has no variance
    assert np.isnan(tests.delong_test(score == 5, score, -score)[1])
    assert tests.delong_test(score > 2, score, score**3) == (0, 1)  # both perfect
    assert np.isnan(tests.delong_test(score > 2, score, -score)[1])  # 1 against 0, each without variance


def test_delong_finds_nothing_too_often_where_eyes_are_paired():
    """Why p_patients is there: eyes that are twins, no true difference, and DeLong takes N to be twice what
    it is."""
    random = np.random.default_rng(0)
    positive = np.repeat(np.arange(60) < 25, 2)
    p = []
    for _ in range(400):
        first, second = (np.repeat(random.normal(size=60), 2) + positive for _ in range(2))
        p.append(tests.delong_test(positive, first, second)[1])
    # A right test rejects 5 %; over 400 trials the standard error is 1.1 points, so 9 % is more than three
    # away. Twins make the variance half of what it is: |z| > 1.96 / sqrt(2), expected in 17 %.
    assert np.mean(np.array(p) < 0.05) > 0.09


def test_mcnemar_by_hand():
    first = np.array([1, 1, 1, 1, 1, 1, 0, 1, 0], bool)
    second = np.array([0, 0, 0, 0, 0, 0, 1, 1, 0], bool)
    only_first, only_second, p = tests.mcnemar(first, second)
    assert (only_first, only_second) == (6, 1)
    assert p == pytest.approx(2 * (1 + 7) / 2**7)  # 2 P(X <= 1), X binomial of 7 fair throws
    assert tests.mcnemar(second, first) == (1, 6, p)
    assert tests.mcnemar(first, first) == (0, 0, 1.0)
    assert np.isnan(tests.mcnemar(first[:0], second[:0])[2])


def test_holm_by_hand():
    """Smallest times three, next times two, never falling; undefined ones do not count."""
    assert tests.holm([0.01, 0.04, 0.03]).tolist() == pytest.approx([0.03, 0.06, 0.06])
    found = tests.holm([0.01, np.nan, 0.04])
    assert found[[0, 2]].tolist() == pytest.approx([0.02, 0.04])
    assert np.isnan(found[1])
    assert np.isnan(tests.holm([np.nan, np.nan])).all()


def test_p_value_by_hand():
    assert tests.p_value(np.array([1.0] * 18 + [-1.0])) == pytest.approx(2 * 2 / 20)
    assert tests.p_value(np.array([0.0, 0.0, np.nan])) == 1.0
    assert np.isnan(tests.p_value(np.array([np.nan])))


def test_p_value_is_below_5_percent_where_the_interval_excludes_0():
    """They differ by the draw that is added to each side: one in 1,000 at this many."""
    images = eyes(150, seed=8)
    for seed in range(6):
        a, b = graded(images, skill=1.5, seed=seed), graded(images, skill=1.1, seed=seed + 20)
        rows = tests.paired_tests(a, b, 999, seed=0)
        excludes = (rows["lo"] > 0) | (rows["hi"] < 0)
        decided = (rows["p_patients"] - 0.05).abs() > 0.004
        assert ((rows["p_patients"] < 0.05) == excludes)[decided].all()


def test_paired_tests_are_of_the_same_images_in_any_order():
    images = eyes(150, seed=8)
    a, b = graded(images, skill=3), graded(images, skill=0.6, seed=2)
    found = tests.paired_tests(a, b, 300, seed=0, cut=1).set_index("metric")
    assert list(found.index) == ["auc_ge1", "sensitivity_ge1", "specificity_ge1"]
    values = {name: metrics.evaluate(a)[name] - metrics.evaluate(b)[name] for name in found.index}
    assert found["value"].to_dict() == pytest.approx(values, abs=0)
    positive = images["grade"] >= 1
    hits = [frame[metrics.PROBABILITIES].to_numpy().argmax(1) >= 1 for frame in (a, b)]
    n = (hits[0] & ~hits[1])[positive].sum(), (~hits[0] & hits[1])[positive].sum()
    assert found.loc["sensitivity_ge1", "p_images"] == pytest.approx(stats.binomtest(n[0], sum(n)).pvalue)
    shuffled = tests.paired_tests(a, b.sample(frac=1, random_state=3), 300, seed=0, cut=1).set_index("metric")
    np.testing.assert_allclose(shuffled.to_numpy(float), found.to_numpy(float), rtol=0, atol=1e-9)
    nobody = tests.paired_tests(*(x[~positive] for x in (a, b)), 50, seed=0, cut=1).set_index("metric")
    assert (
        nobody.loc[["auc_ge1", "sensitivity_ge1"], ["value", "p_images", "p_patients"]].isna().all(axis=None)
    )
    assert nobody["n_valid"].tolist() == [0, 0, 50]
