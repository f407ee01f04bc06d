"""How well fine maps find lesions, at cuts that were fixed on the eyes of other patients.

For maps whose values mean the same in every eye (probabilities, logits, evidence), a cut of the value itself can be fixed on
validation eyes (:func:`fit_cuts`) and applied to any other eye, also to one without a lesion. This is what a user could do.
:mod:`drstudy.explain.measures.localisation` scales each map by its own maximum instead, so a map always points somewhere.

All is measured on the grid of the maps (:mod:`drstudy.explain.measures.grid`), for each map and region of each eye:

- Eyes **with** the lesion have energy inside, pointing game, average precision and all kinds of Dice.
- Eyes **without** the lesion have no Dice, since an empty mask has none. They have ``false_area``, the share of the field that
  is taken, and ``false_patches``. ``false_area_healthy`` counts only eyes without a lesion of any annotated kind.
- Eyes in which the lesion is **not annotated** have no row.
- A map that is 0 in the whole field has no energy inside (NaN). Its other scores count: its average precision and pointing
  game are those of chance, and its Dice at a cut above 0 is 0, since it missed a lesion that is there.

``recall`` counts single lesions: one is found if the cut map takes any cell of it. Beside ``false_regions``, the connected
regions of the cut map that touch no lesion, it is one point of a free-response curve (FROC).

``patch_precision`` is the share of high-evidence patches that hold a lesion, after Sparse BagNet (Djoumessi et al. 2025, PLOS
Digit Health). The choices are ours: the highest cells at or above the cut, at most :data:`PATCHES` per eye, each the centre
of a square window of :data:`PATCH` disc diameters; windows do not overlap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import pandas as pd

from drstudy.explain.measures import grid as grids
from drstudy.explain.measures import localisation, scores
from drstudy.explain.measures.grid import Eye, Grid, MapsOf

Kind = Literal["probability", "heat", "logit"]
"""What a map's values are: 0..1; at least 0; or any number. Soft Dice needs the first, energy inside one of the first two."""

TAKEN = np.geomspace(0.5, 1e-4, 48)
"""Shares of the field that the candidates for a cut take in single eyes."""

CANDIDATES = 64
"""Number of cuts among which validation eyes choose."""

PATCH = 0.5
"""Side of a window, disc diameters: 33 of 512 pixels, the field of a BagNet-33, where a disc measures about 68."""

PATCHES = 10
"""Most windows for each eye."""

KEYS = ["image_id", "map", "region", "present", "healthy"]

CHANCE = {"heat": "area", "hit": "hit_chance", "aupr": "area"}
"""Score to the column of what a map without knowledge gets; ``<score>_over_chance`` is the difference, eye by eye."""

METRICS = {
    "heat": "energy inside",
    "heat_over_chance": "energy inside, minus the area",
    "hit": "pointing game",
    "hit_over_chance": "pointing game, minus chance",
    "aupr": "average precision",
    "aupr_over_chance": "average precision, minus the area",
    "soft_dice": "soft Dice",
    "dice_cut": "Dice, cut fixed on validation eyes",
    "dice_oracle": "Dice, oracle cut",
    "false_regions": "false regions per eye",
    "false_area": "share of the field marked, eyes without this lesion",
    "false_area_healthy": "share of the field marked, eyes without any lesion",
    "patches": "high-evidence patches per eye with the lesion",
    "patch_precision": "share of high-evidence patches with a lesion",
    "patch_over_chance": "share of high-evidence patches with a lesion, minus chance",
    "false_patches": "high-evidence patches per eye without the lesion",
    "area": "share of the field with this lesion",
    "hit_chance": "pointing game, chance",
    "patch_chance": "share of patches with a lesion, chance",
}
"""Columns of the first table of :func:`measure`, and what readers see."""

LESION_COLUMNS = ["image_id", "map", "region", "lesion", "diameter_dd", "size", "found"]


# --- the cut ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cuts:
    """Cuts fixed on validation eyes.

    Attributes:
        table: One row per ``map`` and ``region``: ``cut`` (NaN where no eye had this lesion), ``dice`` (mean over the eyes at
            this cut, so flattered), and the ``eyes`` that had a say.
        patients: All patients of the validation eyes.
    """

    table: pd.DataFrame
    patients: frozenset[str]

    def of(self, names: Sequence[str], regions: Sequence[str]) -> np.ndarray:
        """(M, L) float64.

        Raises:
            ValueError: If a map or a region has no row.
        """
        wide = self.table.pivot(index="map", columns="region", values="cut")
        missing = [*pd.Index(names).difference(wide.index), *pd.Index(regions).difference(wide.columns)]
        if missing:
            raise ValueError(
                f"No cut was fitted for {', '.join(missing)}: call fit_cuts with the same maps and grid."
            )
        return wide.loc[list(names), list(regions)].to_numpy(float)


