"""Tables of notebook 13, and the numbers that its claims look up."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from drstudy.explain.measures import comparison
from drstudy.papers.sall import maps, measures
from drstudy.papers.sall.params import DISEASES, FULL, SETTINGS
from drstudy.show import intervals

NAMES = {"dr": "DR", "amd": "AMD"}
"""Printed names of the diseases."""

NONE = {"value": np.nan, "lo": np.nan, "hi": np.nan}
"""No number."""


def title(setting: str) -> str:
    """Printed name of a setting."""
    return SETTINGS[setting].title if setting in SETTINGS else setting


def display_gains(scores: pd.DataFrame, gains: pd.DataFrame, own: pd.DataFrame) -> pd.DataFrame:
    """One row per setting and disease, on all labels and as trained: accuracy, and the gains over single task.

    Args:
        scores, gains: Results of :func:`drstudy.papers.sall.measures.scores` and :func:`drstudy.papers.sall.measures.gains`, all eyes.
        own: The gains on eyes of the own collection.

    Returns:
        Texts. Accuracy and its gain are in per cent and percentage points, with the interval over patients; the spread over seeds of the
        gain is a column of its own.
    """
    rows = []
    ours = _plain(scores).set_index(["setting", "disease", "metric"])
    more, inside = (_plain(table).set_index(["setting", "disease", "metric"]) for table in (gains, own))
    for disease in DISEASES:
        for setting in dict.fromkeys(ours.index.get_level_values("setting")):
            row = {"disease": NAMES[disease], "setting": title(setting), "kind": SETTINGS[setting].kind}
            own = ours.loc[(setting, disease, "accuracy")]
            row["accuracy, %"] = intervals.text(*(100 * own[["value", "lo", "hi"]].to_numpy(float)), 1)
            row["kappa"] = f"{ours.loc[(setting, disease, 'qwk'), 'value']:.2f}"
            if setting != "single":
                gain = more.loc[(setting, disease, "accuracy")]
                row["gain, points"] = intervals.text(
                    *(100 * gain[["value", "lo", "hi"]].to_numpy(float)), 1, signs="all"
                )
                row["gain by seed"] = _by_seed(gain, 100, 1)
                near = 100 * inside.loc[(setting, disease, "accuracy"), ["value", "lo", "hi"]].to_numpy(float)
                row["gain, own collection, points"] = intervals.text(*near, 1, signs="all")
                row["gain, kappa"] = _signed(more.loc[(setting, disease, "qwk")], 2)
            rows.append(row)
    return pd.DataFrame(rows).fillna("")


def display_calibration(scores: pd.DataFrame) -> pd.DataFrame:
    """One row per setting, disease and scale, on all labels: calibration errors, negative log likelihood and Brier score."""
    whole = scores[scores["fraction"] == 1].set_index(["disease", "setting", "scale", "metric"])
    rows = []
    for disease, setting, how in dict.fromkeys(key[:3] for key in whole.index):
        row = {"disease": NAMES[disease], "setting": title(setting), "probabilities": how}
        for metric in ("ece", "ece_adaptive", "nll", "brier"):
            one = whole.loc[(disease, setting, how, metric)]
            row[measures.MEASURES[metric]] = intervals.text(*one[["value", "lo", "hi"]].to_numpy(float), 3)
        rows.append(row)
    return (
        pd.DataFrame(rows)
        .sort_values("disease", key=lambda names: names != "DR", kind="stable")
        .reset_index(drop=True)
    )


def display_teachers(quality: pd.DataFrame) -> pd.DataFrame:
    """Soft labels beside the hidden truth, one row per kind of teacher, disease and kind of photograph.

    Args:
        quality: Result of :func:`drstudy.papers.sall.measures.teacher_quality`; the teachers of all seeds are named ``teacher <seed>``.

    Returns:
        Texts: the mean over the teachers of all seeds, with their range; the value alone where there is one.
    """
    rows = []
    kind = quality["teacher"].str.replace(r"^teacher \d+$", "teacher, all seeds", regex=True)
    for key, part in quality.groupby([kind, "disease", "kind"], sort=False):
        row = {
            "teacher": key[0],
            "disease": NAMES[key[1]],
            "photographs of the": key[2],
            "number": part["photographs"].iloc[0],
        }
        for name in ("accuracy", "qwk", "macro_auc"):
            values = part.loc[part["metric"] == name, "value"].dropna()
            spread = f" ({intervals.between(values.min(), values.max(), 2)})" if len(values) > 1 else ""
            row[measures.MEASURES[name]] = f"{values.mean():.2f}{spread}" if len(values) else "undefined"
        rows.append(row | {"accuracy of 'no disease'": f"{part['always_0'].iloc[0]:.2f}"})
    return pd.DataFrame(rows)


def display_maps(compared: pd.DataFrame) -> pd.DataFrame:
    """Differences of maps in percentage points, with 95 % intervals over patients."""
    if compared.empty:
        return pd.DataFrame({"maps": ["no photograph has masks of lesions"]})
    rows = []
    for key, part in compared.groupby(["disease", "against", "layer"], sort=False):
        by = part.set_index("metric")
        row = {
            "disease": NAMES[key[0]],
            "map of": title(key[2]),
            "less": title(key[1]),
            "eyes": int(by["eyes"].max()),
        }
        for name in maps.METRICS:
            there = name in by.index
            numbers = (
                by.loc[name, ["difference", "difference_lo", "difference_hi"]] if there else [np.nan] * 3
            )
            row[comparison.METRICS[name]] = intervals.difference(*(100 * np.asarray(numbers, float)))
        rows.append(row)
    return pd.DataFrame(rows)


def claims(
    networks: Mapping[tuple, measures.Drawn],
    gains: pd.DataFrame,
    compared: pd.DataFrame,
    own: Mapping[tuple, measures.Drawn],
) -> pd.DataFrame:
    """The numbers of ``claims.yaml``: ``quantity, value, lo, hi``; NaN where a setting, a fraction below 1 or a mask is missing.

    Args:
        networks: Result of :func:`drstudy.papers.sall.measures.drawn`, all eyes.
        gains: Result of :func:`drstudy.papers.sall.measures.gains`, all eyes.
        compared: Result of :func:`drstudy.papers.sall.maps.compared`.
        own: As ``networks``, on eyes of the own collection.
    """
    rows = []
    smallest = min(key[0] for key in networks)
    for disease in DISEASES:
        fewer = _gain(gains, smallest, disease, "accuracy") if smallest < 1 else NONE
        found = {
            "accuracy gain, {}, points": _gain(gains, 1.0, disease, "accuracy"),
            "accuracy gain, {}, relative": measures.relative(networks, FULL, disease, "accuracy"),
            "accuracy gain, {}, points, own collection": measures.across(
                own, (FULL, 1.0), ("single", 1.0), disease, "accuracy"
            ),
            "accuracy gain, {}, relative, own collection": measures.relative(own, FULL, disease, "accuracy"),
            "soft less shuffled, {}": measures.across(
                networks, ("soft", 1.0), ("shuffled", 1.0), disease, "accuracy"
            ),
            "soft less smoothing, {}": measures.across(
                networks, ("soft", 1.0), ("smoothing", 1.0), disease, "accuracy"
            ),
            "accuracy gain at the smallest fraction, {}": fewer,
            "half of the labels less all labels, {}": measures.across(
                networks, (FULL, 0.5), ("single", 1.0), disease, "accuracy"
            ),
            "calibration error, {}": _gain(gains, 1.0, disease, "ece"),
            "heat on lesions, {}": _heat(compared, disease),
        }
        rows += [
            {"quantity": name.format(disease)} | {k: one[k] for k in ("value", "lo", "hi")}
            for name, one in found.items()
        ]
    return pd.DataFrame(rows)


def as_metrics(scores: pd.DataFrame, gains: pd.DataFrame) -> dict[str, float]:
    """Flat metrics: accuracy of single task and of the full setting, and its gain, by disease."""
    found = {}
    for disease in DISEASES:
        for setting in ("single", FULL):
            found |= _flat(f"accuracy_{setting}_{disease}", _one(_plain(scores), setting, disease))
        found |= _flat(f"accuracy_gain_{disease}", _one(_plain(gains), FULL, disease))
    return found


def sentences(gains: pd.DataFrame) -> list[str]:
    """What the gains of accuracy say, one sentence per disease and setting of :data:`drstudy.papers.sall.params.FULL` and ``soft``."""
    found = []
    for disease in DISEASES:
        for setting in ("soft", FULL):
            part = _plain(gains)
            part = part[
                (part["setting"] == setting) & (part["disease"] == disease) & (part["metric"] == "accuracy")
            ]
            for one in part.to_dict("records"):
                says = "excludes 0" if one["lo"] > 0 or one["hi"] < 0 else "contains 0"
                number = intervals.text(*(100 * one[k] for k in ("value", "lo", "hi")), 1, signs="all")
                found.append(
                    f"{NAMES[disease]}, {title(setting)}: accuracy {number} points compared with single task; the interval {says}."
                )
    return found


def _plain(table: pd.DataFrame) -> pd.DataFrame:
    return table[(table["fraction"] == 1) & (table["scale"] == measures.RAW)]


def _one(table: pd.DataFrame, setting: str, disease: str, metric: str = "accuracy") -> dict:
    part = table[(table["setting"] == setting) & (table["disease"] == disease) & (table["metric"] == metric)]
    return part.iloc[0].to_dict()


def _flat(name: str, row: Mapping) -> dict[str, float]:
    return {f"{name}{end}": float(row[key]) for end, key in (("", "value"), ("_lo", "lo"), ("_hi", "hi"))}


def _gain(gains: pd.DataFrame, fraction: float, disease: str, metric: str) -> dict:
    part = gains[(gains["fraction"] == fraction) & (gains["scale"] == measures.RAW)]
    return _one(part, FULL, disease, metric)


def _heat(compared: pd.DataFrame, disease: str) -> dict[str, float]:
    if compared.empty:
        return NONE
    part = compared[(compared["disease"] == disease) & (compared["metric"] == "heat")]
    part = part[(part["layer"] == FULL) & (part["against"] == "single")]
    if part.empty:
        return NONE
    return dict(zip(NONE, part.iloc[0][["difference", "difference_lo", "difference_hi"]].astype(float)))


def _signed(row: pd.Series, digits: int) -> str:
    return intervals.text(*row[["value", "lo", "hi"]].to_numpy(float), digits, signs="all")


def _by_seed(row: pd.Series, scale: float, digits: int) -> str:
    lo, hi = (intervals.number(scale * row[name], digits, plus=True) for name in ("seed_lo", "seed_hi"))
    return f"{lo} to {hi} ({int(row['seeds'])} seeds)"
