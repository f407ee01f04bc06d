"""Where the heat lies: shares of a map inside lesions, vessels, disc and fovea, beside those of chance.

The main paper reads its maps by eye and reports that they cover lesions only partly, attend beside the disc,
and use vessels where severe disease is predicted normal (docs/sources.md, A6). Here the same maps are measured, on every
eye that has masks.

Policies, each of which is counted in the tables:

- Heat is what a map holds inside the field of view, after upsampling, scaled to sum to 1; what lies outside
  is reported as the region ``outside``.
- Chance is a uniform map on the field of view: it puts into a region the region's share of the area.
- ``no heat``: a map that is 0 all over the field of view (nothing speaks for the class) has no shares. It
  counts, and it stays out of the means.
- ``empty mask``: the eye was annotated for this structure and has none. It counts, and it stays out of the
  means of that mask; in the partition its share is 0, so that each eye's shares sum to 1.
- ``not annotated``: nothing is known of this structure in this eye. There is no number, least of all 0. In
  the partition such pixels fall to ``elsewhere``.

What a single number of one map and one mask means stands in :mod:`drstudy.explain.measures.scores`; differences to
maps that ignore the network are taken in :mod:`drstudy.explain.measures.comparison`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from drstudy.core.names import FIELD, LESIONS, OTHER_FINDINGS
from drstudy.evaluation import statistics
from drstudy.explain.measures import scores

if TYPE_CHECKING:
    from drstudy.core.records import Record

ANATOMY = {"disc": "DISC", "vessel": "VESSEL", "fovea": "FOVEA"}
"""Region of the partition to code, in order of precedence after ``lesion``."""

PARTITION = ("lesion", *ANATOMY, "elsewhere")

HEADLINES = ("lesion", "vessel", "disc", "beside disc")

TOLERANCE = 0.25
"""Of the pointing game, disc diameters: 15 of its authors' about 500 pixels (Zhang et al. 2018), where the disc of
a 45-degree photograph measures about 65."""

CURVE = [f"dice_at_{fraction:.2f}" for fraction in scores.FRACTIONS]
"""Dice at each share of the map's maximum among which other patients choose."""

SCORES = ["aupr", "dice_otsu", "dice_fixed", "dice_oracle"]
"""Of lesions only; see :mod:`drstudy.explain.measures.scores`."""

COLUMNS = ["map", "kind", "region", "status", "area", "heat", "hit", "hit_chance", *SCORES, *CURVE]

LESION_COLUMNS = ["map", "region", "lesion", "diameter_dd", "size", "coverage"]

QUANTITIES = ("heat", "enrichment", "difference", "hit")
"""What :func:`summarise` gives with intervals."""

NOT_MEASURED = ("empty mask", "no heat", "not annotated")

SUMMARY_COLUMNS = [
    *("layer", "kind", "region", "group", "eyes", "patients", "empty_mask", "no_heat", "not_annotated"),
    *("area", "heat", "heat_lo", "heat_hi", "enrichment", "enrichment_lo", "enrichment_hi"),
    *("difference", "difference_lo", "difference_hi", "hit", "hit_lo", "hit_hi", "hit_chance"),
]

Masks = Mapping[str, "np.ndarray | None"]
"""Code to (S, S): bool, or the share of each pixel that is covered, 0..1; ``None`` where not annotated."""


def masks_of(audit: Record) -> Callable[[str], Masks]:
    """A reader of the masks of one eye, in the geometry of the image store.

    What a missing file means is decided by :func:`drstudy.data.labels.status`.

    Args:
        audit: Record of notebook 01.

    Returns:
        A function from image_id to :data:`Masks` with every code of this module and ``FOV`` (bool).
    """
    from drstudy.data import labels

    read = labels.mask_reader(audit, (*LESIONS, *OTHER_FINDINGS, *ANATOMY.values()))

    def read_eye(image_id: str) -> Masks:
        eye = read(image_id)
        return eye.masks | {FIELD: eye.field}

    return read_eye


