"""What notebook 11 leaves for the comparison of all systems: the regression network, its scores, its map and its costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from drstudy.evaluation import common, ordinal
from drstudy.explain.measures.grid import ANY
from drstudy.papers.ram import maps as ram_maps
from drstudy.training import prediction, timing

if TYPE_CHECKING:
    from drstudy.core.devices import Compute
    from drstudy.data.dataset import Dataset
    from drstudy.papers.ram.training import Trained

CELLS = 32
"""Cells per side of the maps: as many as the finest network of the paper that sees 256 pixels, and more than a backbone has."""


def chosen(trained: Sequence[Trained], backbone: str) -> Trained:
    """The network that is compared: the pretrained backbone, else the first network with a map, at the largest size that was trained.

    The rule is **a choice of this study**, and looks at no score.

    Args:
        trained: All networks of the notebook.
        backbone: Name of the pretrained backbone; empty if there is none.
    """
    mapped = [one for one in trained if not one.network.startswith("baseline")]
    name = backbone or mapped[0].network
    return max((one for one in mapped if one.network == name), key=lambda one: one.size)


def predictions(one: Trained) -> pd.DataFrame:
    """The common form: the regressed number as score, grades by cuts fitted on validation, no probability."""
    scores = one.scores[one.scores["split"] != "train"]
    fitted = scores[(scores["split"] == "validation") & scores["grade"].notna()]
    cuts = ordinal.fit_cuts(fitted["score"].to_numpy(float), fitted["grade"].to_numpy(int))
    return common.frame(scores, scores["score"], predicted=ordinal.grades(scores["score"], cuts))


def maps(
    one: Trained, data: Dataset, eyes: pd.DataFrame, compute: Compute, tta: bool
) -> dict[str, np.ndarray]:
    """What is above 0 in the map of the score: evidence for a higher grade, over the whole photograph.

    Args:
        one: The network.
        data: Photographs.
        eyes: N rows with ``image_id`` and ``row``.
        compute: Device and precision.
        tta: See :func:`drstudy.papers.ram.maps.explain`.

    Returns:
        One map for all lesions, (N, CELLS, CELLS) float32.
    """
    found = ram_maps.explain(one.net, data.images, eyes["image_id"], eyes["row"].to_numpy(), compute, tta)
    return {ANY: np.stack([np.maximum(found.placed(row, CELLS), 0) for row in range(len(eyes))])}


def costs(one: Trained, data: Dataset, compute: Compute) -> dict[str, float]:
    """Parameters, seconds to train (this size alone) and seconds per eye."""

    def infer(rows: np.ndarray) -> None:
        prediction.logits(one.net, data.images, rows, one.size, compute)

    return {
        "parameters_system": one.net.count()["parameters_total"],
        "seconds_to_train": timing.seconds_to_train([one.fit]),
        "seconds_per_eye": timing.seconds_per_eye(infer, data.part("test")["row"].to_numpy()),
    }
