"""Maps of lesions: those of the fundus form and of its rivals, in batches, and those of other notebooks' networks on the same eyes.

All maps of the heads are probabilities (L, h, w), one for each label. A grading network has one map for all labels.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from drstudy.core.records import RecordError
from drstudy.explain.measures import baselines
from drstudy.explain.methods import cam, finer
from drstudy.models.folding import folded
from drstudy.papers.glam import evidence, fundus_training
from drstudy.training import prediction, transforms

if TYPE_CHECKING:
    from collections.abc import Callable

    from drstudy.core.devices import Compute
    from drstudy.core.records import Record
    from drstudy.data.dataset import Dataset
    from drstudy.explain.measures.localisation import Masks
    from drstudy.models.nets import GradingNet
    from drstudy.papers.glam.params import Glam
    from drstudy.papers.glam.pyramid import PyramidNet
    from drstudy.papers.glam.training import Trained

GLOBAL = "global"
LOCAL = "global + local"
REFINED = "refined"
FUNDUS = "refined + global"
"""The map that this study proposes, chosen before the demo run: mean evidence of the refined map and the global one."""

MEAN = "all scales, mean"
COARSE = "mean pooling, stride 32"
BAG = "small receptive field"
SUPERVISED = "U-Net (masks)"
SCALES = {"fine": "strides 4, 8", "middle": "strides 8, 16", "all": "strides 4 to 32"}

GRADE = "Grad-CAM, predicted grade"
DISEASE = "Grad-CAM, disease"
FINER = "Grad-CAM, fused layers"
RAM = "RAM"
RELEASED = ("released sep", "released joint", "corrected sep", "corrected joint")

BATCH = 4
"""Photographs whose maps are in memory at a time."""

OUTSIDE = -30.0
"""Evidence outside the field of view: a probability of 1e-13, the same in every batch."""

PROBABILITY, HEAT = "probability", "heat"


def kinds(names: Sequence[str]) -> dict[str, str]:
    """What the values of each map are; see :func:`drstudy.explain.measures.fine.measure`."""
    heat = {GRADE, DISEASE, FINER, RAM}
    blind = {name for name in names if name in heat or baselines.is_label(name)}
    return {name: HEAT if name in blind else PROBABILITY for name in names}


def made_by(trained: Trained) -> dict[str, tuple[str, ...]]:
    """Names of the maps that the heads of these networks give, and the heads that each needs."""
    scales = fundus_training.SALIENCY
    needs = {SCALES[name]: (name,) for name in scales}
    needs |= {MEAN: scales, GLOBAL: scales, LOCAL: (*scales, "local"), REFINED: ("refined",)}
    needs |= {FUNDUS: (*scales, "refined"), COARSE: ("coarse",), BAG: ("bag",), SUPERVISED: ("masks",)}
    there = set(trained.net.net.heads)
    return {name: heads for name, heads in needs.items() if there.issuperset(heads)}


def of_heads(trained: Trained, p: Glam, h: Tensor, only: Sequence[str] = ()) -> dict[str, Tensor]:
    """Maps that the heads give for the trunk's output of a batch.

    Args:
        trained: The networks.
        p: Parameters.
        h: Packed features.
        only: Names of the maps, of :func:`made_by`; empty is all. Heads that none of them needs do not run.

    Returns:
        Name of a map to logits (B, L, side, side), side = ``input_size / 4``; outside the field of view :data:`OUTSIDE`.
    """
    return of_features(trained, p, *trained.net.unpack(h.float()), only)


def of_features(
    trained: Trained, p: Glam, features: Mapping[int, Tensor], lit: Tensor, only: Sequence[str] = ()
) -> dict[str, Tensor]:
    """:func:`of_heads` of features and field of view, as :meth:`drstudy.papers.glam.pyramid.PyramidNet.unpack` gives them."""
    net, known = trained.net, made_by(trained)
    wanted = {name: heads for name, heads in known.items() if not only or name in only}
    asked = {head for heads in wanted.values() for head in heads}
    raw = {name: head(features).float() for name, head in net.net.heads.items() if name in asked}
    found = {name: _one_map(name, raw, lit, trained.rules, p) for name in wanted}
    return {name: z.masked_fill(~lit, OUTSIDE) for name, z in found.items()}


def _one_map(name: str, raw: Mapping[str, Tensor], lit: Tensor, rules: evidence.Rules, p: Glam) -> Tensor:
    """One of :func:`made_by`, from the logits of the heads that it needs."""
    implied = rules.implied
    side, scales = lit.shape[-1], {head: raw[head] for head in fundus_training.SALIENCY if head in raw}
    if name in (COARSE, BAG, SUPERVISED):
        return evidence.to_side(raw[{COARSE: "coarse", BAG: "bag", SUPERVISED: "masks"}[name]], side)
    if name == REFINED:
        return evidence.exclusive(raw["refined"], implied)
    if name == MEAN:
        grown = [evidence.to_side(z, side) for z in scales.values()]
        return evidence.exclusive(torch.stack(grown).mean(0), implied)
    if name not in (GLOBAL, LOCAL, FUNDUS):
        head = next(head for head, called in SCALES.items() if called == name)
        return evidence.exclusive(evidence.to_side(raw[head], side), implied)
    whole = evidence.combined(list(scales.values()), rules.weights, side)
    if name == FUNDUS:
        return evidence.exclusive((raw["refined"] + whole) / 2, implied)
    whole = evidence.exclusive(whole, implied)
    if name == GLOBAL:
        return whole
    within = fundus_training.proposed(whole, lit, p.patches, p.patch_share)
    return torch.where(within, (whole + raw["local"]) / 2, whole)


@dataclass
class Reader:
    """The maps of one eye at a time, computed in batches of neighbouring eyes; only one batch is in memory.

    Attributes:
        trained, p, data, compute: Networks, parameters, photographs, device.
        eyes: ``image_id`` and ``row`` of the eyes, in the order in which they are asked for.
        beside: Further maps by name, (N, h, w) in the order of ``eyes``.
        blind: Gives the blind baselines of an eye, from its number, name and masks; ``None`` leaves them out.
        masks_of: Reader of masks, for ``blind``.
        only: Names of maps of the heads (:func:`made_by`), which are then the only ones beside ``beside`` and ``blind``; empty is all.

    Raises:
        ValueError: If ``only`` names a map that these networks do not have.
    """

    trained: Trained
    p: Glam
    data: Dataset
    compute: Compute
    eyes: pd.DataFrame
    beside: Mapping[str, np.ndarray] | None = None
    blind: Callable[[int, str, Masks], dict[str, np.ndarray]] | None = None
    masks_of: Callable[[str], Masks] | None = None
    only: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self._place = {name: k for k, name in enumerate(self.eyes["image_id"])}
        self._rows = self.eyes["row"].to_numpy()
        self._batch, self._maps = -1, {}
        self._last: tuple[str, dict[str, np.ndarray]] = ("", {})
        known = made_by(self.trained)
        if missing := [name for name in self.only if name not in known]:
            raise ValueError(f"The heads give no map {missing[0]!r}; they give {', '.join(known)}.")

    def __call__(self, image_id: str) -> dict[str, np.ndarray]:
        """Maps of one eye by name: (R, h, w) for the R regions of ``p.regions``, or (h, w) for all of them, float32."""
        if self._last[0] != image_id:  # the votes of several experts ask for an eye several times in a row
            self._last = image_id, self._of(image_id)
        return dict(self._last[1])

    def _of(self, image_id: str) -> dict[str, np.ndarray]:
        number = self._place[image_id]
        if number // BATCH != self._batch:
            self._batch = number // BATCH
            self._maps = self._compute(self._rows[self._batch * BATCH : (self._batch + 1) * BATCH])
        found = {name: maps[number % BATCH] for name, maps in self._maps.items()}
        found |= {name: maps[number] for name, maps in (self.beside or {}).items()}
        if self.blind is not None:
            found |= _one_draw(self.blind(number, image_id, self.masks_of(image_id)))
        return found

    @functools.cached_property
    def _net(self) -> PyramidNet:
        """The network that runs the trunk: a faster copy with folded norms, as in training."""
        return folded(self.trained.net, self.p.input_size, self.compute.dtype)

    def _compute(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        net, images, compute = self._net, self.data.images, self.compute
        ((_, h),) = prediction.in_batches(net.trunk, net, images, rows, self.p.input_size, compute, BATCH)
        with torch.inference_mode():
            maps = of_heads(self.trained, self.p, h, self.only)
            found = {name: self._finished(z.sigmoid()) for name, z in maps.items()}
        if self.only:
            return found
        for name, form in self.trained.released.items():
            x = compute.put(transforms.to_input(images[rows], self.p.released_size, form.mean, form.std))
            with torch.inference_mode():
                whole = form.net(form.net.prepare(x)).whole.float().clamp(0, 1)
            found[name] = self._finished(whole)
        return found

    def _finished(self, maps: Tensor) -> np.ndarray:
        """Maps (B, L, h, w) on the grid, one for each of ``p.regions``."""
        maps, regions = evidence.reduced(maps, self.p.grid), len(self.p.regions)
        if maps.shape[1] == 1:
            maps = maps.expand(-1, regions, -1, -1)
        elif regions > maps.shape[1]:
            maps = torch.cat([maps, maps.amax(1, keepdim=True)], 1)
        return maps.cpu().numpy()


def _one_draw(maps: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The blind maps with one of the random draws: a mean over draws would be no random map."""
    kept = {name: one for name, one in maps.items() if "#" not in name or "#0" in name}
    return {name.replace("#0", "").split(" ")[0]: one for name, one in kept.items()}