def fit_cuts(image_ids: Sequence[str], maps_of: MapsOf, grid: Grid, patients: Mapping[str, str]) -> Cuts:
    """The value at which the maps of each region are best cut, by mean Dice over the eyes that have the lesion.

    The :data:`CANDIDATES` cuts are quantiles of the values that leave the shares :data:`TAKEN` of the field in these eyes, so
    they are dense where lesions are: a cut that takes a thousandth of the field has as many neighbours as one that takes a
    tenth. Of equally good cuts the lowest is taken.

    Args:
        image_ids: Validation eyes.
        maps_of: Their maps; see :func:`drstudy.explain.measures.grid.maps_of`.
        grid: Where they are measured.
        patients: image_id to patient_id.
    """
    names, curves = list(maps_of(image_ids[0])), {}
    cuts = _candidates(image_ids, maps_of, grid)
    for image_id in image_ids:
        for k, ranked, cover in _with_lesion(image_id, maps_of, grid):
            curves.setdefault(k, []).append(ranked.dice(cover, cuts[k]))
    rows = []
    for k, region in enumerate(grid.regions):
        found = np.array(curves.get(k, np.empty((0, len(names), CANDIDATES))))
        mean = found.mean(0) if len(found) else np.full((len(names), CANDIDATES), np.nan)
        best = mean.argmax(1)[:, None]
        values = (np.take_along_axis(array, best, 1)[:, 0] for array in (cuts.get(k, mean), mean))
        for name, cut, dice in zip(names, *values):
            rows.append({"map": name, "region": region, "cut": cut, "dice": dice, "eyes": len(found)})
    return Cuts(pd.DataFrame(rows), frozenset(patients[image_id] for image_id in image_ids))


def _with_lesion(image_id: str, maps_of: MapsOf, grid: Grid):
    """Number of each region that one eye has, its maps ranked, and the mask."""
    eye = grid.eye(image_id)
    heat = grids.in_field(maps_of(image_id), grid, eye)
    for k, region in enumerate(grid.regions):
        cover = eye.cover[region]
        if cover is not None and cover.any():
            yield k, scores.Ranked(heat[:, k]), cover


def _candidates(image_ids: Sequence[str], maps_of: MapsOf, grid: Grid) -> dict[int, np.ndarray]:
    """Number of a region to (M, CANDIDATES) values of the maps, rising."""
    values: dict[int, list[np.ndarray]] = {}
    for image_id in image_ids:
        for k, ranked, _ in _with_lesion(image_id, maps_of, grid):
            pixels = ranked.sorted.shape[1]
            place = pixels - np.maximum(1, np.rint(TAKEN * pixels)).astype(int)
            values.setdefault(k, []).append(ranked.sorted[:, place])
    levels = np.linspace(0, 1, CANDIDATES)
    return {
        k: np.quantile(np.concatenate(found, axis=1), levels, axis=1, method="nearest").T
        for k, found in values.items()
    }


# --- the measures -------------------------------------------------------------------------------------


