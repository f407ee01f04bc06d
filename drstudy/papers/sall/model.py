"""The student: an encoder shared by both diseases and a head for each; discriminators; gradient reversal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from drstudy.models import nets


class Student(nn.Module):
    """One hidden layer on pooled features, shared, and a linear head per disease.

    Attributes:
        weights_used: What the frozen network that made the features started from.

    Args:
        inputs: Width of the pooled features.
        width: Width of the shared layer.
        classes: Number of classes by disease.
        dropout: Dropout before each head.
        seed: Seed of the weights. The encoder is drawn first and each head from a seed of its own, so that students with other heads
            start from the same encoder.
    """

    weights_used: str = ""

    def __init__(
        self, inputs: int, width: int, classes: Mapping[str, int], dropout: float = 0.0, seed: int = 0
    ) -> None:
        super().__init__()
        with nets.seeded(seed):
            self.shared = nn.Linear(inputs, width)
        heads = {}
        for name, outputs in classes.items():
            with nets.seeded(seed + 1 + sum(name.encode())):
                heads[name] = nn.Linear(width, outputs)
        self.heads = nn.ModuleDict(heads)
        self.dropout = nn.Dropout(dropout)

    def encode(self, pooled: Tensor) -> Tensor:
        """Pooled features (B, inputs) to shared features (B, width), at least 0."""
        return torch.relu(self.shared(pooled))

    def decide(self, encoded: Tensor) -> dict[str, Tensor]:
        """Shared features to logits (B, classes) by disease."""
        dropped = self.dropout(encoded)
        return {name: head(dropped) for name, head in self.heads.items()}

    def forward(self, pooled: Tensor) -> dict[str, Tensor]:
        """Pooled features (B, inputs) to logits (B, classes) by disease."""
        return self.decide(self.encode(pooled))


class Discriminator(nn.Sequential):
    """A hidden layer and one logit: which of two kinds of features (B, width) it was given."""

    def __init__(self, width: int, seed: int) -> None:
        with nets.seeded(seed):
            super().__init__(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))

    def forward(self, features: Tensor) -> Tensor:
        """(B, width) to logits (B,)."""
        return super().forward(features)[:, 0]


class _Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: float) -> Tensor:
        ctx.weight = weight
        return features.view_as(features)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return -ctx.weight * gradient, None


def reverse(features: Tensor, weight: float) -> Tensor:
    """The features unchanged; their gradient is multiplied by ``-weight`` (gradient reversal, Ganin et al. 2016)."""
    return _Reversed.apply(features, weight)
