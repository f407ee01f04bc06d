"""Tables of notebook 14: labels, localisation, ratios of two maps, choice of a map, and the flat metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from drstudy.data import labels as lesion_labels
from drstudy.evaluation import multilabel, statistics
from drstudy.explain.measures import aggregate, baselines
from drstudy.papers.glam.params import TOGETHER
from drstudy.show import intervals

SHOWN = ("aupr", "dice_cut", "hit", "patch_precision")
"""Scores of the display tables, in this order."""

SHORT = {
    "aupr": "ap",
    "dice_cut": "dice",
    "soft_dice": "soft_dice",
    "dice_oracle": "dice_oracle",
    "hit": "hit",
    "heat": "energy",
    "patch_precision": "patch_precision",
    "recall": "recall",
    "recall_small": "recall_small",
    "false_area": "false_area",
    "false_area_healthy": "false_area_healthy",
}
"""Score to its name among the metrics of the record."""

DEFINITIONS = {
    "aupr": "average precision: pixels of the grid ranked by the map, mean over eyes with the lesion",
    "dice_cut": "Dice at the cut that was best on validation eyes, mean over eyes with the lesion",
    "hit": "pointing game: the map's maximum lies within a quarter of a disc diameter of the lesion, share of eyes with the lesion",
    "patch_precision": "share of high-evidence patches (half a disc diameter wide) that hold a lesion",
}

BY_EYE_DIGITS = 5
"""Digits of the table of single eyes."""

LESIONS = "all lesions"
"""How tables call the region of all lesions together."""


# --- labels -------------------------------------------------------------------------------------------


def label_scores(
    said: pd.DataFrame, labels: pd.DataFrame, codes: Sequence[str], resamples: int, seed: int
) -> pd.DataFrame:
    """AUC and average precision of each label by map.

    Args:
        said: ``map, image_id, patient_id`` and ``p_<CODE>``.
        labels: ``image_id`` and one column per code; missing is not annotated.
        codes: Labels.
        resamples, seed: Number of resamples of the bootstrap over patients, and seed of its draws.

    Returns:
        Long: ``map, label, metric`` (``auc``, ``ap``), ``value, lo, hi, present, absent, patients_present``. No interval without five
        patients with and five without the label.
    """
    by_image, parts = labels.set_index("image_id"), []
    for name, rows in said.groupby("map", sort=False):
        found = multilabel.evaluate(
            lesion_labels.as_array(by_image.reindex(rows["image_id"]), codes),
            rows[[f"p_{code}" for code in codes]].to_numpy(float),
            np.full(len(codes), 0.5),
            rows["patient_id"].to_numpy(str),
            tuple(codes),
            resamples,
            seed,
        )
        kept = found["metric"].isin(["auc", "ap"]) & found["label"].isin([*codes, "macro"])
        parts.append(found[kept].assign(map=name))
    columns = ["map", "label", "metric", "value", "lo", "hi", "present", "absent", "patients_present"]
    return pd.concat(parts, ignore_index=True)[columns]


def display_labels(scored: pd.DataFrame, metric: str = "auc") -> pd.DataFrame:
    """One row per map, one column per label: the score with its interval."""
    rows = scored[scored["metric"] == metric].reset_index(drop=True)
    return _wide(rows.assign(text=intervals.column(rows)), "label")


def networks(parameters: Mapping[str, int], learns: Mapping[str, str], history: pd.DataFrame) -> pd.DataFrame:
    """What each network learns from, its size, and how long it learnt.

    Args:
        parameters: Network to the number of its parameters.
        learns: Network to (what it learns from, its training).
        history: ``training, epoch``.
    """
    epochs = history.groupby("training")["epoch"].max()
    rows = [
        {
            "network": name,
            "learns from": learns[name][0],
            "parameters": count,
            "epochs": sum(int(epochs.get(one, 0)) for one in learns[name][1:]),
        }
        for name, count in parameters.items()
    ]
    return pd.DataFrame(rows)


def learns_from(specs: Mapping[str, object], released: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Network to what it learns from, and the trainings of :func:`networks` that count as its own."""
    of = {name: ("labels of photographs", "saliency") for name in specs}
    of |= {
        "local": ("labels of photographs, within proposed patches", "local"),
        "refined": ("the global map, corrected by labels of photographs", "refined"),
        "masks": ("lesion masks of training eyes (upper bound)", "masks"),
        "backbone": ("ImageNet; frozen", ""),
    }
    for name in released:
        system, _, form = name.partition(" ")
        stages = ("global", "local") if form == "sep" else ("global", "local", "joint")
        of[name] = ("labels of photographs; from random weights", *(f"{system} {stage}" for stage in stages))
    return of


# --- localisation ---------------------------------------------------------------------------------------


