"""Masks and maps on a grid coarser than the photograph, such as a map of stride 4 has: 128 x 128 cells for 512 pixels.

A map is measured on its own grid. It is not blown up to the size of the masks, which would repeat each of its values 16
times and cost 16 times as much. The masks come to the grid instead:

- A mask counts where it covers at least half of a pixel (:data:`COVERED`).
- A cell belongs to a **lesion** if any of its pixels does (max-pooling), so that a microaneurysm of one pixel is not lost.
  Lesions therefore take more of the grid's area than of the photograph's. The chance values beside the scores are
  those of the grid.
- A cell belongs to the **field of view**, or to the disc, the vessels or the fovea, if at least half of its pixels do.
- **Single lesions** are the connected parts of the mask of the photograph, before pooling, and so are their sizes. Two lesions
  that touch only on the grid stay two.

The optic disc can be taken out of the field of view. A bright disc attracts maps of many networks, and a comparison with and
without it says how much of a result the disc makes. In an eye whose disc is not outlined nothing is taken out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from drstudy.core.names import FIELD, LESIONS, STRUCTURES
from drstudy.explain.measures import scores
from drstudy.explain.measures.localisation import ANATOMY, Masks

COVERED = 0.5
"""Share of a pixel, or of a cell of the field and the anatomy, from which on it belongs to a mask."""

ANY = "lesion"
"""Region that is the union of all annotated codes of :data:`drstudy.core.names.LESIONS`."""

MapsOf = Callable[[str], Mapping[str, np.ndarray]]
"""From image_id to the maps of one eye by name: (h, w), one for all regions, or (L, h, w), one for each region."""


def pooled(masks_of: Callable[[str], Masks], side: int) -> Callable[[str], Masks]:
    """A reader of masks on a grid of ``side`` by ``side`` cells.

    Args:
        masks_of: Reader of masks, such as :func:`drstudy.explain.measures.localisation.masks_of` gives: (S, S) bool or share
            of each pixel that is covered, 0..1.
        side: Cells on a side; S must be a multiple of it.

    Returns:
        A function from image_id to the same codes: (side, side) bool, ``None`` where not annotated. It raises
        ``ValueError`` if S is not a multiple of ``side``.
    """

    def read(image_id: str) -> dict[str, np.ndarray | None]:
        return {
            code: None if mask is None else pool(np.asarray(mask) >= COVERED, side, code)
            for code, mask in masks_of(image_id).items()
        }

    return read


def pool(mask: np.ndarray, side: int, code: str) -> np.ndarray:
    """One mask on the grid: any pixel of a cell counts for a lesion, half of them for the field and the anatomy.

    Args:
        mask: (S, S) bool.
        side: Cells on a side.
        code: Code of the mask, which decides how it is pooled.

    Returns:
        (side, side) bool.

    Raises:
        ValueError: If S is not a multiple of ``side``.
    """
    if mask.ndim != 2 or mask.shape[0] != mask.shape[1] or mask.shape[0] % side:
        raise ValueError(
            f"Masks of shape {mask.shape} cannot be brought to {side} x {side} cells: the side must be a multiple of "
            f"{side}. Choose a grid that divides it."
        )
    stride = mask.shape[0] // side
    cells = mask.reshape(side, stride, side, stride)
    if code in (FIELD, *STRUCTURES):
        return cells.mean((1, 3)) >= COVERED
    return cells.any((1, 3))


@dataclass(frozen=True)
class Lesions:
    """The n single lesions of one region in one eye that reach into the field.

    Attributes:
        diameter_dd: (n,) float64, disc diameters.
        size: (n,) str, of :data:`drstudy.explain.measures.scores.SIZES`.
        cell: (K,) int, the cells of the field that each lesion touches, lesion by lesion.
        start: (n,) int, where each lesion begins in ``cell``.
    """

    diameter_dd: np.ndarray
    size: np.ndarray
    cell: np.ndarray
    start: np.ndarray

    def found(self, cut: np.ndarray) -> np.ndarray:
        """(M, n) bool: whether any cell of a lesion is taken, from (M, P) bool cut maps."""
        if not len(self.start):
            return np.zeros((len(cut), 0), bool)
        return np.logical_or.reduceat(cut[:, self.cell], self.start, axis=1)


@dataclass(frozen=True)
class Eye:
    """One eye on the grid.

    Attributes:
        field: (side, side) bool with P true cells: the field of view, without the disc if that was asked for.
        cover: Region to (P,) bool, ``None`` where not annotated.
        lesions: Region to its single lesions, for annotated regions.
        disc_cells: Disc diameter in cells; see :func:`drstudy.explain.measures.scores.disc_diameter`.
        healthy: True if no lesion of an annotated code lies in the field, ``None`` if no code is annotated.
    """

    field: np.ndarray
    cover: dict[str, np.ndarray | None]
    lesions: dict[str, Lesions]
    disc_cells: float
    healthy: bool | None


class Grid:
    """The eyes of a study on one grid, each read once and then kept (about side squared bytes per region and eye).

    Args:
        masks_of: As in :func:`pooled`.
        regions: L names: codes of lesions, or :data:`ANY`. Maps of shape (L, h, w) follow this order.
        side: Cells on a side.
        without_disc: Whether the cells of the optic disc are taken out of the field.
    """

    def __init__(
        self,
        masks_of: Callable[[str], Masks],
        regions: Sequence[str],
        side: int,
        without_disc: bool = False,
    ) -> None:
        self.masks_of, self.regions = masks_of, tuple(regions)
        self.side, self.without_disc = side, without_disc
        self._known: dict[str, Eye] = {}

    def eye(self, image_id: str) -> Eye:
        """One eye.

        Raises:
            ValueError: If its field of view is missing or empty, or its side is not a multiple of the grid's.
        """
        if image_id not in self._known:
            self._known[image_id] = self._read(image_id)
        return self._known[image_id]

    def _read(self, image_id: str) -> Eye:
        masks = {
            code: None if mask is None else np.asarray(mask) for code, mask in self.masks_of(image_id).items()
        }
        fov, disc = masks.get(FIELD), masks.get(ANATOMY["disc"])
        if fov is None or not fov.any():
            raise ValueError(f"{image_id}: the field of view (FOV) is missing or empty.")
        fine = {code: None if mask is None else mask >= COVERED for code, mask in masks.items()}
        field, inside = pool(fine[FIELD], self.side, FIELD), fine[FIELD]
        if self.without_disc and disc is not None:
            field &= ~pool(fine[ANATOMY["disc"]], self.side, ANATOMY["disc"])
        if not field.any():
            raise ValueError(f"{image_id}: no cell of the {self.side} x {self.side} grid is in the field.")
        disc_px, _ = scores.disc_diameter(disc, inside)
        annotated = {code: fine[code] for code in LESIONS if fine.get(code) is not None}
        union = np.logical_or.reduce(list(annotated.values())) if annotated else None
        named = {region: union if region == ANY else fine.get(region) for region in self.regions}
        cover = {
            region: None if mask is None else pool(mask, self.side, region)[field]
            for region, mask in named.items()
        }
        lesions = {
            region: _lesions(mask, inside, field, disc_px)
            for region, mask in named.items()
            if mask is not None
        }
        healthy = None if union is None else not pool(union, self.side, ANY)[field].any()
        return Eye(field, cover, lesions, disc_px * self.side / len(inside), healthy)


def _lesions(mask: np.ndarray, fov: np.ndarray, field: np.ndarray, disc_px: float) -> Lesions:
    """The single lesions of a mask of the photograph, with the cells of the grid's field that they touch."""
    found = scores.components(mask, fov, disc_px)
    stride = len(fov) // len(field)
    rows, columns = np.divmod(np.flatnonzero(fov)[found.pixel], len(fov))
    number = np.full(field.shape, -1)
    number[field] = np.arange(np.count_nonzero(field))
    cell = number[rows // stride, columns // stride]
    pairs = np.unique(np.stack([found.lesion[cell >= 0], cell[cell >= 0]], axis=1), axis=0)
    there, start = np.unique(pairs[:, 0], return_index=True)
    return Lesions(found.diameter_dd[there], found.size[there], pairs[:, 1], start)


def maps_of(maps: Mapping[str, np.ndarray], image_ids: Sequence[str]) -> MapsOf:
    """A reader of the maps of one eye, from arrays of all eyes (which may be memory-mapped).

    Args:
        maps: Name to (N, h, w) or (N, L, h, w).
        image_ids: N names.

    Raises:
        ValueError: If an array has another number of eyes.
    """
    for name, array in maps.items():
        if len(array) != len(image_ids):
            raise ValueError(f"Map {name!r} has {len(array)} eyes; there are {len(image_ids)} image_ids.")
    row = {image_id: number for number, image_id in enumerate(image_ids)}
    return lambda image_id: {name: array[row[image_id]] for name, array in maps.items()}


def in_field(maps: Mapping[str, np.ndarray], grid: Grid, eye: Eye) -> np.ndarray:
    """The maps of one eye on the cells of its field.

    Args:
        maps: M maps, see :data:`MapsOf`. Smaller ones are brought to the grid bilinearly
            (:func:`drstudy.explain.methods.cam.upsample`).
        grid, eye: The grid with L regions, and the eye with P cells in its field.

    Returns:
        (M, L, P) float32.

    Raises:
        ValueError: If a map has another number of regions, is finer than the grid, or is not finite.
    """
    from drstudy.explain.methods.cam import upsample

    found = np.empty((len(maps), len(grid.regions), np.count_nonzero(eye.field)), np.float32)
    for place, (name, array) in zip(found, maps.items()):
        array = np.asarray(array, np.float32)
        several = array[None] if array.ndim == 2 else array
        if several.ndim != 3 or (array.ndim == 3 and len(several) != len(grid.regions)):
            raise ValueError(
                f"Map {name!r} is {array.shape}: must be (h, w), or ({len(grid.regions)}, h, w) for the regions "
                f"{', '.join(grid.regions)}."
            )
        if max(several.shape[1:]) > grid.side:
            raise ValueError(
                f"Map {name!r} is {array.shape}, finer than the grid of {grid.side} cells: measure it on a finer grid."
            )
        if not np.isfinite(several).all():
            raise ValueError(f"Map {name!r} is not finite everywhere.")
        if several.shape[1:] != eye.field.shape:
            several = upsample(several, grid.side)
        place[:] = several[:, eye.field]
    return found
