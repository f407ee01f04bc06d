"""The choice of the epoch by masks of validation eyes, as the authors of GLAM had it (``docs/sources.md``, D1): a network chosen so has
seen masks, though no gradient has."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from drstudy.core.names import FIELD
from drstudy.explain.measures import grid as grids
from drstudy.explain.measures import scores
from drstudy.explain.measures.localisation import Masks
from drstudy.papers.glam.evidence import reduced


class ByMasks:
    """Mean average precision of the maps of validation eyes, over the eyes that have each lesion, then over lesions.

    Args:
        clean: Rows of ``feed.clean``: ``image_id``.
        masks_of: Reader of masks; see :func:`drstudy.explain.measures.localisation.masks_of`.
        codes: Lesions in the order of the maps.
        side: Cells per side; finer maps are averaged.
    """

    name, direction = "aupr", 1

    def __init__(
        self, clean: pd.DataFrame, masks_of: Callable[[str], Masks], codes: Sequence[str], side: int
    ) -> None:
        self.image_ids, self.codes, self.side = clean["image_id"].tolist(), tuple(codes), side
        self.masks_of = grids.pooled(masks_of, side)
        self._known: dict[str, Masks] = {}
        self.start()

    def start(self) -> None:
        self._found: dict[str, list[float]] = {code: [] for code in self.codes}

    def add(self, maps: Tensor, positions: np.ndarray) -> None:
        for one, position in zip(reduced(maps, self.side).numpy(), positions):
            masks = self._masks(self.image_ids[position])
            field = masks[FIELD]
            for code, map_ in zip(self.codes, one):
                if masks[code] is not None and masks[code][field].any():
                    found = scores.Ranked(map_[field][None]).ranking(masks[code][field])
                    self._found[code].append(float(found["aupr"][0]))

    def value(self) -> float:
        """0 where no validation eye has a lesion."""
        means = [np.mean(values) for values in self._found.values() if values]
        return float(np.mean(means)) if means else 0.0

    def facts(self) -> dict[str, Any]:
        """Codes, side, and a digest of the masks of all eyes that have been looked at or can be."""
        digest = hashlib.sha256()
        for image_id in self.image_ids:
            for code, mask in self._masks(image_id).items():
                digest.update(f"{image_id} {code} ".encode())
                digest.update(b"" if mask is None else np.packbits(mask).tobytes())
        return {"codes": list(self.codes), "side": self.side, "masks": digest.hexdigest()}

    def _masks(self, image_id: str) -> Masks:
        if image_id not in self._known:
            self._known[image_id] = self.masks_of(image_id)
        return self._known[image_id]
