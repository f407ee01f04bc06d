"""The bootstrap over patients: one set of resamples, used for every interval of the study.

The two eyes of a patient are usually graded alike, so images are not independent. Patients are drawn with replacement
and bring all their images. The same patients, number of resamples and seed give the same resamples for every model, map
and measure, so differences are paired. Intervals are the 2.5th and 97.5th percentiles, or, on request, the bias-corrected
and accelerated ones (BCa; Efron 1987). A resample in which a metric is undefined (no grade-4 eye drawn) is left out of
that metric's interval; ``n_valid`` is the number of resamples that were used.

There is one source of resamples (:func:`resample_counts`) and one percentile interval (:func:`percentiles`). Between them
stands what is computed on each resample:

- metrics of predictions: :func:`bootstrap`, :func:`paired_difference`, :func:`resampled_mean` (mean over several networks);
- means of values: :func:`mean_interval`, and :func:`paired` for many paired columns at once;
- any function of sums over images: :func:`resampled_sums`;
- any function of weighted images: :func:`image_weights`.

Nothing is resampled row by row: each metric is a function of sums over patients, so one matrix of counts (resample by
patient) times one matrix of sums (patient by quantity) gives all resamples at once. Tests of two models stand in
:mod:`drstudy.evaluation.tests`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import pandas as pd

from drstudy.core.names import N_GRADES
from drstudy.evaluation import metrics

LEVEL = 95.0
"""Nominal coverage of the intervals, percent."""

TAILS = ((100 - LEVEL) / 2, (100 + LEVEL) / 2)

FEWEST_PATIENTS = 5
"""Smallest number of patients for which a mean gets an interval. Four patients have only 35 distinct resamples, too few
for 2.5 % in each tail."""

Method = Literal["percentile", "bca"]

CHUNK_BYTES = 8 * 2**20
"""Size of the largest array of one chunk of resamples. The results do not depend on it."""


def resample_counts(patient_ids: np.ndarray | pd.Series, resamples: int, seed: int) -> np.ndarray:
    """How often each resample draws each patient.

    Args:
        patient_ids: Patient of each image, (N,), in any order. The P patients are the distinct ones, sorted.
        resamples: Number B of resamples.
        seed: Seed of the draws. The same patients and the same seed give the same counts.

    Returns:
        (B, P) int32, each row multinomial: it sums to P.
    """
    patients = len(np.unique(np.asarray(patient_ids)))
    return np.concatenate(list(_chunks(patients, resamples, seed)))


def image_weights(patient_ids: np.ndarray | pd.Series, resamples: int, seed: int) -> np.ndarray:
    """How often each image occurs: once each in the data themselves, then in each resample of the patients.

    Args:
        patient_ids: Patient of each image, (N,).
        resamples, seed: As in :func:`resample_counts`.

    Returns:
        (1 + B, N) int32. The first row is all ones, so a statistic of all rows gives the point value first and then its
        B draws.
    """
    patients = np.asarray(patient_ids).astype(str)
    _, place = np.unique(patients, return_inverse=True)
    counted = resample_counts(patients, resamples, seed)[:, place]
    return np.concatenate([np.ones((1, len(patients)), counted.dtype), counted])


def bootstrap(
    predictions: pd.DataFrame, resamples: int, seed: int, method: Method = "percentile"
) -> pd.DataFrame:
    """Every metric with its interval.

    Args:
        predictions: One row per image of one split: ``patient_id``, ``grade``, ``p0`` to ``p4``.
        resamples: Number B of resamples; 1,000 or more for numbers that are printed.
        seed: Seed of the draws, see :func:`resample_counts`.
        method: ``percentile``, or ``bca``: see :func:`bca_interval`. Both use the same resamples.

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
    """Every metric of every resample, (B, metrics), NaN where undefined.

    Raises:
        drstudy.evaluation.metrics.PredictionError: As :func:`bootstrap`.
    """
    weighted = _Weighted(predictions)
    chunks = _chunks(weighted.patients, resamples, seed)
    return pd.concat([weighted(counts) for counts in chunks], ignore_index=True)


def resampled_mean(frames: Sequence[pd.DataFrame], resamples: int, seed: int) -> pd.DataFrame:
    """:func:`resampled`, averaged over the predictions of several networks for the same images, (B, metrics)."""
    return sum(resampled(frame, resamples, seed) for frame in frames) / len(frames)


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
    """Sums of values over the images of each resample: for any measure that is a function of such sums.

    Args:
        values: (N, k), one row per image.
        patient_ids: Patient of each image, (N,).
        resamples, seed: As in :func:`resample_counts`.

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


def weighted_confusion(weights: np.ndarray, grade: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Confusion matrices (B, 5, 5), true grades in rows, of images with weights (B, N), from grades (N,) int, observed and predicted."""
    cells = np.eye(N_GRADES**2)[N_GRADES * grade + predicted]
    return weighted_sums(weights, cells).reshape(-1, N_GRADES, N_GRADES)


def percentiles(value: float, draws: np.ndarray, enough: bool = True) -> dict[str, float]:
    """The percentile interval of one number.

    Args:
        value: The number on the data themselves.
        draws: (B,) the number on each resample; NaN draws are left out.
        enough: Whether there are enough patients for an interval.

    Returns:
        ``value, lo, hi, n_valid``. ``lo`` and ``hi`` are NaN if ``enough`` is false or no draw is valid.
    """
    valid = draws[~np.isnan(draws)]
    lo, hi = np.percentile(valid, TAILS) if enough and len(valid) else (np.nan, np.nan)
    return {"value": float(value), "lo": float(lo), "hi": float(hi), "n_valid": len(valid)}