def regions(masks: Masks) -> dict[str, np.ndarray | None]:
    """Named masks that are measured one by one, overlaps and all.

    Args:
        masks: Masks of the eye.

    Returns:
        (S, S) float 0..1, or ``None``: ``lesion`` (union of the annotated codes of :data:`LESIONS`),
        ``disc``, ``vessel``, ``fovea``, ``beside disc`` (up to half a disc diameter from its edge), then each
        other code that was given, FOV excepted.
    """
    masks = {code: None if mask is None else np.asarray(mask, np.float32) for code, mask in masks.items()}
    annotated = [masks[code] for code in LESIONS if masks.get(code) is not None]
    found: dict[str, np.ndarray | None] = {"lesion": np.maximum.reduce(annotated) if annotated else None}
    found |= {name: masks.get(code) for name, code in ANATOMY.items()}
    found["beside disc"] = None if found["disc"] is None else _ring(found["disc"])
    return found | {code: mask for code, mask in masks.items() if code not in (*ANATOMY.values(), "FOV")}


def partition(named: Mapping[str, np.ndarray | None]) -> dict[str, np.ndarray | None]:
    """Cut the image into parts that do not overlap.

    Args:
        named: Result of :func:`regions`; at least one is annotated.

    Returns:
        The names of :data:`PARTITION`, each before the next where they overlap, to (S, S) float 0..1,
        ``None`` where not annotated. The others sum to 1 in each pixel.
    """
    shape = next(mask.shape for mask in named.values() if mask is not None)
    free = np.ones(shape, np.float32)
    parts: dict[str, np.ndarray | None] = {}
    for name in PARTITION[:-1]:
        parts[name] = None if named[name] is None else np.minimum(named[name], free)
        free = free if parts[name] is None else free - parts[name]
    return parts | {"elsewhere": free}


