"""How well one map finds one mask: the numbers that need more than a share of the heat.

All are computed on the pixels of the field of view, at the size of the masks, and all take a mask as the share
of each pixel that it covers. Maps are compared by value; pixels of equal value enter together, so a constant
map has no favourite pixel, and the result does not depend on the order of the pixels.

- **Average precision** (``aupr``, pixel AUPR): the area under the precision-recall curve as scikit-learn
  steps it. A constant map, and on average a random one, has the mask's share of the area.
- **Dice** of the map cut at a threshold, :math:`2|A \\cap B| / (|A| + |B|)`, and with it IoU, which is
  :math:`D / (2 - D)` for each eye. Four ways to cut, which differ in what they are allowed to know:
  ``otsu`` (the map alone: Otsu 1979), ``fixed`` (half of the map's maximum), ``validation`` (the share of the
  maximum that was best on other eyes; :func:`best_fraction`), ``oracle`` (the best of all cuts of this very
  eye, which no user could make: an upper bound).
- **Coverage**: how much of each single lesion lies in the hottest tenth of the field of view. A map that
  knows nothing covers a tenth of any lesion, small or large.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from drstudy.evaluation import statistics

FIXED = 0.5
"""Of a map's maximum, the fixed cut."""

FRACTIONS = np.linspace(0.05, 0.95, 19)
"""Of a map's maximum, the cuts among which other eyes choose."""

HOTTEST = 0.1
"""Share of the field of view in which a lesion counts as covered; so much is chance."""

SIZES = {"below 1/12": (0.0, 1 / 12), "1/12 to 1/4": (1 / 12, 1 / 4), "1/4 and more": (1 / 4, np.inf)}
"""Lesions by the diameter of the circle of their area, in disc diameters (DD). A twelfth, the width of a large
vein at the disc margin (125 of 1,500 micrometres), is where the Early Treatment Diabetic Retinopathy Study ends
microaneurysms."""

ASSUMED_DISC = 1 / 7.5
"""Disc diameter by the diameter of the field of view where no disc was outlined: 6 of 45 degrees."""