def localisation(
    eyes: pd.DataFrame,
    lesions: pd.DataFrame,
    patients: Mapping[str, str],
    resamples: int,
    seed: int,
    against: str,
) -> pd.DataFrame:
    """:func:`drstudy.explain.measures.aggregate.aggregate` by region; a table without rows where no lesion is annotated."""
    known = against if against in set(eyes["map"]) else ""
    return aggregate.aggregate(eyes, lesions, patients, resamples, seed, known)


def by_eye(eyes: pd.DataFrame) -> pd.DataFrame:
    """The table of single eyes, rounded."""
    return eyes.round(BY_EYE_DIGITS)


def display(found: pd.DataFrame, metric: str) -> pd.DataFrame:
    """One row per map, one column per region: a score with its interval; the heading says how many eyes it rests on.

    Args:
        found: Result of :func:`localisation`.
        metric: One of its metrics.
    """
    rows = found[found["metric"] == metric]
    units = rows.groupby("region", sort=False)["units"].max()
    heading = {region: f"{region_name(region)} (n={count})" for region, count in units.items()}
    text = [intervals.text(*intervals.of(row, "value")) for row in rows.to_dict("records")]
    return _wide(rows.assign(text=text, label=rows["region"].map(heading)), "label")


def together(found: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """All lesions together: one row per map, one column per score with its interval."""
    rows = found[(found["region"] == TOGETHER) & found["metric"].isin(metrics)]
    text = [intervals.text(*intervals.of(row, "value"), digits=3) for row in rows.to_dict("records")]
    return _wide(rows.assign(text=text, label=rows["metric"].map(aggregate.NAMES)), "label")


def region_name(region: str) -> str:
    """How tables call a region."""
    return LESIONS if region == TOGETHER else region


def _wide(rows: pd.DataFrame, columns: str) -> pd.DataFrame:
    """Cells ``text`` by map and one further column, both in the order in which they come."""
    if rows.empty:
        return pd.DataFrame(columns=["map"])
    wide = rows.pivot(index="map", columns=columns, values="text")
    order = list(dict.fromkeys(rows["map"])), list(dict.fromkeys(rows[columns]))
    return wide.loc[order[0], order[1]].fillna("–").rename_axis(columns=None).reset_index()


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
    "fixed": "chosen before, no masks",
    "labels": "best AUC of its scores on validation (labels only)",
    "masks": "best average precision on validation (masks used)",
}


def validation_scores(precision: pd.DataFrame, scored: pd.DataFrame) -> pd.DataFrame:
    """What validation says of each map and region: ``map, region, eyes, ap`` (masks) and ``auc`` (labels; all together: their mean).

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
    """The map that each rule takes, its average precision on the measured eyes, and the difference to the map fixed before.

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
            "less the map fixed before": [
                "–" if row["rule"] == "fixed" else intervals.difference(*intervals.of(row, "difference"))
                for row in rows
            ],
        }
    )


# --- for the record -------------------------------------------------------------------------------------


def as_metrics(
    found: pd.DataFrame, scored: pd.DataFrame, divided: pd.DataFrame, name: str
) -> dict[str, float]:
    """Flat metrics of one map, each with ``_lo`` and ``_hi``: ``ap_<REGION>``, ``dice_<REGION>``, ... (:data:`SHORT`), ``auc_<LABEL>``,
    ``<quantity>_<REGION>`` of ratios. All lesions together have no ending ``_<REGION>``.

    Args:
        found: Result of :func:`localisation`.
        scored: Result of :func:`label_scores`.
        divided: Results of :func:`ratios`.
        name: The map.
    """
    metrics = {}
    for row in found[(found["map"] == name) & found["metric"].isin(list(SHORT))].to_dict("records"):
        key = _named(SHORT[row["metric"]], row["region"])
        metrics |= dict(
            zip((f"{key}{end}" for end in intervals.ENDS), intervals.of(row, "value"), strict=True)
        )
    for row in scored[(scored["map"] == name) & (scored["metric"] == "auc")].to_dict("records"):
        metrics |= {f"auc_{row['label']}{end}": row[of] for end, of in _ENDS.items()}
    for row in divided.to_dict("records"):
        metrics |= {f"{_named(row['quantity'], row['region'])}{end}": row[of] for end, of in _ENDS.items()}
    return metrics


_ENDS = {"": "value", "_lo": "lo", "_hi": "hi"}


def _named(name: str, region: str) -> str:
    return name if region == TOGETHER else f"{name}_{region}"


def beats_blind(found: pd.DataFrame, eyes: pd.DataFrame, name: str, patients, resamples: int, seed: int):
    """Average precision of one map less that of each blind map, by region: is every lower limit above 0?

    Returns:
        One row per region: ``region, blind`` (the hardest to beat), ``difference`` with ``_lo`` and ``_hi``, ``beats_all``.
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
