"""The classifier of all arms: one linear layer on pooled features, trained for a fixed number of steps by the loop of the study.

The encoder is frozen, so its features are computed once and every arm costs seconds. All arms take the same number of steps with batches of
the same size, from the same starting weights for the same seed. The last step counts; no epoch is chosen.
"""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import pandas as pd
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from drstudy.core.devices import Compute
from drstudy.core.names import N_GRADES
from drstudy.core.params import Positive
from drstudy.models.nets import seeded
from drstudy.training import loop, prediction, sampling
from drstudy.training.batch import Batch
from drstudy.training.features import Features
from drstudy.training.recipe import Training
from drstudy.training.task import Task


class HeadRecipe(Training):
    """Recipe of a head.

    Attributes:
        steps: Number of steps of each training, the same for all arms.
        batch_size: Pictures per step.
        weight_decay: L2 penalty of Adam; ours.
    """

    notebook: ClassVar[str] = "15_gan_oversampling"
    steps: Positive = 300
    batch_size: Positive = 64
    sampler: Literal["none", "paper", "inverse", "sqrt"] = "none"
    learning_rate: float = Field(default=1e-3, gt=0, le=10)
    weight_decay: float = Field(default=1e-2, ge=0, le=10)
    epochs: Positive = 1
    views: int = 1
    select_by: Literal["last"] = "last"


@dataclass(frozen=True)
class Known:
    """Pooled features with the grade of each picture.

    Attributes:
        features: (N, D) float32.
        grades: (N,) int64, 0 to 4.

    Raises:
        ValueError: If the two do not belong together, or a feature is not finite.
    """

    features: np.ndarray
    grades: np.ndarray

    def __post_init__(self) -> None:
        if self.features.ndim != 2 or self.grades.shape != (len(self.features),):
            raise ValueError(
                f"Features (N, D) and grades (N,) are needed, but their shapes are {self.features.shape} and {self.grades.shape}."
            )
        if not np.isfinite(self.features).all():
            raise ValueError("A feature is not finite. Look at the encoder and at its precision.")

    def __len__(self) -> int:
        return len(self.features)

    @property
    def counts(self) -> np.ndarray:
        """Number of pictures of each grade, (5,) int64."""
        return np.bincount(self.grades, minlength=N_GRADES)

    def take(self, positions: np.ndarray) -> Known:
        """The pictures at these positions, (M,), in this order."""
        return Known(self.features[positions], self.grades[positions])

    def __add__(self, other: Known) -> Known:
        """These pictures, then the other ones."""
        joined = np.concatenate([self.features, other.features]), np.concatenate([self.grades, other.grades])
        return Known(*joined)


class Pooled(Features):
    """Pooled features in memory, as the feed of a head.

    Args:
        train, validation: Features and grades, standardised alike.
        p: The recipe.
        compute: Device and precision.
    """

    def __init__(self, train: Known, validation: Known, p: HeadRecipe, compute: Compute) -> None:
        self.known = {"train": train, "validation": validation}
        self.p, self.compute = p, compute
        self.train = pd.DataFrame({"grade": train.grades})
        self.clean = pd.DataFrame({"grade": validation.grades, "split": "validation"})
        self.seconds, self.seconds_prepare = 0.0, 0.0
        self.width = train.features.shape[1]
        self._inputs = compute.put(torch.from_numpy(train.features))
        self._grades = torch.from_numpy(train.grades).to(compute.device)

    def targets(self, split: str) -> dict[str, np.ndarray]:
        return {"grade": self.known[split].grades}

    def draws(self, positions: Tensor, views: Tensor) -> Iterator[Batch]:
        for some in self._batches(len(positions)):
            at = positions[some].to(self._inputs.device)
            yield Batch(self._inputs[at], {"grade": self._grades[at]}, positions[some], views[some])

    def unaugmented(self, positions: np.ndarray) -> Iterator[Tensor]:
        yield self.compute.put(torch.from_numpy(self.known["validation"].features[positions]))


class Head(Task):
    """One linear layer under cross-entropy, with Adam."""

    def __init__(self, feed: Pooled, p: HeadRecipe, compute: Compute) -> None:
        with seeded(p.seed):
            net = nn.Linear(feed.width, N_GRADES)
        net.to(compute.device)
        adam = torch.optim.Adam(
            net.parameters(), lr=p.learning_rate, betas=p.betas, weight_decay=p.weight_decay
        )
        super().__init__(feed, p, compute, {"head": net}, {"head": adam})

    def draw(self, epoch: int, generator: torch.Generator) -> Tensor:
        """Positions of ``steps`` batches: as many rounds of the sampler as that takes, cut at the end."""
        once = functools.partial(sampling.draw, self.p.sampler, self.feed.known["train"].grades, generator)
        return sampling.repeated(once, self.p.steps * self.p.batch_size)

    def step(self, batch: Batch) -> dict[str, float]:
        loss = F.cross_entropy(self.modules["head"](batch.inputs), batch.targets["grade"])
        return {"loss": self.update("head", loss, len(batch))}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        (inputs,) = self.feed.unaugmented(np.arange(len(self.feed.clean)))
        grades = torch.from_numpy(self.feed.targets("validation")["grade"])
        return {"loss": F.cross_entropy(self.modules["head"](inputs).cpu().double(), grades).item()}


def fit(train: Known, validation: Known, p: HeadRecipe, compute: Compute) -> nn.Linear:
    """Train one head.

    Args:
        train, validation: Features and grades, standardised alike. Validation is measured at the end and chooses nothing.
        p: The recipe.
        compute: Device and precision.

    Raises:
        FloatingPointError: If the loss is no longer finite.
    """
    task = Head(Pooled(train, validation, p, compute), p, compute)
    with contextlib.redirect_stdout(
        io.StringIO()
    ):  # its lines are about epochs; here there are many short trainings
        loop.fit(task)
    return task.modules["head"]


@torch.no_grad()
def probabilities(head: nn.Linear, features: np.ndarray) -> np.ndarray:
    """Probabilities (N, 5) float64 of a head for features (N, D) float32."""
    device = next(head.parameters()).device
    return prediction.softmax(head(torch.from_numpy(features).to(device)).cpu().numpy())
