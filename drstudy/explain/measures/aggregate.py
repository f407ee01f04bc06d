"""From scores of single eyes and lesions to one number per map, region and metric, with its interval.

Intervals are those of the bootstrap over patients (:mod:`drstudy.evaluation.statistics`), which draws both eyes of a patient,
and all lesions of both eyes, together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from drstudy.evaluation import statistics
from drstudy.explain.measures import scores
from drstudy.explain.measures.fine import METRICS

RECALLS = {
    "recall": "",
    **{f"recall_{name}": size for name, size in zip(("small", "medium", "large"), scores.SIZES)},
}
"""Metric to the size of the lesions that it counts, of :data:`drstudy.explain.measures.scores.SIZES`; the first counts all."""

NAMES = METRICS | {
    metric: "single lesions found" + (f", {size} disc diameters" if size else "")
    for metric, size in RECALLS.items()
}
"""Every metric of :func:`aggregate`, and what readers see."""

ENDS = ("", "_lo", "_hi")

NUMBERS = ["units", "patients", *(f"value{end}" for end in ENDS)]
DIFFERENCES = ["shared_units", "other", *(f"difference{end}" for end in ENDS)]


def aggregate(
    eyes: pd.DataFrame,
    lesions: pd.DataFrame,
    patients: Mapping[str, str],
    resamples: int,
    seed: int,
    against: str = "",
    by: Sequence[str] = ("region",),
    metrics: Sequence[str] = tuple(METRICS),
) -> pd.DataFrame:
    """Every metric of every map, and its difference to one of them.

    Args:
        eyes: First table of :func:`drstudy.explain.measures.fine.measure`, or any table with ``image_id``, ``map``, the
            columns of ``by`` and those of ``metrics``.
        lesions: Second table, for the recall of single lesions; it may be empty.
        patients: image_id to patient_id.
        resamples, seed: Number of resamples of the bootstrap over patients, and seed of its draws.
        against: The map that all others are compared with, on the units where both have a number; none if empty.
        by: Columns that name a cell beside ``map``.
        metrics: Columns of ``eyes``.

    Returns:
        One row per ``map``, cell and ``metric`` (of :data:`NAMES`) that has a number: ``units`` (eyes, or lesions for a
        recall), their ``patients``, and ``value`` (mean over units) with ``value_lo`` and ``value_hi``. With ``against``
        also, NaN in its own rows: ``shared_units``, ``other`` (mean of that map there) and ``difference`` with
        ``_lo`` and ``_hi``. No interval below :data:`drstudy.evaluation.statistics.FEWEST_PATIENTS` patients.
        Intervals are not adjusted for their number.

    Raises:
        ValueError: If ``against`` is none of the maps, or an eye has no patient.
    """
    known = eyes["map"].unique()
    if against and against not in known:
        raise ValueError(f"There is no map {against!r} to compare with; there are {', '.join(known)}.")
    if missing := sorted(set(eyes["image_id"]) - set(patients)):
        raise ValueError(
            f"{len(missing)} eyes have no patient_id, {missing[0]} for one: pass patients for all eyes."
        )
    by, parts = list(by), []
    for cell, part in eyes.groupby(by, sort=False):
        wide = part.pivot(index="image_id", columns="map", values=list(metrics))
        parts.append((cell, wide))
    for cell, part in lesions.groupby(by, sort=False) if len(lesions) else ():
        parts.append((cell, _recalls(part)))
    found = []
    for cell, wide in parts:
        wide.columns = wide.columns.set_names(["metric", "map"])
        patient = wide.index.get_level_values("image_id").map(patients).to_numpy(str)
        numbers = _numbers(wide.dropna(axis=1, how="all"), patient, resamples, seed, against)
        found.append(numbers.assign(**dict(zip(by, cell))))
    columns = ["map", *by, "metric", *NUMBERS, *(DIFFERENCES if against else [])]
    if not found:
        return pd.DataFrame(columns=columns)
    whole = pd.concat(found, ignore_index=True)[columns]
    order = {name: number for number, name in enumerate((*metrics, *RECALLS))}
    ranks = [pd.factorize(whole[name])[0] for name in by] + [
        whole["map"].map({m: k for k, m in enumerate(known)})
    ]
    return whole.iloc[np.lexsort([whole["metric"].map(order), *ranks[::-1]])].reset_index(drop=True)


def _recalls(lesions: pd.DataFrame) -> pd.DataFrame:
    """One row per lesion of one cell, one column per recall and map: 1 found, 0 not, NaN where of another size."""
    wide = lesions.pivot(index=["image_id", "lesion"], columns="map", values="found")
    size = lesions.drop_duplicates(["image_id", "lesion"]).set_index(["image_id", "lesion"])["size"]
    size = size.loc[wide.index]
    several = {name: wide if not only else wide.where(size == only) for name, only in RECALLS.items()}
    return pd.concat(several, axis=1)


def _numbers(
    wide: pd.DataFrame, patient: np.ndarray, resamples: int, seed: int, against: str
) -> pd.DataFrame:
    """The rows of one cell; columns of ``wide`` are metric and map."""
    values = wide.to_numpy(float)
    rows = wide.columns.to_frame(index=False)
    alone = statistics.paired(values, np.zeros_like(values), patient, resamples, seed)
    rows = rows.assign(units=alone["eyes"], patients=alone["patients"])
    rows = rows.assign(**{f"value{end}": alone[f"difference{end}"] for end in ENDS})
    if not against:
        return rows
    other = [wide.columns.get_indexer([(metric, against)])[0] for metric in rows["metric"]]
    other = np.where(rows["map"] == against, -1, other)
    second = np.where(other >= 0, values[:, other], np.nan)
    both = statistics.paired(values, second, patient, resamples, seed)
    return rows.assign(
        shared_units=both["eyes"],
        other=both["other"],
        **{f"difference{end}": both[f"difference{end}"] for end in ENDS},
    )
