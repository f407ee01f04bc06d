"""Two maps on the same eyes: ratios of average precision, the choice of a map by masks or by labels, and blind maps (notebook 14)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from drstudy.evaluation import statistics
from drstudy.explain.measures import baselines
from drstudy.papers.glam.params import TOGETHER
from drstudy.papers.glam.tables import region_name
from drstudy.show import intervals

# --- two maps on the same eyes --------------------------------------------------------------------------

RATIO_COLUMNS = [
    *("quantity", "region", "map", "against", "eyes", "patients"),
    *("of_map", "of_other", "value", "lo", "hi"),
]


def ratios(
    eyes: pd.DataFrame,
    first: str,
    second: str,
    patients: Mapping[str, str],
    resamples: int,
    seed: int,
    metric: str = "aupr",
    quantity: str = "ratio",
) -> pd.DataFrame:
    """The ratio of the mean scores of two maps, by region, on the eyes that have both.

    Args:
        eyes: ``image_id, map, region`` and ``metric``.
        first, second: Maps; the ratio is that of the first over the second.
        patients: image_id to patient_id.
        resamples, seed: Number of resamples of the bootstrap over patients, and seed of its draws.
        metric: Column of ``eyes``.
        quantity: What the rows are called.

    Returns:
        :data:`RATIO_COLUMNS`; the means and their ratio are NaN where the second mean is 0. A resample draws patients and divides its
        two means. No interval below five patients.
    """
    rows = []
    for region, part in eyes.groupby("region", sort=False):
        wide = part.pivot(index="image_id", columns="map", values=metric).reindex(columns=[first, second])
        wide = wide.dropna()
        if wide.empty:
            continue
        owners = wide.index.map(patients).to_numpy(str)
        weights = statistics.image_weights(owners, resamples, seed)
        sums = statistics.weighted_sums(weights, wide.to_numpy(float))
        drawn = np.divide(sums[:, 0], sums[:, 1], out=np.full(len(sums), np.nan), where=sums[:, 1] > 0)
        found = statistics.from_weights(drawn, statistics.enough_patients(owners))
        rows.append(
            {"quantity": quantity, "region": region, "map": first, "against": second}
            | {"eyes": len(wide), "patients": len(set(owners))}
            | {"of_map": wide[first].mean(), "of_other": wide[second].mean()}
            | {name: found[name] for name in ("value", "lo", "hi")}
        )
    return pd.DataFrame(rows, columns=RATIO_COLUMNS)


def display_ratios(found: pd.DataFrame) -> pd.DataFrame:
    """Ratios for readers, one row per region."""
    return pd.DataFrame(
        {
            "region": found["region"].map(region_name),
            "eyes": found["eyes"],
            **{f"average precision of {name}": found["of_map"].round(3) for name in found["map"].unique()},
            **{
                f"average precision of {name}": found["of_other"].round(3)
                for name in found["against"].unique()
            },
            "ratio": intervals.column(found) if len(found) else [],
        }
    )


# --- which map to take ----------------------------------------------------------------------------------

RULES = {
    "fixed": "fixed beforehand, no masks",
    "labels": "best AUC of its scores on validation (labels only)",
    "masks": "best average precision on validation (masks used)",
}


def validation_scores(precision: pd.DataFrame, scored: pd.DataFrame) -> pd.DataFrame:
    """Validation scores of each map and region: ``map, region, eyes, ap`` (masks) and ``auc`` (labels; all together: their mean).

    Args:
        precision: ``map, region, eyes, ap``.
        scored: Result of :func:`label_scores` on validation eyes.
    """
    areas = scored[scored["metric"] == "auc"].replace({"label": {"macro": TOGETHER}})
    areas = areas.rename(columns={"label": "region", "value": "auc"})[["map", "region", "auc"]]
    return areas.merge(precision, on=["map", "region"], how="outer", sort=False)[
        ["map", "region", "eyes", "ap", "auc"]
    ]


def choices(
    validation: pd.DataFrame,
    candidates: Sequence[str],
    fixed: str,
    eyes: pd.DataFrame,
    patients: Mapping[str, str],
    resamples: int,
    seed: int,
) -> pd.DataFrame:
    """The map that each rule chooses, its average precision on the measured eyes, and the difference to the map that was fixed beforehand.

    Args:
        validation: Result of :func:`validation_scores`.
        candidates: Maps to choose from; of equally good ones the first is taken.
        fixed: The map of the rule ``fixed``. It stands in where validation cannot decide.
        eyes: ``image_id, map, region, aupr`` of the measured eyes.
        patients, resamples, seed: As in :func:`ratios`.

    Returns:
        One row per region and rule: ``region, rule, map, eyes, patients, ap`` with ``_lo``, ``_hi``, ``difference`` with ``_lo``, ``_hi``.
    """
    by_map, rows = validation.set_index(["region", "map"]), []
    for region, part in eyes.groupby("region", sort=False):
        wide = part.pivot(index="image_id", columns="map", values="aupr").reindex(columns=list(candidates))
        owners = wide.index.map(patients).to_numpy(str)
        taken = {rule: _best(by_map, region, candidates, column) for rule, column in _BY.items()}
        for rule, name in {"fixed": fixed, **taken}.items():
            own, other = wide[[name or fixed]].to_numpy(float), wide[[fixed]].to_numpy(float)
            alone = statistics.paired(own, np.zeros_like(own), owners, resamples, seed)
            gap = statistics.paired(own, other, owners, resamples, seed)
            row = {"region": region, "rule": rule, "map": name or fixed}
            row |= {"eyes": alone["eyes"][0], "patients": alone["patients"][0]}
            row |= {f"ap{end}": alone[f"difference{end}"][0] for end in intervals.ENDS}
            rows.append(row | {f"difference{end}": gap[f"difference{end}"][0] for end in intervals.ENDS})
    columns = ["region", "rule", "map", "eyes", "patients"]
    columns += [f"{name}{end}" for name in ("ap", "difference") for end in intervals.ENDS]
    return pd.DataFrame(rows, columns=columns)


_BY = {"labels": "auc", "masks": "ap"}


def _best(by_map: pd.DataFrame, region: str, candidates: Sequence[str], column: str) -> str:
    """The first of the best maps; nothing where validation has no number."""
    keys = [(region, name) for name in candidates]
    values = by_map[column].reindex(pd.MultiIndex.from_tuples(keys)).to_numpy(float)
    return "" if np.isnan(values).all() else candidates[int(np.nanargmax(values))]


def display_choices(found: pd.DataFrame) -> pd.DataFrame:
    """Choices for readers."""
    rows = found.to_dict("records")
    return pd.DataFrame(
        {
            "region": [region_name(row["region"]) for row in rows],
            "map chosen": [RULES[row["rule"]] for row in rows],
            "map": [row["map"] for row in rows],
            "eyes": [row["eyes"] for row in rows],
            "average precision": [intervals.text(*intervals.of(row, "ap")) for row in rows],
            "minus the map fixed beforehand": [
                "–" if row["rule"] == "fixed" else intervals.difference(*intervals.of(row, "difference"))
                for row in rows
            ],
        }
    )


# --- blind maps -------------------------------------------------------------------------------------


def beyond_blind(
    eyes: pd.DataFrame, name: str, patients: Mapping[str, str], resamples: int, seed: int
) -> pd.DataFrame:
    """Average precision of one map minus that of the strongest blind baseline, by region.

    Args:
        eyes: ``image_id, map, region, aupr``, with blind maps (:func:`drstudy.explain.measures.baselines.is_label`).
        name: The map.
        patients, resamples, seed: As in :func:`ratios`.

    Returns:
        One row per region: ``region, blind`` (the one with the least lower limit, or the least difference where there are no intervals),
        ``eyes``, ``difference`` with ``_lo`` and ``_hi``, and ``beats_all``: whether the lower limits to all blind maps are above 0.
    """
    blind = [one for one in dict.fromkeys(eyes["map"]) if baselines.is_label(one)]
    rows = []
    for region, part in eyes.groupby("region", sort=False):
        wide = part.pivot(index="image_id", columns="map", values="aupr")
        if name not in wide or not blind:
            continue
        owners = wide.index.map(patients).to_numpy(str)
        first = np.repeat(wide[[name]].to_numpy(float), len(blind), 1)
        gap = statistics.paired(first, wide[blind].to_numpy(float), owners, resamples, seed)
        if not gap["eyes"][0]:
            continue
        low = gap["difference_lo"]
        hardest = int(np.nanargmin(gap["difference"] if np.isnan(low).all() else low))
        row = {"region": region, "blind": blind[hardest], "eyes": int(gap["eyes"][hardest])}
        row |= {f"difference{end}": gap[f"difference{end}"][hardest] for end in intervals.ENDS}
        rows.append(row | {"beats_all": bool((low > 0).all())})
    ends = [f"difference{end}" for end in intervals.ENDS]
    return pd.DataFrame(rows, columns=["region", "blind", "eyes", *ends, "beats_all"])


def display_blind(found: pd.DataFrame) -> pd.DataFrame:
    """:func:`beyond_blind` for readers."""
    rows = found.to_dict("records")
    return pd.DataFrame(
        {
            "region": [region_name(row["region"]) for row in rows],
            "eyes": [row["eyes"] for row in rows],
            "strongest blind baseline": [row["blind"] for row in rows],
            "average precision minus that baseline's": [
                intervals.difference(*intervals.of(row, "difference")) for row in rows
            ],
            "better than all four baselines": ["yes" if row["beats_all"] else "no" for row in rows],
        }
    )
