"""What notebook 12 leaves for the comparison of all systems: a decision from lesion labels, the map of each lesion, and costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from drstudy.evaluation import common, multilabel
from drstudy.explain.measures.grid import ANY
from drstudy.papers.lesions import maps as lesion_maps
from drstudy.papers.lesions.tables import signs
from drstudy.training import prediction, timing

if TYPE_CHECKING:
    from drstudy.core.devices import Compute
    from drstudy.data.dataset import Dataset
    from drstudy.papers.lesions.training import Trained


def predictions(said: pd.DataFrame, network: str, codes: Sequence[str], rule: str) -> pd.DataFrame:
    """The common form: one score from the probabilities of the lesions beyond microaneurysms; no grade.

    Args:
        said: ``network, image_id, patient_id, split, grade`` and ``p_<CODE>``.
        network: The one that is compared.
        codes: Lesions that are labels.
        rule: Rule of the decision; see :func:`drstudy.evaluation.multilabel.combine`.
    """
    own = said[said["network"] == network]
    used = [f"p_{code}" for code in signs(codes, "referable")]
    score = multilabel.combine(own[used].to_numpy(float), rule)
    return common.frame(own, score, score)


def maps(
    parts: Sequence[lesion_maps.LabelMaps], eyes: pd.DataFrame, codes: Sequence[str]
) -> dict[str, np.ndarray]:
    """The map of each lesion, and all of them together.

    Args:
        parts: Maps of several groups of eyes, which hold all of ``eyes``.
        eyes: N rows with ``image_id``.
        codes: L lesions.

    Returns:
        Region to (N, h, w) float32.
    """
    ids = np.concatenate([part.image_ids for part in parts]).tolist()
    place = [ids.index(image_id) for image_id in eyes["image_id"]]
    named = [part.named(codes) for part in parts]
    whole = {name: np.concatenate([one[name] for one in named])[place] for name in named[0]}
    return {ANY if name == lesion_maps.TOGETHER else name: found for name, found in whole.items()}


def costs(one: Trained, data: Dataset, eyes: pd.DataFrame, compute: Compute) -> dict[str, float]:
    """Parameters, seconds to train (epochs alone, without the stored features) and seconds per eye."""

    def infer(rows: np.ndarray) -> None:
        prediction.logits(one.net, data.images, rows, one.net.input_size, compute)

    return {
        "parameters_system": one.net.count()["parameters_total"],
        "seconds_to_train": len(one.history) * one.seconds_per_epoch,
        "seconds_per_eye": timing.seconds_per_eye(infer, eyes["row"].to_numpy()),
    }
