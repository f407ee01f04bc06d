r"""Regression activation maps: where in an eye the score comes from (Wang & Yang 2017; docs/sources.md, E5).

Where a network ends in the mean over positions and one linear unit, its score is a mean over positions of evidence:

.. math:: M(x, y) = \sum_k w_k f_k(x, y), \qquad \mathrm{score} = \mathrm{mean}(M) + b

The map is signed, in grades, and without the bias: what is below 0 speaks for a lower grade. Scaling each map to its own minimum and
maximum, as the paper does before it adds the maps of two sizes, loses both; :func:`fuse_printed` does that, :func:`fuse` keeps them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from drstudy.evaluation import statistics
from drstudy.explain.measures import localisation
from drstudy.explain.methods import cam
from drstudy.models import heads
from drstudy.papers.ram.blend import FLIPS
from drstudy.papers.ram.layers import CROPS
from drstudy.training import prediction

if TYPE_CHECKING:
    from drstudy.core.devices import Compute
    from drstudy.models.nets import GradingNet
    from drstudy.papers.ram.training import Trained

TOLERANCE = 1e-4
"""In grades: how far score and mean(map) + bias may lie apart. Both are float32 sums of some 10,000 products of order 1, which agree to
about 1e-6; a bias left in, a padding counted or a layer forgotten is of order 0.01 or more."""

PRINTED_BORDER = 1
"""Cells that the paper drops on each side of the larger map: 56 become 54."""


class NotLinearError(ValueError):
    """The score is no mean of evidence over positions, so there is no such map."""


@dataclass(frozen=True)
class ScoreMaps:
    """Maps of many eyes from one network, or fused from several.

    Attributes:
        raw: (N, h, w) float32, signed, in grades (of Grad-CAM, class scores; as printed, 0 to 2).
        scores: (N,) float64.
        bias: So that ``scores`` is the mean of each map plus this.
        first, step: Centre of the first cell and distance of neighbours, as shares of the photograph's side.
        seen: First and last edge of what the network sees, as shares of the side; nothing is known outside.
        image_ids: (N,) str.
    """

    raw: np.ndarray
    scores: np.ndarray
    bias: float
    first: float
    step: float
    seen: tuple[float, float]
    image_ids: np.ndarray

    def placed(self, row: int, size: int) -> np.ndarray:
        """One map over its photograph, bilinear between the centres of cells, 0 where the network does not look: (size, size) float32."""
        import cv2

        centres = (np.arange(size) + 0.5) / size
        at = ((centres - self.first) / self.step).astype(np.float32)
        x, y = np.meshgrid(at, at)
        over = cv2.remap(
            self.raw[row].astype(np.float32), x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        inside = (centres > self.seen[0]) & (centres < self.seen[1])
        return np.where(inside[:, None] & inside, over, np.float32(0))


def ram(net: GradingNet, h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Maps and scores of a batch, in float32.

    Args:
        net: With one output, and only a mean and linear layers after its last map. Runs in evaluation mode whatever its mode, which is
            restored.
        h: Output of ``net.trunk``.

    Returns:
        Maps (N, h, w), scores (N,), bias.

    Raises:
        NotLinearError: If the score is not the mean of the map plus the bias, within :data:`TOLERANCE`.
    """
    layer = list(net.cam_layers)[-1]
    with cam.evaluating(net), torch.no_grad(), torch.autocast(h.device.type, enabled=False):
        with net.record(layer) as activations:
            outputs = net.tail(h.float())
        try:
            weight, bias = heads.collapsed(net.net.get_submodule(net.head_path))
        except ValueError as error:
            raise NotLinearError(
                f"{net.backbone} with the head {net.head!r} has no map of its score: {error}"
            ) from None
        features = activations[layer].float()
        if outputs.shape[1] != 1 or weight.shape != (1, features.shape[1]):
            raise NotLinearError(
                f"{net.backbone} has {outputs.shape[1]} outputs from {weight.shape[1]} inputs; a score is one output from the "
                f"{features.shape[1]} channels of {layer}."
            )
        maps = torch.einsum("c,nchw->nhw", weight[0].to(features), features)
    scores = outputs[:, 0].float()
    gap = (maps.mean((1, 2)) + bias.item() - scores).abs().max().item()
    if not gap <= TOLERANCE * max(1.0, scores.abs().max().item()):
        raise NotLinearError(
            f"{net.backbone}: the score is {gap:.2g} away from the mean of the map plus the bias. Something other than a mean stands "
            f"between {layer} and the head."
        )
    return maps, scores, bias.item()


