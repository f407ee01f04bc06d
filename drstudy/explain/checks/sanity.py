"""Does a map depend on what was learnt? Randomised weights, shuffled labels, turned eyes, other seeds.

What these checks say: a map that stays the same when the network's weights become noise shows the photograph, or the architecture,
and nothing of what the network knows; a map that does not turn with the eye, or differs between two trainings alike, says as much
about chance as about the eye. What they cannot say: a map that passes is not thereby right. Passing is necessary,
never sufficient (Adebayo et al. 2018).
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from drstudy.evaluation import statistics
from drstudy.explain.methods import cam, methods

if TYPE_CHECKING:
    import pandas as pd

    from drstudy.models.nets import GradingNet

SURVIVES = 0.5
"""Mean rank correlation with the original map above which a map is said to survive randomisation.

Its square, a quarter, is the share of the order of positions that needs no learnt weight. Less is to be expected of any map: the field
of view is round and the corners are black, whatever the weights."""

SSIM_SIDE = 56
"""Maps are compared by SSIM at this side at least: its window of 7 pixels then is one cell of a 7 by 7 map."""

CALIBRATION_BATCH = 32
"""Eyes from which randomised batch norms take their statistics."""

TRANSFORMS = {"flip": (True, 0), "quarter turn": (False, 1)}
"""Mirrored left to right, then so many turns of 90 degrees."""


def cascade(
    net: GradingNet,
    x: Tensor,
    method: str = "grad_cam",
    target: np.ndarray | Tensor | None = None,
    layer: str | None = None,
    *,
    seed: int = 0,
    trunk_stages: int = 3,
    batch_size: int = 16,
    **options: object,
) -> pd.DataFrame:
    """Cascading randomisation (Adebayo et al. 2018): similarity of the maps as the network loses its weights from the head down.

    Args:
        net: Not changed; a copy is.
        x, method, target, layer, options: As in :func:`drstudy.explain.methods.methods.explain`. The class stays the one explained at first.
        seed: Seed of the random weights.
        trunk_stages: Number of groups into which the trunk's stages are put, from the last to the first.
        batch_size: Eyes at a time.

    Returns:
        One row per eye and stage: ``image``, ``stage`` (what was randomised last; everything above it is random too), ``step``
        (from 1), ``spearman``, ``ssim`` (see :func:`agreement`), ``method``. The last step has no trained weight.
    """
    import pandas as pd

    first = methods.explain_many(net, x, (method,), target, layer, batch_size=batch_size, **options)
    tables = []
    for step, (stage, random) in enumerate(randomised(net, x, seed, trunk_stages), start=1):
        raw = methods.explain(random, x, method, first.target, layer, batch_size=batch_size, **options)
        table = agreement(first.raw[method], raw)
        tables.append(table.assign(stage=stage, step=step, method=method))
    return pd.concat(tables, ignore_index=True)


def randomised(
    net: GradingNet, x: Tensor, seed: int = 0, trunk_stages: int = 3
) -> Iterator[tuple[str, GradingNet]]:
    """The network with more and more layers as new, from the head down.

    Layers get fresh weights as their class draws them. Batch norms among them take their statistics from ``x``, as
    those of an untrained network do in this study; with the constructor's (mean 0, variance 1) a map would die of numbers
    that grow or vanish, not of lost knowledge.

    Args:
        net: Not changed.
        x: (N, 3, H, W), normalised, for the statistics.
        seed: Seed of the weights.
        trunk_stages: See :func:`cascade`.

    Yields:
        Name of the stage, and the network (the same object each time, changed on).
    """
    random = copy.deepcopy(net)
    device = next(net.parameters()).device
    calibration = x[:CALIBRATION_BATCH].to(device)
    found = stages(net, calibration[:1], trunk_stages)
    with torch.random.fork_rng(devices=[]):
        # of its own: seed 0 itself would draw the very head from which a network of seed 0 was trained
        digest = hashlib.sha256(f"randomised/{seed}".encode()).digest()
        torch.manual_seed(int.from_bytes(digest[:7], "little"))
        state = torch.get_rng_state()
    norms: list[nn.BatchNorm2d] = []
    for name, paths in found.items():
        leaves = [random.net.get_submodule(path) for path in paths]
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(state)
            for leaf in leaves:
                leaf.reset_parameters()
            state = torch.get_rng_state()
        norms += [leaf for leaf in leaves if isinstance(leaf, nn.BatchNorm2d)]
        _calibrate(random, norms, calibration)
        yield name, random


def stages(net: GradingNet, x: Tensor, trunk_stages: int = 3) -> dict[str, list[str]]:
    """Layers with weights, in the order in which randomisation takes them: head, tail, trunk from its end to its beginning.

    The order is the one in which they run, seen in one pass.

    Args:
        net: The network.
        x: (1, 3, H, W).
        trunk_stages: At most so many groups of the trunk's stages.

    Returns:
        Name to module paths inside ``net.net``. Every parameter of the network is in one of them.

    Raises:
        ValueError: If some parameters belong to no layer that can be reset.
    """
    leaves = {
        path: module
        for path, module in net.net.named_modules()
        if any(True for _ in module.parameters(recurse=False))
    }
    if stuck := [path for path, module in leaves.items() if not hasattr(module, "reset_parameters")]:
        raise ValueError(
            f"{stuck[0]!r} of {net.backbone} has weights but no method to draw them again. Give the module a method reset_parameters."
        )
    order: list[str] = []
    handles = [
        module.register_forward_pre_hook(lambda _module, _inputs, path=path: order.append(path))
        for path, module in leaves.items()
    ]
    try:
        with torch.no_grad(), cam.evaluating(net):
            h = net.trunk(x)
            trunk = order.copy()
            net.tail(h)
    finally:
        for handle in handles:
            handle.remove()
    tail = [path for path in order[len(trunk) :] if not path.startswith(net.head_path)]
    head = [path for path in leaves if path.startswith(net.head_path)]
    unused = [path for path in leaves if path not in order and path not in head]
    groups: dict[str, list[str]] = {}
    for path in trunk:
        groups.setdefault(_stage_of(path), []).append(path)
    found = {"head": head, "tail": tail + unused}
    for part in reversed(
        np.array_split(np.array(list(groups), dtype=object), min(trunk_stages, len(groups)))
    ):
        name = part[0] if len(part) == 1 else f"{part[0]} to {part[-1]}"
        found[name] = [path for stage in part for path in groups[stage]]
    return {name: paths for name, paths in found.items() if paths}


def equivariance(
    net: GradingNet,
    x: Tensor,
    method: str = "grad_cam",
    target: np.ndarray | Tensor | None = None,
    layer: str | None = None,
    *,
    batch_size: int = 16,
    **options: object,
) -> pd.DataFrame:
    """Does the map turn with the eye? The map of the turned eye, turned back, against the map of the eye.

    Arguments as :func:`cascade`. A fundus has no up, so a difference is not the eye's.

    Returns:
        One row per eye and transform (:data:`TRANSFORMS`, both exact on pixels): ``image``, ``transform``, ``spearman``, ``ssim``,
        ``method``. 1 is a map that turns along.
    """
    import pandas as pd

    first = methods.explain_many(net, x, (method,), target, layer, batch_size=batch_size, **options)
    tables = []
    for name, (flip, turns) in TRANSFORMS.items():
        turned = torch.rot90(x.flip(-1) if flip else x, turns, (-2, -1))
        raw = methods.explain(net, turned, method, first.target, layer, batch_size=batch_size, **options)
        back = np.rot90(raw, -turns, (-2, -1))
        table = agreement(first.raw[method], np.flip(back, -1) if flip else back)
        tables.append(table.assign(transform=name, method=method))
    return pd.concat(tables, ignore_index=True)


def agreement(a: np.ndarray, b: np.ndarray) -> pd.DataFrame:
    """Similarity of two maps of each eye: of the same eye by another network, or by the network before it was randomised.

    Args:
        a, b: (N, h, w) float, signed, unscaled; of the same shape.

    Returns:
        One row per eye: ``image``; ``spearman``, rank correlation over positions of the signed maps, -1..1; ``ssim``, structural
        similarity (Wang et al. 2004) of the positive parts, each scaled to its own 0..1, as a reader sees them. A flat map has no
        order: its rank correlation is missing.

    Raises:
        ValueError: If the shapes differ.
    """
    import pandas as pd
    from scipy.stats import rankdata
    from skimage.metrics import structural_similarity

    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape or a.ndim != 3:
        raise ValueError(
            f"Maps of shapes {a.shape} and {b.shape} cannot be compared; both must be (N, h, w)."
        )
    ranks = [rankdata(maps.reshape(len(maps), -1), axis=1) for maps in (a, b)]
    ranks = [rank - rank.mean(1, keepdims=True) for rank in ranks]
    product = np.prod([np.sqrt((rank**2).sum(1)) for rank in ranks], axis=0)
    spearman = (ranks[0] * ranks[1]).sum(1) / np.where(product > 0, product, np.nan)
    side = max(SSIM_SIDE, a.shape[-1])
    shown = [cam.display(cam.upsample(methods.evidence(maps), side)) for maps in (a, b)]
    ssim = [structural_similarity(one, other, data_range=1.0) for one, other in zip(*shown)]
    return pd.DataFrame({"image": np.arange(len(a)), "spearman": spearman, "ssim": ssim})


def verdict(
    table: pd.DataFrame,
    patients: Sequence[str],
    resamples: int = 1000,
    seed: int = 0,
    by: Sequence[str] = ("stage",),
) -> pd.DataFrame:
    """Mean similarity with 95 % intervals from a bootstrap over patients, and what it means in words.

    A map *survives* if the lower end of the interval of its rank correlation is above :data:`SURVIVES`; it survives *in part* if that
    end is above 0; else it *is lost*, which is what randomised weights should do to it.

    Args:
        table: Result of :func:`cascade`, :func:`equivariance` or :func:`agreement`.
        patients: Patient of each image, in the order of the maps; both eyes of a patient are drawn together.
        resamples, seed: Number of resamples of the bootstrap over patients, and seed of its draws.
        by: Columns that name the groups; empty is one group.

    Returns:
        One row per group, in their order: the group's columns, ``eyes`` (with a rank correlation), ``flat`` (without), ``spearman``,
        ``spearman_lo``, ``spearman_hi``, ``ssim``, ``ssim_lo``, ``ssim_hi``, ``verdict``.
    """
    import pandas as pd

    patients = np.asarray(patients, dtype=str)
    groups = table.groupby(list(by), sort=False) if by else [((), table)]
    rows = []
    for name, group in groups:
        used = group.dropna(subset="spearman")
        row = dict(zip(by, name)) | {"eyes": len(used), "flat": len(group) - len(used)}
        for measure in ("spearman", "ssim"):
            values = used[measure].to_numpy(float)
            of_values = patients[used["image"].to_numpy(int)]
            found = statistics.mean_interval(values, of_values, resamples, seed)
            row |= {measure: found["value"], f"{measure}_lo": found["lo"], f"{measure}_hi": found["hi"]}
        low = row["spearman_lo"]
        words = [(np.isnan(low), "no interval"), (low > SURVIVES, "survives"), (low > 0, "survives in part")]
        row["verdict"] = next((word for holds, word in words if holds), "is lost")
        rows.append(row)
    return pd.DataFrame(rows)


def _stage_of(path: str) -> str:
    """``features.denseblock3.denselayer5.conv1`` is of ``features.denseblock3``, ``layer3.2.conv1`` of ``layer3``."""
    parts = path.split(".")
    return ".".join(parts[:2]) if parts[0] in ("features", "_blocks", "classifier") else parts[0]


@torch.no_grad()
def _calibrate(net: GradingNet, norms: list[nn.BatchNorm2d], x: Tensor) -> None:
    """Statistics of these norms from ``x``, everything else in evaluation mode."""
    with cam.evaluating(net):
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
            norm.training = True
        if norms:
            net(x)
        for norm, momentum in zip(norms, momenta):
            norm.momentum = momentum
