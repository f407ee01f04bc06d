"""Training of GLAM from labels of whole photographs (Liu et al. 2021; ``docs/sources.md``, D3), in three stages.

The global network learns first. The local network then learns on the patches that the frozen global network proposes; the two are
``model_sep`` of the release. Both together learn on, which gives ``model_joint``. The order is *inferred* in the sources; the losses are
those of :mod:`drstudy.papers.glam.losses`.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from drstudy.core.devices import Compute
from drstudy.data.dataset import Dataset
from drstudy.papers.glam import losses, released
from drstudy.papers.glam.recipe import GlamRecipe
from drstudy.papers.glam.released import Coarse, Fine, Glam, ReleasedNet, Settings
from drstudy.training import features, loop, multilabel
from drstudy.training.batch import Batch
from drstudy.training.task import Task


class MapMeasure(Protocol):
    """A further validation metric, of maps against masks. The paper chose its models by segmentation (``docs/sources.md``, D1).

    Attributes:
        name: Name of the metric, by which ``select_by`` can name it.
        direction: 1 if higher is better, -1 if lower is better.
    """

    name: str
    direction: int

    def start(self) -> None:
        """Forget all maps: a validation begins."""

    def add(self, maps: Tensor, positions: np.ndarray) -> None:
        """Take maps (B, C, H, W) float32 of the validation photographs at these positions (B,) of ``feed.clean``."""

    def value(self) -> float:
        """The metric over all maps since :meth:`start`."""

    def facts(self) -> dict[str, Any]:
        """JSON-ready facts that decide the metric, such as a digest of the masks. They become part of the training's identity."""


class Photographs(features.Live):
    """Feeds whole photographs, augmented for training, in batches of the recipe; there is no frozen trunk."""

    @property
    def trunk_batch(self) -> int:
        return self.p.batch_size

    def trunk(self, images: Tensor) -> Tensor:
        return images


@dataclass(frozen=True)
class Run:
    """What the networks of a task gave for one batch; ``None`` for a part that the task does not need."""

    coarse: Coarse
    fine: Fine | None = None


class StageTask(Task):
    """What the three stages share. Subclasses give :meth:`run`, :meth:`outputs` and :meth:`losses`.

    Args:
        glam: The system, changed in place.
        feed: Photographs, with a target for each of the recipe's labels.
        p: Recipe of the stage, from :meth:`drstudy.papers.glam.recipe.GlamRecipe.stage`.
        compute: Device and precision.
        by_masks: A further measure of the validation maps; it may choose the epoch.

    Attributes:
        learns: Names of the parts that learn, ``global``, ``local`` or both.
        ranked: Entry of :meth:`outputs` whose AUC is measured.

    Raises:
        ValueError: If a label is no target, has values other than 0, 1 and unknown, or is never known in training or validation.
    """

    measures: ClassVar[Mapping[str, int]] = {"loss": -1, "auc": 1}
    titles: ClassVar[Mapping[str, str]] = {"auc": "mean AUC"}
    learns: ClassVar[tuple[str, ...]]
    ranked: ClassVar[str]

    def __init__(
        self,
        glam: Glam,
        feed: features.Features,
        p: GlamRecipe,
        compute: Compute,
        by_masks: MapMeasure | None = None,
    ) -> None:
        check_labels(feed, p.labels)
        self.glam, self.by_masks = glam, by_masks
        if by_masks is not None:
            self.measures = {**self.measures, by_masks.name: by_masks.direction}
        parts: dict[str, nn.Module] = {"global": glam.global_net, "local": glam.local_net}
        modules = {name: parts[name] for name in self.learns}
        learning = [q.requires_grad_(True) for module in modules.values() for q in module.parameters()]
        adam = torch.optim.Adam(
            learning, lr=p.learning_rate, betas=p.betas, weight_decay=p.weight_decay, fused=True
        )
        teachers = {"global": glam.global_net} if self.learns == ("local",) else None
        super().__init__(feed, p, compute, modules, {"adam": adam}, teachers=teachers)

    # --- what a stage says -----------------------------------------------------------------------------

    def run(self, x: Tensor) -> Run:
        """The networks on prepared photographs (B, channels, S, S), under the precision of the task."""
        raise NotImplementedError

    def outputs(self, run: Run) -> dict[str, Tensor]:
        """Tensors by name whose first dimension is the photograph: all that :meth:`losses` needs, and :attr:`ranked`."""
        raise NotImplementedError

    def losses(self, outputs: Mapping[str, Tensor], labels: Tensor) -> dict[str, Tensor]:
        """Losses by name, scalars; ``loss`` is the one to differentiate."""
        raise NotImplementedError

    def maps(self, run: Run) -> Tensor:
        """The maps (B, C, S, S) that a measure by masks looks at: the final map."""
        return self.glam.fuse(run.coarse, run.fine, self._image).whole

    # --- the contract ------------------------------------------------------------------------------------

    def step(self, batch: Batch) -> dict[str, float]:
        labels = self.labels(batch.targets)
        with self.compute.autocast():
            run = self.run(self.glam.prepare(batch.inputs))
        found = self.losses(self.outputs(run), labels)
        parts = {name: value.item() for name, value in found.items() if name != "loss"}
        known = float((~labels.isnan()).sum())
        return {"loss": self.update("adam", found["loss"], known), **parts}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        for module in self.modules.values():
            module.eval()
        positions = np.flatnonzero(self.feed.clean["split"].to_numpy() == "validation")
        if self.by_masks is not None:
            self.by_masks.start()
        parts = []
        for some, run in self._runs(positions):
            parts.append({name: value.cpu() for name, value in self.outputs(run).items()})
            if self.by_masks is not None:
                self.by_masks.add(self.maps(run).float().cpu(), some)
        whole = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        targets = {name: torch.from_numpy(v) for name, v in self.feed.targets("validation").items()}
        labels = self.labels(targets)
        measured = {"loss": self.losses(whole, labels)["loss"].item()}
        measured["auc"] = multilabel.mean_auc(labels.numpy(), whole[self.ranked].nan_to_num(0.0).numpy())
        if self.by_masks is not None:
            measured[self.by_masks.name] = float(self.by_masks.value())
        return measured

    def _runs(self, positions: np.ndarray) -> Iterator[tuple[np.ndarray, Run]]:
        """Positions of a batch of validation photographs, and what the networks give for it."""
        start = 0
        for inputs in self.feed.unaugmented(positions):
            with self.compute.autocast():
                yield positions[start : start + len(inputs)], self.run(self.glam.prepare(inputs))
            start += len(inputs)

    def labels(self, targets: Mapping[str, Tensor]) -> Tensor:
        """(B, C) float32 in the order of the recipe's labels."""
        return torch.stack([targets[name].float() for name in self.p.labels], 1)

    def extra(self) -> dict[str, Any]:
        if self.by_masks is None:
            return {}
        return {
            "by_masks": self.by_masks.facts(),
            "settings": dataclasses.asdict(self.glam.settings),
        }

    @property
    def _image(self) -> tuple[int, int]:
        return (self.p.input_size, self.p.input_size)


