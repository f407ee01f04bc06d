"""Training of the fundus form (``docs/sources.md``, D6): heads on cached features of a frozen backbone, in four groups.

================ ===================================================================================================
``saliency``     from labels of photographs: the scales of the global map, and two rivals (mean pooling at stride 32, and evidence of
                 a small receptive field with a sparsity term, in the manner of Sparse BagNet)
``local``        GLAM's second step: the label is predicted from the highest evidence inside the patches that the frozen global map proposes
``refined``      a choice of this study: each cell learns its value in the frozen global map, corrected by the photograph's label
``masks``        the upper bound: a decoder on the same features that learns from the lesion masks of the training eyes
================ ===================================================================================================

Only ``masks`` ever reads a mask.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from drstudy.core.devices import Compute
from drstudy.models.weights import digest_of
from drstudy.papers.glam import evidence, patches
from drstudy.papers.glam.pyramid import PyramidNet
from drstudy.papers.glam.recipe import FundusRecipe
from drstudy.training import multilabel
from drstudy.training.batch import Batch
from drstudy.training.features import Features
from drstudy.training.task import Task

SALIENCY = ("fine", "middle", "all")
"""Heads of the global map, from the finest strides to all."""

RIVALS = ("coarse", "bag")
"""Heads that learn beside them, for comparison."""

LARGEST_SEED = 0.03
"""Largest share of the lit positions that the global map may hand on as a lesion."""

BELOW_PEAK = 1.0
"""A cell is handed on as a lesion from this much below the map's maximum (logit), and from evidence 0 on."""

GAP = 2.0
"""Between what is handed on as a lesion and as none lies a gap of this much evidence, of which nothing is learnt."""

RARE = 0.02
"""Weight of a cell without lesion in the norm of the loss by cells; a cell with one counts 1."""

LESION_WEIGHT, LABEL_WEIGHT, LABEL_SHARE = 3.0, 0.3, 0.003
"""Weight of cells with lesion; weight of the photograph's label beside the cells, and the share of positions that it asks."""


class HeadsTask(Task):
    """What the groups share. Subclasses give :meth:`losses`.

    Args:
        net: The network with all heads.
        feed: Features of its trunk, with a target ``lesion_<CODE>`` for each label.
        p: Recipe of the group.
        compute: Device and precision.
        rules: How the heads of the global map, which are then frozen teachers, make one map; ``None`` asks no teacher.
    """

    measures: ClassVar[Mapping[str, int]] = {"loss": -1, "auc": 1}
    titles: ClassVar[Mapping[str, str]] = {"auc": "mean AUC"}

    def __init__(
        self,
        net: PyramidNet,
        feed: Features,
        p: FundusRecipe,
        compute: Compute,
        rules: evidence.Rules | None = None,
    ) -> None:
        self.net, self.rules = net, rules
        modules = {name: net.net.heads[name] for name in p.heads}
        learning = [q for module in modules.values() for q in module.parameters()]
        adam = torch.optim.AdamW(
            learning, lr=p.learning_rate, betas=p.betas, weight_decay=p.weight_decay, fused=True
        )
        frozen = {name: net.net.heads[name] for name in SALIENCY} if rules else {}
        super().__init__(feed, p, compute, modules, {"adam": adam}, teachers=frozen)
        known = known_labels(feed, p.codes, "train")
        self.weights = torch.from_numpy(multilabel.positive_weights(known, p.heaviest)).float()
        self.side = p.input_size // min(p.strides)

    def losses(
        self, logits: dict[str, Tensor], features: dict[int, Tensor], lit: Tensor, batch: Batch
    ) -> dict[str, Tensor]:
        """Scalars by name; their sum is differentiated.

        Args:
            logits: Of the heads that learn, (B, L, h, w) each.
            features: By stride, for teachers.
            lit: (B, 1, side, side) bool, the field of view.
            batch: The batch.
        """
        raise NotImplementedError

    def start_epoch(self, epoch: int) -> None:
        """A cosine from the learning rate to 0."""
        rate = self.p.learning_rate * 0.5 * (1 + math.cos(math.pi * (epoch - 1) / self.p.epochs))
        for group in self.optimisers["adam"].param_groups:
            group["lr"] = rate

    def step(self, batch: Batch) -> dict[str, float]:
        with torch.no_grad():
            features, lit = self.net.unpack(batch.inputs)
        with self.compute.autocast():
            logits = {name: head(features).float() for name, head in self.modules.items()}
        found = self.losses(logits, features, lit, batch)
        parts = {f"loss_{name}": value.item() for name, value in found.items()} if len(found) > 1 else {}
        return {"loss": self.update("adam", torch.stack(list(found.values())).sum(), len(batch)), **parts}

    def validate(self) -> dict[str, float]:
        """Cross-entropy and AUC of the labels of photographs, mean over the heads."""
        for module in self.modules.values():
            module.eval()
        labels = torch.from_numpy(known_labels(self.feed, self.p.codes, "validation")).float()
        scores = validation_scores(self.net, self.feed, self.p, tuple(self.modules))
        losses = [multilabel.cross_entropy(s, labels, self.weights).item() for s in scores.values()]
        areas = [multilabel.mean_auc(labels.numpy(), s.numpy()) for s in scores.values()]
        return {"loss": float(np.mean(losses)), "auc": float(np.mean(areas))}

    def labels(self, targets: Mapping[str, Tensor]) -> Tensor:
        """(B, L) float32 in the order of the codes."""
        return torch.stack([targets[multilabel.target(code)].float() for code in self.p.codes], 1)

    @torch.no_grad()
    def global_map(self, features: dict[int, Tensor]) -> Tensor:
        """The frozen teachers' combined, exclusive map (B, L, side, side): logits."""
        logits = [self.teachers[name](features).float() for name in SALIENCY]
        whole = evidence.combined(logits, self.rules.weights, self.side)
        return evidence.exclusive(whole, self.rules.implied)

    def extra(self) -> dict[str, Any]:
        frozen = {
            name: tensor
            for name, tensor in self.net.state_dict().items()
            if not name.startswith("net.heads.")
        }
        return {"frozen": digest_of(frozen), "rules": dataclasses.asdict(self.rules) if self.rules else None}


