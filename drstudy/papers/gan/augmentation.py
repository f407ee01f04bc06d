"""Differentiable augmentation of what the critic sees: colour, translation, cutout (Zhao et al. 2020; ``docs/sources.md``, G5).

Real and generated photographs go through the same functions with numbers drawn from the same distribution, and the generator learns
through them. The critic can therefore neither memorise few photographs easily, nor teach the generator to make augmented ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from drstudy.papers.gan.recipe import POLICIES

SHIFT = 1 / 8
"""Largest translation, as a share of the side."""

CUT = 1 / 2
"""Side of the square that is cut out, as a share of the side."""


@dataclass(frozen=True)
class Draw:
    """Random numbers for a batch, one row per photograph, each uniform from 0 to 1.

    Attributes:
        numbers: (N, 7) float32: brightness, saturation, contrast; vertical and horizontal translation; row and column of the cutout.
    """

    numbers: Tensor

    @classmethod
    def new(cls, count: int, generator: torch.Generator) -> Draw:
        """Numbers for ``count`` photographs."""
        return cls(torch.rand(count, 7, generator=generator))

    def part(self, rank: int, processes: int) -> Draw:
        """The part of one of several processes, which deal out a batch like cards."""
        return Draw(self.numbers[rank::processes])

    def to(self, device: torch.device | str) -> Draw:
        """The same numbers on a device."""
        return Draw(self.numbers.to(device))


def apply(images: Tensor, draw: Draw, policies: Sequence[str]) -> Tensor:
    """Augmented photographs.

    Args:
        images: RGB (N, 3, S, S), between -1 and 1.
        draw: Numbers for them.
        policies: Which of :data:`drstudy.papers.gan.recipe.POLICIES` to apply, in the order of that list.

    Returns:
        (N, 3, S, S); colour can leave the range from -1 to 1.

    Raises:
        ValueError: If a policy is unknown, or the draw is for another number of photographs.
    """
    if unknown := set(policies) - set(POLICIES):
        raise ValueError(f"There is no augmentation {sorted(unknown)[0]!r}; there are {', '.join(POLICIES)}.")
    if len(draw.numbers) != len(images):
        raise ValueError(f"The draw is for {len(draw.numbers)} photographs; {len(images)} are given.")
    for policy in POLICIES:
        if policy in policies:
            images = {"colour": _colour, "translation": _translated, "cutout": _cut}[policy](
                images, draw.numbers
            )
    return images


def _colour(images: Tensor, numbers: Tensor) -> Tensor:
    """Brightness by up to 0.5 up or down, then saturation times 0 to 2, then contrast times 0.5 to 1.5."""
    brightness, saturation, contrast = (numbers[:, place, None, None, None] for place in range(3))
    images = images + (brightness - 0.5)
    grey = images.mean(1, keepdim=True)
    images = grey + (images - grey) * (2 * saturation)
    mean = images.mean((1, 2, 3), keepdim=True)
    return mean + (images - mean) * (contrast + 0.5)


def _translated(images: Tensor, numbers: Tensor) -> Tensor:
    """Moved by whole pixels, up to an eighth of the side each way; what comes in is 0 (mid-grey), as in the source."""
    side = images.shape[-1]
    most = round(side * SHIFT)
    moved = ((numbers[:, 3:5] * (2 * most + 1)).floor().long() - most).clamp(-most, most)
    steps = torch.arange(side, device=images.device)
    # a product with a matrix of zeros and ones on each side: exact, and its gradient is deterministic on every device
    rows = (steps[:, None] - moved[:, :1, None] == steps).to(images.dtype)
    columns = (steps[:, None] - moved[:, 1:, None] == steps).to(images.dtype)
    return rows[:, None] @ images @ columns[:, None].transpose(2, 3)


def _cut(images: Tensor, numbers: Tensor) -> Tensor:
    """A square of half the side becomes 0 (mid-grey); its centre may be anywhere, so a part of it may lie outside."""
    side = images.shape[-1]
    half = round(side * CUT) // 2
    centre = (numbers[:, 5:7] * side).floor().clamp(0, side - 1)
    steps = torch.arange(side, device=images.device)
    rows = (steps - centre[:, :1] >= -half) & (steps - centre[:, :1] < half)
    columns = (steps - centre[:, 1:] >= -half) & (steps - centre[:, 1:] < half)
    return images * ~(rows[:, :, None] & columns[:, None])[:, None]
