"""Training of one SALL-style student, by the shared loop (Ju et al. 2021; ``docs/sources.md``, C3)."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from drstudy.models import nets
from drstudy.papers.sall import losses
from drstudy.papers.sall.feed import Pooled
from drstudy.papers.sall.model import Discriminator, Student, reverse
from drstudy.papers.sall.params import SallRecipe
from drstudy.training import loop, sampling
from drstudy.training.batch import Batch
from drstudy.training.task import Task


def soft_columns(disease: str, classes: int) -> list[str]:
    """Names of the targets that hold the soft labels of a disease."""
    return [f"soft_{disease}_{label}" for label in range(classes)]


class Sall(Task):
    """A student under hard labels, soft labels, and optional terms in feature space.

    The loss of a batch is the mean over its photographs of: the cross-entropy of each shown label; ``soft_weight`` times the cross-entropy
    with each soft label (:mod:`drstudy.papers.sall.losses`); ``feature_weight`` times the distance to the teacher's features; and the
    adversarial term. The last two concern photographs of which the teacher's disease is hidden: no teacher describes a photograph that it
    learnt from.

    Args:
        feed: Pooled features with the targets ``dr``, ``amd`` and ``domain`` of :func:`drstudy.papers.sall.labels.shown`, and, where the
            recipe has soft labels, those of :func:`soft_columns`.
        p: Recipe.
        teachers: Teacher of each disease, frozen; needed for terms in feature space.

    Raises:
        ValueError: If such a term lacks a teacher.
    """

    measures: ClassVar[Mapping[str, int]] = {"loss": -1}

    def __init__(self, feed: Pooled, p: SallRecipe, teachers: Mapping[str, Student] | None = None) -> None:
        self.student = _student(feed, p, p.seed)
        self.soft = {
            name: soft_columns(name, count)
            for name, count in p.outputs().items()
            if soft_columns(name, count)[0] in feed.data.targets
        }
        modules: dict[str, nn.Module] = {"student": self.student}
        if p.mutual:
            modules["peer"] = _student(feed, p, p.seed + 500_000)
        self.matched = p.feature_weight > 0 or p.adversary == "teacher"
        if self.matched:
            if missing := [name for name in p.heads if name not in (teachers or {})]:
                raise ValueError(f"A term in feature space needs a teacher of {', '.join(missing)}.")
            modules["projections"] = _per_disease(p, lambda seed: _linear(p.width, seed))
        optimisers = {}
        if p.adversary == "domain":
            modules["domain"] = Discriminator(p.width, p.seed + 600_000)
        if p.adversary == "teacher":
            modules["rivals"] = _per_disease(p, lambda seed: Discriminator(p.width, seed))
            learning = modules["rivals"].parameters()
            optimisers["rivals"] = torch.optim.Adam(learning, lr=p.adversary_learning_rate)
        own = [q for name, module in modules.items() if name != "rivals" for q in module.parameters()]
        optimisers["student"] = torch.optim.Adam(
            own, lr=p.learning_rate, betas=p.betas, weight_decay=p.weight_decay, fused=True
        )
        needed = dict(teachers) if self.matched else {}
        super().__init__(feed, p, feed.compute, modules, optimisers, teachers=needed)
        self.strength = 0.0
        self._usable = torch.tensor(np.flatnonzero(_has_label(feed.train, p, self.soft)))

    def extra(self) -> dict[str, Any]:
        return {"features": self.feed.weights}

    def draw(self, epoch: int, generator: torch.Generator) -> Tensor:
        """``steps`` batches of the photographs that have a label, each as often as any other, whatever their number."""
        return sampling.repeated(
            lambda: self._usable[torch.randperm(len(self._usable), generator=generator)],
            self.p.steps * self.p.batch_size,
        )

    def start_epoch(self, epoch: int) -> None:
        """Set the weight of the adversarial term, constant within an epoch."""
        self.strength = self.p.adversary_weight * losses.ramp((epoch - 1) / max(1, self.p.epochs - 1))

    def step(self, batch: Batch) -> dict[str, float]:
        encoded = self.student.encode(batch.inputs)
        logits = self.student.decide(encoded)
        parts = {"hard": self.hard(logits, batch), "soft": self.softened(logits, batch)}
        if self.p.mutual:
            theirs = self.modules["peer"](batch.inputs)
            parts["peer"] = self.hard(theirs, batch) + self.taught(theirs, logits, batch)
            parts["soft"] = parts["soft"] + self.taught(logits, theirs, batch)
        if self.p.adversary == "domain":
            said = self.modules["domain"](reverse(encoded, self.strength))
            parts["adversary"] = losses.told_apart(said, batch.targets["domain"])
        pairs = self.pairs(encoded, batch) if self.matched else {}
        if self.p.feature_weight:
            each = [losses.matching(mine, theirs) for mine, theirs in pairs.values()]
            parts["feature"] = self.p.feature_weight * sum(each)
        if self.p.adversary == "teacher":
            fooled = [_fooling(self.modules["rivals"][name], mine) for name, (mine, _) in pairs.items()]
            parts["adversary"] = self.strength * sum(fooled)
        self.update("student", sum(parts.values()), len(batch))
        found = {name: value.item() for name, value in parts.items()}
        return found | ({"rivals": self.learn_rivals(pairs)} if self.p.adversary == "teacher" else {})

    def hard(self, logits: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Mean over the batch of the sum over heads of the hard labels' losses."""
        p = self.p
        each = [
            losses.hard(logits[name], batch.targets[name], p.own_temperature, p.smoothing(name))
            for name in p.heads
        ]
        return sum(each).mean()

    def softened(self, logits: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Mean over the batch of the sum over heads of the soft labels' losses; 0 where the recipe has none."""
        total = next(iter(logits.values())).sum() * 0
        for name, columns in self.soft.items():
            targets = torch.stack([batch.targets[column] for column in columns], 1)
            total = total + self._soft(logits[name], targets, batch.targets[name])
        return total

    def taught(self, logits: Mapping[str, Tensor], teaching: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """As :meth:`softened`, with the other student's present probabilities as soft labels; no gradient reaches that student."""
        probabilities = {
            name: (teaching[name].detach() / self.p.temperature).softmax(1) for name in self.p.heads
        }
        return sum(
            self._soft(logits[name], probabilities[name], batch.targets[name]) for name in self.p.heads
        )

    def _soft(self, logits: Tensor, probabilities: Tensor, labels: Tensor) -> Tensor:
        p = self.p
        wanted = labels.isnan() if p.soft_on == "unknown" else ~labels.isnan()
        each = losses.soft(logits, probabilities, p.temperature, p.squared) * wanted
        if p.weighted:
            weight = losses.confidence(probabilities) * wanted
            each = each * weight * (wanted.sum() / weight.sum().clamp(min=1e-6))
        return p.soft_weight * each.mean()

    def pairs(self, encoded: Tensor, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        """Projected features of the student and those of the teacher, by disease, for photographs that hide the teacher's disease."""
        found = {}
        for name in self.p.heads:
            hidden = batch.targets[name].isnan()
            with torch.no_grad():
                theirs = self.teachers[name].encode(batch.inputs[hidden])
                theirs = theirs / (theirs**2).mean().sqrt().clamp(min=1e-6)
            found[name] = self.modules["projections"][name](encoded[hidden]), theirs
        return found

    def learn_rivals(self, pairs: Mapping[str, tuple[Tensor, Tensor]]) -> float:
        """One step of the discriminators of teacher (1) and student (0); their mean loss."""
        each = []
        for name, (mine, theirs) in pairs.items():
            features = torch.cat([mine.detach(), theirs])
            kinds = torch.cat([torch.zeros(len(mine)), torch.ones(len(theirs))]).to(features)
            each.append(losses.told_apart(self.modules["rivals"][name](features), kinds))
        return self.update("rivals", sum(each) / len(each), sum(len(theirs) for _, theirs in pairs.values()))

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Mean over the heads of the mean negative log likelihood of the shown validation labels, nats."""
        self.student.eval()
        logits = self.student(next(self.feed.unaugmented(self.feed.place("validation"))))
        labels = self.feed.targets("validation")
        found = []
        for name in self.p.heads:
            known = torch.from_numpy(labels[name])
            each = losses.hard(logits[name], known, self.p.own_temperature)
            found.append(float(each.sum() / (~known.isnan()).sum()))
        return {"loss": float(np.mean(found))}


def _fooling(rival: Discriminator, mine: Tensor) -> Tensor:
    """Non-saturating loss of the student: its features should be taken for the teacher's; 0 without photographs."""
    return (
        losses.told_apart(rival(mine), torch.ones(len(mine), device=mine.device)) if len(mine) else mine.sum()
    )


def _student(feed: Pooled, p: SallRecipe, seed: int) -> Student:
    student = Student(feed.width, p.width, p.outputs(), p.dropout, seed)
    student.weights_used = feed.net.weights_used
    return student


def _linear(width: int, seed: int) -> nn.Linear:
    with nets.seeded(seed):
        return nn.Linear(width, width)


def _per_disease(p: SallRecipe, make) -> nn.ModuleDict:
    return nn.ModuleDict({name: make(p.seed + 700_000 + sum(name.encode())) for name in p.heads})


def _has_label(train: pd.DataFrame, p: SallRecipe, soft: Mapping[str, list[str]]) -> np.ndarray:
    """(N,) bool: photographs with a shown or a soft label of a head.

    Raises:
        ValueError: If there is none.
    """
    names = [*p.heads, *(columns[0] for columns in soft.values())]
    found = train[names].notna().any(axis=1).to_numpy()
    if not found.any():
        raise ValueError(
            f"No training photograph has a label of {', '.join(p.heads)}. Use larger FRACTIONS or more photographs."
        )
    return found


def fit(
    feed: Pooled,
    targets: pd.DataFrame,
    p: SallRecipe,
    teachers: Mapping[str, Student] | None = None,
    keep: bool = False,
) -> tuple[Student, loop.Fit]:
    """Train one student; what the loop prints is dropped, since a run has hundreds of trainings.

    Args:
        feed: Pooled features.
        targets: As of :class:`Sall`, with ``image_id``.
        p, teachers: As of :class:`Sall`.
        keep: Whether to look in the trained-model store, and to keep the training there. A killed notebook then goes on after its
            last finished training.

    Returns:
        The student of the best epoch, in evaluation mode; history and costs.
    """
    task = Sall(feed.labelled(targets, p), p, teachers)
    with contextlib.redirect_stdout(io.StringIO()):
        done = loop.fit(task, keep=keep)
    return task.student, done
