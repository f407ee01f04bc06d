"""What notebook 15 leaves for the comparison of all systems: the classifier that learnt from generated pictures too, its maps and its costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import nn

from drstudy.evaluation import common
from drstudy.explain.measures.grid import ANY
from drstudy.papers.gan import heads
from drstudy.papers.gan.arms import Material
from drstudy.papers.gan.encoders import Encoder
from drstudy.papers.gan.params import PRETRAINING
from drstudy.papers.gan.runs import Trained
from drstudy.training import prediction, timing

if TYPE_CHECKING:
    from drstudy.data.dataset import Dataset

ARM = "gan_100"
"""The arm that is compared: as many generated pictures as balance the grades. Named before any comparison."""


def predictions(found: Material, head: nn.Linear) -> pd.DataFrame:
    """The common form of five probabilities, validation and test.

    Args:
        found: Features of all photographs.
        head: Classifier of :data:`ARM`.
    """
    known = ((found.held, found.validation), (found.table, found.test))
    frames = [prediction.frame(table, heads.probabilities(head, some.features)) for table, some in known]
    return common.of_grades(pd.concat(frames, ignore_index=True))


class Classifier:
    """Encoder and linear head as one network.

    The head is linear on pooled features, so the map of a class is exact without a backward pass (``docs/sources.md``, A6).

    Args:
        found, head: As of :func:`predictions`.
        encoder: Encoder that made the features.
        data: Photographs.
    """

    def __init__(self, found: Material, head: nn.Linear, encoder: Encoder, data: Dataset) -> None:
        self.middle, self.scale = (torch.from_numpy(some).float() for some in (found.middle, found.scale))
        self.encoder, self.data = encoder, data
        self.weight, self.bias = head.weight.detach().float().cpu(), head.bias.detach().float().cpu()

    @torch.no_grad()
    def _run(self, rows: np.ndarray) -> np.ndarray:
        found = []
        for layer in self.encoder.layers(self.data.images, rows):
            layer = layer.cpu()
            logits = (layer.mean((2, 3)) - self.middle) / self.scale @ self.weight.T + self.bias
            target = 1 + logits[:, 1:].argmax(1)
            weights = self.weight[target] / self.scale / layer[0, 0].numel()
            found.append(torch.einsum("bc,bchw->bhw", weights, layer).clamp(min=0).numpy())
        return np.concatenate(found)

    def maps(self, eyes: pd.DataFrame) -> dict[str, np.ndarray]:
        """Grad-CAM of the most probable grade above 0, as the map of all lesions: (N, h, w) float32.

        Args:
            eyes: N rows with ``row``.
        """
        return {ANY: self._run(eyes["row"].to_numpy())}

    def costs(self, trained: Mapping[str, Trained], used: str, eyes: pd.DataFrame) -> dict[str, float]:
        """Parameters of encoder and head; seconds of the GANs behind the pictures (the head takes seconds more, which are not counted); seconds
        per eye.

        Args:
            trained: All GANs.
            used: Name of the one whose pictures are used.
            eyes: As of :meth:`maps`.
        """
        gans = [one for name, one in trained.items() if name in (PRETRAINING, used)]
        return {
            "parameters_system": sum(q.numel() for q in self.encoder.net.parameters())
            + self.weight.numel()
            + self.bias.numel(),
            "seconds_to_train": sum(one.recipe.epochs * one.seconds for one in gans),
            "seconds_per_eye": timing.seconds_per_eye(self._run, eyes["row"].to_numpy()),
        }
