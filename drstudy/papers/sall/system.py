"""What notebook 13 leaves for the comparison of all systems: the full student's grades of the eyes of the main study, its maps and its costs.

The student learnt from other photographs, some of which show macular degeneration. Its test eyes are those on which all systems are compared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from drstudy.core.names import GRADES, PROBABILITIES
from drstudy.core.records import Record
from drstudy.evaluation import common
from drstudy.explain.measures.grid import ANY
from drstudy.papers.sall.feed import Pooled, last_layer
from drstudy.papers.sall.labels import LabelError
from drstudy.papers.sall.maps import evidence
from drstudy.papers.sall.params import FULL, Sall
from drstudy.papers.sall.runs import Results
from drstudy.training import prediction, timing

if TYPE_CHECKING:
    from drstudy.data.dataset import Dataset

DISEASE = "dr"


def eyes(data: Dataset, audit: Record, learnt: Record) -> pd.DataFrame:
    """Test and validation eyes of the main study.

    Args:
        data: Photographs of ``audit``.
        audit: Result of notebook 01 with the eyes of the main study.
        learnt: Result of notebook 01 with the photographs that the students learnt from.

    Returns:
        Rows of ``data`` with ``split``.

    Raises:
        drstudy.papers.sall.labels.LabelError: If both are phantoms of one seed, whose patients are the same synthetic people.
    """
    phantoms = audit.params["SOURCE"] == learnt.params["SOURCE"] == "phantom"
    if audit.folder != learnt.folder and phantoms and audit.params["SEED"] == learnt.params["SEED"]:
        raise LabelError(
            f"EYES and AUDIT are phantoms of the same SEED, {audit.params['SEED']}: their patients have the same eyes, so the students would be "
            "tested on eyes that they learnt from. Give the audit of AUDIT another SEED."
        )
    return common.eyes(data.part("test"), data.part("validation"))


class Student:
    """The full setting of the first seed on photographs of another data set.

    Args:
        feed: Features of the photographs that it learnt from: its network, and by what features are standardised.
        results: All trainings.
        p: Parameters of the notebook.
        data: Photographs.
    """

    def __init__(self, feed: Pooled, results: Results, p: Sall, data: Dataset) -> None:
        self.feed, self.data = feed, data
        self.temperature = p.recipe(FULL, 0).own_temperature  # as in training
        self.network, self.compute = results.students[FULL, 0][DISEASE], feed.trunk_compute
        self.spent = results.costs

    @torch.no_grad()
    def _run(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities (N, K) float64, and maps (N, h, w) float32, of the photographs of some rows."""
        feed, said, heat = self.feed, [], []
        size = feed.base_recipe.input_size
        for _, h in prediction.in_batches(
            feed.net.trunk, feed.net, self.data.images, rows, size, self.compute
        ):
            layer = last_layer(feed.net, h).cpu()
            pooled = (layer.mean((2, 3)) - feed.mean) / feed.spread
            said.append((self.network(pooled)[DISEASE].double() / self.temperature).softmax(1).numpy())
            heat.append(evidence(self.network, DISEASE, layer, feed.mean, feed.spread).numpy())
        return np.concatenate(said), np.concatenate(heat)

    def leave(self, eyes: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
        """Predictions in the common form, and the map of DR as that of all lesions, (N, h, w) float32.

        Of two classes (DR or not) only the score is left, since a grade of 2 or more is then not what was learnt.

        Args:
            eyes: Result of :func:`eyes`.
        """
        p, heat = self._run(eyes["row"].to_numpy())
        if p.shape[1] == len(GRADES):
            table = eyes[common.ABOUT].assign(**dict(zip(PROBABILITIES, p.T)))
            return common.of_grades(table), {ANY: heat}
        return common.frame(eyes, 1 - p[:, 0]), {ANY: heat}

    def costs(self, eyes: pd.DataFrame) -> dict[str, float]:
        """Parameters of the frozen network and the student; seconds of the features, the teachers and the student; seconds per eye."""
        first = self.spent[(self.spent["seed"] == 0) & (self.spent["fraction"] == 1)].set_index("setting")
        return {
            "parameters_system": self.feed.net.count()["parameters_total"]
            + sum(q.numel() for q in self.network.parameters()),
            "seconds_to_train": float(
                self.feed.seconds_prepare + first.loc[["teachers", FULL], "seconds"].sum()
            ),
            "seconds_per_eye": timing.seconds_per_eye(self._run, eyes["row"].to_numpy()),
        }
