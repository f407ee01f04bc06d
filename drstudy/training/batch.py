"""The data of one training step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """The data of one training step: inputs and targets on the device, ``rows`` and ``views`` on the CPU.

    Attributes:
        inputs: (B, C, h, w) features of the frozen trunk, or what a feed without a trunk gives (photographs, crops).
        targets: (B,) labels by name. ``grade`` is int64 if every image has one; all others are float32, and NaN means *unknown*.
        rows: (B,) int64 rows of the images in the image store (``Dataset.images``).
        views: (B,) int64 numbers of the augmented views. :meth:`drstudy.training.features.Features.pixels` makes the same views
            again at any size, for losses on patches of the photograph.
    """

    inputs: Tensor
    targets: Mapping[str, Tensor]
    rows: Tensor
    views: Tensor

    def __len__(self) -> int:
        return len(self.inputs)
