"""What one step of training is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """What one step of training is given: inputs and targets on the device, ``rows`` and ``views`` on the CPU.

    Attributes:
        inputs: (B, C, h, w) cached features of the frozen trunk, or what a feed without a trunk gives (photographs, crops).
        targets: Name to (B,) labels. ``grade`` is int64 where every image has one; all others are float32, and NaN is *unknown*.
        rows: (B,) int64 rows of the images in the image store (``Dataset.images``).
        views: (B,) int64 numbers of the augmented views; :meth:`drstudy.training.features.Features.pixels` makes the very same
            views again, at any size, for losses on patches of the photograph.
    """

    inputs: Tensor
    targets: Mapping[str, Tensor]
    rows: Tensor
    views: Tensor

    def __len__(self) -> int:
        return len(self.inputs)