def from_weights(drawn: np.ndarray, enough: bool = True) -> dict[str, float]:
    """:func:`percentiles` of a statistic that was computed for the weights of :func:`image_weights`.

    Args:
        drawn: (1 + B,), the value on the data themselves first.
        enough: Whether there are enough patients for an interval. An undefined value gets none.
    """
    return percentiles(drawn[0], drawn[1:], enough and not np.isnan(drawn[0]))


def enough_patients(patient_ids: np.ndarray | pd.Series) -> bool:
    """Whether there are at least :data:`FEWEST_PATIENTS` distinct patients."""
    return len(np.unique(np.asarray(patient_ids))) >= FEWEST_PATIENTS


def mean_interval(
    values: np.ndarray, patient_ids: np.ndarray | pd.Series, resamples: int, seed: int
) -> dict[str, float]:
    """Mean of one value per image, with its interval.

    Args:
        values: (N,), such as paired differences of two models.
        patient_ids: Patient of each value, (N,).
        resamples, seed: As in :func:`resample_counts`.

    Returns:
        ``value, lo, hi`` as :func:`percentiles`; no interval below :data:`FEWEST_PATIENTS` patients.
    """
    values = np.asarray(values, dtype=float)
    draws = mean_draws(values, patient_ids, resamples, seed)
    found = percentiles(values.mean() if len(values) else np.nan, draws)
    return {name: found[name] for name in ("value", "lo", "hi")}


def mean_draws(
    values: np.ndarray, patient_ids: np.ndarray | pd.Series, resamples: int, seed: int
) -> np.ndarray:
    """Mean of one value per image on each resample, (B,); one NaN below :data:`FEWEST_PATIENTS` patients. Arguments as :func:`mean_interval`."""
    if not enough_patients(patient_ids):
        return np.full(1, np.nan)
    sums = resampled_sums(np.column_stack([values, np.ones(len(values))]), patient_ids, resamples, seed)
    return sums[:, 0] / sums[:, 1]


def paired(
    first: np.ndarray, second: np.ndarray, patient_ids: np.ndarray, resamples: int, seed: int
) -> dict[str, np.ndarray]:
    """Mean differences of paired values, with intervals and effect sizes, for many columns at once.

    Args:
        first, second: (N, k), NaN where there is no value; a row counts where both have one.
        patient_ids: Patient of each row, (N,).
        resamples, seed: As in :func:`resample_counts`; all k columns share the resamples of all N rows' patients.

    Returns:
        (k,) each: ``eyes`` and ``patients`` that count, ``value`` and ``other`` (means), ``difference`` with
        ``difference_lo`` and ``_hi``, and ``effect`` with ``_lo``, ``_hi``: the difference over its standard deviation
        (Cohen's d of paired values). No interval below :data:`FEWEST_PATIENTS` patients, and no effect where all
        differences are equal.
    """
    both = ~np.isnan(first) & ~np.isnan(second)
    gap = np.where(both, first - second, 0)
    names, index = np.unique(patient_ids.astype(str), return_inverse=True)
    present = np.zeros((len(names), both.shape[1]))
    np.add.at(present, index, both)
    columns = np.concatenate([both, gap, gap**2], axis=1)
    _, change, effect = _moments(*np.split(resampled_sums(columns, patient_ids, resamples, seed), 3, axis=1))
    patients, total = (present > 0).sum(0), both.sum(0)
    divisor = np.where(total > 0, total, np.nan)
    _, mean, whole = _moments(*(part[None] for part in (total, gap.sum(0), (gap**2).sum(0))))
    found = {"eyes": total, "patients": patients}
    found |= {"value": np.where(both, first, 0).sum(0) / divisor}
    found |= {"other": np.where(both, second, 0).sum(0) / divisor}
    for name, value, draws in (("difference", mean[0], change), ("effect", whole[0], effect)):
        ends = [percentiles(*column) for column in zip(value, draws.T, patients >= FEWEST_PATIENTS)]
        found |= {name: value} | {
            f"{name}_{end}": np.array([one[end] for one in ends]) for end in ("lo", "hi")
        }
    return found


def _moments(
    count: np.ndarray, total: np.ndarray, squares: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count, mean, and mean over standard deviation, from sums; NaN where the count is 0."""
    safe = np.where(count > 0, count, np.nan)
    mean = total / safe
    spread = np.sqrt(
        np.clip(squares / safe - mean**2, 0, None) * safe / np.where(count > 1, count - 1, np.nan)
    )
    return count, mean, mean / np.where(spread > 1e-12 * np.abs(mean), spread, np.nan)


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
    """Counts in chunks of resamples, (b, P) int32; the stream of draws does not depend on the size of the chunks."""
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

    The percentiles are shifted by the median bias of the draws (equal ones count half) and by the acceleration, the skewness of the jackknife values over 6.

    Args:
        value: On the data themselves.
        draws: (B,) of the bootstrap, all defined.
        left_out: (P,) of the jackknife over patients.

    Returns:
        NaN, NaN where it is undefined: no draws, all draws on one side of the value, or a metric that is undefined without some patient
        (the only one with grade 4, say): such a metric hangs on one patient, and no interval can say how much.
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
