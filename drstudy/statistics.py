"""How sure the numbers are: a bootstrap over patients, with the same resamples for every model.

The two eyes of a patient are graded alike more often than not, so images are not independent; patients are
drawn with replacement and bring all their images. Intervals are the 2.5th and 97.5th percentiles. A resample
in which a metric is undefined (no grade-4 eye drawn) is left out of that metric's interval and counted:
``n_valid`` says how many were used.

Nothing is resampled row by row: each metric is a function of sums over patients, so one matrix of counts
(resample by patient) times one matrix of sums (patient by quantity) gives all resamples at once.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from drstudy import metrics

LEVEL = 95.0
"""Coverage that the intervals aim at, percent."""

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


def bootstrap(predictions: pd.DataFrame, resamples: int, seed: int) -> pd.DataFrame:
    """Every metric with its interval.

    Args:
        predictions: One row an image of one split: ``patient_id``, ``grade``, ``p0`` to ``p4``.
        resamples: B; 1,000 or more for numbers that are printed.
        seed: See :func:`resample_counts`.

    Returns:
        Columns ``metric``, ``value`` (of :func:`drstudy.metrics.evaluate`), ``lo``, ``hi``, ``n_valid``. With
        no valid resample the interval is NaN.

    Raises:
        drstudy.metrics.PredictionError: As :func:`drstudy.metrics.check_predictions`; also without
        ``patient_id``.
    """
    return _summary(metrics.evaluate(predictions), resampled(predictions, resamples, seed))


def paired_difference(a: pd.DataFrame, b: pd.DataFrame, resamples: int, seed: int) -> pd.DataFrame:
    """Every metric of model ``a`` minus that of ``b``, both on the same resamples of the same images.

    Returns:
        Columns ``metric``, ``value`` (the difference), ``lo``, ``hi``, ``n_valid``. Intervals are one at a
        time: over many metrics and models some will exclude 0 by chance.

    Raises:
        drstudy.metrics.PredictionError: As :func:`bootstrap`; also if the two do not hold the same images
            with the same patients and grades.
    """
    check_same_images(a, b)
    first, second = metrics.evaluate(a), metrics.evaluate(b)
    values = {name: first[name] - second[name] for name in first}
    return _summary(values, resampled(a, resamples, seed) - resampled(b, resamples, seed))


def check_same_images(a: pd.DataFrame, b: pd.DataFrame) -> None:
    """Refuse to compare two models on different images.

    Raises:
        drstudy.metrics.PredictionError: If images, their patients or their grades differ, with how many.
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
        drstudy.metrics.PredictionError: As :func:`bootstrap`.
    """
    from scipy import sparse

    if "patient_id" not in predictions:
        raise metrics.PredictionError(
            "The bootstrap draws patients, so predictions need a column patient_id."
        )
    grade, p, predicted = metrics.arrays(predictions)
    ids, patient = np.unique(predictions["patient_id"].to_numpy(), return_inverse=True)
    patients = len(ids)

    def by_patient(row: np.ndarray, rows: int, value: np.ndarray) -> sparse.csr_array:
        """(rows, P): what the images of each patient add to each row."""
        return sparse.csr_array((value, (row, patient)), shape=(rows, patients))

    cells = by_patient(5 * grade + predicted, 25, np.ones(len(grade)))
    averaged = {
        name: by_patient(np.zeros(len(grade), dtype=int), 1, value)
        for name, value in metrics.per_image(grade, p).items()
    }
    areas = {
        name: _Area(positive, score, patient, patients)
        for name, (positive, score) in metrics.binary_problems(grade, p).items()
    }
    found = []
    for counts in _chunks(patients, resamples, seed):
        weights = np.ascontiguousarray(counts.T, dtype=float)
        tables = (cells @ weights).T.reshape(-1, 5, 5)
        chunk = metrics.from_confusion(tables)
        area = {name: problem(weights) for name, problem in areas.items()}
        by_grade = np.stack([area[f"grade{g}"] for g in metrics.GRADES], axis=-1)
        chunk["macro_auc"] = metrics.macro(by_grade, tables.sum(-1))
        chunk.update({f"auc_ge{cut}": area[f"ge{cut}"] for cut in metrics.CUTS})
        images = tables.sum((-2, -1))
        chunk.update({name: (total @ weights)[0] / images for name, total in averaged.items()})
        found.append(pd.DataFrame(chunk))
    return pd.concat(found, ignore_index=True)


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


def _summary(values: dict[str, float], draws: pd.DataFrame) -> pd.DataFrame:
    """Point values beside the percentiles of the draws that are defined."""
    tails = ((100 - LEVEL) / 2, (100 + LEVEL) / 2)
    rows = []
    for name, value in values.items():
        valid = draws[name].dropna().to_numpy()
        lo, hi = np.percentile(valid, tails) if len(valid) else (np.nan, np.nan)
        rows.append({"metric": name, "value": value, "lo": lo, "hi": hi, "n_valid": len(valid)})
    return pd.DataFrame(rows)
