"""Maps against maps on the same eyes: paired differences with intervals over patients.

A number like "3 % of the heat lies on lesions" means nothing alone. Here every score of a map stands beside that
of another map of the same eyes (a baseline that ignores the network, another layer, another method), and the interval
is that of the mean difference: eye by eye, bootstrapped over patients, with the same resamples for all.
An eye counts in a comparison only where both maps have a number (a map without heat has none).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from drstudy.evaluation import statistics
from drstudy.explain.measures import baselines, localisation, scores

KEY = ["image_id", "layer", "kind", "region"]

METRICS = {
    "heat": "energy inside",
    "hit": "pointing game",
    "aupr": "average precision",
    "dice_validation": "Dice, validation-best cut",
    "iou_validation": "IoU, validation-best cut",
    "dice_otsu": "Dice, Otsu's cut",
    "iou_otsu": "IoU, Otsu's cut",
    "dice_fixed": "Dice, cut at half the maximum",
    "iou_fixed": "IoU, cut at half the maximum",
    "dice_oracle": "Dice, oracle cut",
    "iou_oracle": "IoU, oracle cut",
}
"""Columns of :func:`prepare`, and what readers see."""

HEADLINES = ("heat", "hit", "aupr", "dice_validation")

ALL_SIZES = "all"


def prepare(table: pd.DataFrame, patients: Mapping[str, str]) -> pd.DataFrame:
    """What :func:`drstudy.explain.measures.localisation.measure` found, ready to be compared and written.

    ``dice_validation`` is Dice at the share of the map's maximum that was best on the eyes of all *other*
    patients (validation by leaving one patient out: no eye has a say in its own cut); every ``dice`` gets its
    ``iou``; and the draws of a random baseline become one row, their mean.

    Args:
        table: Rows of several eyes and maps.
        patients: image_id to patient_id.
    """
    table = table.drop(columns=localisation.CURVE).assign(
        dice_validation=_left_out(table, table["image_id"].map(patients))
    )
    draws = table["layer"].str.contains("#")
    drawn = table[draws].assign(layer=table.loc[draws, "layer"].str.replace(r"#\d+", "", regex=True))
    numbers = [column for column in drawn if column not in (*KEY, "status")]
    means = drawn.groupby(KEY, sort=False).agg({"status": "first"} | dict.fromkeys(numbers, "mean"))
    whole = pd.concat([table[~draws], means.reset_index()], ignore_index=True)[list(table)]
    for column in [name for name in whole if name.startswith("dice_")]:
        whole[column.replace("dice", "iou")] = scores.iou(whole[column])
    return whole


def _left_out(table: pd.DataFrame, patient: pd.Series) -> np.ndarray:
    """Dice of each row at the cut that is best on the other patients' eyes of the same map and region."""
    found = np.full(len(table), np.nan)
    known = table[table["aupr"].notna()]
    for place in known.groupby(["layer", "region"]).indices.values():
        rows = known.index[place]
        curves = table.loc[rows, localisation.CURVE].to_numpy(float)
        _, own = np.unique(patient[rows].to_numpy(str), return_inverse=True)
        if own.max() == 0:
            continue
        for one in range(own.max() + 1):
            fraction = scores.best_fraction(curves[own != one])
            found[rows[own == one]] = curves[own == one, np.flatnonzero(fraction == scores.FRACTIONS)[0]]
    return found


def pairs(grids: Mapping[str, tuple[int, int]]) -> list[tuple[str, str]]:
    """Every map beside each of its four baselines.

    Args:
        grids: Name of a map to its (h, w).
    """
    return [(name, baselines.label(other, grid)) for name, grid in grids.items() for other in baselines.NAMES]


