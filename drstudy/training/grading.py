"""Tasks of one network: their base, and the main study's task of five grades under cross-entropy with Adam."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from sklearn.metrics import cohen_kappa_score
from torch import Tensor, nn

from drstudy.core.devices import Compute
from drstudy.core.names import N_GRADES
from drstudy.models.nets import GradingNet
from drstudy.training import prediction
from drstudy.training.batch import Batch
from drstudy.training.features import Features
from drstudy.training.recipe import Training
from drstudy.training.task import Task


class OneNetwork(Task):
    """A network whose tail learns from the batches of the feed. Subclasses implement :meth:`loss` and :meth:`measure`.

    Args:
        net: Network from :func:`drstudy.training.networks.build`; changed in place.
        feed: Features of the same network.
        p: Recipe from :func:`drstudy.training.networks.recipe_for`.
        compute: Device and precision.

    Attributes:
        outputs: Number of outputs of the network.
    """

    outputs: int

    def __init__(self, net: GradingNet, feed: Features, p: Training, compute: Compute) -> None:
        self.net = net
        super().__init__(feed, p, compute, {"net": net}, {"net": self.optimiser(net, p)})

    def optimiser(self, net: GradingNet, p: Training) -> torch.optim.Optimizer:
        """The optimiser of the trainable parameters: Adam, with the settings of the recipe."""
        return torch.optim.Adam(
            [q for q in net.parameters() if q.requires_grad],
            lr=p.learning_rate,
            betas=p.betas,
            eps=1e-8,
            weight_decay=p.weight_decay,
            fused=True,
        )

    def loss(self, outputs: Tensor, targets: Mapping[str, Tensor]) -> Tensor:
        """Mean loss of one batch, a scalar, from outputs (B, ``outputs``) float32 and targets (B,) by name."""
        raise NotImplementedError

    def measure(self, outputs: np.ndarray, targets: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Value of each of :attr:`measures`, from outputs (N, ``outputs``) float32 and targets (N,) by name of a whole split."""
        raise NotImplementedError

    def terms(self, targets: Mapping[str, Tensor]) -> float:
        """Number of terms in the mean of :meth:`loss`: here the number of images."""
        return len(next(iter(targets.values())))

    def step(self, batch: Batch) -> dict[str, float]:
        with self.compute.autocast():
            outputs = self.net.tail(batch.inputs)
        loss = self.loss(outputs.float(), batch.targets)
        return {"loss": self.update("net", loss, self.terms(batch.targets))}

    def validate(self) -> dict[str, float]:
        outputs = prediction.from_features(self.net, self.feed, "validation", self.compute)
        return self.measure(outputs, self.feed.targets("validation"))


def check_grades(feed: Features) -> None:
    """Refuse to learn grades that are not known.

    Raises:
        ValueError: If a training or validation image has no grade, with how many.
    """
    for split in ("train", "validation"):
        rows = feed.train if split == "train" else feed.clean[feed.clean["split"] == split]
        if missing := int(rows["grade"].isna().sum()):
            raise ValueError(
                f"{missing} images of the split {split!r} have no grade. Leave them out, or put them into the test split, before a network "
                "learns grades."
            )


class Grading(OneNetwork):
    """The five grades under cross-entropy (Nian & Jin 2025; ``docs/sources.md``, A4)."""

    outputs = N_GRADES
    measures: ClassVar[Mapping[str, int]] = {"loss": -1, "qwk": 1}
    titles: ClassVar[Mapping[str, str]] = {"qwk": "QWK"}

    def __init__(self, net: GradingNet, feed: Features, p: Training, compute: Compute) -> None:
        check_grades(feed)
        super().__init__(net, feed, p, compute)

    def loss(self, outputs: Tensor, targets: Mapping[str, Tensor]) -> Tensor:
        return nn.functional.cross_entropy(outputs, targets["grade"], label_smoothing=self.p.label_smoothing)

    def measure(self, outputs: np.ndarray, targets: Mapping[str, np.ndarray]) -> dict[str, float]:
        grades = targets["grade"]
        loss = nn.functional.cross_entropy(torch.from_numpy(outputs).double(), torch.from_numpy(grades))
        return {"loss": loss.item(), "qwk": qwk(grades, outputs.argmax(1))}


def qwk(grades: np.ndarray, predicted: np.ndarray) -> float:
    """Quadratic weighted kappa; 0 where it is undefined because only one grade occurs (agreement by chance alone)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value = cohen_kappa_score(grades, predicted, weights="quadratic", labels=range(N_GRADES))
    return float(value) if np.isfinite(value) else 0.0
