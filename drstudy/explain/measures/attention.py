"""Does the map of a lesion point at that lesion, or at another one: the confusion of attention.

A multi-label network gives each eye one map per lesion. Each is measured against the masks of *every* lesion by
:mod:`drstudy.explain.measures.localisation`, so that a cell says how the map of lesion i lies on the mask of lesion j. Cells
count only eyes where mask j is not empty; which eyes else depends on what is known of lesion i:

- ``predicted``: the network predicts it. This is what a reader would be shown.
- ``present``: its mask is not empty.
- ``absent``: its mask is empty. This is the control: the map cannot point at its own lesion, and the place at which it
  points instead is what the network takes for the lesion.

Maps that ignore the network (:mod:`drstudy.explain.measures.baselines`) are measured beside, on all eyes.

Two paired questions, which fail in different ways. *Mask against mask* (:func:`own_mask`): on eyes with both
lesions, has the map of i more heat on mask i than on mask j? One map for all labels, or a map of the centre, can have
more heat on a lesion that lies where the map does, so baselines are measured on the same eyes. *Map against map* (:func:`own_map`):
is mask i better found by the map of i than by the map of j? One map for all labels cannot answer yes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from drstudy.evaluation import statistics
from drstudy.explain.measures import comparison, localisation

CONDITIONS = ("predicted", "present", "absent")
ALL = "all"
"""Eyes of the rows of baselines."""

SCORES = ("heat", "enrichment", "hit", "aupr")
"""Energy inside the mask, the same over the mask's share of the area, pointing game, pixel AUPR."""

CELL = ["map", "mask", "condition", "eyes", "patients", "no_heat"]

CONFUSION = [
    *CELL,
    *("area", "hit_chance"),
    *(f"{name}{end}" for name in SCORES for end in ("", "_lo", "_hi")),
    *(f"aupr_over_chance{end}" for end in ("", "_lo", "_hi")),
]

OWN_MASK = [
    *("label", "against", "map", "condition", "metric", "eyes", "patients", "own", "other"),
    *("difference", "difference_lo", "difference_hi"),
]


def measure(
    maps: np.ndarray,
    labels: Sequence[str],
    image_ids: Sequence[str],
    masks_of: Callable[[str], localisation.Masks],
    patients: Mapping[str, str],
    beside: Callable[[int, str, localisation.Masks], Mapping[str, np.ndarray]] | None = None,
    tolerance: float = localisation.TOLERANCE,
) -> pd.DataFrame:
    """Every map against the mask of every label, eye by eye.

    Args:
        maps: (N, L, h, w) float, at least 0, unscaled.
        labels: L codes.
        image_ids: N names.
        masks_of: Result of :func:`drstudy.explain.measures.localisation.masks_of`.
        patients: image_id to patient_id.
        beside: Result of :func:`drstudy.explain.measures.baselines.beside`.
        tolerance: Tolerance of the pointing game, disc diameters.

    Returns:
        Rows of :func:`drstudy.explain.measures.comparison.prepare` for the masks of the labels: ``layer`` is the label whose
        map it is (or a baseline), ``region`` the label of the mask.

    Raises:
        ValueError: If maps, labels and image_ids do not fit; also as
            :func:`drstudy.explain.measures.localisation.measure_eye`.
    """
    if np.shape(maps)[:2] != (len(image_ids), len(labels)):
        raise ValueError(
            f"maps are {np.shape(maps)}: must begin with {len(image_ids)} eyes and {len(labels)} labels."
        )
    named = {label: maps[:, k] for k, label in enumerate(labels)}
    table, _ = localisation.measure(named, image_ids, masks_of, tolerance, beside)
    table = comparison.prepare(table, patients)
    return table[(table["kind"] == "mask") & table["region"].isin(labels)].reset_index(drop=True)


def conditions(table: pd.DataFrame, labels: Sequence[str], predicted: pd.DataFrame) -> pd.DataFrame:
    """For which eyes each condition of each label's map holds.

    Args:
        table: Result of :func:`measure`.
        labels: Codes.
        predicted: Indexed by image_id, one bool column per label.

    Returns:
        ``label, condition, image_id``, one row for each that holds. An eye in which a lesion is not annotated is
        neither ``present`` nor ``absent``.

    Raises:
        ValueError: If an eye or a label has no prediction.
    """
    area = table.drop_duplicates(["image_id", "region"]).pivot(
        index="image_id", columns="region", values="area"
    )
    missing = [*area.index.difference(predicted.index), *pd.Index(labels).difference(predicted.columns)]
    if missing:
        raise ValueError(
            f"predicted has nothing on {', '.join(map(str, missing[:5]))}: give all eyes and labels."
        )
    said = predicted.loc[area.index]
    rows = [
        (label, condition, image_id)
        for label in labels
        for condition, holds in zip(CONDITIONS, (said[label].astype(bool), area[label] > 0, area[label] == 0))
        for image_id in area.index[holds]
    ]
    return pd.DataFrame(rows, columns=["label", "condition", "image_id"])


