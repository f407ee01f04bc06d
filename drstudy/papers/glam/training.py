"""All networks of notebook 14: labels, the cached features, the groups of heads, the system as released; and how they are kept."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from drstudy.core import paths, records
from drstudy.core.devices import Compute
from drstudy.data import labels as lesion_labels
from drstudy.data.dataset import Dataset
from drstudy.explain.measures import grid as grids
from drstudy.papers.glam import evidence, fundus_training, pyramid, released, released_training, selection
from drstudy.papers.glam.params import REFERABLE, Glam
from drstudy.papers.glam.pyramid import PyramidNet
from drstudy.papers.glam.recipe import FundusRecipe
from drstudy.papers.glam.released import ReleasedNet
from drstudy.training import features, loop, prediction, transforms

GROUPS = ("saliency", "local", "refined", "masks")
"""Trainings of the heads, in this order."""

CALIBRATED_ON = 32
"""Training photographs from which the scale of the features is taken."""

GRADE_LABEL = 2
"""Grade from which an eye is referable."""


@dataclass(frozen=True)
class Trained:
    """The networks, and what their training left.

    Attributes:
        net: The frozen backbone with all heads.
        rules: How the scales make one map for each label.
        released: Name of each form of the system as released to its network; empty if it was left out.
        history: One row per epoch of each training: ``training, epoch``, the losses and validation metrics.
        seconds: Training to its time: ``<training>_per_epoch``, and ``features``.
    """

    net: PyramidNet
    rules: evidence.Rules
    released: dict[str, ReleasedNet]
    history: pd.DataFrame
    seconds: dict[str, float] = field(default_factory=dict)


def read_labels(p: Glam, audit: records.Record) -> pd.DataFrame:
    """Labels of every photograph of the split: ``image_id``, and one Int64 column per code, missing where unknown.

    Raises:
        drstudy.data.labels.LabelError: As :func:`drstudy.data.labels.read`.
    """
    if p.labels != "grade":
        return lesion_labels.read(audit, p.codes, p.labels, p.least_area)
    split = pd.read_csv(audit.path("split.csv"), dtype={"image_id": str, "grade": "Int64"})
    return split[["image_id"]].assign(**{REFERABLE: (split["grade"] >= GRADE_LABEL).astype("Int64")})


def train(
    p: Glam,
    data: Dataset,
    masks_of: Callable,
    compute: Compute,
    folder: Path | None = None,
    keep: bool = False,
) -> Trained:
    """Train all groups of heads on one store of features, then the system as released.

    Args:
        p: Parameters.
        data: Photographs with a target for each label (:func:`drstudy.training.multilabel.with_labels`).
        masks_of: Reader of masks, for the upper bound only; see :func:`drstudy.explain.measures.localisation.masks_of`.
        compute: Device and precision.
        folder: Folder of checkpoints; ``None`` writes none.
        keep: See :func:`drstudy.training.loop.fit`.

    Raises:
        ValueError: If the photographs of the store are smaller than ``input_size``.
    """
    if data.images.shape[1] < p.input_size:
        raise ValueError(
            f"INPUT_SIZE is {p.input_size}, but the photographs of AUDIT have {data.images.shape[1]} pixels a side. Point AUDIT to an audit with "
            "a larger IMAGE_SIZE, or lower INPUT_SIZE."
        )
    first = p.recipe("saliency")
    net = build(p, data, compute)
    feed = features.open_features(net, data, first, compute)
    fits: dict[str, loop.Fit] = {}
    rules: evidence.Rules | None = None
    for group in GROUPS:
        if group != "saliency" and group not in p.specs:
            continue
        recipe = p.recipe(group)
        print(f"heads {', '.join(recipe.heads)}", flush=True)
        task = _task(group, net, feed, recipe, compute, rules, masks_of)
        own = folder / "checkpoints" / group if folder else None
        fits[group] = loop.fit(task, own, keep=keep)
        rules = rules or fundus_training.rules(net, feed, recipe)
    seconds = {"features": feed.seconds_prepare}
    feed.close(keep=False)
    net.requires_grad_(False).eval()
    net.input_size = p.input_size
    forms, further = _released(p, data, masks_of, compute, folder, keep) if p.released_size else ({}, {})
    fits |= further
    seconds |= {f"{name}_per_epoch": fit.seconds_per_epoch for name, fit in fits.items()}
    history = pd.concat([_by_epoch(fit, name) for name, fit in fits.items()], ignore_index=True)
    return Trained(net, rules, forms, history, seconds)


def build(p: Glam, data: Dataset, compute: Compute) -> PyramidNet:
    """The network with fresh heads, its features scaled by training photographs, on the device."""
    recipe = p.recipe("saliency")
    net = pyramid.build(p.backbone, p.weights, p.seed, len(p.codes), recipe.strides, p.hidden, p.specs)
    net.to(compute.device, memory_format=torch.channels_last).eval()
    rows = np.sort(data.part("train")["row"].to_numpy()[:CALIBRATED_ON])
    found = prediction.in_batches(net.trunk, net, data.images, rows, p.input_size, compute)
    net.net.standard.measure([net.unpack(h.float())[0] for _, h in found])
    return net


def _task(group, net, feed, recipe: FundusRecipe, compute, rules, masks_of) -> fundus_training.HeadsTask:
    if group == "saliency":
        return fundus_training.SaliencyTask(net, feed, recipe, compute)
    if group == "masks":
        masks = masks_by_view(feed, recipe, masks_of)
        return fundus_training.MaskTask(net, feed, recipe, compute, masks)
    kind = {"local": fundus_training.LocalTask, "refined": fundus_training.RefinedTask}[group]
    return kind(net, feed, recipe, compute, rules)


def masks_by_view(
    feed: features.Features, recipe: FundusRecipe, masks_of: Callable
) -> dict[tuple[int, int], np.ndarray]:
    """Masks of every training view on the grid of the finest stride, by row of the image store and number of the view.

    Returns:
        (L, side, side) float16 each: 1 if any pixel of a cell belongs to the lesion, 0, or NaN where not annotated.

    Raises:
        ValueError: If ``codes`` are no lesions, whose masks could be read.
    """
    if REFERABLE in recipe.codes:
        raise ValueError("MASK_EPOCHS must be 0 with LABELS 'grade': there are no masks of a grade.")
    side, found = recipe.input_size // min(recipe.strides), {}
    for image_id, row in feed.train[["image_id", "row"]].itertuples(index=False):
        masks = masks_of(image_id)
        known = [code for code in recipe.codes if masks[code] is not None]
        outlined = [masks[code] >= grids.COVERED for code in known]
        stack = torch.from_numpy(np.stack(outlined).astype(np.uint8)) if known else None
        for view in range(recipe.views):
            whole = np.full((len(recipe.codes), side, side), np.nan, np.float16)
            found[int(row), view] = whole
            if stack is None:
                continue
            seen = transforms.view_masks(stack, recipe.input_size, recipe.seed, row, view)
            for code, mask in zip(known, seen.numpy() > 0):
                whole[recipe.codes.index(code)] = grids.pool(mask, side, code)
    return found


def _released(p: Glam, data: Dataset, masks_of: Callable, compute: Compute, folder: Path | None, keep: bool):
    """The system as released and with its oddities corrected: networks ``sep`` and ``joint`` of each, and the fits."""
    forms, fits, chosen = {}, {}, None
    if p.released_by == "masks":
        side = min(p.grid, p.released_size)
        chosen = selection.ByMasks(data.part("validation"), masks_of, p.codes, side)
    for name, corrected in (("released", False), ("corrected", True)):
        own = folder / "checkpoints" / name if folder else None
        systems = released_training.train(p.released(corrected), data, compute, own, keep, chosen)
        forms |= {f"{name} sep": systems.sep, f"{name} joint": systems.joint}
        fits |= {f"{name} {stage}": fit for stage, fit in systems.fits.items()}
    return forms, fits


def _by_epoch(fit: loop.Fit, name: str) -> pd.DataFrame:
    measured = [column for column in fit.history if column.startswith("val_")]
    how = {"loss": ("loss", "mean")} | {column: (column, "last") for column in measured}
    rows = fit.history.groupby("epoch", as_index=False).agg(**how)
    rows.insert(0, "training", name)
    return rows


# --- kept and found again -----------------------------------------------------------------------------

HEADS_FILE, RULES_FILE = "heads.safetensors", "rules.json"


def save(trained: Trained, p: Glam, folder: Path) -> None:
    """Write all networks, from which :func:`load` makes them again."""
    prediction.save(trained.net, folder / HEADS_FILE, p.input_size)
    for name, net in trained.released.items():
        prediction.save(net, folder / f"{name.replace(' ', '_')}.safetensors", p.released_size)
    records.write_json(dataclasses.asdict(trained.rules), folder / RULES_FILE)


def load(source: records.Record, p: Glam, compute: Compute) -> Trained:
    """The networks of another run of the notebook.

    Raises:
        drstudy.data.labels.LabelError: If they learnt other labels, or at another size of the photographs.
    """
    for name in ("CODES", "INPUT_SIZE", "GRID"):
        theirs, ours = source.params[name], p.upper()[name]
        if theirs != ours:
            raise lesion_labels.LabelError(
                f"The networks and cuts of {paths.show(source.folder)} were made with {name} {theirs}, here it is {ours}. "
                f"Set {name} to theirs, or TRAINED to another result."
            )
    net = prediction.load(source.path(HEADS_FILE), pyramid.rebuild).to(compute.device)
    forms = {}
    for form in ("sep", "joint"):
        for file in sorted(source.folder.glob(f"*_{form}.safetensors")):
            name, whole = file.stem.replace("_", " "), source.path(file.name)
            forms[name] = prediction.load(whole, released.rebuild).to(compute.device)
    rules = json.loads(source.path(RULES_FILE).read_text(encoding="utf-8"))
    rules = evidence.Rules(*(tuple(map(tuple, rules[name])) for name in ("implied", "weights")))
    history = pd.read_csv(source.path("tables/history.csv"))
    return Trained(net, rules, forms, history)


def parameters(trained: Trained) -> dict[str, int]:
    """Number of parameters of each network: the frozen backbone, each head, and the system as released."""
    count = {"backbone": sum(q.numel() for q in trained.net.net.backbone.parameters())}
    count |= {name: sum(q.numel() for q in head.parameters()) for name, head in trained.net.net.heads.items()}
    for name, net in trained.released.items():
        count |= {name: net.count()["parameters_total"]}
    return count