def explain(
    net: GradingNet,
    images: np.ndarray,
    image_ids: Sequence[str],
    rows: np.ndarray,
    compute: Compute,
    tta: bool = False,
    batch_size: int = 32,
) -> ScoreMaps:
    """Maps and scores of many eyes.

    Args:
        net: As in :func:`ram`; its ``input_size`` is the side of the photographs.
        images: (M, S, S, 3) uint8 RGB, may be memory-mapped.
        image_ids: One for each of ``rows``.
        rows: Which images.
        compute: Device, and the precision of the trunk; the maps are float32 in any precision.
        tta: Mean over the four flips, each map flipped back, so that score = mean(map) + bias still holds.
        batch_size: Images at a time.
    """
    maps, scores, bias = [], [], 0.0
    flips = FLIPS if tta else FLIPS[:1]

    def trunk(x: torch.Tensor) -> list[torch.Tensor]:
        return [net.trunk(compute.put(x.flip(axes))) for axes in flips]

    for _, views in prediction.in_batches(trunk, net, images, rows, net.input_size, compute, batch_size):
        found, said = [], []
        for axes, h in zip(flips, views):
            one, score, bias = ram(net, h)
            found.append(one.flip(axes))
            said.append(score)
        maps.append(torch.stack(found).mean(0).cpu().numpy())
        scores.append(torch.stack(said).double().mean(0).cpu().numpy())
    raw = np.concatenate(maps)
    return ScoreMaps(
        raw, np.concatenate(scores), bias, *_place(net, raw.shape[1]), np.asarray(image_ids, dtype=str)
    )


def explain_all(
    trained: Sequence[Trained], images: np.ndarray, eyes: pd.DataFrame, compute: Compute, tta: bool
) -> tuple[dict[tuple[str, int], ScoreMaps], pd.DataFrame]:
    """:func:`explain` for every network that has maps, and how well each map accounts for its score.

    Args:
        trained: Result of :func:`drstudy.papers.ram.training.train`; baselines are left out, as no map sees through their dense head.
        images: As in :func:`explain`.
        eyes: ``image_id``, ``row``.
        compute, tta: As in :func:`explain`.

    Returns:
        Maps by network and size, and a table: ``network, size, cells`` (of a map's side), ``eyes``, ``largest_gap`` (of score and
        mean(map) + bias, grades), ``largest_gap_to_prediction`` (of the score here and the one that was graded, which may be of another
        precision; NaN with test-time augmentation).
    """
    found, rows = {}, []
    for one in trained:
        if one.network.startswith("baseline"):
            continue
        maps = explain(one.net, images, eyes["image_id"], eyes["row"].to_numpy(), compute, tta)
        graded = one.scores.set_index("image_id")["score"].reindex(eyes["image_id"]).to_numpy()
        gap = np.abs(maps.raw.mean((1, 2), dtype=np.float64) + maps.bias - maps.scores).max()
        row = {
            "network": one.network,
            "size": one.size,
            "cells": maps.raw.shape[1],
            "eyes": len(eyes),
            "largest_gap": gap,
        }
        row["largest_gap_to_prediction"] = np.nan if tta else np.abs(graded - maps.scores).max()
        found[one.network, one.size] = maps
        rows.append(row)
    return found, pd.DataFrame(rows)


GRAD_CAM = "Grad-CAM"


def kinds(maps: Mapping[tuple[str, int], ScoreMaps]) -> dict[str, ScoreMaps]:
    """Everything that is compared, by name: each network's maps, ``fused``, and as the paper scales and fuses them.

    Args:
        maps: Result of :func:`explain_all`. The paper's fusion is of the two smallest sizes (128 and 256, never 512).

    Returns:
        ``<network> <size>`` and ``<network> <size> scaled``; with two sizes or more ``<network> fused`` and ``<network> fused as
        printed``; and ``<network> uniform``, the same everywhere that the network looks: its own chance, as one that sees only
        the middle of a photograph misses the parts where lesions are rarer.
    """
    found = {}
    for network in dict.fromkeys(name for name, _ in maps):
        sizes = sorted(size for name, size in maps if name == network)
        own = [maps[network, size] for size in sizes]
        found |= {f"{network} {size}": one for size, one in zip(sizes, own)}
        if len(sizes) > 1:
            found[f"{network} fused"] = fuse(own)
        found |= {f"{network} {size} scaled": min_max(one) for size, one in zip(sizes[:2], own)}
        if len(sizes) > 1:
            found[f"{network} fused as printed"] = fuse_printed(*own[:2])
        found[f"{network} uniform"] = replace(own[0], raw=np.ones_like(own[0].raw), bias=float("nan"))
    return found


