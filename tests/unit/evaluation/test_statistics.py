"""The bootstrap against a plain loop that resamples rows and asks scikit-learn."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics as reference
from fabricated import eyes, graded

from drstudy.evaluation import metrics, statistics

ROUNDING = 1e-12  # the same sums in another order; the smallest step of a share here is 1/N > 1e-3
GRADES = list(range(5))


def by_scikit_learn(rows: pd.DataFrame) -> dict[str, float]:
    """Every metric of the study that scikit-learn has, NaN where undefined."""
    y, p = rows["grade"].to_numpy(), rows[metrics.PROBABILITIES].to_numpy()
    predicted = p.argmax(1)
    present = np.unique(y)

    def ratio(truth, decision):
        return decision[truth].mean() if truth.any() else np.nan

    def area(truth, score):
        return reference.roc_auc_score(truth, score) if 0 < truth.sum() < len(truth) else np.nan

    found = {
        "qwk": reference.cohen_kappa_score(y, predicted, weights="quadratic"),
        "accuracy": reference.accuracy_score(y, predicted),
        "balanced_accuracy": reference.recall_score(y, predicted, average="macro", labels=present),
        "mae": reference.mean_absolute_error(y, predicted),
        "nll": reference.log_loss(y, p, labels=GRADES),
        "brier": reference.brier_score_loss(y, p, labels=GRADES, scale_by_half=False),
        "macro_auc": np.mean([area(y == g, p[:, g]) for g in present]),
        "specificity_macro": np.mean([ratio(y != g, predicted != g) for g in present]),
        "accuracy_macro": np.mean([((y == g) == (predicted == g)).mean() for g in present]),
        "grades_present": len(present),
    }
    for g in GRADES:
        found[f"recall_grade{g}"] = ratio(y == g, predicted == g)
        found[f"precision_grade{g}"] = ratio(predicted == g, y == g)
    for cut in metrics.CUTS:
        found[f"sensitivity_ge{cut}"] = ratio(y >= cut, predicted >= cut)
        found[f"specificity_ge{cut}"] = ratio(y < cut, predicted < cut)
        found[f"accuracy_ge{cut}"] = reference.accuracy_score(y >= cut, predicted >= cut)
        found[f"prevalence_ge{cut}"] = (y >= cut).mean()
        found[f"auc_ge{cut}"] = area(y >= cut, p[:, ::-1].cumsum(1)[:, 4 - cut])
    return found | {"sensitivity_macro": found["balanced_accuracy"]}


def plain_loop(predictions: pd.DataFrame, resamples: int, seed: int) -> pd.DataFrame:
    """Resample row by row: every patient's rows as often as the patient was drawn."""
    patients = np.unique(predictions["patient_id"])
    rows_of = predictions.groupby("patient_id").indices
    found = []
    for counts in statistics.resample_counts(predictions["patient_id"], resamples, seed):
        rows = np.concatenate([np.tile(rows_of[patients[i]], counts[i]) for i in np.flatnonzero(counts)])
        found.append(by_scikit_learn(predictions.iloc[rows]))
    return pd.DataFrame(found)


@pytest.mark.parametrize("tied", [False, True], ids=["distinct scores", "tied scores"])
@pytest.mark.parametrize(
    "shares",
    [(0.5, 0.15, 0.15, 0.1, 0.1), (0.7, 0.27, 0.03, 0, 0), (0.02, 0.05, 0.08, 0.25, 0.6)],
    ids=["all grades", "rare and absent grades", "mostly severe"],
)
def test_equals_a_plain_loop_with_scikit_learn(shares, tied):
    predictions = graded(eyes(60, seed=4, shares=shares), tied=tied)
    fast = statistics.resampled(predictions, 20, seed=9)
    slow = plain_loop(predictions, 20, seed=9)
    assert set(fast) == set(slow) == set(metrics.evaluate(predictions))
    pd.testing.assert_frame_equal(fast[list(slow)], slow, check_dtype=False, rtol=0, atol=ROUNDING)


def test_percentiles_value_and_valid_resamples():
    predictions = graded(eyes(50, seed=4, shares=(0.7, 0.27, 0.03, 0, 0)))
    draws = statistics.resampled(predictions, 200, seed=1)
    table = statistics.bootstrap(predictions, 200, seed=1).set_index("metric")
    assert list(table.columns) == ["value", "lo", "hi", "n_valid"]
    assert table["value"].to_dict() == pytest.approx(metrics.evaluate(predictions), nan_ok=True, abs=0)
    assert table.loc["qwk", "lo"] == np.percentile(draws["qwk"], 2.5)
    assert table.loc["qwk", "hi"] == np.percentile(draws["qwk"], 97.5)
    assert table.loc["qwk", "n_valid"] == 200
    rare = draws["recall_grade2"].dropna()  # some resamples have no grade-2 eye
    assert 0 < len(rare) < 200
    assert table.loc["recall_grade2", "n_valid"] == len(rare)
    assert table.loc["recall_grade2", "hi"] == np.percentile(rare, 97.5)
    assert table.loc["recall_grade4", "n_valid"] == 0
    assert table.loc["recall_grade4", ["value", "lo", "hi"]].isna().all()
    assert table.loc["grades_present", "lo"] < table.loc["grades_present", "value"]  # says why