def measure(
    image_ids: Sequence[str],
    maps_of: MapsOf,
    grid: Grid,
    patients: Mapping[str, str],
    cuts: Cuts | None = None,
    kinds: Mapping[str, Kind] | None = None,
    tolerance: float = localisation.TOLERANCE,
    patch: float = PATCH,
    patches: int = PATCHES,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every map against every region, eye by eye; the maps of one eye are in memory at a time.

    Args:
        image_ids: N eyes.
        maps_of: Their maps; every eye has the same names. See :func:`drstudy.explain.measures.grid.maps_of`.
        grid: Where they are measured; also whether the disc counts.
        patients: image_id to patient_id.
        cuts: Result of :func:`fit_cuts` on other patients; without it all that needs a cut is NaN.
        kinds: Name of a map to what its values are; ``heat`` where it is not named.
        tolerance: Tolerance of the pointing game, disc diameters.
        patch, patches: Side of a window in disc diameters, and most windows for each eye.

    Returns:
        First, one row per eye, map and region that is annotated: :data:`KEYS` and :data:`METRICS`, NaN where undefined.
        Second, one row per eye, map and single lesion: :data:`LESION_COLUMNS`; ``found`` is 0 or 1, NaN without a cut.

    Raises:
        ValueError: If a patient had a say in the cuts, a map does not have the values of its kind, or shapes do not fit.
    """
    shared = {patients[image_id] for image_id in image_ids} & (cuts.patients if cuts else set())
    if shared:
        raise ValueError(
            f"{len(shared)} patients, {min(shared)} for one, were also used to fit the cuts: fit them on other patients."
        )
    tables: tuple[list[pd.DataFrame], list[pd.DataFrame]] = ([], [])
    for image_id in image_ids:
        eye, maps = grid.eye(image_id), maps_of(image_id)
        heat, names = grids.in_field(maps, grid, eye), list(maps)
        kind = _checked(heat, names, kinds or {}, image_id)
        levels = cuts.of(names, grid.regions) if cuts else np.full(heat.shape[:2], np.nan)
        for k, region in enumerate(grid.regions):
            cover = eye.cover[region]
            if cover is None:
                continue
            one = _Region(heat[:, k], levels[:, k], cover, eye, kind)
            about = {"image_id": image_id, "map": names, "region": region}
            about |= {"present": cover.any(), "healthy": bool(eye.healthy)}
            tables[0].append(about | one.measured(tolerance * eye.disc_cells) | one.windows(patch, patches))
            tables[1].append(one.lesions(about, eye.lesions[region]))
    return _frame(tables[0], [*KEYS, *METRICS]), _frame(tables[1], LESION_COLUMNS)


def _checked(heat: np.ndarray, names: list[str], kinds: Mapping[str, Kind], image_id: str) -> np.ndarray:
    """(M,) str, the kind of each map; refuses values that do not fit."""
    kind = [kinds.get(name, "heat") for name in names]
    for name, one, values in zip(names, kind, heat):
        if one not in ("probability", "heat", "logit"):
            raise ValueError(f"Map {name!r} is of kind {one!r}; give probability, heat or logit.")
        if one != "logit" and (values.min() < 0 or (one == "probability" and values.max() > 1)):
            raise ValueError(
                f"Map {name!r} of {image_id} reaches from {values.min():g} to {values.max():g}, which is no {one}: "
                "name its kind in kinds, or pass the map after its sigmoid or ReLU."
            )
    return np.array(kind)


def _frame(parts: list[dict], columns: list[str]) -> pd.DataFrame:
    """One table of dictionaries whose values are single, or as long as their column ``map``."""
    whole = {
        name: [np.broadcast_to(part[name], len(part["map"])) for part in parts] for name in columns if parts
    }
    return pd.DataFrame({name: np.concatenate(found) for name, found in whole.items()}, columns=columns)


class _Region:
    """The M maps of one region of one eye.

    Args:
        heat: (M, P) float32.
        cuts: (M,), NaN where there is none.
        cover: (P,) bool.
        eye: The eye.
        kind: (M,) of :data:`Kind`.
    """

    def __init__(
        self, heat: np.ndarray, cuts: np.ndarray, cover: np.ndarray, eye: Eye, kind: np.ndarray
    ) -> None:
        self.heat, self.cuts, self.cover, self.eye, self.kind = heat, cuts, cover, eye, kind
        self.known = ~np.isnan(cuts)
        self.taken = heat >= cuts[:, None]
        self.mask = np.zeros(eye.field.shape, bool)
        self.mask[eye.field] = cover

    def at_cut(self, values: np.ndarray) -> np.ndarray:
        """(M,) float, NaN for maps without a cut."""
        return np.where(self.known, values, np.nan)

    def measured(self, tolerance: float) -> dict[str, np.ndarray | float]:
        """All scores but those of windows; the tolerance is in cells."""
        found = dict.fromkeys(METRICS, np.full(len(self.heat), np.nan))
        found |= {"area": self.cover.mean(), "false_regions": self.at_cut(self._false_regions())}
        if not self.cover.any():
            false_area = self.at_cut(self.taken.mean(1))
            found |= {"false_area": false_area}
            return found | ({"false_area_healthy": false_area} if self.eye.healthy else {})
        near = localisation.within(self.mask, tolerance)[self.eye.field]
        peaks = self.heat == self.heat.max(1, keepdims=True)
        ranked = scores.Ranked(self.heat)
        found |= {"hit": (peaks & near).sum(1) / peaks.sum(1), "hit_chance": near.mean()}
        found |= {"heat": self._energy(), "soft_dice": self._soft_dice()} | ranked.ranking(self.cover)
        found |= {"dice_cut": self.at_cut(ranked.dice(self.cover, self.cuts[:, None])[:, 0])}
        return found | {f"{name}_over_chance": found[name] - found[CHANCE[name]] for name in CHANCE}

    def _energy(self) -> np.ndarray:
        """(M,) share of the heat inside; NaN for logits and maps without heat."""
        total = self.heat.sum(1, dtype=np.float64)
        fits = (self.kind != "logit") & (total > 0)
        inside = self.heat[:, self.cover].sum(1, dtype=np.float64)
        return np.divide(inside, total, out=np.full(len(total), np.nan), where=fits)

    def _soft_dice(self) -> np.ndarray:
        """(M,), NaN for all but probabilities."""
        found, fits = np.full(len(self.heat), np.nan), self.kind == "probability"
        if fits.any():
            found[fits] = scores.soft_dice(self.heat[fits], self.cover)
        return found

    def _false_regions(self) -> np.ndarray:
        """(M,) connected regions of each cut map that touch no cell of the lesion."""
        found, picture = np.zeros(len(self.heat)), np.zeros(self.eye.field.shape, np.uint8)
        for m, taken in enumerate(self.taken):
            if taken.any():
                picture[self.eye.field] = taken
                count, labels = cv2.connectedComponents(picture, connectivity=8)
                right = np.unique(labels[self.mask])
                found[m] = count - 1 - np.count_nonzero(right)
        return found

    def windows(self, patch: float, most: int) -> dict[str, np.ndarray | float]:
        """Precision of the high-evidence patches; ``patch`` in disc diameters."""
        side = max(1, round(patch * self.eye.disc_cells))
        kernel, anchor = np.ones((side, side), np.uint8), ((side - 1) // 2,) * 2
        # true in a cell whose window holds a cell of the lesion
        holds = cv2.dilate(self.mask.astype(np.uint8), kernel, anchor=anchor)[self.eye.field] > 0
        chosen = [
            highest_windows(values, taken, self.eye.field, side, most)
            for values, taken in zip(self.heat, self.taken)
        ]
        number = self.at_cut(np.array([len(cells) for cells in chosen]))
        if not self.cover.any():
            return {"false_patches": number}
        right = np.array([holds[cells].mean() if len(cells) else np.nan for cells in chosen])
        chance = holds.mean()
        return {
            "patches": number,
            "patch_precision": right,
            "patch_chance": chance,
            "patch_over_chance": right - chance,
        }

    def lesions(self, about: dict, lesions: grids.Lesions) -> dict:
        """Columns of the rows of single lesions."""
        maps, count = len(self.heat), len(lesions.start)
        found = np.where(self.known[:, None], lesions.found(self.taken), np.nan)
        return {
            "image_id": about["image_id"],
            "map": np.repeat(about["map"], count),
            "region": about["region"],
            "lesion": np.tile(np.arange(count), maps),
            "diameter_dd": np.tile(lesions.diameter_dd, maps),
            "size": np.tile(lesions.size, maps),
            "found": found.ravel(),
        }


def highest_windows(
    values: np.ndarray, taken: np.ndarray, field: np.ndarray, side: int, most: int
) -> np.ndarray:
    """The highest cells at or above the cut whose windows do not overlap, one after the other.

    Equal values come in an order that is drawn once for all, so that a constant map has no favourite place.

    Args:
        values: (P,) float.
        taken: (P,) bool, the cells at or above the cut.
        field: (side, side) bool with P true cells.
        side: Side of a window, cells.
        most: Number at which to stop.

    Returns:
        (n,) int, at most ``most`` of the P cells, highest first.
    """
    place = np.flatnonzero(taken)
    drawn = np.random.default_rng(0).random(len(values), np.float32)[place]
    values = values[place]
    rows, columns = np.divmod(np.flatnonzero(field)[place], field.shape[1])
    chosen = []
    while len(place) and len(chosen) < most:
        ties = np.flatnonzero(values == values.max())
        first = ties[drawn[ties].argmin()]
        chosen.append(place[first])
        free = (abs(rows - rows[first]) >= side) | (abs(columns - columns[first]) >= side)
        place, values, drawn, rows, columns = (part[free] for part in (place, values, drawn, rows, columns))
    return np.array(chosen, int)