class GlobalTask(StageTask):
    """The global network alone. Its AUC is that of the release's prediction."""

    learns = ("global",)
    ranked = "score"

    def run(self, x: Tensor) -> Run:
        return Run(self.glam.coarse(x))

    def outputs(self, run: Run) -> dict[str, Tensor]:
        return coarse_outputs(run.coarse, self.p)

    def losses(self, outputs: Mapping[str, Tensor], labels: Tensor) -> dict[str, Tensor]:
        return coarse_losses(outputs, labels, self.p)

    def maps(self, run: Run) -> Tensor:
        """The global map."""
        return self.glam.enlarged(run.coarse, self._image)


class LocalTask(StageTask):
    """The local network on the patches of the frozen global network, which is a teacher. Its AUC is that of the local score.

    An image without a proposed patch has no local score: it does not count in the loss, and is ranked last.
    """

    learns = ("local",)
    ranked = "local"

    def run(self, x: Tensor) -> Run:
        with torch.no_grad():
            coarse = self.glam.coarse(x)
        return Run(coarse, self.glam.fine(x, coarse.saliency))

    def outputs(self, run: Run) -> dict[str, Tensor]:
        return fine_outputs(run.fine, self.p)

    def losses(self, outputs: Mapping[str, Tensor], labels: Tensor) -> dict[str, Tensor]:
        return fine_losses(outputs, labels, self.p)


class JointTask(StageTask):
    """Both networks, the sum of both losses. The choice of patches has no gradient; the AUC is that of the release's prediction."""

    learns = ("global", "local")
    ranked = "score"

    def run(self, x: Tensor) -> Run:
        coarse = self.glam.coarse(x)
        return Run(coarse, self.glam.fine(x, coarse.saliency))

    def outputs(self, run: Run) -> dict[str, Tensor]:
        return coarse_outputs(run.coarse, self.p) | fine_outputs(run.fine, self.p)

    def losses(self, outputs: Mapping[str, Tensor], labels: Tensor) -> dict[str, Tensor]:
        coarse, fine = coarse_losses(outputs, labels, self.p), fine_losses(outputs, labels, self.p)
        return {**coarse, **fine, "loss": coarse["loss"] + fine["loss"]}


def coarse_outputs(coarse: Coarse, p: GlamRecipe) -> dict[str, Tensor]:
    """What the loss of the global network needs, by name, and its prediction ``score``."""
    sparse = losses.sparsity(coarse.saliency, p.l1)
    return {"scales": coarse.scales, "averaged": coarse.averaged, "sparse": sparse, "score": coarse.score}