def test_counts_are_multinomial_over_patients():
    ids = eyes(300, seed=2)["patient_id"]
    counts = statistics.resample_counts(ids, 2000, seed=0)
    assert counts.shape == (2000, ids.nunique()) == (2000, 300)
    assert (counts.sum(axis=1) == 300).all()
    # Each count is Binomial(300, 1/300): mean 1, variance 299/300. Over 2,000 x 300 draws the standard error
    # of the variance is about 0.0023 (fourth moment 4, so sqrt(3 / 6e5)); five of them. Drawing without
    # replacement would give 0.
    assert counts.var() == pytest.approx(299 / 300, abs=0.012)
    # The mean of one patient has standard error 1 / sqrt(2000) = 0.022; the greatest of 300 stays within
    # five.
    assert np.abs(counts.mean(axis=0) - 1).max() < 0.112


def test_resamples_are_shared_by_models_and_do_not_depend_on_order_or_chunks(monkeypatch):
    images = eyes(80, seed=6)
    first = statistics.resampled(graded(images, seed=1), 30, seed=5)
    second = statistics.resampled(graded(images, seed=2), 30, seed=5)
    pd.testing.assert_series_equal(first["prevalence_ge1"], second["prevalence_ge1"], check_exact=True)
    assert not first["qwk"].equals(second["qwk"])
    shuffled = graded(images, seed=1).sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(statistics.resampled(shuffled, 30, seed=5), first, rtol=0, atol=ROUNDING)
    monkeypatch.setattr(statistics, "CHUNK_BYTES", 7 * 8 * 80)  # seven resamples a chunk
    pd.testing.assert_frame_equal(
        statistics.resampled(graded(images, seed=1), 30, seed=5), first, rtol=0, atol=ROUNDING
    )
    assert not statistics.resampled(graded(images, seed=1), 30, seed=6)["qwk"].equals(first["qwk"])


def test_paired_difference_uses_the_same_resamples():
    images = eyes(150, seed=8)
    good, bad = graded(images, skill=3), graded(images, skill=0.5, seed=2)
    difference = statistics.paired_difference(good, bad, 300, seed=0).set_index("metric")
    a, b = statistics.bootstrap(good, 300, seed=0), statistics.bootstrap(bad, 300, seed=0)
    values = dict(zip(a["metric"], a["value"] - b["value"]))
    assert difference["value"].to_dict() == pytest.approx(values, nan_ok=True, abs=0)
    draws = statistics.resampled(good, 300, seed=0)["qwk"] - statistics.resampled(bad, 300, seed=0)["qwk"]
    assert difference.loc["qwk", "lo"] == np.percentile(draws, 2.5) > 0
    assert (difference.loc["prevalence_ge2", ["value", "lo", "hi"]] == 0).all()
    same = statistics.paired_difference(good, good.sample(frac=1, random_state=1), 50, seed=0)
    assert same[["value", "lo", "hi"]].abs().max(axis=None) < ROUNDING


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.iloc[1:],
        lambda d: d.assign(grade=d["grade"].where(d.index > 0, (d["grade"] + 1) % 5)),
        lambda d: d.assign(patient_id=d["patient_id"].where(d.index > 0, "somebody")),
    ],
    ids=["image missing", "another grade", "another patient"],
)
def test_paired_difference_refuses_different_images(change):
    predictions = graded(eyes(20))
    with pytest.raises(metrics.PredictionError, match=r"not tested on the same images: 1 differ.*00000_left"):
        statistics.paired_difference(predictions, change(predictions), 10, seed=0)


def test_patients_are_needed():
    with pytest.raises(metrics.PredictionError, match="patient_id"):
        statistics.bootstrap(graded(eyes(10)).drop(columns="patient_id"), 10, seed=0)


