"""Photographs for a GAN: small, upright, and either all turned into left eyes or shown both ways round."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from drstudy.core.devices import Compute
from drstudy.core.records import Record
from drstudy.data import manifest
from drstudy.data.dataset import Dataset
from drstudy.papers.gan.recipe import GanRecipe
from drstudy.training import transforms
from drstudy.training.batch import Batch
from drstudy.training.features import Features

IN_ONE_GO = 256
"""Photographs that are made smaller at once."""

RIGHT = "right_eye"
"""Target that says whose side an eye is of: 1 right, 0 left, NaN unknown."""

MIRRORED = 1
"""Number of the view that is mirrored: a left eye becomes a right one."""


class Photographs(Features):
    """All photographs of the training split in memory, at the size of the GAN, and those of validation and test on request.

    There is no frozen network whose output could be cached. Pictures are between -1 and 1. Photographs are not turned, unlike for the
    grading networks: the generator shall learn an upright eye. With ``p.sides`` ``left``, right eyes are mirrored, so that the disc of all
    eyes is on one side; the target :data:`RIGHT` says which.
    """

    def __init__(self, data: Dataset, p: GanRecipe, compute: Compute) -> None:
        super().__init__(None, data, p, compute)

    def _check_size(self) -> None:
        stored = self.data.images.shape[1]
        if stored < self.p.input_size:
            raise ValueError(
                f"SIZE is {self.p.input_size}, but the photographs of AUDIT have {stored} pixels a side. Point AUDIT to an audit with a larger "
                "IMAGE_SIZE, or lower SIZE."
            )
        if self.p.sides == "left" and (RIGHT not in self.data.table or self.train[RIGHT].isna().all()):
            raise ValueError(
                "SIDES is 'left', but of no training photograph it is known which eye it shows. Set SIDES to 'both', or use photographs "
                "whose names say the side."
            )

    @functools.cached_property
    def small(self) -> Tensor:
        """Training photographs (N, 3, S, S) uint8 on the CPU, in the order of :attr:`train`."""
        pictures = shrunk(self.data.images, self.train["row"].to_numpy(), self.p.input_size)
        return self._as_left(pictures, self.train)

    def _as_left(self, pictures: Tensor, rows: pd.DataFrame) -> Tensor:
        """Pictures with the right eyes among these rows mirrored, if the recipe wants left ones. Eyes of unknown side stay as they are."""
        if self.p.sides != "left":
            return pictures
        right = torch.tensor((rows[RIGHT] == 1).tolist())[:, None, None, None]
        return torch.where(right, pictures.flip(3), pictures)

    @functools.cached_property
    def mean(self) -> Tensor:
        """Mean of the training photographs, and of their mirrored ones if these are shown: (3, S, S) between -1 and 1."""
        mean = scaled(self.small.double().mean(0).float())
        return mean if self.p.views == 1 else (mean + mean.flip(2)) / 2

    def prepare(self) -> None:
        """Make the photographs smaller now."""
        _ = self.small

    def draws(self, positions: Tensor, views: Tensor) -> Iterator[Batch]:
        """Batches of photographs, those of view :data:`MIRRORED` mirrored."""
        for some in self._batches(len(positions)):
            pictures = self.small[positions[some]]
            mirrored = (views[some] == MIRRORED)[:, None, None, None]
            pictures = torch.where(mirrored, pictures.flip(3), pictures)
            yield self._batch(self.compute.put(scaled(pictures)), positions[some], views[some])

    def unaugmented(self, positions: np.ndarray) -> Iterator[Tensor]:
        """Photographs of validation and test as they are."""
        rows = self.clean["row"].to_numpy()[positions]
        for start in range(0, len(rows), IN_ONE_GO):
            some = slice(start, start + IN_ONE_GO)
            pictures = shrunk(self.data.images, rows[some], self.p.input_size)
            pictures = self._as_left(pictures, self.clean.iloc[positions[some]])
            yield self.compute.put(scaled(pictures))


def with_sides(data: Dataset, audit: Record) -> Dataset:
    """The photographs with the target :data:`RIGHT`, from the manifest of their audit."""
    eyes = manifest.read(audit.path("manifest.csv"))[["image_id", "eye"]]
    right = eyes["eye"].map({"right": 1.0, "left": 0.0})
    return data.with_targets(pd.DataFrame({"image_id": eyes["image_id"], RIGHT: right.astype(float)}))


def shrunk(images: np.ndarray, rows: np.ndarray, size: int) -> Tensor:
    """Stored photographs (N, H, H, 3) uint8, of which these rows, as (M, 3, size, size) uint8."""
    parts = [
        transforms.resize(transforms.channels_first(images[rows[start : start + IN_ONE_GO]]), size)
        for start in range(0, len(rows), IN_ONE_GO)
    ]
    return torch.cat(parts) if parts else torch.empty((0, 3, size, size), dtype=torch.uint8)


def scaled(pictures: Tensor) -> Tensor:
    """uint8 to float32 between -1 and 1, as the networks take and give pictures."""
    return pictures.float() / 127.5 - 1


def unscaled(pictures: Tensor) -> Tensor:
    """Between -1 and 1 to uint8, rounded; what is outside is clipped."""
    return ((pictures.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