def confusion(
    table: pd.DataFrame,
    labels: Sequence[str],
    predicted: pd.DataFrame,
    patients: Mapping[str, str],
    resamples: int,
    seed: int,
) -> pd.DataFrame:
    """How the map of each lesion lies on the mask of each, with 95 % intervals from a bootstrap over patients.

    Args:
        table: Result of :func:`measure`.
        labels: Codes, in the order of rows and columns.
        predicted: As in :func:`conditions`.
        patients: image_id to patient_id.
        resamples, seed: Number of resamples of the bootstrap over patients, and seed of its draws.

    Returns:
        One row a ``map`` (label or baseline), ``mask`` and ``condition`` (baselines: ``all``): ``eyes`` measured, their
        ``patients``, and eyes left out because the map is 0 (``no_heat``); ``area`` and ``hit_chance``, what a
        uniform map gets on the same eyes; with ``_lo``, ``_hi`` each: ``heat`` (mean share, 0..1), ``enrichment``
        (mean share over mean area: 1 is chance), ``hit`` (0..1), ``aupr`` (mean; chance is ``area``) and
        ``aupr_over_chance`` (mean of aupr less area: 0 is chance). No number without an eye, no interval below
        :data:`drstudy.evaluation.statistics.FEWEST_PATIENTS` patients. Intervals are not adjusted for their number.
    """
    holds = conditions(table, labels, predicted)
    cells = [
        (label, condition, part["image_id"])
        for (label, condition), part in holds.groupby(["label", "condition"], sort=False)
    ]
    everyone = pd.Series(table["image_id"].unique())
    cells += [(name, ALL, everyone) for name in table["layer"].unique() if name not in labels]
    found = {}
    for name, condition, eyes in cells:
        rows = table[(table["layer"] == name) & table["image_id"].isin(eyes) & (table["area"] > 0)]
        groups = dict.fromkeys(eyes, condition)
        for row in localisation.summarise(rows, patients, resamples, seed, groups).to_dict("records"):
            cell = rows[(rows["region"] == row["region"]) & (rows["status"] == "measured")]
            found[name, row["region"], condition] = row | _precision(cell, patients, resamples, seed)
    keys = [
        (name, mask, condition)
        for name in (*labels, *[name for name, condition, _ in cells if condition == ALL])
        for condition in (CONDITIONS if name in labels else (ALL,))
        for mask in labels
    ]
    empty = {"eyes": 0, "patients": 0, "no_heat": 0}
    whole = [
        dict(zip(("map", "mask", "condition"), key))
        | {name: found.get(key, empty).get(name) for name in CONFUSION[3:]}
        for key in keys
    ]
    whole = pd.DataFrame(whole, columns=CONFUSION)
    return whole.astype(dict.fromkeys(CONFUSION[6:], float))


def _precision(
    cell: pd.DataFrame, patients: Mapping[str, str], resamples: int, seed: int
) -> dict[str, float]:
    """Mean pixel AUPR of one cell, by itself and less the area, which is what chance gives."""
    if cell.empty:
        return {}
    values = cell["aupr"].to_numpy(float)
    chance = np.stack([np.zeros(len(cell)), cell["area"].to_numpy(float)], axis=1)
    patient = cell["image_id"].map(patients).to_numpy(str)
    numbers = statistics.paired(np.stack([values, values], axis=1), chance, patient, resamples, seed)
    return {
        f"{name}{end}": numbers[f"difference{end}"][column]
        for column, name in enumerate(("aupr", "aupr_over_chance"))
        for end in ("", "_lo", "_hi")
    }


