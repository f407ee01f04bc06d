"""Predictions in the one form in which the systems of different papers can be compared.

Papers predict different things: five probabilities, a number, a probability for each lesion. What all can be asked is whether an eye is
referable (grade 2 or more). Each system therefore leaves a score of that for the eyes of validation and test, and whatever else it has: the
probability, and the predicted grade.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from drstudy.core import paths
from drstudy.core.names import PROBABILITIES, SPLITS
from drstudy.core.records import Record
from drstudy.evaluation import metrics
from drstudy.evaluation.metrics import PredictionError

FILE = "common_predictions.csv"
"""Name of the file inside a result folder."""

CUT = 2
"""Referable DR is this grade or more."""

ABOUT = ["image_id", "patient_id", "split", "grade"]

COLUMNS = [*ABOUT, "predicted", "score", "probability"]
"""Columns of the file: ``grade`` observed, 0 to 4, may be missing; ``predicted`` grade, 0 to 4, missing if the system predicts none; ``score``,
any number, greater for referable DR; ``probability`` of referable DR, 0 to 1, missing if the system gives none."""


def frame(
    eyes: pd.DataFrame,
    score: np.ndarray,
    probability: np.ndarray | None = None,
    predicted: np.ndarray | None = None,
) -> pd.DataFrame:
    """A table with :data:`COLUMNS`.

    Args:
        eyes: N rows with ``image_id, patient_id, split, grade``, of validation and test.
        score: (N,) float.
        probability: (N,) float, 0 to 1.
        predicted: (N,) grades, 0 to 4.

    Raises:
        drstudy.evaluation.metrics.PredictionError: As :func:`check`.
    """
    found = eyes[ABOUT].reset_index(drop=True)
    for name, values in (("predicted", predicted), ("score", score), ("probability", probability)):
        found[name] = np.nan if values is None else np.asarray(values, dtype=float)
    return check(found)


def of_grades(predictions: pd.DataFrame) -> pd.DataFrame:
    """The common form of five probabilities: the score is the probability of grade 2 or more, the predicted grade the most probable one.

    Args:
        predictions: Columns of ``predictions.csv``: ``image_id, patient_id, split, grade, p0..p4``.
    """
    p = predictions[PROBABILITIES].to_numpy(dtype=float)
    referable = np.clip(p[:, CUT:].sum(axis=1), 0, 1)  # sums of rounded probabilities may exceed 1 by 1e-16
    return frame(predictions, referable, referable, p.argmax(axis=1))


def write(found: pd.DataFrame, path: Path) -> None:
    """Write the result of :func:`frame` atomically, with 17 digits, so that reading gives the same numbers."""
    with paths.atomic(path) as temporary:
        check(found).to_csv(temporary, index=False, lineterminator="\n", float_format="%.17g")


def read(record: Record, name: str = FILE) -> pd.DataFrame:
    """The predictions of a finished result in the common form, whether its file has :data:`COLUMNS` or five probabilities.

    Raises:
        drstudy.core.records.RecordError: If the file is missing or is not what its run wrote.
        drstudy.evaluation.metrics.PredictionError: If it has neither form, or as :func:`check`.
    """
    path = record.path(name)
    found = paths.read_csv(path, text=("image_id", "patient_id", "split"))
    try:
        if set(PROBABILITIES) <= set(found):
            for _, rows in found.dropna(subset="grade").groupby("split"):
                metrics.check_predictions(rows)
            return of_grades(found)
        if missing := [column for column in COLUMNS if column not in found]:
            raise PredictionError(
                f"it has neither {', '.join(PROBABILITIES)} nor the columns {', '.join(missing)}. Write it with common.write."
            )
        return check(found[COLUMNS])
    except PredictionError as error:
        raise PredictionError(f"{paths.show(path)}: {error}") from None


def check(found: pd.DataFrame) -> pd.DataFrame:
    """Refuse a table from which no measure should be computed; return it unchanged.

    Raises:
        drstudy.evaluation.metrics.PredictionError: If there is no row, an image stands twice, an identifier is missing, a split is unknown, or a
            value is missing or out of range. Names the first such image.
    """
    if found.empty:
        raise PredictionError("There is no row.")

    def refuse(bad: np.ndarray | pd.Series, problem: str) -> None:
        bad = np.asarray(bad, dtype=bool)
        if bad.any():
            first = found["image_id"].iloc[int(np.flatnonzero(bad)[0])]
            raise PredictionError(f"{bad.sum()} of {len(bad)} rows {problem}; the first is image_id {first}.")

    refuse(found[["image_id", "patient_id"]].isna().any(axis=1), "have no image_id or no patient_id")
    refuse(found["image_id"].duplicated(), "repeat an image_id")
    refuse(~found["split"].isin(SPLITS), f"have a split other than {', '.join(SPLITS)}")
    numbers = {name: pd.to_numeric(found[name], errors="coerce").astype(float) for name in COLUMNS[3:]}
    grade, predicted, score, probability = (numbers[name].to_numpy() for name in COLUMNS[3:])
    for name, values in (("grade", grade), ("predicted grade", predicted)):
        refuse(~np.isnan(values) & ~np.isin(values, range(5)), f"have a {name} that is not 0, 1, 2, 3 or 4")
    refuse(~np.isfinite(score), "have a score that is missing or not finite")
    refuse((probability < 0) | (probability > 1), "have a probability outside 0 to 1")
    for name, values in (("predicted grade", predicted), ("probability", probability)):
        if np.isnan(values).any() and not np.isnan(values).all():
            refuse(np.isnan(values), f"have no {name} although other rows have one")
    return found


def eyes(measured: pd.DataFrame, validation: pd.DataFrame | None = None) -> pd.DataFrame:
    """The eyes that a system leaves predictions or maps of: those that are measured, as ``test``, and those on which cuts are fixed.

    Args:
        measured: Rows of the data set; their photographs were not learnt from.
        validation: Further rows, such as the validation split. Those of patients who are measured are left out.

    Returns:
        The rows of both, with ``split`` set to ``test`` or ``validation``.
    """
    parts = [measured.assign(split="test")]
    if validation is not None:
        parts.append(
            validation[~validation["patient_id"].isin(measured["patient_id"])].assign(split="validation")
        )
    return pd.concat(parts, ignore_index=True)
