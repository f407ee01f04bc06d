"""The network of the partial release: InceptionV3 with three heads at temperature 3 (``docs/sources.md``, C2).

The release does not run and trains no teacher, so the network is built here from its description and never compared with released weights,
which do not exist. It is only built and tested, to show that the parts fit: no notebook trains it. Notebook 13 has a frozen network and two
diseases.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from drstudy.models import nets
from drstudy.papers.sall import losses

CLASSES = {"dr": 5, "amd": 4, "arteriosclerosis": 2}
"""Outputs of the three heads; the normal class is the first of each."""

BACKBONE, INPUT_SIZE, DROPOUT, TEMPERATURE = "inception_v3", 299, 0.5, 3.0


class Released(nn.Module):
    """InceptionV3, mean pooling, and for each disease dropout and a linear layer.

    Args:
        weights: Of the backbone, as of :func:`drstudy.models.nets.build`; ``imagenet`` in the release.
        seed: Seed of the random layers.
    """

    def __init__(self, weights: str = "imagenet", seed: int = 0) -> None:
        super().__init__()
        self.encoder = nets.build(BACKBONE, "single", weights, seed)
        width = self.encoder.net.fc.in_features
        self.encoder.net.fc = nn.Identity()
        self.encoder.net.dropout = nn.Identity()
        with nets.seeded(seed):
            heads = {
                name: nn.Sequential(nn.Dropout(DROPOUT), nn.Linear(width, count))
                for name, count in CLASSES.items()
            }
        self.heads = nn.ModuleDict(heads)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Normalised images (B, 3, 299, 299) to logits (B, classes) by disease, not yet divided by the temperature."""
        pooled = self.encoder(images)
        return {name: head(pooled) for name, head in self.heads.items()}


def loss(logits: dict[str, Tensor], labels: Tensor) -> Tensor:
    """The loss that the release intends: cross-entropy of each head with its part of the label file, equal weights, T on all heads.

    Args:
        logits: Result of :meth:`Released.forward`.
        labels: (B, 11) float32: probabilities of the classes of :data:`CLASSES`, one head after the other; those of the own disease are one-hot.

    Returns:
        A scalar: the sum over heads of the mean over the batch, without the factor T².

    Raises:
        ValueError: If there are not 11 columns.
    """
    if labels.shape[1] != sum(CLASSES.values()):
        raise ValueError(f"Labels need {sum(CLASSES.values())} columns, not {labels.shape[1]}.")
    parts = torch.split(labels, list(CLASSES.values()), 1)
    each = [losses.soft(logits[name], part, TEMPERATURE, squared=False) for name, part in zip(CLASSES, parts)]
    return sum(each).mean()