def questions(names: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of kinds to compare: fused against each size, in either form; the signed maps against uniform ones of their own network,
    and against Grad-CAM where it is there."""
    pairs = []
    signed = [
        name for name in names if name != GRAD_CAM and not name.endswith(("scaled", "printed", "uniform"))
    ]
    for name in names:
        for suffix in ("fused", "fused as printed"):
            if name.endswith(f" {suffix}"):
                network, form = name.removesuffix(f" {suffix}"), " scaled" if suffix != "fused" else ""
                single = [f"{network} {size}{form}" for size in CROPS]
                pairs += [(name, one) for one in single if one in names]
    pairs += [(name, f"{name.split()[0]} uniform") for name in signed]
    return pairs + [(name, GRAD_CAM) for name in signed if GRAD_CAM in names]


def _place(net: GradingNet, cells: int) -> tuple[float, float, tuple[float, float]]:
    """``first``, ``step`` and ``seen`` of :class:`ScoreMaps`; a backbone's cells are taken to tile the photograph."""
    if not hasattr(net, "grid"):
        return 0.5 / cells, 1 / cells, (0.0, 1.0)
    first, step = net.grid()
    margin = net.margin
    return (first + 0.5) / net.size, step / net.size, (margin, 1 - margin)


def from_grad_cam(explained: cam.Explained, layer: str) -> ScoreMaps:
    """Grad-CAM maps of a layer (signed, before the ReLU) in the same form; their ``scores`` are those of the explained class."""
    raw = explained.raw[layer]
    score = np.take_along_axis(explained.logits, explained.target[:, None], 1)[:, 0].astype(float)
    cells = raw.shape[1]
    return ScoreMaps(raw, score, float("nan"), 0.5 / cells, 1 / cells, (0.0, 1.0), explained.image_ids)


def min_max(maps: ScoreMaps) -> ScoreMaps:
    """Each map scaled to 0..1 by its own minimum and maximum: sign, unit and severity are lost."""
    raw = cam.display(maps.raw).astype(np.float32)
    return ScoreMaps(raw, maps.scores, float("nan"), maps.first, maps.step, maps.seen, maps.image_ids)


def fuse(maps: Sequence[ScoreMaps]) -> ScoreMaps:
    """The mean of maps of any number of sizes, scale and sign kept: its mean plus the mean bias is the mean score.

    All are brought to the finest grid, bilinear; a constant takes back what interpolation changes in a map's mean.

    Raises:
        ValueError: If they are not of the same eyes.
    """
    _same_eyes(maps)
    finest = min(maps, key=lambda one: one.step)
    brought = []
    for one in maps:
        raw = _brought(one, finest)
        brought.append(raw + (one.raw.mean((1, 2)) - raw.mean((1, 2)))[:, None, None])
    return ScoreMaps(
        np.mean(brought, axis=0).astype(np.float32),
        np.mean([one.scores for one in maps], axis=0),
        float(np.mean([one.bias for one in maps])),
        *(finest.first, finest.step, finest.seen, finest.image_ids),
    )


def fuse_printed(smaller: ScoreMaps, larger: ScoreMaps) -> ScoreMaps:
    """The paper's fusion of the maps of two sizes: the larger one loses its border until it fits, both are scaled to 0..1, and added.

    At most :data:`PRINTED_BORDER` cells per side are dropped, as 56 become 54 in the paper; the cut also shifts the map's scale a little,
    which is the paper's too. Where the two do not fit even so, the coarser is interpolated (**a choice**).

    Raises:
        ValueError: If they are not of the same eyes.
    """
    _same_eyes((smaller, larger))
    a, b = smaller, larger
    spare = b.raw.shape[1] - a.raw.shape[1]
    if spare in (0, 2 * PRINTED_BORDER):
        cut = slice(spare // 2, b.raw.shape[1] - spare // 2)
        target, raws = a, (a.raw, b.raw[:, cut, cut])
    else:
        target = min((a, b), key=lambda one: one.step)
        raws = tuple(_brought(one, target) for one in (a, b))
    raw = sum(cam.display(raw) for raw in raws).astype(np.float32)
    return ScoreMaps(
        raw, (a.scores + b.scores) / 2, float("nan"), target.first, target.step, target.seen, a.image_ids
    )


def _brought(maps: ScoreMaps, target: ScoreMaps) -> np.ndarray:
    """Maps on the grid of others, bilinear: (N, h, w)."""
    import cv2

    cells = target.raw.shape[1]
    if (
        maps.raw.shape[1] == cells
        and np.isclose(maps.step, target.step)
        and np.isclose(maps.first, target.first)
    ):
        return maps.raw
    at = ((target.first + target.step * np.arange(cells) - maps.first) / maps.step).astype(np.float32)
    x, y = np.meshgrid(at, at)
    return np.stack(
        [cv2.remap(raw, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) for raw in maps.raw]
    )


def _same_eyes(maps: Sequence[ScoreMaps]) -> None:
    if any(not np.array_equal(one.image_ids, maps[0].image_ids) for one in maps):
        raise ValueError("Only maps of the same eyes, in the same order, can be fused.")


def measure(maps: Mapping[str, ScoreMaps], masks_of: Callable[[str], localisation.Masks]) -> pd.DataFrame:
    """:func:`drstudy.explain.measures.localisation.measure_eye` of what is above 0 in each map, for every eye.

    Args:
        maps: Name to maps, all of the same eyes.
        masks_of: As :func:`drstudy.explain.measures.localisation.masks_of` makes it.

    Returns:
        Its rows with ``image_id`` and ``layer``, the map's name.
    """
    names = list(maps)
    _same_eyes(list(maps.values()))
    tables = []
    for row, image_id in enumerate(maps[names[0]].image_ids):
        masks = masks_of(image_id)
        heat = np.stack([one.placed(row, len(masks["FOV"])) for one in maps.values()])
        table, _ = localisation.measure_eye(np.maximum(heat, 0), masks)
        table.insert(0, "image_id", image_id)
        table.insert(1, "layer", table.pop("map").map(dict(enumerate(names))))
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def differences(
    measured: pd.DataFrame,
    pairs: Sequence[tuple[str, str]],
    regions: Sequence[str],
    patients: Mapping[str, str],
    resamples: int,
    seed: int,
) -> pd.DataFrame:
    """Whether one kind of map lies on a structure more than another, on the same eyes: paired, with intervals over patients.

    Args:
        measured: Result of :func:`measure`.
        pairs: Names of two maps, the second is subtracted from the first; eyes count where both could be measured.
        regions: Masks of :func:`drstudy.explain.measures.localisation.regions`.
        patients: image_id to patient_id.
        resamples, seed: Number of resamples of the bootstrap over patients, and seed of its draws.

    Returns:
        One row per region, quantity and pair (``heat``, share of the map inside the structure, and ``hit``, the pointing game): ``map``, ``minus``,
        ``region``, ``quantity``, ``eyes``, ``patients``, ``value``, ``lo``, ``hi``; no interval below
        :data:`drstudy.evaluation.statistics.FEWEST_PATIENTS` patients.
    """
    usable = measured[(measured["kind"] == "mask") & (measured["status"] == "measured")]
    names, rows = list(dict.fromkeys(name for pair in pairs for name in pair)), []
    for region, quantity in product(regions, ("heat", "hit")):
        of_region = usable[usable["region"] == region]
        wide = of_region.pivot(index="image_id", columns="layer", values=quantity).reindex(columns=names)
        for a, b in pairs:
            gap = (wide[a] - wide[b]).dropna()
            owners = gap.index.map(patients)
            row = {"map": a, "minus": b, "region": region, "quantity": quantity, "eyes": len(gap)}
            row |= {"patients": owners.nunique()}
            rows.append(row | statistics.mean_interval(gap, owners.to_numpy(), resamples, seed))
    return pd.DataFrame(rows)
