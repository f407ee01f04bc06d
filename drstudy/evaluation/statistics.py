"""How sure the numbers are: a bootstrap over patients, with the same resamples for every model.

The two eyes of a patient are graded alike more often than not, so images are not independent; patients are
drawn with replacement and bring all their images. Intervals are the 2.5th and 97.5th percentiles, or, on
request, the bias-corrected and accelerated ones (BCa; Efron 1987). A resample in which a metric is undefined
(no grade-4 eye drawn) is left out of that metric's interval and counted: ``n_valid`` says how many were used.

Nothing is resampled row by row: each metric is a function of sums over patients, so one matrix of counts
(resample by patient) times one matrix of sums (patient by quantity) gives all resamples at once.

DeLong's and McNemar's tests stand here because readers ask for them. **Both take every image as
independent**; with two correlated eyes a patient their p-values are too small, or too large where one eye's
error makes up for the other's. :func:`p_value` of a paired bootstrap over patients is the one to go by.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import pandas as pd

from drstudy.evaluation import metrics

LEVEL = 95.0
"""Coverage that the intervals aim at, percent."""

TAILS = ((100 - LEVEL) / 2, (100 + LEVEL) / 2)

Method = Literal["percentile", "bca"]

CHUNK_BYTES = 8 * 2**20
"""Of the largest array of one chunk of resamples; the results do not depend on it."""


def resample_counts(patient_ids: np.ndarray | pd.Series, resamples: int, seed: int) -> np.ndarray:
    """How often each resample draws each patient.

    Args:
        patient_ids: Of the images, (N,), in any order; the P patients are the distinct ones, sorted.
        resamples: B.
        seed: The same patients and the same seed give the same counts, whichever model is looked at.

    Returns:
        (B, P) int32, each row multinomial: it sums to P.
    """
    patients = len(np.unique(np.asarray(patient_ids)))
    return np.concatenate(list(_chunks(patients, resamples, seed)))


def bootstrap(
    predictions: pd.DataFrame, resamples: int, seed: int, method: Method = "percentile"
) -> pd.DataFrame:
    """Every metric with its interval.

    Args:
        predictions: One row an image of one split: ``patient_id``, ``grade``, ``p0`` to ``p4``.
        resamples: B; 1,000 or more for numbers that are printed.
        seed: See :func:`resample_counts`.
        method: ``percentile``, or ``bca``: see :func:`bca_interval`. Both look at the same resamples.

    Returns:
        Columns ``metric``, ``value`` (of :func:`drstudy.evaluation.metrics.evaluate`), ``lo``, ``hi``, ``n_valid``. With
        no valid resample the interval is NaN.

    Raises:
        drstudy.evaluation.metrics.PredictionError: As :func:`drstudy.evaluation.metrics.check_predictions`; also without
        ``patient_id``.
    """
    left_out = jackknife(predictions) if method == "bca" else None
    return _summary(metrics.evaluate(predictions), resampled(predictions, resamples, seed), left_out)


def paired_difference(
    a: pd.DataFrame, b: pd.DataFrame, resamples: int, seed: int, method: Method = "percentile"
) -> pd.DataFrame:
    """Every metric of model ``a`` minus that of ``b``, both on the same resamples of the same images.

    Returns:
        Columns ``metric``, ``value`` (the difference), ``lo``, ``hi``, ``n_valid``. Intervals are one at a
        time: over many metrics and models some will exclude 0 by chance.

    Raises:
        drstudy.evaluation.metrics.PredictionError: As :func:`bootstrap`; also if the two do not hold the same images
            with the same patients and grades.
    """
    check_same_images(a, b)
    first, second = metrics.evaluate(a), metrics.evaluate(b)
    values = {name: first[name] - second[name] for name in first}
    left_out = jackknife(a) - jackknife(b) if method == "bca" else None
    return _summary(values, resampled(a, resamples, seed) - resampled(b, resamples, seed), left_out)


def check_same_images(a: pd.DataFrame, b: pd.DataFrame) -> None:
    """Refuse to compare two models on different images.

    Raises:
        drstudy.evaluation.metrics.PredictionError: If images, their patients or their grades differ, with how many.
    """
    columns = ["image_id", "patient_id", "grade"]
    for frame in (a, b):
        missing = [name for name in columns if name not in frame]
        if missing:
            raise metrics.PredictionError(f"A paired comparison needs the columns {', '.join(missing)}.")
    both = a[columns].merge(b[columns], how="outer", indicator=True)
    differing = both.loc[both["_merge"] != "both", "image_id"].unique()
    if len(differing):
        raise metrics.PredictionError(
            "The two models were not tested on the same images: "
            f"{len(differing)} differ in presence, patient or grade, {differing[0]} for one. "
            "Run both on the same split."
        )


def resampled(predictions: pd.DataFrame, resamples: int, seed: int) -> pd.DataFrame:
    """Every metric of every resample, (B, metrics), NaN where undefined; the basis of all intervals.

    Raises:
        drstudy.evaluation.metrics.PredictionError: As :func:`bootstrap`.
    """
    weighted = _Weighted(predictions)
    chunks = _chunks(weighted.patients, resamples, seed)
    return pd.concat([weighted(counts) for counts in chunks], ignore_index=True)


def jackknife(predictions: pd.DataFrame) -> pd.DataFrame:
    """Every metric with each patient left out in turn, (P, metrics), NaN where that leaves it undefined.

    Raises:
        drstudy.evaluation.metrics.PredictionError: As :func:`bootstrap`.
    """
    weighted = _Weighted(predictions)
    size = max(1, CHUNK_BYTES // (8 * weighted.patients))
    parts = np.split(np.arange(weighted.patients), range(size, weighted.patients, size))
    everyone = np.arange(weighted.patients)
    return pd.concat(
        [weighted((everyone != part[:, None]).astype(np.int32)) for part in parts], ignore_index=True
    )


def resampled_sums(
    values: np.ndarray, patient_ids: np.ndarray | pd.Series, resamples: int, seed: int
) -> np.ndarray:
    """Sums of values over the images of each resample, the same resamples as everywhere: for measures of
    one's own.

    Args:
        values: (N, k), one row an image.
        patient_ids: (N,).
        resamples, seed: See :func:`resample_counts`.

    Returns:
        (B, k).
    """
    ids, patient = np.unique(np.asarray(patient_ids), return_inverse=True)
    by_patient = np.zeros((len(ids), values.shape[1]))
    np.add.at(by_patient, patient, values)
    return np.concatenate(
        [weighted_sums(counts, by_patient) for counts in _chunks(len(ids), resamples, seed)]
    )


def weighted_sums(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The matrix product of (B, N) weights and (N, k) or (N,) values, equal to the bit on every processor.

    ``weights @ values`` would call a BLAS library, which adds in another order on a processor with other instructions.
    ``einsum`` without optimisation adds in one order.
    """
    weights, values = np.asarray(weights, dtype=float), np.asarray(values, dtype=float)
    return np.einsum("bn,n...->b...", weights, values, optimize=False)