def differences(
    table: pd.DataFrame,
    wanted: Sequence[tuple[str, str]],
    patients: Mapping[str, str],
    resamples: int,
    seed: int,
    groups: Mapping[str, str] | None = None,
    metrics: Iterable[str] = tuple(METRICS),
    kinds: Sequence[str] = ("mask",),
) -> pd.DataFrame:
    """Every score of one map minus that of another, on the same eyes.

    Args:
        table: Result of :func:`prepare`.
        wanted: Pairs of names in the column ``layer``; see :func:`pairs`.
        patients: image_id to patient_id.
        resamples, seed: Number of resamples of the bootstrap over patients, and seed of its draws.
        groups: As in :func:`drstudy.explain.measures.localisation.summarise`.
        metrics: Columns of ``table``.
        kinds: Any of ``mask`` and ``part``.

    Returns:
        One row per pair, region, group and metric that has a number in some eye: ``layer``, ``against``,
        ``kind``, ``region``, ``group``, ``metric`` and what :func:`drstudy.evaluation.statistics.paired` gives.
    """
    metrics, names = list(metrics), dict.fromkeys(name for pair in wanted for name in pair)
    group = "all" if groups is None else table["image_id"].map(groups)
    table = table.assign(group=group).dropna(subset="group")
    table = table[table["kind"].isin(kinds) & table["layer"].isin(names)]
    found = []
    for name, part in table.groupby("group"):
        wide = part.pivot(index="image_id", columns=["kind", "region", "layer"], values=metrics)
        wide.columns = wide.columns.reorder_levels(["layer", "kind", "region", None])
        patient = wide.index.map(patients).to_numpy(str)
        for layer, against in wanted:
            if not {layer, against} <= set(wide.columns.get_level_values("layer")):
                continue
            one, other = wide[layer].dropna(axis=1, how="all"), wide[against].dropna(axis=1, how="all")
            cells = one.columns.intersection(other.columns, sort=False)
            numbers = statistics.paired(
                one[cells].to_numpy(float), other[cells].to_numpy(float), patient, resamples, seed
            )
            about = cells.to_frame(index=False)
            about.columns = ["kind", "region", "metric"]
            about = about.assign(layer=layer, against=against, group=name, **numbers)
            found.append(about[about["eyes"] > 0])
    columns = ["layer", "against", "kind", "region", "group", "metric"]
    if not found:
        return pd.DataFrame(columns=columns)
    whole = pd.concat(found, ignore_index=True)
    return whole[columns + [name for name in whole if name not in columns]]


def coverage(
    lesions: pd.DataFrame,
    wanted: Sequence[tuple[str, str]],
    patients: Mapping[str, str],
    resamples: int,
    seed: int,
) -> pd.DataFrame:
    """How much of a lesion lies in the hottest tenth of the field, by kind and size, beside other maps.

    Args:
        lesions: Second table of :func:`drstudy.explain.measures.localisation.measure`.
        wanted, patients, resamples, seed: As in :func:`differences`.

    Returns:
        One row per pair, region (a code, or ``lesion`` for all) and size (or ``all``): ``lesions``,
        ``patients``, ``value`` (mean coverage over lesions, 0..1), ``other``, ``difference`` with interval.
    """
    columns = ["layer", "against", "region", "size", "lesions", "patients", "value", "other"]
    columns += ["difference", "difference_lo", "difference_hi"]
    if lesions.empty:
        return pd.DataFrame(columns=columns)
    layer = lesions["layer"].str.replace(r"#\d+", "", regex=True)
    unit = ["image_id", "region", "lesion", "size"]
    wide = lesions.assign(layer=layer).pivot_table("coverage", unit, "layer", aggfunc="mean", sort=False)
    about, found = wide.index.to_frame(index=False), []
    patient = about["image_id"].map(patients).to_numpy(str)
    regions = ["lesion", *[code for code in localisation.LESIONS if (about["region"] == code).any()]]
    cells = [(region, size) for region in regions for size in (ALL_SIZES, *scores.SIZES)]
    inside = [
        (about["region"].eq(region) | (region == "lesion")) & (about["size"].eq(size) | (size == ALL_SIZES))
        for region, size in cells
    ]
    inside = np.stack(inside, axis=1)
    for layer, against in wanted:
        if not {layer, against} <= set(wide):
            continue
        one, other = (
            np.where(inside, wide[name].to_numpy(float)[:, None], np.nan) for name in (layer, against)
        )
        numbers = statistics.paired(one, other, patient, resamples, seed)
        rows = pd.DataFrame(cells, columns=["region", "size"]).assign(layer=layer, against=against, **numbers)
        found.append(rows[rows["eyes"] > 0].rename(columns={"eyes": "lesions"}))
    return pd.concat(found, ignore_index=True)[columns] if found else pd.DataFrame(columns=columns)


def as_metrics(found: pd.DataFrame) -> dict[str, float]:
    """Flat metrics of all lesions together: ``aupr_lesion_<layer>_minus_centre`` with ``_lo`` and ``_hi``.

    Args:
        found: Result of :func:`differences` with :func:`pairs`, one group.
    """
    metrics = {}
    rows = found[(found["region"] == "lesion") & found["metric"].isin(HEADLINES)]
    for row in rows.to_dict("records"):
        name = f"{row['metric']}_lesion_{row['layer']}_minus_{row['against'].split(' ')[0]}"
        metrics |= {f"{name}{end}": row[f"difference{end}"] for end in ("", "_lo", "_hi")}
    return metrics