def coarse_losses(outputs: Mapping[str, Tensor], labels: Tensor, p: GlamRecipe) -> dict[str, Tensor]:
    """:func:`drstudy.papers.glam.losses.of_global` of :func:`coarse_outputs`."""
    return losses.of_global(outputs["scales"], outputs["averaged"], outputs["sparse"], labels, p.beta)


def fine_outputs(fine: Fine, p: GlamRecipe) -> dict[str, Tensor]:
    """What the loss of the local network needs, by name."""
    return {"local": fine.score, "sparse_local": losses.sparsity(fine.joined, p.l1, fine.valid)}


def fine_losses(outputs: Mapping[str, Tensor], labels: Tensor, p: GlamRecipe) -> dict[str, Tensor]:
    """:func:`drstudy.papers.glam.losses.of_local` of :func:`fine_outputs`."""
    return losses.of_local(outputs["local"], outputs["sparse_local"], labels, p.beta_local)


def check_labels(feed: features.Features, names: tuple[str, ...]) -> None:
    """Refuse labels that cannot be learnt.

    Raises:
        ValueError: If a label is no target, has values other than 0, 1 and NaN, or is never known in training or validation; with which.
    """
    for name in names:
        if name not in feed.data.targets:
            raise ValueError(
                f"The label {name!r} is not among the targets {', '.join(feed.data.targets)}. Add it by Dataset.with_targets."
            )
        for split in ("train", "validation"):
            values = feed.targets(split)[name]
            known = values[~np.isnan(values)]
            if wrong := sorted(set(known.tolist()) - {0.0, 1.0}):
                raise ValueError(
                    f"The label {name!r} has the value {wrong[0]} in {split}; it must be 0, 1 or unknown (NaN)."
                )
            if not len(known):
                raise ValueError(
                    f"The label {name!r} is unknown for every image of {split}. Leave it out of LABELS, or give annotated images."
                )


# --- all three ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Systems:
    """The trained systems.

    Attributes:
        sep: ``model_sep``: the global network, and the local network trained on its patches.
        joint: ``model_joint``: both, trained together afterwards.
        fits: Outcome of each stage, ``global``, ``local`` and ``joint``.
    """

    sep: ReleasedNet
    joint: ReleasedNet
    fits: dict[str, loop.Fit]


def settings_of(p: GlamRecipe) -> Settings:
    """How maps become scores, patches and a final map, by a recipe."""
    return Settings(
        crop=p.crop,
        share=p.share,
        patches=p.patches,
        local_share=p.local_share,
        upsampling=p.upsampling,
        overlap=p.overlap,
        misplace=p.border == "misplaced",
        fusion=p.fusion,
        flat=p.flat,
        least=p.least_contrast,
        fill=p.fill,
        grey=p.grey,
    )


def build(p: GlamRecipe, compute: Compute) -> ReleasedNet:
    """The system of a recipe with random weights, on the device."""
    net = released.build(
        len(p.labels), settings_of(p), p.channels, p.width, p.local_blocks, p.closing, p.seed
    )
    return net.to(compute.device, memory_format=torch.channels_last)


def train(
    p: GlamRecipe,
    data: Dataset,
    compute: Compute,
    folder: Path | None = None,
    keep: bool = True,
    by_masks: MapMeasure | None = None,
) -> Systems:
    """Train global, local and joint in turn; a killed run goes on from its last finished epoch.

    Args:
        p: The recipe.
        data: Photographs and split, with a target for each label.
        compute: Device and precision.
        folder: Folder under which ``checkpoints/<stage>`` is written; ``None`` keeps none.
        keep: See :func:`drstudy.training.loop.fit`.
        by_masks: A further measure of the validation maps, which ``select_by`` may name. In the first stage it sees the global map,
            later the final map.

    Raises:
        ValueError: If a label cannot be learnt (:func:`check_labels`), or a crop does not fit.
    """
    fits: dict[str, loop.Fit] = {}

    def fit(stage: str, task: type[StageTask], net: ReleasedNet) -> None:
        recipe = p.stage(stage)
        print(f"GLAM, stage {stage}, at {recipe.input_size} px", flush=True)
        feed = Photographs(net, data, recipe, compute)
        own = folder / "checkpoints" / stage if folder else None
        fits[stage] = loop.fit(task(net.net, feed, recipe, compute, by_masks), own, keep=keep)

    sep = build(p, compute)
    fit("global", GlobalTask, sep)
    fit("local", LocalTask, sep)
    joint = copy.deepcopy(sep)
    fit("joint", JointTask, joint)
    for net in (sep, joint):
        net.input_size = p.input_size
        net.requires_grad_(False).eval()
    return Systems(sep, joint, fits)