def percentiles(value: float, draws: np.ndarray) -> dict[str, float]:
    """``value, lo, hi, n_valid`` of one metric; draws that are NaN are left out, and the interval is NaN
    without any other."""
    valid = draws[~np.isnan(draws)]
    lo, hi = np.percentile(valid, TAILS) if len(valid) else (np.nan, np.nan)
    return {"value": float(value), "lo": float(lo), "hi": float(hi), "n_valid": len(valid)}


class _Weighted:
    """Every metric for any weights of the patients; the predictions are summed up by patient once."""

    def __init__(self, predictions: pd.DataFrame) -> None:
        from scipy import sparse

        if "patient_id" not in predictions:
            raise metrics.PredictionError(
                "The bootstrap draws patients, so predictions need a column patient_id."
            )
        grade, p, predicted = metrics.arrays(predictions)
        ids, patient = np.unique(predictions["patient_id"].to_numpy(), return_inverse=True)
        self.patients = len(ids)

        def by_patient(row: np.ndarray, rows: int, value: np.ndarray) -> sparse.csr_array:
            """(rows, P): what the images of each patient add to each row."""
            return sparse.csr_array((value, (row, patient)), shape=(rows, self.patients))

        self.cells = by_patient(5 * grade + predicted, 25, np.ones(len(grade)))
        self.averaged = {
            name: by_patient(np.zeros(len(grade), dtype=int), 1, value)
            for name, value in metrics.per_image(grade, p).items()
        }
        self.areas = {
            name: _Area(positive, score, patient, self.patients)
            for name, (positive, score) in metrics.binary_problems(grade, p).items()
        }

    def __call__(self, counts: np.ndarray) -> pd.DataFrame:
        """(b, metrics) for (b, P) weights."""
        weights = np.ascontiguousarray(counts.T, dtype=float)
        tables = (self.cells @ weights).T.reshape(-1, 5, 5)
        chunk = metrics.from_confusion(tables)
        area = {name: problem(weights) for name, problem in self.areas.items()}
        by_grade = np.stack([area[f"grade{g}"] for g in metrics.GRADES], axis=-1)
        chunk["macro_auc"] = metrics.macro(by_grade, tables.sum(-1))
        chunk.update({f"auc_ge{cut}": area[f"ge{cut}"] for cut in metrics.CUTS})
        images = tables.sum((-2, -1))
        for name, total in self.averaged.items():
            nothing = np.full(len(images), np.nan)
            chunk[name] = np.divide((total @ weights)[0], images, out=nothing, where=images > 0)
        return pd.DataFrame(chunk)