def of_grades(net: GradingNet, data: Dataset, eyes: pd.DataFrame, compute: Compute) -> dict[str, np.ndarray]:
    """Maps of a network of five grades at its own input size: Grad-CAM of the predicted grade and of the most probable grade above 0, and
    the finest of notebook 05's forms for the latter (Layer-CAM of earlier stages within the map).

    For a network that only pools and has one linear layer after the last map, the first class activation maps (CAM) are these maps.

    Returns:
        Name to (N, h, w), at least 0.
    """
    rows = eyes["row"].to_numpy()
    predicted, found, disease = cam.of_grades(net, data.images, eyes["image_id"], rows, compute)
    fused = []
    for some, x in prediction.in_batches(lambda x: x, net, data.images, rows, net.input_size, compute):
        fused.append(np.maximum(finer.finer(net, x, "fusion", "grad_cam", disease[some]), 0))
    return {GRADE: predicted, DISEASE: found, FINER: np.concatenate(fused)}


def of_score(
    record: Record, backbone: str, data: Dataset, eyes: pd.DataFrame, compute: Compute
) -> dict[str, np.ndarray]:
    """The regression activation map of notebook 11's network with this backbone, its largest size: evidence for a higher grade.

    Returns:
        ``RAM`` to (N, h, w), at least 0.

    Raises:
        drstudy.core.records.RecordError: If the record has no network of the backbone.
    """
    files = sorted(
        record.folder.glob(f"{backbone}-*.safetensors"), key=lambda file: int(file.stem.rpartition("-")[2])
    )
    if not files:
        raise RecordError(
            f"SCORE_MODEL has no network of {backbone}; set it to a result of notebook 11 with this backbone, or to ''."
        )
    net = prediction.load(record.path(files[-1].name)).to(compute.device)
    layer = list(net.cam_layers)[-1]
    only = np.zeros(len(eyes), int)
    found = cam.explain_images(
        net, data.images, eyes["image_id"], net.input_size, compute, eyes["row"].to_numpy(), only, [layer]
    )
    return {RAM: found.maps(layer)}