def own_mask(
    table: pd.DataFrame,
    labels: Sequence[str],
    predicted: pd.DataFrame,
    patients: Mapping[str, str],
    resamples: int,
    seed: int,
    condition: str = "predicted",
) -> pd.DataFrame:
    """Does the map of HE point at HE rather than at EX: its score on one mask less that on the other, eye by eye.

    Masks differ in area, and larger ones are easier to hit, so each score is taken beyond what a uniform map gets on
    the same mask: ``enrichment`` (mean heat over mean area, and their difference), ``hit`` (pointing game less its
    chance), ``aupr`` (less area).

    Args:
        table: Result of :func:`measure`.
        labels, predicted, patients, resamples, seed: As in :func:`confusion`.
        condition: ``predicted`` (lesion i is) or ``present`` (all eyes that count).

    Returns:
        One row per pair (``label``, ``against``), ``map`` (the label's own, then each baseline on the same eyes, those
        excepted where the baseline is 0) and ``metric``: ``eyes`` with both lesions and heat, ``patients``, ``own``, ``other`` and ``difference`` with
        interval; above 0 the map prefers its own mask. Pairs without an eye are left out.

    Raises:
        ValueError: If ``condition`` is another.
    """
    if condition not in ("predicted", "present"):
        raise ValueError(
            f"condition is {condition!r}; both lesions are there, so give 'predicted' or 'present'."
        )
    holds = conditions(table, labels, predicted)
    others = [name for name in table["layer"].unique() if name not in labels]
    measured = table[(table["status"] == "measured") & (table["area"] > 0)].set_index(
        ["layer", "region", "image_id"]
    )
    measured = measured[["heat", "area", "hit", "hit_chance", "aupr"]].sort_index()
    rows = []
    for label in labels:
        eyes = holds.loc[(holds["label"] == label) & (holds["condition"] == condition), "image_id"]
        for against in labels:
            if against == label:
                continue
            asked = pd.Index(eyes)
            for name in (label, *others):
                own, other = (_rows(measured, name, region) for region in (label, against))
                shared = asked.intersection(own.index).intersection(other.index)
                if name == label:
                    asked = shared
                if shared.empty:
                    continue
                about = {"label": label, "against": against, "map": name, "condition": condition}
                rows += [
                    about | row
                    for row in _preferences(own.loc[shared], other.loc[shared], patients, resamples, seed)
                ]
    return pd.DataFrame(rows, columns=OWN_MASK)


def _rows(measured: pd.DataFrame, name: str, region: str) -> pd.DataFrame:
    """One map on one mask, by image_id; empty where no eye has both."""
    known = measured.index.droplevel("image_id")
    return measured.loc[known == (name, region)].droplevel(["layer", "region"])


def _preferences(
    own: pd.DataFrame, other: pd.DataFrame, patients: Mapping[str, str], resamples: int, seed: int
) -> list[dict[str, float]]:
    """The rows of one map in :func:`own_mask`."""
    patient = own.index.map(patients).to_numpy(str)
    beyond = [
        np.stack([one["hit"] - one["hit_chance"], one["aupr"] - one["area"]], axis=1) for one in (own, other)
    ]
    numbers = statistics.paired(*beyond, patient, resamples, seed)
    columns = ["value", "other", "difference", "difference_lo", "difference_hi"]
    size = {"eyes": len(own), "patients": len(set(patient))}
    shares = np.concatenate([one[["heat", "area"]].to_numpy(float) for one in (own, other)], axis=1)

    def ratios(sums: np.ndarray) -> tuple[np.ndarray, ...]:
        first, second = sums[:, 0] / sums[:, 1], sums[:, 2] / sums[:, 3]
        return first, second, first - second

    points = [float(value[0]) for value in ratios(shares.sum(0, keepdims=True))]
    drawn = ratios(statistics.resampled_sums(shares, patient, resamples, seed))[2]
    found = statistics.percentiles(points[2], drawn, statistics.enough_patients(patient))
    names = ["own", *columns[1:]]
    enrichment = {"metric": "enrichment", **size} | dict(zip(names, [*points, found["lo"], found["hi"]]))
    return [enrichment] + [
        {"metric": metric, **size} | {name: numbers[column][k] for name, column in zip(names, columns)}
        for k, metric in enumerate(("hit", "aupr"))
    ]


def own_map(
    table: pd.DataFrame,
    labels: Sequence[str],
    predicted: pd.DataFrame,
    patients: Mapping[str, str],
    resamples: int,
    seed: int,
    condition: str = "predicted",
) -> pd.DataFrame:
    """Is HE better found by the map of HE than by the map of EX: two maps on the same mask of the same eyes.

    Args:
        table, labels, predicted, patients, resamples, seed: As in :func:`confusion`.
        condition: Condition of the lesion whose mask it is: ``predicted`` or ``present``.

    Returns:
        One row per pair of maps (``label``, ``against``) and ``metric`` (of
        :data:`drstudy.explain.measures.comparison.HEADLINES`) on the mask of ``label``: ``eyes``, ``patients``, ``own``,
        ``other``, ``difference`` with interval; above 0 the lesion's own map is better.

    Raises:
        ValueError: If ``condition`` is another.
    """
    if condition not in ("predicted", "present"):
        raise ValueError(f"condition is {condition!r}; a mask is needed, so give 'predicted' or 'present'.")
    holds, found = conditions(table, labels, predicted), []
    for label in labels:
        eyes = holds.loc[(holds["label"] == label) & (holds["condition"] == condition), "image_id"]
        rows = table[(table["region"] == label) & table["image_id"].isin(eyes)]
        wanted = [(label, other) for other in labels if other != label]
        found.append(
            comparison.differences(rows, wanted, patients, resamples, seed, metrics=comparison.HEADLINES)
        )
    columns = [name for name in OWN_MASK if name != "map"]
    found = [part for part in found if len(part)]
    if not found:
        return pd.DataFrame(columns=columns)
    whole = pd.concat(found, ignore_index=True).rename(columns={"layer": "label", "value": "own"})
    return whole.assign(condition=condition)[columns]
