"""Tables of notebook 14: labels, localisation, ratios of two maps, choice of a map, and the flat metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from drstudy.data import labels as lesion_labels
from drstudy.evaluation import multilabel
from drstudy.explain.measures import aggregate, votes
from drstudy.papers.glam.params import TOGETHER
from drstudy.show import intervals

HEADLINE = ("aupr", "dice_cut", "hit")
"""Scores of the table for the README, in this order."""

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

BY_EYE_DIGITS = 5
"""Digits of the table of single eyes."""

LESIONS = "all lesions"
"""Name of the region of all lesions together in tables."""


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


def timings(seconds: Mapping[str, float]) -> pd.DataFrame:
    """Measured seconds: of the features, and of an epoch of each training."""
    rows = [(name.removesuffix("_per_epoch"), value) for name, value in seconds.items()]
    return pd.DataFrame(rows, columns=["training", "seconds"]).set_index("training").round(2)


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
    """One row per map, one column per region: a score with its interval. The first heading names the score, the others say how many
    eyes it rests on.

    Args:
        found: Result of :func:`localisation`.
        metric: One of its metrics.
    """
    rows = found[found["metric"] == metric]
    units = rows.groupby("region", sort=False)["units"].max()
    heading = {region: f"{region_name(region)} (n={count})" for region, count in units.items()}
    text = [intervals.text(*intervals.of(row, "value")) for row in rows.to_dict("records")]
    wide = _wide(rows.assign(text=text, label=rows["region"].map(heading)), "label")
    return wide.rename(columns={"map": aggregate.NAMES[metric]})


def headline(found: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """The main scores of a few maps: one row per score (:data:`HEADLINE`) and map, one column per region.

    Args:
        found: Result of :func:`localisation`.
        names: Maps, in the order of the rows.
    """
    parts = []
    for metric in HEADLINE:
        rows = found[(found["metric"] == metric) & found["map"].isin(list(names))]
        rows = rows.sort_values("map", key=lambda column: column.map(list(names).index), kind="stable")
        text = [intervals.text(*intervals.of(row, "value")) for row in rows.to_dict("records")]
        wide = _wide(rows.assign(text=text, label=rows["region"].map(region_name)), "label")
        wide.insert(0, "score", aggregate.NAMES[metric])
        parts.append(wide)
    return pd.concat(parts, ignore_index=True).fillna("–")


def together(found: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """All lesions together: one row per map, one column per score with its interval."""
    rows = found[(found["region"] == TOGETHER) & found["metric"].isin(metrics)]
    rows = rows.iloc[np.argsort(rows["metric"].map(list(metrics).index), kind="stable")]
    text = [intervals.text(*intervals.of(row, "value"), digits=3) for row in rows.to_dict("records")]
    return _wide(rows.assign(text=text, label=rows["metric"].map(aggregate.NAMES)), "label")


def shown_cuts(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """The cuts of one map for readers."""
    rows = table[table["map"] == name]
    shown = {
        "region": rows["region"].map(region_name),
        "cut": rows["cut"].round(3),
        "Dice on validation (optimistic)": rows["dice"].round(3),
        "validation eyes with the lesion": rows["eyes"],
    }
    return pd.DataFrame(shown).reset_index(drop=True)


def released(found: pd.DataFrame, names: Sequence[str], side: int) -> pd.DataFrame:
    """The rows of the system as released and of its corrected form, average precision by region.

    Args:
        found: Result of :func:`localisation`.
        names: Its forms; empty if it was left out.
        side: Side of its photographs, pixels.
    """
    rows = found[found["map"].isin(list(names))]
    label = {name: f"{name} (random weights, {side} px)" for name in names}
    return display(rows.assign(map=rows["map"].map(label)), "aupr")


def region_name(region: str) -> str:
    """Name of a region in tables."""
    return LESIONS if region == TOGETHER else region


def _wide(rows: pd.DataFrame, columns: str) -> pd.DataFrame:
    """Cells ``text`` by map and one further column, both in the order in which they come."""
    if rows.empty:
        return pd.DataFrame(columns=["map"])
    wide = rows.pivot(index="map", columns=columns, values="text")
    order = list(dict.fromkeys(rows["map"])), list(dict.fromkeys(rows[columns]))
    return wide.loc[order[0], order[1]].fillna("–").rename_axis(columns=None).reset_index()


# --- experts' votes -------------------------------------------------------------------------------------


def voted(counted: pd.DataFrame, patients: Mapping[str, str], resamples: int, seed: int) -> pd.DataFrame:
    """Every map against the regions of at least 1, 2, ... experts, by region and number of votes.

    Args:
        counted: Result of :func:`drstudy.explain.measures.votes.measure`.
        patients, resamples, seed: As in :func:`localisation`.

    Returns:
        Result of :func:`drstudy.explain.measures.aggregate.aggregate` with the columns ``region`` and ``votes``.
    """
    return aggregate.aggregate(
        counted, pd.DataFrame(), patients, resamples, seed, by=("region", "votes"), metrics=votes.METRICS
    )


def display_votes(found: pd.DataFrame, name: str) -> pd.DataFrame:
    """Pointing and energy of one map beside chance and the experts' agreement, one row per lesion and number of votes.

    Args:
        found: Result of :func:`voted`.
        name: The map.
    """
    shown = {
        "hit": "pointing game",
        "hit_chance": "pointing game, chance",
        "heat": "energy inside",
        "agreement": "energy inside, an expert's marks",
        "area": "share of the field",
    }
    rows = []
    for (region, least), part in found[found["map"] == name].groupby(["region", "votes"], sort=False):
        cell = part.set_index("metric")
        row = {"region": region_name(region), "least number of experts": least}
        row["eyes"] = int(cell["units"].max())
        for metric, title in shown.items():
            known = metric in cell.index
            row[title] = intervals.text(*intervals.of(cell.loc[metric], "value")) if known else "–"
        rows.append(row)
    return pd.DataFrame(rows)


# --- for the record -------------------------------------------------------------------------------------


def as_metrics(
    found: pd.DataFrame, scored: pd.DataFrame, divided: pd.DataFrame, name: str
) -> dict[str, float]:
    """Flat metrics of one map, each with ``_lo`` and ``_hi``: ``ap_<REGION>``, ``dice_<REGION>``, ... (:data:`SHORT`), ``auc_<LABEL>``,
    ``<quantity>_<REGION>`` of ratios. All lesions together have no ending ``_<REGION>``.

    Args:
        found: Result of :func:`localisation`.
        scored: Result of :func:`label_scores`.
        divided: Results of :func:`drstudy.papers.glam.compared.ratios`.
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
