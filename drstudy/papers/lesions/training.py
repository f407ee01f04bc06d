"""Training of lesions as labels (Jiang et al. 2020; ``docs/sources.md``, B): one sigmoid output per lesion, unknown labels left out.

Of the paper only the abstract is public: labels, loss, thresholds and how lesions make a diagnosis are **choices of this study**. The
loop is :func:`drstudy.training.loop.fit`, given :class:`MultiLabel` as its task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from drstudy.core import paths, records
from drstudy.core.devices import Compute
from drstudy.data import labels as lesion_labels
from drstudy.data.dataset import Dataset
from drstudy.models.compat import torchvision
from drstudy.models.nets import FineResNet, GradingNet
from drstudy.papers.lesions.params import LesionRecipe, Lesions
from drstudy.training import features, grading, loop, multilabel, networks, prediction

GAMMA_POSITIVE, GAMMA_NEGATIVE, MARGIN = 0.0, 4.0, 0.05
"""Of the asymmetric loss, as in the main experiments of its paper (Ridnik et al. 2021, arXiv 2009.14119)."""


def loss(outputs: Tensor, labels: Tensor, weights: Tensor, kind: str, gamma: float) -> Tensor:
    """Mean over the known labels of a batch; 0, with a gradient of 0, where none is known.

    ``bce`` is binary cross-entropy on logits, positives weighted. ``focal`` also has the factor (1 - p of the truth)^gamma (Lin et al.
    2017), and the same weights. ``asymmetric`` is -(1 - p)^g+ log p for positives and -q^g- log(1 - q) for negatives, with q = max(p -
    margin, 0) (Ridnik et al. 2021), whose focus on positives takes the place of the weights.

    Args:
        outputs: (B, L) logits, float32.
        labels: (B, L) float32: 1, 0, or NaN where not annotated.
        weights: (L,) of :func:`drstudy.training.multilabel.positive_weights`.
        kind: One of the three.
        gamma: Of ``focal``.
    """
    if kind == "bce":
        return multilabel.cross_entropy(outputs, labels, weights)
    known, target = (~labels.isnan()).float(), labels.nan_to_num()
    if kind == "focal":
        plain = torchvision.ops.sigmoid_focal_loss(outputs, target, alpha=-1, gamma=gamma, reduction="none")
        each = plain * (target * weights + 1 - target)
    elif kind == "asymmetric":
        p = outputs.sigmoid()
        q = (p - MARGIN).clamp(min=0)
        hit = (1 - p) ** GAMMA_POSITIVE * F.logsigmoid(outputs)
        each = -(target * hit + (1 - target) * q**GAMMA_NEGATIVE * torch.log1p(-q))
    else:
        raise ValueError(f"LOSS is {kind!r}; it must be 'bce', 'focal' or 'asymmetric'.")
    return (each * known).sum() / known.sum().clamp(min=1)


class MultiLabel(grading.OneNetwork):
    """One sigmoid output per lesion type.

    Args:
        net, feed, p, compute: As of :class:`drstudy.training.grading.OneNetwork`; the feed has a target of :func:`drstudy.training.multilabel.target` for each code of
            the recipe.
        weights: (L,) of :func:`drstudy.training.multilabel.positive_weights`.
    """

    measures: ClassVar[Mapping[str, int]] = {"loss": -1, "auc": 1}
    titles: ClassVar[Mapping[str, str]] = {"auc": "mean AUC"}

    def __init__(
        self, net: GradingNet, feed: features.Features, p: LesionRecipe, compute: Compute, weights: np.ndarray
    ) -> None:
        super().__init__(net, feed, p, compute)
        self.weights = torch.from_numpy(weights).float()

    def labels(self, targets: Mapping[str, Tensor]) -> Tensor:
        """(B, L) float32 out of the targets by name."""
        return torch.stack([targets[multilabel.target(code)] for code in self.p.codes], 1)

    def terms(self, targets: Mapping[str, Tensor]) -> float:
        return float((~self.labels(targets).isnan()).sum())

    def loss(self, outputs: Tensor, targets: Mapping[str, Tensor]) -> Tensor:
        weights = self.weights.to(outputs.device)
        return loss(outputs, self.labels(targets), weights, self.p.loss, self.p.gamma)

    def measure(self, outputs: np.ndarray, targets: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Loss, and the mean AUC over the labels that have one (0.5 where none has)."""
        tensors = {name: torch.from_numpy(values) for name, values in targets.items()}
        labels = self.labels(tensors).numpy()
        value = self.loss(torch.from_numpy(outputs).float(), tensors).item()
        return {"loss": value, "auc": multilabel.mean_auc(labels, outputs)}

    def extra(self) -> dict[str, list[float]]:
        return {"weights": self.weights.tolist()}


@dataclass(frozen=True)
class Trained:
    """A network, and what its training left.

    Attributes:
        network: Its name in the registry.
        net: In evaluation mode, with the best epoch's weights and ``input_size``.
        history: One row per epoch: ``network, epoch, loss`` (mean of its steps), ``val_loss, val_auc``.
        seconds_per_epoch: Median of its training, validation included.
    """

    network: str
    net: GradingNet
    history: pd.DataFrame
    seconds_per_epoch: float