class SaliencyTask(HeadsTask):
    """Labels of photographs, predicted from the mean of each head's highest evidence (GLAM's top-t pooling, of logits)."""

    def losses(self, logits, features, lit, batch) -> dict[str, Tensor]:
        labels, weights, found = self.labels(batch.targets), self.weights.to(lit.device), {}
        for name, z in logits.items():
            spec = self.p.specs[name]
            found[name] = multilabel.cross_entropy(score(z, lit, spec.share), labels, weights)
            if spec.sparsity:
                inner = evidence.inside(lit, z.shape[-1])
                size = z.abs().masked_fill(~inner, 0).sum((2, 3)) / inner.sum((2, 3)).clamp(min=1)
                found[name] = found[name] + spec.sparsity * size.mean()
        return found


class LocalTask(HeadsTask):
    """Labels of photographs, predicted from the highest evidence inside the patches that the frozen global map proposes."""

    def losses(self, logits, features, lit, batch) -> dict[str, Tensor]:
        labels, (z,) = self.labels(batch.targets), logits.values()
        within = proposed(self.global_map(features), lit, self.p.patches, self.p.patch_share)
        asked = score(z, within & lit, self.p.local_share)
        return {"local": multilabel.cross_entropy(asked, labels, self.weights.to(z.device))}


class RefinedTask(HeadsTask):
    """Each cell learns its value in the frozen global map, corrected by the label of its photograph."""

    def losses(self, logits, features, lit, batch) -> dict[str, Tensor]:
        labels, (z,) = self.labels(batch.targets), logits.values()
        targets = seeds(self.global_map(features), labels, lit)
        asked = score(z, lit, LABEL_SHARE)
        by_label = multilabel.cross_entropy(asked, labels, torch.ones(z.shape[1], device=z.device))
        return {"cells": by_cells(z, targets, lit), "label": LABEL_WEIGHT * by_label}


class MaskTask(HeadsTask):
    """Each cell learns from the masks: the upper bound.

    Args:
        net, feed, p, compute: As of :class:`HeadsTask`.
        masks: (training row, view) to (L, side, side) float32: 1, 0, NaN where not annotated.
    """

    def __init__(
        self,
        net: PyramidNet,
        feed: Features,
        p: FundusRecipe,
        compute: Compute,
        masks: Mapping[tuple[int, int], np.ndarray],
    ) -> None:
        super().__init__(net, feed, p, compute)
        self.masks = masks

    def losses(self, logits, features, lit, batch) -> dict[str, Tensor]:
        (z,) = logits.values()
        keys = zip(batch.rows.tolist(), batch.views.tolist())
        truth = torch.from_numpy(np.stack([self.masks[key] for key in keys])).to(z.device).float()
        return {"cells": by_cells(z, truth, lit)}

    def extra(self) -> dict[str, Any]:
        whole = {str(key): torch.from_numpy(np.nan_to_num(m, nan=2)) for key, m in self.masks.items()}
        return super().extra() | {"masks": digest_of(whole)}


@torch.no_grad()
def validation_scores(
    net: PyramidNet, feed: Features, p: FundusRecipe, heads: Sequence[str]
) -> dict[str, Tensor]:
    """Scores (N, L) of the validation photographs by head, on the CPU."""
    positions = np.flatnonzero(feed.clean["split"].to_numpy() == "validation")
    parts: dict[str, list[Tensor]] = {name: [] for name in heads}
    for inputs in feed.unaugmented(positions):
        features, lit = net.unpack(inputs)
        for name in heads:
            z = net.net.heads[name](features).float()
            parts[name].append(score(z, lit, p.specs[name].share).cpu())
    return {name: torch.cat(part) for name, part in parts.items()}