def test_intervals_of_clustered_eyes_are_wider_than_of_images():
    """Twin eyes: each patient twice the same image, so the truth is that N is half as large."""
    one = graded(eyes(400, seed=3)).drop_duplicates("patient_id")
    twins = pd.concat([one, one.assign(image_id=one["image_id"] + "_twin")], ignore_index=True)
    apart = twins.assign(patient_id=twins["image_id"])
    clustered = statistics.resampled(twins, 1000, seed=0)["accuracy"].std()
    naive = statistics.resampled(apart, 1000, seed=0)["accuracy"].std()
    # The ratio is sqrt(2); each standard deviation has relative standard error 1/sqrt(2000) = 2.2 %, so the
    # ratio 3.2 %: four of them still keep 1 (no clustering) out.
    assert clustered / naive == pytest.approx(np.sqrt(2), rel=0.13)


def test_memory_does_not_grow_with_the_resamples():
    predictions = graded(eyes(5000, seed=0))

    def peak(resamples: int) -> int:
        tracemalloc.start()
        statistics.resampled(predictions, resamples, seed=0)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    few, many = peak(250), peak(1000)
    # The result itself grows: 1,000 rows of 41 metrics, 0.3 MB. A (resample, image) array would grow by 57
    # MB.
    assert many < few + 2 * 2**20


def test_paired_differences_equal_a_bootstrap_row_by_row():
    random = np.random.default_rng(1)
    patient = np.repeat(list("abcdefgh"), 2)[:15]
    first, second = random.normal(1, 1, (15, 1)), random.normal(0, 1, (15, 1))
    first[3] = second[7] = np.nan
    found = statistics.paired(first, second, patient, 400, 5)
    gap, names = (first - second)[:, 0], np.unique(patient)
    means, effects = [], []
    for drawn in statistics.resample_counts(patient, 400, 5):
        rows_ = np.concatenate([np.repeat(gap[patient == name], n) for name, n in zip(names, drawn)])
        rows_ = rows_[~np.isnan(rows_)]
        means.append(rows_.mean())
        effects.append(rows_.mean() / rows_.std(ddof=1))
    known = gap[~np.isnan(gap)]
    assert found["eyes"][0] == 13
    assert found["difference"][0] == pytest.approx(known.mean())
    assert found["effect"][0] == pytest.approx(known.mean() / known.std(ddof=1))
    ends = [found[name][0] for name in ("difference_lo", "difference_hi", "effect_lo", "effect_hi")]
    np.testing.assert_allclose(
        ends, [*np.percentile(means, (2.5, 97.5)), *np.percentile(effects, (2.5, 97.5))]
    )


def test_paired_differences_of_few_patients_have_no_interval():
    first = np.array([[1.0, np.nan]] * 8)
    found = statistics.paired(first, first * 0, np.repeat(list("abcd"), 2), 50, 0)
    assert found["difference"][0] == 1
    assert np.isnan(found["difference_lo"][0])
    assert found["eyes"].tolist() == [8, 0]
    assert np.isnan(found["difference"][1])


def test_a_mean_has_the_interval_of_its_paired_difference_to_zero():
    random = np.random.default_rng(2)
    patient, values = np.repeat(list("abcdefgh"), 2)[:15], random.normal(1, 1, 15)
    found = statistics.mean_interval(values, patient, 300, 4)
    same = statistics.paired(values[:, None], np.zeros((15, 1)), patient, 300, 4)
    expected = [same[name][0] for name in ("difference", "difference_lo", "difference_hi")]
    assert [found[name] for name in ("value", "lo", "hi")] == pytest.approx(expected, abs=ROUNDING)
    few = statistics.mean_interval(values[:8], patient[:8], 300, 4)
    assert few["value"] == pytest.approx(values[:8].mean())
    assert np.isnan([few["lo"], few["hi"]]).all(), "four patients"
    assert np.isnan(list(statistics.mean_interval(values[:0], patient[:0], 300, 4).values())).all()


def test_weights_of_images_are_the_resamples_of_their_patients():
    patient = np.array(list("bbacca"))
    weights = statistics.image_weights(patient, 50, 3)
    assert weights.shape == (51, 6)
    assert (weights[0] == 1).all()
    values = np.arange(6.0)
    sums = statistics.resampled_sums(values[:, None], patient, 50, 3)[:, 0]
    np.testing.assert_allclose(weights[1:] @ values, sums, atol=ROUNDING)
    drawn = (weights @ values) / weights.sum(1)
    found = statistics.from_weights(drawn)
    assert found["value"] == 2.5
    assert (found["lo"], found["hi"]) == tuple(np.percentile(drawn[1:], (2.5, 97.5)))
    assert np.isnan(statistics.from_weights(drawn, enough=False)["lo"])


def test_several_networks_are_averaged_in_every_resample():
    frames = [graded(eyes(40, seed=1), skill, 7) for skill in (1.0, 2.0)]
    mean = statistics.resampled_mean(frames, 20, 0)
    apart = [statistics.resampled(frame, 20, 0) for frame in frames]
    pd.testing.assert_frame_equal(mean, (apart[0] + apart[1]) / 2)