def train(
    p: Lesions,
    data: Dataset,
    labels: pd.DataFrame,
    compute: Compute,
    folder: Path | None = None,
    keep: bool = False,
) -> list[Trained]:
    """Train the networks that a notebook's parameters ask for; a killed run goes on from the last finished epoch.

    Args:
        p: What, and how.
        data: Photographs and split.
        labels: Of :func:`drstudy.data.labels.read`.
        compute: Device and precision.
        folder: Where checkpoints go; ``None`` keeps none.
        keep: See :func:`drstudy.training.loop.fit`.

    Returns:
        The network that started from published weights first.

    Raises:
        drstudy.data.labels.LabelError: If no training photograph has a label that is known.
    """
    labelled = multilabel.with_labels(data, labels, p.codes)
    rows = labelled.part("train")["image_id"]
    known = lesion_labels.as_array(labels.set_index("image_id").loc[rows], p.codes)
    weights = multilabel.positive_weights(known, p.heaviest)
    found = []
    for recipe in (p.recipe(), p.net_recipe() if p.network else None):
        if recipe is None:
            continue
        print(f"{recipe.backbone} at {recipe.input_size} px", flush=True)
        net = networks.build(recipe, labelled, compute, len(weights))
        if isinstance(net, FineResNet) and not recipe.feature_store:
            net.learn_all()
        seen = features.open_features(net, labelled, recipe, compute)
        own = folder / "checkpoints" / recipe.backbone if folder else None
        fit = loop.fit(MultiLabel(net, seen, recipe, compute, weights), own, keep=keep)
        seen.close(keep=False)
        if isinstance(net, FineResNet):
            net.whole = False  # trained; from here on the trunk runs once per eye for any number of maps
        net.input_size = recipe.input_size
        found.append(Trained(recipe.backbone, net, _by_epoch(fit, recipe.backbone), fit.seconds_per_epoch))
    return found


def _by_epoch(fit: loop.Fit, network: str) -> pd.DataFrame:
    by_epoch = fit.history.groupby("epoch", as_index=False)
    rows = by_epoch.agg(loss=("loss", "mean"), val_loss=("val_loss", "last"), val_auc=("val_auc", "last"))
    rows.insert(0, "network", network)
    return rows


def file_name(network: str) -> str:
    """Under which :func:`save` writes a network."""
    return f"{network}.safetensors"


def save(trained: Sequence[Trained], folder: Path) -> None:
    """Write each network, from which :func:`load` makes it again."""
    for one in trained:
        prediction.save(one.net, folder / file_name(one.network), one.net.input_size)


def load(source: records.Record, p: Lesions, compute: Compute) -> list[Trained]:
    """The networks of another run of the notebook.

    Raises:
        drstudy.data.labels.LabelError: If they learnt other labels, or their thresholds go with another network of grades or another
            specificity.
    """
    for name in ("CODES", "MODEL", "SPECIFICITY"):
        theirs, ours = source.params[name], p.upper()[name]
        if theirs != ours:
            raise lesion_labels.LabelError(
                f"The networks and thresholds of {paths.show(source.folder)} were made with {name} {theirs}, here it is {ours}. "
                f"Set {name} to theirs, or TRAINED to another result."
            )
    history = pd.read_csv(source.path("tables/history.csv"))
    found = []
    for network, rows in history.groupby("network", sort=False):
        net = prediction.load(source.path(file_name(network))).to(compute.device)
        found.append(Trained(network, net, rows, source.metrics[f"seconds_per_epoch_{network}"]))
    return found


def eyes(p: Lesions, data: Dataset) -> pd.DataFrame:
    """Rows of the photographs that are needed: those that are looked at, and validation, unless thresholds are there already."""
    if p.subset == "all":
        return data.part("all")
    wanted = [p.subset] if p.trained else ["validation", p.subset]
    return data.table[data.table["split"].isin(wanted)].reset_index(drop=True)


def probabilities(
    one: Trained,
    data: Dataset,
    eyes: pd.DataFrame,
    codes: Sequence[str],
    compute: Compute,
    batch_size: int = 32,
) -> pd.DataFrame:
    """Probabilities that a network predicts for photographs.

    Args:
        one: The network.
        data: The photographs.
        eyes: Rows of ``data.table``.
        codes: Of the outputs.
        compute: Device and precision.
        batch_size: Photographs at a time.

    Returns:
        ``network, image_id, patient_id, split, grade``, and ``p_<CODE>``, float64, 0 to 1.
    """
    rows = eyes["row"].to_numpy()
    logits = prediction.logits(one.net, data.images, rows, one.net.input_size, compute, batch_size)
    found = torch.from_numpy(logits).double().sigmoid().numpy()
    about = eyes[["image_id", "patient_id", "split", "grade"]].reset_index(drop=True)
    about.insert(0, "network", one.network)
    return about.assign(**{f"p_{code}": found[:, j] for j, code in enumerate(codes)})


def seconds(trained: Sequence[Trained]) -> dict[str, float]:
    """``seconds_per_epoch_<network>``: medians of training as it ran, validation included."""
    return {f"seconds_per_epoch_{one.network}": one.seconds_per_epoch for one in trained}
