"""Fine maps of lesions of a study's eyes, in one file that other notebooks read: probabilities, and where each map is cut."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from drstudy.core import paths
from drstudy.core.names import FIELD
from drstudy.explain.measures import outlines
from drstudy.explain.measures.localisation import Masks

FILE = "lesion_maps.npz"
"""Name of the file inside a result folder."""


@dataclass(frozen=True)
class LesionMaps:
    """Maps of N eyes for L lesions on a grid.

    Attributes:
        probabilities: (N, L, g, g) float16, 0..1.
        image_ids: (N,) str.
        codes: (L,) str, codes of lesions.
        cuts: (L,) float64, the probability from which on a cell counts as lesion, fixed on other eyes; NaN where none is known.

    Raises:
        ValueError: If shapes or values do not fit.
    """

    probabilities: np.ndarray
    image_ids: np.ndarray
    codes: np.ndarray
    cuts: np.ndarray

    def __post_init__(self) -> None:
        wanted = (len(self.image_ids), len(self.codes))
        shape = self.probabilities.shape
        if len(shape) != 4 or shape[:2] != wanted or shape[2] != shape[3] or self.cuts.shape != wanted[1:]:
            raise ValueError(
                f"Maps of shape {shape} with cuts of shape {self.cuts.shape}: for {wanted[0]} eyes and {wanted[1]} codes they must be "
                f"({wanted[0]}, {wanted[1]}, grid, grid) and ({wanted[1]},)."
            )
        if self.probabilities.size and not (
            (self.probabilities >= 0).all() and (self.probabilities <= 1).all()
        ):
            raise ValueError("Maps must be probabilities from 0 to 1: pass them after the sigmoid.")

    def of(self, image_id: str) -> np.ndarray:
        """(L, g, g) float32, the maps of one eye.

        Raises:
            KeyError: If there is no such eye.
        """
        found = np.flatnonzero(self.image_ids == image_id)
        if not len(found):
            raise KeyError(f"There are no maps of {image_id}; the file has {len(self.image_ids)} other eyes.")
        return self.probabilities[found[0]].astype(np.float32)


def save(
    path: str | os.PathLike[str],
    probabilities: np.ndarray,
    image_ids: Sequence[str],
    codes: Sequence[str],
    cuts: Sequence[float],
) -> LesionMaps:
    """Write maps to an NPZ file, atomically: ``probabilities`` (as float16), ``image_ids``, ``codes``, ``cuts``.

    Args:
        path: Where to.
        probabilities: (N, L, g, g) float, 0..1.
        image_ids, codes, cuts: As of :class:`LesionMaps`.

    Raises:
        ValueError: As :class:`LesionMaps`.
    """
    found = LesionMaps(
        np.asarray(probabilities).astype(np.float16),
        np.asarray(image_ids, dtype=str),
        np.asarray(codes, dtype=str),
        np.asarray(cuts, dtype=float),
    )
    with paths.atomic(Path(path)) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **vars(found))
    return found


def load(path: str | os.PathLike[str]) -> LesionMaps:
    """Read what :func:`save` wrote; nothing is unpickled.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it has not the four fields, or they do not fit.
    """
    with np.load(path, allow_pickle=False) as file:
        missing = {"probabilities", "image_ids", "codes", "cuts"} - set(file.files)
        if missing:
            raise ValueError(
                f"{paths.show(Path(path))} lacks {', '.join(sorted(missing))}: it is no file of lesion maps. Run the notebook that "
                "makes it again."
            )
        return LesionMaps(file["probabilities"], file["image_ids"], file["codes"], file["cuts"])


def outline(
    maps: LesionMaps,
    image_id: str,
    codes: Sequence[str],
    probabilities: np.ndarray,
    thresholds: np.ndarray,
    masks: Masks,
) -> tuple[list[outlines.Outline], pd.DataFrame]:
    """Outlines of one eye at the maps' own cuts, and how they agree with its masks. Outlines of any size are kept, since most
    microaneurysms are smaller than what :data:`drstudy.explain.measures.outlines.SMALLEST` drops from coarse maps.

    Args:
        maps: Maps of this eye among others.
        image_id: The eye.
        codes: L lesions among those of the maps.
        probabilities, thresholds: (L,) as in :func:`drstudy.explain.measures.outlines.regions`, which say of which lesions there are
            outlines.
        masks: Masks of the eye; ``FOV`` must be there.
    """
    chosen = [maps.codes.tolist().index(code) for code in codes]
    found = outlines.regions(
        maps.of(image_id)[chosen],
        probabilities,
        thresholds,
        np.asarray(masks[FIELD], bool),
        maps.cuts[chosen],
        smallest=0,
        by_value=True,
    )
    return outlines.trace(found, codes, probabilities), outlines.agreement(found, codes, masks)
