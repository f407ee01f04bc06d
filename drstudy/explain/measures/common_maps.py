"""Maps in the one form in which the systems of different papers can be compared: of the eyes of validation and test, in one file.

Validation eyes are there because a cut that is applied to test eyes must be fixed on other patients.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from drstudy.core import paths
from drstudy.core.names import LESIONS
from drstudy.explain.measures.grid import ANY

FILE = "common_maps.npz"
"""Name of the file inside a result folder."""

LARGE = 32
"""Maps of more cells per side are stored as float16, which keeps three digits; smaller ones as float32."""

FIELDS = ("maps", "regions", "image_ids", "splits")


@dataclass(frozen=True)
class CommonMaps:
    """Maps of N eyes.

    Attributes:
        maps: (N, R, h, w) float, at least 0. A value means the same in every eye.
        regions: (R,) str: :data:`drstudy.explain.measures.grid.ANY` for a map of all lesions, or codes of lesions.
        image_ids, splits: (N,) str.

    Raises:
        ValueError: If shapes or values do not fit.
    """

    maps: np.ndarray
    regions: np.ndarray
    image_ids: np.ndarray
    splits: np.ndarray

    def __post_init__(self) -> None:
        wanted = (len(self.image_ids), len(self.regions))
        if self.maps.ndim != 4 or self.maps.shape[:2] != wanted or len(self.splits) != wanted[0]:
            raise ValueError(
                f"Maps of shape {self.maps.shape} for {wanted[0]} eyes, {len(self.splits)} splits and {wanted[1]} regions: they must be "
                f"({wanted[0]}, {wanted[1]}, h, w)."
            )
        if unknown := [name for name in self.regions.tolist() if name not in (ANY, *LESIONS)]:
            raise ValueError(f"{unknown[0]!r} is no lesion; name maps by {', '.join((ANY, *LESIONS))}.")
        if len(set(self.image_ids.tolist())) < len(self.image_ids):
            raise ValueError("An eye stands more than once.")
        if not np.isfinite(self.maps).all() or (self.maps < 0).any():
            raise ValueError(
                "Maps must be finite and at least 0: pass them after the ReLU or the sigmoid, unscaled."
            )

    def of(self, split: str) -> list[str]:
        """Identifiers of the eyes of a split."""
        return self.image_ids[self.splits == split].tolist()

    def fitting(self, image_id: str, regions: tuple[str, ...]) -> np.ndarray:
        """The maps of one eye in the order of some regions: (len(regions), h, w) float32.

        A system with one map of all lesions has this map for each of them. A system with maps of single lesions has zeros for a lesion that
        it does not know; see :meth:`knows`.

        Raises:
            KeyError: If there is no such eye.
        """
        place = np.flatnonzero(self.image_ids == image_id)
        if not len(place):
            raise KeyError(f"There are no maps of {image_id}; the file has {len(self.image_ids)} other eyes.")
        own = self.maps[place[0]].astype(np.float32)
        known = self.regions.tolist()
        if known == [ANY]:
            return np.repeat(own, len(regions), axis=0)
        nothing = np.zeros_like(own[0])
        return np.stack([own[known.index(name)] if name in known else nothing for name in regions])

    def knows(self, region: str) -> bool:
        """Whether the system has a map for a region."""
        return region in self.regions or self.regions.tolist() == [ANY]


def save(path: str | os.PathLike[str], maps: Mapping[str, np.ndarray], eyes: pd.DataFrame) -> None:
    """Write maps to an NPZ file, atomically.

    Args:
        path: Where to.
        maps: Region to (N, h, w) float, at least 0: :data:`drstudy.explain.measures.grid.ANY` for all lesions, codes for single ones.
        eyes: N rows with ``image_id`` and ``split``.

    Raises:
        ValueError: As :class:`CommonMaps`.
    """
    stacked = np.stack([np.asarray(one, np.float32) for one in maps.values()], axis=1)
    if max(stacked.shape[2:]) > LARGE:
        stacked = stacked.astype(np.float16)
    found = CommonMaps(
        stacked,
        np.array(list(maps), dtype=str),
        eyes["image_id"].to_numpy(dtype=str),
        eyes["split"].to_numpy(dtype=str),
    )
    with paths.atomic(Path(path)) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **{name: getattr(found, name) for name in FIELDS})


def load(path: str | os.PathLike[str]) -> CommonMaps:
    """Read what :func:`save` wrote; nothing is unpickled.

    Raises:
        ValueError: If it has not the four fields, or they do not fit.
    """
    with np.load(path, allow_pickle=False) as file:
        if missing := set(FIELDS) - set(file.files):
            raise ValueError(
                f"{paths.show(Path(path))} lacks {', '.join(sorted(missing))}: it is no file of common maps. Run the notebook that makes it "
                "again."
            )
        return CommonMaps(*(file[name] for name in FIELDS))