class _Area:
    """AUC for any weights of the patients, ties counted half; scores are sorted once.

    The distinct scores of the positives, g_1 < ... < g_G, part the negatives into 2G + 1 bins: between two of
    them, or equal to one. With u the weight of a positive group and n that of a bin, the sum over pairs is
    sum_j u_j (n_0 + ... + n_2j-2 + n_2j-1 / 2), divided by the product of both total weights. All terms are
    sums over patients, so two sparse products give them for all resamples. The smaller class takes the
    positives' place.
    """

    def __init__(self, positive: np.ndarray, score: np.ndarray, patient: np.ndarray, patients: int) -> None:
        from scipy import sparse

        self.swapped = 2 * positive.sum() > len(positive)
        positive = ~positive if self.swapped else positive
        levels, group = np.unique(score[positive], return_inverse=True)
        negative = score[~positive]
        bins = np.searchsorted(levels, negative, "left") + np.searchsorted(levels, negative, "right")

        def sums(row: np.ndarray, rows: int, of: np.ndarray) -> sparse.csr_array:
            return sparse.csr_array((np.ones(len(row)), (row, patient[of])), shape=(rows, patients))

        self.positives = sums(group, len(levels), positive)
        self.negatives = sums(bins, 2 * len(levels) + 1, ~positive)

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """(B,) areas for (P, B) weights; NaN without weight on either side."""
        up, down = self.positives @ weights, self.negatives @ weights
        below = down.cumsum(axis=0)
        pairs = (up * (below[:-1:2] + down[1::2] / 2)).sum(axis=0)
        all_pairs = up.sum(axis=0) * below[-1]
        area = np.divide(pairs, all_pairs, out=np.full(pairs.shape, np.nan), where=all_pairs > 0)
        return 1 - area if self.swapped else area