class Ranked:
    """The maps of one eye inside its field of view, sorted once for all masks.

    Args:
        heat: (M, P) float: M maps on the P pixels of the field of view, P > 0. At least 0, except for
            :meth:`ranking` and :meth:`dice`, which take any value.
    """

    def __init__(self, heat: np.ndarray) -> None:
        self.heat = heat
        self.sorted = np.sort(heat, axis=1)
        self.highest = self.sorted[:, -1]
        self._mask: np.ndarray | None = None
        self._falls: list[tuple[np.ndarray, np.ndarray]] = []

    def otsu(self) -> np.ndarray:
        """(M,): the value that parts each map best in two (256 levels); what lies above it is cut out."""
        import cv2

        found = []
        for values, highest in zip(self.heat, self.highest):
            levels = np.rint(255 * values / (highest or 1)).astype(np.uint8)[None]
            level, _ = cv2.threshold(levels, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
            found.append((level + 0.5) / 255 * highest)
        return np.array(found)

    def scores(self, cover: np.ndarray) -> dict[str, np.ndarray]:
        """Average precision and Dice of every map against one mask.

        Args:
            cover: (P,) share of each pixel that the mask covers, 0..1, not 0 everywhere.

        Returns:
            (M,) float each: ``aupr``, ``dice_otsu``, ``dice_fixed``, ``dice_oracle``; and ``curve``, (M, 19):
            Dice at :data:`FRACTIONS` of the maximum.
        """
        highest = self.highest[:, None]
        cuts = np.concatenate([self.otsu()[:, None], FIXED * highest, FRACTIONS * highest], axis=1)
        dice = self.dice(cover, cuts)
        return self.ranking(cover) | {"dice_otsu": dice[:, 0], "dice_fixed": dice[:, 1], "curve": dice[:, 2:]}

    def ranking(self, cover: np.ndarray) -> dict[str, np.ndarray]:
        """What follows from the order of the pixels alone, so that it is the same for a map and its logarithm.

        Args:
            cover: As in :meth:`scores`.

        Returns:
            (M,) float64 each: ``aupr`` and ``dice_oracle``, 0..1.
        """
        positive = cover.sum(dtype=np.float64)
        found = {name: np.empty(len(self.heat)) for name in ("aupr", "dice_oracle")}
        for m, (ordered, (falling, inside)) in enumerate(zip(self.sorted, self._falling(cover))):
            last = np.append(
                np.flatnonzero(np.diff(falling)), len(falling) - 1
            )  # of each run of equal values
            taken = len(ordered) - np.searchsorted(ordered, falling[last], "left")
            found["aupr"][m] = (np.diff(inside[last], prepend=0) * inside[last] / taken).sum() / positive
            found["dice_oracle"][m] = (2 * inside[last] / (taken + positive)).max()
        return found

    def dice(self, cover: np.ndarray, cuts: np.ndarray) -> np.ndarray:
        """Dice of every map at values of its own; a pixel at the cut is taken.

        Args:
            cover: As in :meth:`scores`.
            cuts: (M, C) values of the maps.

        Returns:
            (M, C) float64, 0..1.
        """
        found, positive = np.empty(np.shape(cuts)), cover.sum(dtype=np.float64)
        for m, (ordered, levels, (falling, inside)) in enumerate(
            zip(self.sorted, cuts, self._falling(cover))
        ):
            taken = len(ordered) - np.searchsorted(ordered, levels, "left")
            count = len(falling) - np.searchsorted(falling[::-1], levels, "left")
            found[m] = 2 * np.append(0, inside)[count] / (taken + positive)
        return found

    def _falling(self, cover: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Each map's values on the pixels of a mask, highest first, and the area of the mask down to each; sorted once for the mask that was
        asked for last."""
        if self._mask is not cover:
            at = np.flatnonzero(cover)
            values, share = self.heat[:, at], cover[at].astype(np.float64)
            orders = np.argsort(-values, axis=1, kind="stable")
            self._mask = cover
            self._falls = [(one[order], share[order].cumsum()) for one, order in zip(values, orders)]
        return self._falls

    def hottest(self, share: float = HOTTEST) -> np.ndarray:
        """(M, P): 1 on the hottest share of the field, 0 elsewhere; pixels at the border's value get what is
        left to each, so that every map gives exactly the same area."""
        pixels = self.heat.shape[1]
        wanted = share * pixels
        border = self.sorted[:, int(np.floor(pixels - wanted)), None]
        above, equal = self.heat > border, self.heat == border
        rest = (wanted - above.sum(1, keepdims=True)) / equal.sum(1, keepdims=True)
        return above + equal * rest


def iou(dice: np.ndarray | pd.Series) -> np.ndarray | pd.Series:
    """Intersection over union of the same cut."""
    return dice / (2 - dice)


def best_fraction(curves: np.ndarray) -> float:
    """The share of the maximum at which the mean Dice over eyes is greatest; the lower of equals.

    Args:
        curves: (N, 19) Dice at :data:`FRACTIONS`; rows with NaN are left out.

    Raises:
        ValueError: If no row is left.
    """
    known = curves[~np.isnan(curves).any(1)]
    if not len(known):
        raise ValueError("No eye has a Dice to choose a threshold by: give validation eyes with this lesion.")
    return float(FRACTIONS[known.mean(0).argmax()])


def disc_diameter(disc: np.ndarray | None, fov: np.ndarray) -> tuple[float, bool]:
    """Disc diameter in pixels, and whether it was measured.

    Args:
        disc: (S, S) share covered, or ``None`` where the disc is not outlined; an empty one counts as not
            outlined (the disc lies outside the picture).
        fov: (S, S) bool.

    Returns:
        The diameter of the circle of the disc's area, True; or :data:`ASSUMED_DISC` of the field's, False.
    """
    if disc is not None and disc.any():
        return float(2 * np.sqrt(disc.sum(dtype=np.float64) / np.pi)), True
    return float(ASSUMED_DISC * 2 * np.sqrt(fov.sum() / np.pi)), False


@dataclass(frozen=True)
class Components:
    """The single lesions of one kind in one eye. Pixels that touch at a side or a corner are one lesion.

    Attributes:
        pixel: (K,) int, places of the covered pixels among the P pixels of the field of view.
        lesion: (K,) int, the lesion that each belongs to, 0..n-1.
        share: (K,) float64, how much of each is covered, 0..1.
        area: (n,) float64, pixels.
        diameter_dd: (n,) float64, diameter of the circle of the same area, disc diameters.
        size: (n,) str, of :data:`SIZES`.
    """

    pixel: np.ndarray
    lesion: np.ndarray
    share: np.ndarray
    area: np.ndarray
    diameter_dd: np.ndarray
    size: np.ndarray


def components(cover: np.ndarray, fov: np.ndarray, disc_px: float) -> Components:
    """The single lesions of a mask.

    Args:
        cover: (S, S) share covered by lesions of this kind; may be empty.
        fov: (S, S) bool; what lies outside is left out.
        disc_px: Disc diameter, pixels.
    """
    import cv2

    inside = np.where(fov, cover, 0)
    _, labels = cv2.connectedComponents((inside > 0).astype(np.uint8), connectivity=8)
    labels, share = labels[fov], inside[fov].astype(np.float64)
    pixel = np.flatnonzero(labels)
    lesion, share = labels[pixel] - 1, share[pixel]
    area = np.bincount(lesion, share)
    diameter = 2 * np.sqrt(area / np.pi) / disc_px
    edges = [low for low, _ in SIZES.values()]
    size = np.array(list(SIZES))[np.searchsorted(edges, diameter, "right") - 1]
    return Components(pixel, lesion, share, area, diameter, size)


def lesions(hottest: np.ndarray, cover: np.ndarray, fov: np.ndarray, disc_px: float) -> pd.DataFrame:
    """Every lesion of one kind by itself: its size, and how much of it each map covers.

    Args:
        hottest: (M, P) of :meth:`Ranked.hottest`.
        cover, fov, disc_px: As in :func:`components`; ``fov`` has P true pixels.

    Returns:
        One row per lesion and map: ``map`` (0..M-1), ``lesion``, ``diameter_dd``, ``size`` (of :data:`SIZES`),
        ``coverage`` 0..1.
    """
    found = components(cover, fov, disc_px)
    if not len(found.area):
        return pd.DataFrame(columns=["map", "lesion", "diameter_dd", "size", "coverage"])
    covered = [np.bincount(found.lesion, found.share * one[found.pixel]) for one in hottest]
    maps, count = len(hottest), len(found.area)
    return pd.DataFrame(
        {
            "map": np.repeat(np.arange(maps), count),
            "lesion": np.tile(np.arange(count), maps),
            "diameter_dd": np.tile(found.diameter_dd, maps),
            "size": np.tile(found.size, maps),
            "coverage": (np.stack(covered) / found.area).ravel(),
        }
    )


def soft_dice(values: np.ndarray, cover: np.ndarray) -> np.ndarray:
    """Dice of maps that are not cut: twice the sum of the products over the sum of both.

    Args:
        values: (M, P) in 0..1.
        cover: (P,) in 0..1, not 0 everywhere.

    Returns:
        (M,) float64. A map of the value 1 everywhere has twice the mask's share a of the area over 1 + a; one that equals
        the mask, and takes no value but 0 and 1, has 1.

    Raises:
        ValueError: If a value lies outside 0..1.
    """
    if values.min() < 0 or values.max() > 1:
        raise ValueError(
            f"soft Dice needs maps in 0..1; these reach from {values.min():g} to {values.max():g}: pass probabilities."
        )
    both = statistics.weighted_sums(values, cover)
    return 2 * both / (values.sum(1, dtype=np.float64) + cover.sum(dtype=np.float64))
