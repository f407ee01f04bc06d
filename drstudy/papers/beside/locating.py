"""How well the map of each system finds lesions, on one grid and against one truth, beside four maps that ignore all networks.

Every map is brought to the same grid of the same photographs, which may be larger than those that a network was trained on. A cut is fixed
for each map and lesion on validation eyes. Scores are those of :mod:`drstudy.explain.measures.fine`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from drstudy.core.records import Record
from drstudy.data.dataset import Dataset
from drstudy.evaluation import statistics, tests
from drstudy.explain.measures import baselines, common_maps, fine, localisation
from drstudy.explain.measures.grid import ANY, Grid, MapsOf
from drstudy.papers.beside.gather import Compared
from drstudy.papers.beside.params import SideBySide

MEASURES = {"ap": "aupr", "dice": "dice_cut", "hit": "hit", "patch": "patch_precision"}
"""Measure to the column of :func:`drstudy.explain.measures.fine.measure`."""

TITLES = {
    "ap": "pixel average precision",
    "dice": "Dice, validation cut",
    "hit": "pointing game",
    "patch": "patch precision",
}
"""What readers see."""

BLIND = baselines.NAMES
"""Maps that ignore all networks."""

COLUMNS = ["system", "image_id", "patient_id", "region", *MEASURES]


def measure(systems: Sequence[Compared], audit: Record, data: Dataset, p: SideBySide) -> pd.DataFrame:
    """Every map on every test eye that has a lesion.

    Args:
        systems: Systems; those without maps are left out, and so are eyes that the audit does not have.
        audit: Audit with the masks.
        data: Its photographs, for the blind maps.
        p: Parameters.

    Returns:
        One row per map, eye and region that the eye has: :data:`COLUMNS`, NaN where undefined. The blind maps are measured on the test eyes of
        the first system with maps. Empty if no test eye has an outlined lesion.

    Raises:
        ValueError: If a map is finer than the grid.
    """
    grid = Grid(localisation.masks_of(audit), (*p.codes, ANY), p.grid)
    patients = dict(zip(data.table["image_id"], data.table["patient_id"]))
    parts, asked = [], None
    for one in systems:
        if one.maps is None:
            continue
        maps = common_maps.load(one.maps.path(common_maps.FILE))
        eyes = {
            split: [name for name in maps.of(split) if name in patients] for split in ("validation", "test")
        }
        if not eyes["test"]:
            continue
        asked = asked or eyes
        rows = _measured(one.label, _reader(one.label, maps, grid), eyes, grid, patients)
        parts.append(rows[[maps.knows(region) for region in rows["region"]]])
    if asked is not None:
        parts += _blind(asked, grid, data, patients, p)
    if not parts:
        return pd.DataFrame(columns=COLUMNS)
    return pd.concat(parts, ignore_index=True)


def _reader(label: str, maps: common_maps.CommonMaps, grid: Grid) -> MapsOf:
    return lambda image_id: {label: maps.fitting(image_id, grid.regions)}


def _measured(
    label: str, maps_of: MapsOf, eyes: Mapping[str, list[str]], grid: Grid, patients: Mapping[str, str]
) -> pd.DataFrame:
    """Rows of the maps of one reader, cuts fixed on its validation eyes."""
    cuts = fine.fit_cuts(eyes["validation"], maps_of, grid, patients) if eyes["validation"] else None
    table, _ = fine.measure(eyes["test"], maps_of, grid, patients, cuts)
    there = table[table["present"].astype(bool)]
    about = {"system": there["map"], "patient_id": there["image_id"].map(patients)}
    numbers = {name: there[column] for name, column in MEASURES.items()}
    return there[["image_id", "region"]].assign(**about, **numbers)[COLUMNS]


def _blind(
    eyes: Mapping[str, list[str]], grid: Grid, data: Dataset, patients: Mapping[str, str], p: SideBySide
) -> list[pd.DataFrame]:
    """Rows of the four blind maps."""
    row = dict(zip(data.table["image_id"], data.table["row"]))
    wanted = [*eyes["validation"], *eyes["test"]]
    place = {image_id: number for number, image_id in enumerate(wanted)}
    beside = baselines.beside(
        data.images, [row[image_id] for image_id in wanted], [(grid.side, grid.side)], p.seed
    )

    def maps_of(image_id: str) -> dict[str, np.ndarray]:
        found = beside(place[image_id], image_id, grid.masks_of(image_id))
        one_draw = {
            name.replace("#0", ""): one for name, one in found.items() if "#" not in name or "#0" in name
        }
        return {name.split(" ")[0]: one for name, one in one_draw.items()}

    return [_measured("", maps_of, eyes, grid, patients)]


def scores(by_eye: pd.DataFrame, resamples: int, seed: int) -> pd.DataFrame:
    """Mean of every measure over the eyes that have the lesion.

    Returns:
        Long: ``system, region, measure, eyes, patients, value, lo, hi``; no interval below five patients.
    """
    rows = []
    for (system, region), part in by_eye.groupby(["system", "region"], sort=False):
        for name in MEASURES:
            known = part.dropna(subset=name)
            if known.empty:
                continue
            about = {"system": system, "region": region, "measure": name, "eyes": len(known)}
            about["patients"] = known["patient_id"].nunique()
            owners = known["patient_id"].to_numpy(str)
            rows.append(
                about | statistics.mean_interval(known[name].to_numpy(float), owners, resamples, seed)
            )
    columns = ["system", "region", "measure", "eyes", "patients", "value", "lo", "hi"]
    return pd.DataFrame(rows, columns=columns)


def differences(by_eye: pd.DataFrame, references: Sequence[str], resamples: int, seed: int) -> pd.DataFrame:
    """Every map minus that of each reference, on the eyes that both have.

    p-values are two-sided, from the bootstrap over patients; Holm's adjustment allows for the number of systems that are compared with one
    reference by one measure and region. Blind maps are no systems and have no row; see :func:`beyond_blind`.

    Args:
        by_eye: Result of :func:`measure`.
        references: Labels of the reference networks, as far as they have maps.
        resamples, seed: Number of resamples of the bootstrap over patients, and seed of its draws.

    Returns:
        Long: ``system, minus, region, measure, eyes, value, lo, hi, p, p_holm``.
    """
    systems = [name for name in dict.fromkeys(by_eye["system"]) if name not in BLIND]
    rows = []
    for reference in references:
        for region in dict.fromkeys(by_eye["region"]):
            for name in MEASURES:
                wide = _wide(by_eye, region, name)
                found = [
                    {"system": other, "minus": reference, "region": region, "measure": name} | gap
                    for other in systems
                    if other != reference and (gap := _gap(wide, other, reference, resamples, seed))
                ]
                for row, adjusted in zip(found, tests.holm([row["p"] for row in found])):
                    row["p_holm"] = float(adjusted)
                rows += found
    columns = ["system", "minus", "region", "measure", "eyes", "value", "lo", "hi", "p", "p_holm"]
    return pd.DataFrame(rows, columns=columns)


def beyond_blind(by_eye: pd.DataFrame, resamples: int, seed: int) -> pd.DataFrame:
    """Every map minus each blind map, all lesions together.

    Returns:
        Long: ``system, blind, measure, eyes, value, lo, hi, beats_all``: whether the intervals to all four blind maps lie above 0.
    """
    systems = [name for name in dict.fromkeys(by_eye["system"]) if name not in BLIND]
    rows = []
    for name in MEASURES:
        wide = _wide(by_eye, ANY, name)
        for system in systems:
            own = [
                {"system": system, "blind": blind, "measure": name} | gap
                for blind in BLIND
                if (gap := _gap(wide, system, blind, resamples, seed))
            ]
            beats = len(own) == len(BLIND) and all(row["lo"] > 0 for row in own)
            rows += [row | {"beats_all": beats} for row in own]
    columns = ["system", "blind", "measure", "eyes", "value", "lo", "hi", "beats_all"]
    return pd.DataFrame(rows).reindex(columns=columns)


def pairs(by_eye: pd.DataFrame, name: str, resamples: int, seed: int) -> pd.DataFrame:
    """All pairs of systems by one measure, all lesions together: ``a, b, p, p_holm``, adjusted for the number of pairs."""
    wide = _wide(by_eye, ANY, name)
    systems = [one for one in wide if one not in BLIND]
    rows = [
        {"a": one, "b": other, "p": gap["p"]}
        for place, one in enumerate(systems)
        for other in systems[place + 1 :]
        if (gap := _gap(wide, one, other, resamples, seed))
    ]
    found = pd.DataFrame(rows, columns=["a", "b", "p"])
    return found.assign(p_holm=tests.holm(found["p"].to_numpy(float)))


def _wide(by_eye: pd.DataFrame, region: str, name: str) -> pd.DataFrame:
    """One row per eye (and its patient), one column per map that has a number."""
    part = by_eye[by_eye["region"] == region]
    wide = part.pivot(index=["image_id", "patient_id"], columns="system", values=name)
    return wide.reindex(columns=list(dict.fromkeys(part["system"]))).dropna(axis=1, how="all")


def _gap(wide: pd.DataFrame, first: str, second: str, resamples: int, seed: int) -> dict[str, float]:
    """Mean paired difference with interval and p-value; empty if no eye has both."""
    if first not in wide or second not in wide:
        return {}
    gap = (wide[first] - wide[second]).dropna()
    if gap.empty:
        return {}
    owners = gap.index.get_level_values("patient_id").to_numpy(str)
    draws = statistics.mean_draws(gap.to_numpy(float), owners, resamples, seed)
    numbers = statistics.percentiles(float(gap.mean()), draws)
    ends = {key: numbers[key] for key in ("value", "lo", "hi")}
    return {"eyes": len(gap)} | ends | {"p": tests.p_value(draws)}