def _chunks(patients: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Counts in chunks of resamples, (b, P) int32; the stream of draws does not depend on the size of the
    chunks."""
    random = np.random.default_rng(seed)
    size = max(1, CHUNK_BYTES // (8 * patients))
    for start in range(0, resamples, size):
        rows = min(size, resamples - start)
        drawn = random.integers(patients, size=(rows, patients)) + patients * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * patients).reshape(rows, patients).astype(np.int32)


def _summary(values: dict[str, float], draws: pd.DataFrame, left_out: pd.DataFrame | None) -> pd.DataFrame:
    """Point values beside the intervals of the draws that are defined; BCa where the jackknife is given."""
    rows = []
    for name, value in values.items():
        row = {"metric": name, **percentiles(value, draws[name].to_numpy(dtype=float))}
        if left_out is not None:
            row["lo"], row["hi"] = bca_interval(
                value, draws[name].dropna().to_numpy(), left_out[name].to_numpy()
            )
        rows.append(row)
    return pd.DataFrame(rows)


def bca_interval(value: float, draws: np.ndarray, left_out: np.ndarray) -> tuple[float, float]:
    """Bias-corrected and accelerated 95 % interval (Efron 1987, J Am Stat Assoc 82:171).

    The percentiles are shifted by the median bias of the draws (draws equal to the value count half) and by
    the acceleration, the skewness of the jackknife values over 6.

    Args:
        value: On the data themselves.
        draws: (B,) of the bootstrap, all defined.
        left_out: (P,) of the jackknife over patients.

    Returns:
        NaN, NaN where it is undefined: no draws, all draws on one side of the value, or a metric that is
        undefined without some patient (the only one with grade 4, say): such a metric hangs on one patient,
        and no interval can say how much.
    """
    from scipy.stats import norm

    if not len(draws) or not np.isfinite(left_out).all():
        return np.nan, np.nan
    bias = norm.ppf(((draws < value).mean() + (draws <= value).mean()) / 2)
    if not np.isfinite(bias):
        return np.nan, np.nan
    pull = left_out.mean() - left_out
    spread = (pull**2).sum() ** 1.5
    acceleration = (pull**3).sum() / (6 * spread) if spread else 0.0
    tail = norm.ppf(np.array(TAILS) / 100)
    at = norm.cdf(bias + (bias + tail) / (1 - acceleration * (bias + tail)))
    lo, hi = np.percentile(draws, 100 * at)
    return float(lo), float(hi)


def p_value(draws: np.ndarray | pd.Series) -> float:
    """Two-sided p-value of a difference, from its draws: twice the smaller share on either side of 0.

    A draw of exactly 0 counts on both sides, and one draw is added to each, so the least is 2 / (B + 1).
    Where it is below 0.05 the 95 % percentile interval excludes 0, but for that addition. NaN draws are left
    out; NaN if all are.
    """
    valid = np.asarray(draws, dtype=float)
    valid = valid[~np.isnan(valid)]
    if not len(valid):
        return float("nan")
    smaller = min((valid <= 0).sum(), (valid >= 0).sum())
    return float(min(1.0, 2 * (smaller + 1) / (len(valid) + 1)))


def delong(positive: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Areas under the ROC curves of several scores on the same images, and their covariance (DeLong 1988).

    In O(n log n) by midranks: a positive's share of negatives below it is its midrank among all minus its
    midrank among the positives (Sun & Xu 2014, IEEE Signal Process Lett 21:1389). Images are taken as
    independent; see the top of this module.

    Args:
        positive: (N,) bool.
        scores: (k, N), greater for positives; ties count half.

    Returns:
        Areas (k,) and covariance (k, k). The covariance is NaN with fewer than two positives or negatives,
        the areas also without any.
    """
    of_positives, of_negatives = _placements(positive, scores)
    n, m = of_positives.shape[1], of_negatives.shape[1]
    nothing = np.full((len(of_positives), len(of_positives)), np.nan)
    if not n or not m:
        return nothing[:, 0], nothing
    areas = of_positives.mean(axis=1)
    if n < 2 or m < 2:
        return areas, nothing
    return areas, np.atleast_2d(np.cov(of_positives)) / n + np.atleast_2d(np.cov(of_negatives)) / m


def _placements(positive: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Share of the negatives below each positive (k, n), and of the positives above each negative (k, m)."""
    from scipy.stats import rankdata

    positive, scores = np.asarray(positive, dtype=bool), np.atleast_2d(scores)
    among_all = rankdata(scores, axis=1)
    up, down = scores[:, positive], scores[:, ~positive]
    below = among_all[:, positive] - (rankdata(up, axis=1) if up.size else up)
    above = up.shape[1] - (among_all[:, ~positive] - (rankdata(down, axis=1) if down.size else down))
    return below / max(1, down.shape[1]), above / max(1, up.shape[1])


def delong_test(positive: np.ndarray, first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Difference of two areas on the same images, and its two-sided p-value.

    The p-value is 1 for areas that are equal without any variance, such as two perfect ones, and NaN where
    :func:`delong` has no covariance, or the variance is 0 and the areas differ.
    """
    from scipy.stats import norm

    of_positives, of_negatives = _placements(positive, np.stack([first, second]))
    n, m = of_positives.shape[1], of_negatives.shape[1]
    if not n or not m:
        return float("nan"), float("nan")
    by_positive, by_negative = of_positives[0] - of_positives[1], of_negatives[0] - of_negatives[1]
    difference = float(by_positive.mean())
    if n < 2 or m < 2:
        return difference, float("nan")
    variance = by_positive.var(ddof=1) / n + by_negative.var(ddof=1) / m
    if not variance:
        return difference, float("nan") if difference else 1.0
    return difference, float(2 * norm.sf(abs(difference) / np.sqrt(variance)))


def mcnemar(first: np.ndarray, second: np.ndarray) -> tuple[int, int, float]:
    """Exact McNemar test of two decisions on the same images: which of them is right more often.

    Args:
        first, second: (N,) bool, whether each is right. Of the positives only, it tests sensitivity; of the
            negatives only, specificity.

    Returns:
        Images that only the first has right, those that only the second has right, and the two-sided binomial
        p-value; 1 where there are none of either, NaN without images. Images are taken as independent.
    """
    from statsmodels.stats.contingency_tables import mcnemar as exact

    first, second = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    only_first, only_second = int((first & ~second).sum()), int((~first & second).sum())
    if not len(first):
        return 0, 0, float("nan")
    p = exact([[0, only_first], [only_second, 0]], exact=True).pvalue if only_first + only_second else 1.0
    return only_first, only_second, float(p)


def holm(p_values: Sequence[float]) -> np.ndarray:
    """p-values adjusted for their number (Holm 1979): the chance of any false finding among them stays at
    the level.

    NaN stays NaN and does not count: a test that could not be made finds nothing.
    """
    from statsmodels.stats.multitest import multipletests

    adjusted = np.asarray(p_values, dtype=float).copy()
    made = ~np.isnan(adjusted)
    if made.any():
        adjusted[made] = multipletests(adjusted[made], method="holm")[1]
    return adjusted


def paired_tests(a: pd.DataFrame, b: pd.DataFrame, resamples: int, seed: int, cut: int = 2) -> pd.DataFrame:
    """Is model ``a`` better than ``b`` at one cut: AUC, sensitivity and specificity, each tested two ways.

    Returns:
        A row each: ``metric``, ``value`` (a minus b), ``lo``, ``hi`` and ``n_valid`` of
        :func:`paired_difference`; ``p_images`` of DeLong's test for the AUC and McNemar's for the others,
        which take eyes as independent; ``p_patients`` of the same bootstrap over patients as the interval.

    Raises:
        drstudy.evaluation.metrics.PredictionError: As :func:`paired_difference`.
    """
    names = [f"auc_ge{cut}", f"sensitivity_ge{cut}", f"specificity_ge{cut}"]
    found = paired_difference(a, b, resamples, seed).set_index("metric").loc[names]
    draws = resampled(a, resamples, seed) - resampled(b, resamples, seed)
    rows = [frame.sort_values("image_id") for frame in (a, b)]
    positive = rows[0]["grade"].to_numpy(dtype=int) >= cut
    scores = [metrics.binary_problems(*metrics.arrays(frame)[:2])[f"ge{cut}"][1] for frame in rows]
    right = [(metrics.arrays(frame)[2] >= cut) == positive for frame in rows]
    found["p_images"] = [
        delong_test(positive, *scores)[1],
        mcnemar(right[0][positive], right[1][positive])[2],
        mcnemar(right[0][~positive], right[1][~positive])[2],
    ]
    found["p_patients"] = [p_value(draws[name]) for name in names]
    return found.reset_index()
