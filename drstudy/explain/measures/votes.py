"""Maps against regions that several experts marked, and the experts against each other.

DIARETDB1 (Kauppi et al. 2007) has for each lesion the regions that four experts marked independently. The marks are coarse:
they lie around lesions and do not outline them. Pointing and energy inside are therefore meaningful, and Dice is not.

**The experts' own agreement** says what a map can be expected to reach. Let n_u be the number of pixels that exactly u experts
marked. A pixel drawn from the marks of an expert who is drawn at random has u marks with probability proportional to
u n_u, since each of its u experts could have been drawn. It is also marked by at least v - 1 of the other experts if u >= v.
So an expert's marks lie in the region of at least v experts with the chance

.. math:: A_v = \\sum_{u \\ge v} u n_u / \\sum_{u \\ge 1} u n_u

This is the energy inside that region of a map that is even on one expert's marks and 0 elsewhere. A_1 is 1. The expert is one of
the v, so A_v is above what an expert from outside would reach.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from drstudy.core.names import FIELD
from drstudy.explain.measures import fine, localisation
from drstudy.explain.measures.grid import Grid, MapsOf
from drstudy.explain.measures.localisation import Masks

Votes = Mapping[str, "np.ndarray | None"]
"""Code to (S, S) uint8, the number of experts who marked each pixel, ``None`` where not annotated; ``FOV`` is (S, S) bool."""

METRICS = ("heat", "heat_over_chance", "hit", "hit_over_chance", "area", "hit_chance", "agreement")
"""Columns of :func:`measure` that :func:`drstudy.explain.measures.aggregate.aggregate` can take."""


def agreement(counts: np.ndarray) -> np.ndarray:
    """The chance that a pixel that a random expert marked lies in the region of at least v experts.

    Args:
        counts: (..., V + 1) number of pixels that exactly 0, 1, ... V experts marked.

    Returns:
        (..., V) float64 for v = 1 to V, 0..1; NaN where nobody marked a pixel. See the formula above.
    """
    marks = np.asarray(counts, float)[..., 1:] * np.arange(1, np.shape(counts)[-1])
    total = marks.sum(-1, keepdims=True)
    above = np.flip(np.flip(marks, -1).cumsum(-1), -1)
    return np.divide(above, total, out=np.full(above.shape, np.nan), where=total > 0)


def count(votes: np.ndarray, fov: np.ndarray, experts: int) -> np.ndarray:
    """(experts + 1,) int: pixels of the field of view by the number of experts who marked them.

    Args:
        votes: (S, S) uint8, 0 to ``experts``.
        fov: (S, S) bool.
        experts: Number of experts.
    """
    return np.bincount(votes[fov], minlength=experts + 1)


def at_least(votes_of: Callable[[str], Votes], least: int) -> Callable[[str], Masks]:
    """A reader of masks: the pixels that at least so many experts marked."""

    def read(image_id: str) -> dict[str, np.ndarray | None]:
        found = votes_of(image_id)
        marked = {code: None if votes is None else votes >= least for code, votes in found.items()}
        return marked | {FIELD: found[FIELD]}

    return read


def measure(
    image_ids: Sequence[str],
    maps_of: MapsOf,
    votes_of: Callable[[str], Votes],
    regions: Sequence[str],
    side: int,
    patients: Mapping[str, str],
    experts: int = 4,
    kinds: Mapping[str, fine.Kind] | None = None,
    tolerance: float = localisation.TOLERANCE,
) -> pd.DataFrame:
    """Every map against the regions of at least 1, 2, ... experts.

    Args:
        image_ids, maps_of, patients, kinds, tolerance: As in :func:`drstudy.explain.measures.fine.measure`.
        votes_of: Reader of the votes of one eye.
        regions: Codes of lesions; maps of shape (L, h, w) follow this order.
        side: Cells on a side of the grid of the maps.
        experts: Number of experts.

    Returns:
        One row per eye, map, region and ``votes`` (1 to ``experts``): :data:`drstudy.explain.measures.fine.KEYS` and
        :data:`METRICS`. ``agreement`` is that of the experts in this eye, on the pixels of the photograph; like the
        scores it is NaN where no pixel has so many votes.
    """
    parts = []
    for image_id in image_ids:
        found = votes_of(image_id)
        expected = {
            code: agreement(count(found[code], found[FIELD], experts))
            for code in regions
            if found.get(code) is not None
        }
        for least in range(1, experts + 1):
            grid = Grid(at_least({image_id: found}.__getitem__, least), regions, side)
            table, _ = fine.measure([image_id], maps_of, grid, patients, kinds=kinds, tolerance=tolerance)
            own = table["region"].map({code: chance[least - 1] for code, chance in expected.items()})
            parts.append(table.assign(votes=least, agreement=own.where(table["present"])))
    return pd.concat(parts, ignore_index=True)[[*fine.KEYS, "votes", *METRICS]]