def measure_eye(
    heat: np.ndarray, masks: Masks, tolerance: float = TOLERANCE
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Measure several maps of one eye against its masks.

    Args:
        heat: (M, S, S) float, at least 0, at the size of the masks.
        masks: Masks of the eye; ``FOV`` must be there.
        tolerance: Tolerance of the pointing game, disc diameters; see :func:`drstudy.explain.measures.scores.disc_diameter` for eyes
            without an outlined disc.

    Returns:
        One row per map (column ``map``, 0 to M-1) and region: ``kind`` is ``part`` (of the partition), ``mask``
        (one by one) or ``field`` (``outside``); ``area`` and ``heat`` are shares in 0..1 (``heat`` inside a
        mask is the energy-based pointing game, Wang et al. 2020); ``hit`` is the pointing game, the chance
        that the map's maximum (ties drawn evenly) lies within the tolerance of the mask, and ``hit_chance``
        the same for a random point of the field of view; ``aupr``, ``dice_...`` as
        :meth:`drstudy.explain.measures.scores.Ranked.scores`, for lesions; ``status`` is ``measured``, ``empty mask``,
        ``no heat`` or ``not annotated``.

        Second, one row per map and lesion of every code, as :func:`drstudy.explain.measures.scores.lesions`, with its
        ``region``; maps without heat are left out.

    Raises:
        ValueError: If shapes differ, heat is negative or not finite, or the field of view is missing or
            empty.
    """
    eye = _Eye(heat, masks, tolerance)
    named = regions(masks)
    found = [eye.part(region, part) for region, part in partition(named | {"FOV": eye.fov}).items()]
    found += [eye.mask(region, mask) for region, mask in named.items()]
    found.append(eye.outside())
    table = pd.concat(found, ignore_index=True).reindex(columns=COLUMNS)
    table.loc[table["status"] != "measured", COLUMNS[5:]] = np.nan
    single = [eye.lesions(code, mask) for code, mask in named.items() if code in LESIONS]
    single = [rows for rows in single if rows is not None]
    lesions = pd.concat(single, ignore_index=True) if single else pd.DataFrame()
    lesions = lesions.reindex(columns=LESION_COLUMNS)
    return table, lesions[lesions["map"].isin(np.flatnonzero(eye.total > 0))]


class _Eye:
    """Several maps of one eye inside its field of view; arguments and errors as :func:`measure_eye`."""

    def __init__(self, heat: np.ndarray, masks: Masks, tolerance: float) -> None:
        self.fov = _checked_fov(heat, masks)
        self.within = heat[:, self.fov]
        self.total = self.within.sum(1, dtype=np.float64)
        self.everything = heat.sum((1, 2), dtype=np.float64)
        self.share = self.within / np.where(self.total > 0, self.total, 1)[:, None]
        self.peaks = self.within == self.within.max(1, keepdims=True)
        self.status = np.where(self.total > 0, "measured", "no heat")
        self.ranked = scores.Ranked(self.within)
        self.hottest = self.ranked.hottest()
        disc = masks.get(ANATOMY["disc"])
        disc = None if disc is None else np.asarray(disc, np.float32)
        self.disc_px, _ = scores.disc_diameter(disc, self.fov)
        self.tolerance = tolerance * self.disc_px

    def rows(
        self, kind: str, region: str, status: np.ndarray | str, **values: np.ndarray | float
    ) -> pd.DataFrame:
        """One row per map."""
        about = {"map": range(len(self.within)), "kind": kind, "region": region, "status": status}
        return pd.DataFrame(about | values)

    def inside(self, cover: np.ndarray) -> dict[str, np.ndarray | float]:
        """Shares of the area and of the heat under a mask on the pixels of the field, (P,)."""
        area = cover.sum(dtype=np.float64) / self.within.shape[1]
        return {"area": area, "heat": statistics.weighted_sums(self.share, cover)}

    def part(self, region: str, part: np.ndarray | None) -> pd.DataFrame:
        """Rows of one part of the partition."""
        if part is None:
            return self.rows("part", region, "not annotated")
        return self.rows("part", region, self.status, **self.inside(part[self.fov]))

    def mask(self, region: str, mask: np.ndarray | None) -> pd.DataFrame:
        """Rows of one mask by itself."""
        if mask is None:
            return self.rows("mask", region, "not annotated")
        cover = mask[self.fov]
        if not cover.any():
            status = np.where(self.total > 0, "empty mask", "no heat")
            return self.rows("mask", region, status, area=0.0)
        near = within((mask > 0) & self.fov, self.tolerance)[self.fov]
        values = self.inside(cover)
        values |= {"hit": (self.peaks & near).sum(1) / self.peaks.sum(1), "hit_chance": near.mean()}
        if region in LESIONS or region == "lesion":
            curve = self.ranked.scores(cover)
            values |= dict(zip(CURVE, curve.pop("curve").T)) | curve
        return self.rows("mask", region, self.status, **values)

    def lesions(self, code: str, mask: np.ndarray | None) -> pd.DataFrame | None:
        """Rows of every single lesion of one kind; ``None`` where there is none."""
        if mask is None or not mask[self.fov].any():
            return None
        return scores.lesions(self.hottest, mask, self.fov, self.disc_px).assign(region=code)

    def outside(self) -> pd.DataFrame:
        """Rows of the heat outside the field of view."""
        lit = self.everything > 0
        heat = (self.everything - self.total) / np.where(lit, self.everything, 1)
        status = np.where(lit, "measured", "no heat")
        return self.rows("field", "outside", status, area=1 - self.fov.mean(), heat=heat)


def _checked_fov(heat: np.ndarray, masks: Masks) -> np.ndarray:
    """The field of view, (S, S) bool; errors as :func:`measure_eye`."""
    fov = masks.get("FOV")
    if fov is None or not fov.any():
        raise ValueError("The field of view (FOV) is missing or empty: there is nothing to measure in.")
    shapes = {mask.shape for mask in masks.values() if mask is not None}
    if heat.ndim != 3 or shapes != {heat.shape[1:]}:
        raise ValueError(
            f"heat is {heat.shape}, masks are {sorted(shapes)}: must be (maps, S, S) and (S, S)."
        )
    if not np.isfinite(heat).all() or heat.min() < 0:
        raise ValueError("heat must be finite and at least 0: pass maps after the ReLU.")
    return fov.astype(bool)


def measure(
    maps: Mapping[str, np.ndarray],
    image_ids: Sequence[str],
    masks_of: Callable[[str], Masks],
    tolerance: float = TOLERANCE,
    beside: Callable[[int, str, Masks], Mapping[str, np.ndarray]] | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """:func:`measure_eye` for every eye and map, one eye in memory at a time.

    Args:
        maps: Name (a layer, a method) to (N, h, w) float, at least 0; grids may differ.
        image_ids: N names.
        masks_of: Gives the masks of an image_id, square, at the size to measure at; see :func:`masks_of`.
        tolerance: As in :func:`measure_eye`.
        beside: Further maps of one eye, from its number, name and masks; see
            :func:`drstudy.explain.measures.baselines.beside`.

    Returns:
        The rows of :func:`measure_eye` with ``image_id`` and ``layer`` (the map's name) in place of ``map``.
    """
    from drstudy.explain.methods.cam import upsample

    tables: list[list[pd.DataFrame]] = [[], []]
    for row, image_id in enumerate(image_ids):
        masks = masks_of(image_id)
        small = {name: map_[row] for name, map_ in maps.items()}
        small |= beside(row, image_id, masks) if beside else {}
        heat = np.concatenate([upsample(map_[None], len(masks["FOV"])) for map_ in small.values()])
        names = dict(enumerate(small))
        for several, table in zip(tables, measure_eye(heat, masks, tolerance)):
            table.insert(0, "image_id", image_id)
            table.insert(1, "layer", table.pop("map").map(names))
            several.append(table)
    whole, single = (pd.concat(several, ignore_index=True) for several in tables)
    return whole, single


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
        resamples: Number of resamples of the bootstrap; cells of the same patients share their draws.
        seed: Seed of the draws.
        groups: image_id to a group, such as ``right`` and ``wrong``; ``None`` is one group, ``all``. Eyes
            without a group are left out.

    Returns:
        One row per layer, kind, region and group, in the order of their first appearance: ``eyes`` measured and
        their ``patients``; the counts ``empty_mask``, ``no_heat`` and ``not_annotated``; and with ``_lo`` and
        ``_hi`` each: ``heat`` (mean share), ``enrichment`` (mean share over mean area share: 1 is chance),
        ``difference`` (mean share less mean area share: 0 is chance), ``hit`` (pointing game). ``area`` and
        ``hit_chance`` are what chance gives on the same eyes. No number where no eye was measured, no
        interval below :data:`drstudy.evaluation.statistics.FEWEST_PATIENTS` patients.

    Raises:
        ValueError: If an eye has no patient.
    """
    group = "all" if groups is None else table["image_id"].map(groups)
    table = table.assign(group=group, patient=table["image_id"].map(patients))
    if table["patient"].isna().any():
        missing = table.loc[table["patient"].isna(), "image_id"].unique()
        raise ValueError(
            f"{len(missing)} eyes have no patient_id, {missing[0]} for one: pass patients for all eyes."
        )
    rows, by = [], SUMMARY_COLUMNS[:4]
    for key, cell in table.dropna(subset="group").groupby(by, sort=False):
        used = cell[cell["status"] == "measured"]
        row = dict(zip(by, key)) | {"eyes": len(used), "patients": used["patient"].nunique()}
        row |= {status.replace(" ", "_"): int((cell["status"] == status).sum()) for status in NOT_MEASURED}
        rows.append(row | _means(used, resamples, seed))
    return pd.DataFrame(rows, columns=SUMMARY_COLUMNS)


def outcome(predictions: pd.DataFrame) -> dict[str, str]:
    """image_id to ``right`` or ``wrong``; eyes without a grade are in neither.

    Args:
        predictions: ``image_id``, ``grade`` (may be missing), ``p0`` to ``p4``.
    """
    graded = predictions.dropna(subset="grade")
    predicted = graded[[f"p{k}" for k in range(5)]].to_numpy(float).argmax(1)
    right = graded["grade"].to_numpy(int) == predicted
    return dict(zip(graded["image_id"], np.where(right, "right", "wrong").tolist()))


def missed(predictions: pd.DataFrame) -> dict[str, str]:
    """Severe eyes (grade 3 or 4) that were predicted normal (0): the failure that the paper shows (docs/sources.md, A6).

    Args:
        predictions: As :func:`outcome` takes them.

    Returns:
        image_id to ``severe predicted normal``, for these eyes only.
    """
    called = predictions[[f"p{k}" for k in range(5)]].to_numpy(float).argmax(1)
    severe = (predictions["grade"] >= 3).fillna(False).to_numpy(bool) & (called == 0)
    return dict.fromkeys(predictions.loc[severe, "image_id"], "severe predicted normal")


def as_metrics(summary: pd.DataFrame) -> dict[str, float]:
    """Flat metrics of the masks in :data:`HEADLINES` and of what lies outside the field of view.

    Args:
        summary: Result of :func:`summarise`, one group.

    Returns:
        ``heat_lesion_<layer>`` with ``..._lo`` and ``..._hi``, so too ``enrichment`` and ``hit``;
        ``area_...`` is what chance gives on the same eyes, ``eyes_...`` their number. Shares are 0..1. What
        is not annotated has no metrics.
    """
    found = {}
    headline = (summary["kind"] == "mask") & summary["region"].isin(HEADLINES) | (summary["kind"] == "field")
    for row in summary[headline & (summary["eyes"] > 0)].to_dict("records"):
        name = f"{row['region'].replace(' ', '_')}_{row['layer']}"
        found |= {f"area_{name}": row["area"], f"eyes_{name}": row["eyes"]}
        for quantity in ("heat", "enrichment", "hit") if row["kind"] == "mask" else ("heat", "enrichment"):
            found |= {f"{quantity}_{name}{end}": row[f"{quantity}{end}"] for end in ("", "_lo", "_hi")}
    return found


def _means(used: pd.DataFrame, resamples: int, seed: int) -> dict[str, float]:
    """Point values and intervals of one cell of :func:`summarise`."""
    values = used[["heat", "area", "hit", "hit_chance"]].to_numpy(float)
    points = values.mean(0, keepdims=True) if len(values) else np.full((1, 4), np.nan)
    patients, draws = used["patient"].to_numpy(str), np.full((1, 4), np.nan)
    if statistics.enough_patients(patients):
        weights = statistics.image_weights(patients, resamples, seed)[1:]
        draws = statistics.weighted_sums(weights, values) / weights.sum(1, keepdims=True)
    found = {"area": float(points[0, 1]), "hit_chance": float(points[0, 3])}
    for name, value, drawn in zip(QUANTITIES, _derived(points), _derived(draws)):
        numbers = statistics.percentiles(value[0], drawn)
        found |= {name: numbers["value"], f"{name}_lo": numbers["lo"], f"{name}_hi": numbers["hi"]}
    return found


def _derived(means: np.ndarray) -> tuple[np.ndarray, ...]:
    """Heat, enrichment, difference and hit of (n, 4) means of heat, area, hit and hit_chance."""
    heat, area, hit, _ = means.T
    return heat, heat / np.where(area > 0, area, np.nan), heat - area, hit


def _ring(disc: np.ndarray) -> np.ndarray:
    """What lies up to half a disc diameter from the edge of the disc."""
    if not disc.any():
        return disc
    diameter = 2 * np.sqrt(disc.sum() / np.pi)
    return (within(disc > 0, diameter / 2) & (disc == 0)).astype(np.float32)


def within(mask: np.ndarray, pixels: float) -> np.ndarray:
    """(S, S) bool: the pixels at most so many pixels from an (S, S) bool mask that is not empty."""
    import cv2

    distance = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return distance <= pixels
