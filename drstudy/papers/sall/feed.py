"""Pooled features of the frozen network, in memory: what every student learns from."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from drstudy.core.devices import Compute
from drstudy.data.dataset import Dataset
from drstudy.models.nets import GradingNet
from drstudy.models.weights import digest_of
from drstudy.papers.sall.params import SallRecipe
from drstudy.training import features
from drstudy.training.batch import Batch


class Pooled(features.Features):
    """Means over the positions of the last layer of a frozen network, one per view, centred and scaled by the training views.

    No layer of the backbone learns (**a choice**: the release fine-tunes all of them), so hundreds of students share one pass of it. They
    learn on the CPU, also where the backbone runs on a GPU: a student is too small to gain from one. The grades of the data are no target;
    targets are set by :meth:`labelled`.

    Attributes:
        values: (N, K, C) float32 of the training photographs' K views.
        still: (M, C) float32 of the validation and test photographs, without augmentation.
        mean, spread: (C,) float32: what was subtracted, and by what was divided; see :func:`centre_and_scale`.
        weights: Digest of the frozen network.
        trunk_compute: Where the backbone runs.

    Args:
        base: Features of the backbone's trunk, stored or live.
    """

    def __init__(self, base: features.Features) -> None:
        self.base_recipe = base.p
        self.net, self.p, self.compute = base.net, base.p, Compute("cpu", "fp32")
        self.trunk_compute = base.compute
        self.data = replace(base.data, targets=())
        self.train, self.clean = base.train, base.clean
        count, views = len(base.train), base.p.views
        positions = torch.arange(count).repeat_interleave(views)
        drawn = [
            pooled(self.net, batch.inputs)
            for batch in base.draws(positions, torch.arange(views).repeat(count))
        ]
        raw = torch.cat(drawn)
        self.mean, self.spread = centre_and_scale(raw)
        self.values = ((raw - self.mean) / self.spread).reshape(count, views, -1)
        every = base.unaugmented(np.arange(len(base.clean)))
        self.still = (torch.cat([pooled(self.net, h) for h in every]) - self.mean) / self.spread
        self.weights = digest_of(dict(self.net.net.state_dict()))
        self.seconds, self.seconds_prepare = base.seconds, base.seconds_prepare

    @property
    def width(self) -> int:
        """Number C of channels."""
        return self.still.shape[1]

    def labelled(self, targets: pd.DataFrame, p: SallRecipe) -> Pooled:
        """The same features with other targets, for a training by another recipe.

        Args:
            targets: ``image_id`` and one float column per target; NaN is unknown.
            p: Recipe; it has the same views as the features.

        Raises:
            ValueError: If it has another number of views, and as :meth:`drstudy.data.dataset.Dataset.with_targets`.
        """
        if p.views != self.values.shape[1]:
            raise ValueError(
                f"The recipe has {p.views} views; the features were made for {self.values.shape[1]}."
            )
        other = copy.copy(self)
        for name in ("_train_targets", "_train_rows"):
            other.__dict__.pop(name, None)  # they are computed once for each set of targets
        other.p, other.data = p, self.data.with_targets(targets)
        other.train = other.data.part("train")
        other.clean = pd.concat([other.data.part("validation"), other.data.part("test")], ignore_index=True)
        return other

    def draws(self, positions: Tensor, views: Tensor) -> Iterator[Batch]:
        for some in self._batches(len(positions)):
            inputs = self.values[positions[some], views[some]]
            yield self._batch(inputs, positions[some], views[some])

    def unaugmented(self, positions: np.ndarray) -> Iterator[Tensor]:
        yield self.still[torch.as_tensor(np.asarray(positions))]

    def place(self, split: str) -> np.ndarray:
        """Positions in :attr:`clean` of a split."""
        return np.flatnonzero(self.clean["split"].to_numpy() == split)


def centre_and_scale(raw: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of each channel, and one scale for all: the root mean square of their standard deviations, (C,) each.

    A scale per channel would blow up channels that are silent in training: one lit by a single validation photograph would decide its loss.

    Args:
        raw: (M, C) of the training views.
    """
    scale = raw.var(0).mean().sqrt().clamp(min=1e-6)
    return raw.mean(0), scale.expand(raw.shape[1]).clone()


@torch.no_grad()
def pooled(net: GradingNet, h: Tensor) -> Tensor:
    """Mean over positions of the layer before pooling: the trunk's output (B, ...) to (B, C) float32 on the CPU."""
    return last_layer(net, h).mean((2, 3)).cpu()


@torch.no_grad()
def last_layer(net: GradingNet, h: Tensor) -> Tensor:
    """The layer before pooling, (B, C, h, w) float32, of a network in evaluation mode."""
    layer = list(net.cam_layers)[-1]
    net.eval()
    with net.record(layer) as kept:
        net.tail(h.float())
    return kept[layer].float()


def open_pooled(
    net: GradingNet, data: Dataset, p: SallRecipe, compute: Compute
) -> tuple[Pooled, features.Features]:
    """The pooled features, and those of the trunk that they were made from, which the maps need.

    Args:
        net: Network; all its layers are frozen here.
        data, p, compute: As of :func:`drstudy.training.features.open_features`.
    """
    net.requires_grad_(False)
    base = features.open_features(net, data, p, compute)
    return Pooled(base), base
