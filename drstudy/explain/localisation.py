"""Where the heat lies: shares of a map inside lesions, vessels, disc and fovea, beside those of chance.

The main paper reads its maps by eye and reports that they cover lesions only partly, attend beside the disc,
and use vessels where severe disease is called normal (*spec* A6). Here the same maps are measured, on every
eye that has masks.

Policies, each of which is counted in the tables:

- Heat is what a map holds inside the field of view, after upsampling, scaled to sum to 1; what lies outside
  is reported as the region ``outside``.
- Chance is a uniform map on the field of view: it puts into a region the region's share of the area.
- ``no heat``: a map that is 0 all over the field of view (nothing speaks for the class) has no shares. It
  counts, and it stays out of the means.
- ``empty mask``: the eye was annotated for this structure and has none. It counts, and it stays out of the
  means of that mask; in the partition its share is 0, so that each eye's shares sum to 1.
- ``not annotated``: the source has no masks of this kind. There is no number, least of all 0. In the
  partition such pixels fall to ``elsewhere``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from drstudy import statistics

if TYPE_CHECKING:
    from drstudy.explain.cam import Explained

LESIONS = ("MA", "HE", "EX", "SE", "VB", "IRMA", "NV", "PRH")
"""Codes whose union is ``lesion``: signs of the disease. LASER scars and DRUSEN are measured beside."""

ANATOMY = {"disc": "DISC", "vessel": "VESSEL", "fovea": "FOVEA"}
"""Region of the partition to code, in order of precedence after ``lesion``."""

PARTITION = ("lesion", *ANATOMY, "elsewhere")

TOLERANCE = 0.03
"""Of the pointing game, share of the image's side: its authors' 15 of about 500 pixels (Zhang et al. 2018)."""

FEWEST_PATIENTS = 5
"""Fewer patients get no interval: four have only 35 distinct resamples, too few for 2.5 % in each tail."""

NOT_MEASURED = ("empty mask", "no heat", "not annotated")

TAILS = ((100 - statistics.LEVEL) / 2, (100 + statistics.LEVEL) / 2)

Masks = Mapping[str, "np.ndarray | None"]


def regions(masks: Masks) -> dict[str, np.ndarray | None]:
    """Named masks that are measured one by one, overlaps and all.

    Args:
        masks: Code to (S, S) bool; ``None`` where the source does not annotate it.

    Returns:
        ``lesion`` (union of the annotated codes of :data:`LESIONS`), then ``disc``, ``vessel``, ``fovea``,
        then each other code that was given, FOV excepted.
    """
    annotated = [masks[code] for code in LESIONS if masks.get(code) is not None]
    found: dict[str, np.ndarray | None] = {"lesion": np.logical_or.reduce(annotated) if annotated else None}
    found |= {name: masks.get(code) for name, code in ANATOMY.items()}
    return found | {code: mask for code, mask in masks.items() if code not in (*ANATOMY.values(), "FOV")}


def partition(masks: Masks) -> dict[str, np.ndarray | None]:
    """Cut the image into parts that do not overlap: lesion before disc before vessel before fovea before
    elsewhere.

    Args:
        masks: As :func:`regions`.

    Returns:
        The names of :data:`PARTITION` to (S, S) bool, ``None`` where not annotated. The others cover each
        pixel exactly once.

    Raises:
        ValueError: If no mask at all is given, as then the size is unknown.
    """
    named = regions(masks)
    shapes = [mask.shape for mask in masks.values() if mask is not None]
    if not shapes:
        raise ValueError("There is no mask at all: give at least the field of view (FOV).")
    free = np.ones(shapes[0], bool)
    parts: dict[str, np.ndarray | None] = {}
    for name in PARTITION[:-1]:
        parts[name] = None if named[name] is None else named[name] & free
        free = free if named[name] is None else free & ~named[name]
    return parts | {"elsewhere": free}


def measure_eye(heat: np.ndarray, masks: Masks, tolerance: float = TOLERANCE) -> pd.DataFrame:
    """Measure several maps of one eye against its masks.

    Args:
        heat: (L, S, S) float, at least 0, at the size of the masks: one map a layer.
        masks: Code to (S, S) bool, ``None`` where not annotated; ``FOV`` must be there.
        tolerance: Of the pointing game, share of the side S.

    Returns:
        One row a map (column ``map``, 0 to L-1) and region: ``kind`` is ``part`` (of the partition), ``mask``
        (one by one) or ``field`` (``outside``); ``area`` and ``heat`` are shares in 0..1 (``heat`` inside a
        mask is the energy-based pointing game, Wang et al. 2020); ``hit`` is the pointing game, the chance
        that the map's maximum (ties drawn evenly) lies within the tolerance of the mask, and ``hit_chance``
        the same for a random point of the field of view; ``status`` is ``measured``, ``empty mask``, ``no
        heat`` or ``not annotated``.

    Raises:
        ValueError: If shapes differ, heat is negative or not finite, or the field of view is missing or
            empty.
    """
    fov = masks.get("FOV")
    if fov is None or not fov.any():
        raise ValueError("The field of view (FOV) is missing or empty: there is nothing to measure in.")
    wrong = {
        code: mask.shape for code, mask in masks.items() if mask is not None and mask.shape != heat.shape[1:]
    }
    if wrong or heat.ndim != 3:
        raise ValueError(
            f"heat is {heat.shape}, which must be (maps, S, S) for masks of (S, S); these differ: {wrong}."
        )
    if not np.isfinite(heat).all() or heat.min() < 0:
        raise ValueError("heat must be finite and at least 0: pass maps after the ReLU.")
    everything = heat.sum((1, 2), dtype=np.float64)
    inside = np.where(fov, heat, 0).astype(np.float64)
    total = inside.sum((1, 2))
    share = inside / np.where(total > 0, total, 1)[:, None, None]
    peaks = (share == share.max((1, 2), keepdims=True)) & fov
    rows = []
    for kind, named in (("part", partition(masks)), ("mask", regions(masks))):
        for region, mask in named.items():
            if mask is None:
                rows += [_row(i, kind, region, "not annotated") for i in range(len(heat))]
                continue
            mask = mask & fov
            near = _within(mask, tolerance * len(fov)) & fov if kind == "mask" and mask.any() else None
            for i in range(len(heat)):
                row = _row(i, kind, region, "measured", area=mask.sum() / fov.sum())
                if total[i] == 0:
                    row["status"] = "no heat"
                elif kind == "mask" and not mask.any():
                    row["status"] = "empty mask"
                else:
                    row["heat"] = share[i][mask].sum()
                    if near is not None:
                        row |= {"hit": near[peaks[i]].mean(), "hit_chance": near.sum() / fov.sum()}
                rows.append(row)
    for i in range(len(heat)):
        row = _row(i, "field", "outside", "measured" if everything[i] else "no heat", area=1 - fov.mean())
        rows.append(row | {"heat": (everything[i] - total[i]) / everything[i] if everything[i] else np.nan})
    return pd.DataFrame(rows)


def measure(
    explained: Explained, masks_of: Callable[[str], Masks], tolerance: float = TOLERANCE
) -> pd.DataFrame:
    """:func:`measure_eye` for every eye and layer, one eye in memory at a time.

    Args:
        explained: The maps.
        masks_of: Gives the masks of an image_id, square, at the size to measure at (the image store's).
        tolerance: As :func:`measure_eye`.

    Returns:
        The rows of :func:`measure_eye` with ``image_id`` and ``layer`` in place of ``map``.
    """
    from drstudy.explain.cam import upsample

    tables = []
    for row, image_id in enumerate(explained.image_ids):
        masks = masks_of(image_id)
        heat = np.concatenate(
            [upsample(explained.maps(layer)[row][None], len(masks["FOV"])) for layer in explained.layers]
        )
        table = measure_eye(heat, masks, tolerance)
        table.insert(0, "image_id", image_id)
        table.insert(1, "layer", table.pop("map").map(dict(enumerate(explained.layers))))
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def summarise(
    table: pd.DataFrame,
    patients: Mapping[str, str],
    resamples: int,
    seed: int,
    groups: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Mean shares over eyes beside those of chance, with 95 % intervals from a bootstrap over patients.

    Args:
        table: Rows of :func:`measure`.
        patients: image_id to patient_id; both eyes of a patient are drawn together.
        resamples: Of the bootstrap; layers, regions and groups of the same patients share their draws.
        seed: Of the draws.
        groups: image_id to a group, such as ``right`` and ``wrong``; ``None`` is one group, ``all``. Eyes
            without a group are left out.

    Returns:
        One row a layer, kind, region and group, in the order of their first appearance: ``eyes`` measured and
        their ``patients``; the counts ``empty_mask``, ``no_heat`` and ``not_annotated``; and with ``_lo`` and
        ``_hi`` each: ``heat`` (mean share), ``enrichment`` (mean share over mean area share: 1 is chance),
        ``difference`` (mean share less mean area share: 0 is chance), ``hit`` (pointing game). ``area`` and
        ``hit_chance`` are what chance gives on the same eyes. No number where no eye was measured, no
        interval below :data:`FEWEST_PATIENTS` patients.
    """
    table = table.assign(
        group=table["image_id"].map(groups) if groups is not None else "all",
        patient=table["image_id"].map(patients),
    )
    if table["patient"].isna().any():
        missing = table.loc[table["patient"].isna(), "image_id"].unique()
        raise ValueError(
            f"{len(missing)} eyes have no patient_id, the first is {missing[0]}: pass patients for all eyes."
        )
    rows = []
    for key, cell in table.dropna(subset="group").groupby(["layer", "kind", "region", "group"], sort=False):
        used = cell[cell["status"] == "measured"]
        states = cell["status"].value_counts()
        counted = {
            name: int(states.get(name.replace("_", " "), 0))
            for name in ("empty_mask", "no_heat", "not_annotated")
        }
        row = dict(zip(("layer", "kind", "region", "group"), key))
        row |= {"eyes": len(used), "patients": used["patient"].nunique()} | counted
        rows.append(row | _means(used, resamples, seed))
    return pd.DataFrame(rows)


def _means(used: pd.DataFrame, resamples: int, seed: int) -> dict[str, float]:
    """Point values and intervals of one cell of :func:`summarise`."""
    values = used[["heat", "area", "hit", "hit_chance"]].to_numpy(float)
    quantities = {
        "heat": lambda heat, area, hit, chance: heat,
        "area": lambda heat, area, hit, chance: area,
        "enrichment": lambda heat, area, hit, chance: heat / np.where(area > 0, area, np.nan),
        "difference": lambda heat, area, hit, chance: heat - area,
        "hit": lambda heat, area, hit, chance: hit,
        "hit_chance": lambda heat, area, hit, chance: chance,
    }
    point = values.mean(0) if len(values) else np.full(4, np.nan)
    few = used["patient"].nunique() < FEWEST_PATIENTS
    draws = (
        np.full((1, 4), np.nan)
        if few
        else _resampled_means(values, used["patient"].to_numpy(), resamples, seed)
    )
    found = {}
    for name, of in quantities.items():
        found[name] = float(of(*point))
        if name not in ("area", "hit_chance"):
            valid = of(*draws.T)
            valid = valid[np.isfinite(valid)]
            lo, hi = np.percentile(valid, TAILS) if len(valid) else (np.nan, np.nan)
            found |= {f"{name}_lo": float(lo), f"{name}_hi": float(hi)}
    return found


def _resampled_means(values: np.ndarray, patients: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Means over eyes, (resamples, columns), each of another draw of patients."""
    names, index = np.unique(patients, return_inverse=True)
    weights = statistics.resample_counts(names, resamples, seed)[:, index].astype(float)
    return weights @ values / weights.sum(1, keepdims=True)


def _row(map_: int, kind: str, region: str, status: str, area: float = np.nan) -> dict[str, object]:
    return {
        "map": map_, "kind": kind, "region": region, "status": status,
        "area": area, "heat": np.nan, "hit": np.nan, "hit_chance": np.nan,
    }  # fmt: skip


def _within(mask: np.ndarray, pixels: float) -> np.ndarray:
    """Pixels at most so far from a mask that is not empty."""
    import cv2

    distance = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return distance <= pixels


def annotated_codes(manifest: pd.DataFrame) -> dict[str, set[str]]:
    """Which structures each source annotates: those for which at least one of its images has a mask file.

    An eye of such a source without a file has none of the structure (IDRiD ships no file then); in any other
    source nothing is known.

    Args:
        manifest: Columns ``source`` and ``mask_<CODE>`` (empty where there is no file).

    Returns:
        Source to codes.
    """
    columns = [name for name in manifest.columns if name.startswith("mask_")]
    return {
        source: {name.removeprefix("mask_") for name in columns if (rows[name].fillna("") != "").any()}
        for source, rows in manifest.groupby("source")
    }