def rules(net: PyramidNet, feed: Features, p: FundusRecipe) -> evidence.Rules:
    """How the trained scales make one map: from labels of training and validation photographs alone.

    Args:
        net: The network, whose heads :data:`SALIENCY` have learnt.
        feed: Features of its trunk.
        p: Recipe of the group ``saliency``.
    """
    known = known_labels(feed, p.codes, "train")
    implied = evidence.implied_by(known) if p.exclusive else tuple(() for _ in p.codes)
    labels = known_labels(feed, p.codes, "validation")
    scores = validation_scores(net, feed, p, SALIENCY)
    areas = [
        [multilabel.mean_auc(labels[:, [k]], scores[name][:, [k]].numpy()) for k in range(len(p.codes))]
        for name in SALIENCY
    ]
    return evidence.Rules(implied, evidence.scale_weights(np.array(areas), p.codes))


def known_labels(feed: Features, codes: Sequence[str], split: str) -> np.ndarray:
    """Labels (N, L) float32 of a split, NaN where unknown."""
    return np.stack([feed.targets(split)[multilabel.target(code)] for code in codes], 1)


def score(logits: Tensor, lit: Tensor, share: float) -> Tensor:
    """Mean of the highest evidence inside the field of view, (B, L) logits; see :func:`drstudy.papers.glam.patches.top_mean`. A
    photograph without any lit position has the least evidence there is."""
    found = patches.top_mean(logits, share, evidence.inside(lit, logits.shape[-1]))
    return found.masked_fill(found.isnan(), float(logits.detach().min()))


def proposed(saliency: Tensor, lit: Tensor, count: int, share: float) -> Tensor:
    """Cells of the patches that a map proposes, (B, 1, side, side) bool.

    Args:
        saliency: (B, L, side, side) logits.
        lit: (B, 1, side, side) bool; nothing is proposed for cells outside.
        count: Number K of patches.
        share: Their side, as a share of the picture's.
    """
    side = saliency.shape[-1]
    window = max(1, round(share * side))
    corners = patches.propose(saliency.sigmoid() * lit, count, window, flat="none")
    return patches.covered(corners, (window, window), (side, side))


@torch.no_grad()
def seeds(saliency: Tensor, labels: Tensor, lit: Tensor) -> Tensor:
    """What a global map teaches each cell.

    In a photograph without the lesion every cell has none. In one with it, cells of high evidence have it, cells of low evidence
    have it not, and of those between nothing is known. The highest evidence always counts, however low, since the label says that the
    lesion is there; at most :data:`LARGEST_SEED` of the photograph's field does. A photograph without any field teaches no lesion.

    Args:
        saliency: (B, L, h, w) logits.
        labels: (B, L) 1, 0, NaN where unknown.
        lit: (B, 1, h, w) bool.

    Returns:
        (B, L, h, w) float32: 1, 0, NaN where unknown.
    """
    inside = saliency.masked_fill(~lit, -torch.inf)
    most = (
        (LARGEST_SEED * lit.sum((1, 2, 3))).round().long().clamp(min=1)
    )  # of each photograph, whatever stands beside it
    highest = inside.flatten(2).topk(int(most.max()), 2).values
    peak = highest[..., 0]
    border = highest.take_along_dim((most - 1).view(-1, 1, 1), 2)[..., 0]
    high = torch.maximum((peak - BELOW_PEAK).clamp(max=0), border)[..., None, None]
    low = (high - GAP).clamp(max=-GAP)
    unknown = torch.full_like(saliency, torch.nan)
    found = torch.where((inside >= high) & lit, 1.0, torch.where(inside < low, 0.0, unknown))
    found = torch.where(labels[..., None, None] == 0, 0.0, found)
    return torch.where(labels[..., None, None].isnan(), unknown, found)


def by_cells(logits: Tensor, targets: Tensor, lit: Tensor) -> Tensor:
    """Cross-entropy by cells, each label's sum over the number of its lesion cells (and :data:`RARE` of the others), mean over labels.

    Args:
        logits: (B, L, h, w).
        targets: The same shape: 0 to 1, NaN where unknown.
        lit: (B, 1, h, w) bool.
    """
    known = ~targets.isnan() & lit
    truth = targets.nan_to_num()
    each = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    total = (each * known * (1 + (LESION_WEIGHT - 1) * truth)).sum((0, 2, 3))
    return (total / (known * (truth + RARE)).sum((0, 2, 3)).clamp(min=50)).mean()
