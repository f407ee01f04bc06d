"""The numbers that the ledger's claims about GLAM look up (``claims.yaml``), found by rules that no result changes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from drstudy.evaluation import statistics
from drstudy.papers.glam import maps, released
from drstudy.papers.glam.compared import ratios
from drstudy.papers.glam.params import TOGETHER

EXISTING = (maps.GRADE, maps.DISEASE, maps.FINER, maps.RAM, maps.COARSE, maps.BAG)
"""Maps that the paper's would have to beat: those of grading networks, and those of rivals that learn from the same labels."""


def claims(
    eyes: pd.DataFrame, cuts: pd.DataFrame, patients: Mapping[str, str], resamples: int, seed: int
) -> pd.DataFrame:
    """One row per quantity of ``claims.yaml``.

    The best existing map is the one of :data:`EXISTING` with the best Dice on validation eyes, all lesions together.

    Args:
        eyes: Rows of :func:`drstudy.explain.measures.fine.measure`.
        cuts: ``map, region, dice`` of validation eyes; see :class:`drstudy.explain.measures.fine.Cuts`.
        patients: image_id to patient_id.
        resamples, seed: Number of resamples of the bootstrap over patients, and seed of its draws.

    Returns:
        ``quantity, map, against, value, lo, hi``; numbers are NaN where a map or a lesion is missing.
    """
    counts = released.parameters()
    rows = [
        _row(f"{name.removeprefix('parameters_')} network as released, million parameters", number / 1e6)
        for name, number in counts.items()
    ]
    there = eyes[(eyes["region"] == TOGETHER) & eyes["present"].astype(bool)]
    steps = maps.LOCAL if maps.LOCAL in set(there["map"]) else maps.GLOBAL
    best = best_existing(cuts)
    of = (there, patients, resamples, seed)
    rows += [_relative(*of, steps, best), _difference(*of, steps, best, "Dice, difference")]
    rows.append(_difference(*of, steps, maps.GLOBAL, "Dice, second step"))
    rows.append(_over_chance(*of))
    return pd.DataFrame(rows, columns=["quantity", "map", "against", "value", "lo", "hi"])


def best_existing(cuts: pd.DataFrame) -> str:
    """The map of :data:`EXISTING` with the best Dice on validation eyes, all lesions together; '' where none has one."""
    known = cuts[(cuts["region"] == TOGETHER) & cuts["map"].isin(EXISTING)].dropna(subset="dice")
    return "" if known.empty else str(known.loc[known["dice"].idxmax(), "map"])


def _row(quantity: str, value: float, lo: float | None = None, hi: float | None = None, **names: str) -> dict:
    found = {"value": value, "lo": value if lo is None else lo, "hi": value if hi is None else hi}
    return {"quantity": quantity, "map": "", "against": ""} | names | found


def _relative(eyes, patients, resamples, seed, first: str, second: str) -> dict:
    found = ratios(eyes, first, second, patients, resamples, seed, metric="dice_cut")
    names = {"map": first, "against": second}
    if found.empty:
        return _row("Dice, relative gain", np.nan, **names)
    (value, lo, hi) = found[["value", "lo", "hi"]].iloc[0] - 1
    return _row("Dice, relative gain", value, lo, hi, **names)


def _difference(eyes, patients, resamples, seed, first: str, second: str, quantity: str) -> dict:
    if first == second:
        return _row(quantity, np.nan, map=first, against=second)
    wide = eyes.pivot(index="image_id", columns="map", values="dice_cut").reindex(columns=[first, second])
    wide = wide.dropna()
    owners = wide.index.map(patients).to_numpy(str)
    gap = (wide[first] - wide[second]).to_numpy(float)
    found = statistics.mean_interval(gap, owners, resamples, seed)
    return _row(quantity, found["value"], found["lo"], found["hi"], map=first, against=second)


def _over_chance(eyes, patients, resamples, seed) -> dict:
    name = maps.RELEASED[1]
    part = eyes[eyes["map"] == name]
    owners = part["image_id"].map(patients).to_numpy(str)
    found = statistics.mean_interval(part["aupr_over_chance"].to_numpy(float), owners, resamples, seed)
    quantity = "released, average precision over chance"
    return _row(quantity, found["value"], found["lo"], found["hi"], map=name, against="chance")
