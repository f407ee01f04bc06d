"""Grad-CAM, exact and batched, from the trainable tail alone.

The class score of one eye does not depend on the other eyes of its batch as long as the network is in
evaluation mode, so the gradient of the *sum* of the explained scores holds every eye's own gradient: a batch
costs one forward and one backward pass of the tail, however many layers are asked for. What the frozen trunk
computes before is needed once and never differentiated.

Three things differ from the ``grad-cam`` package, against which the tests compare the numbers: maps keep
their scale (a map scaled to its own maximum cannot be compared with another eye's), a wrong number of targets
is an error, and the network is left as it was (mode, ``.grad``, hooks).
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from drstudy.core import paths
from drstudy.models import folding, heads
from drstudy.models.base import GradingNet

if TYPE_CHECKING:
    import pandas as pd

    from drstudy.core.devices import Compute


REPORT_SECONDS = 15.0

FOLD_FROM = 16
"""Images from which a folded trunk saves more time in float32 than folding takes."""
PROBE_SIDE = 96
"""Side, in pixels, at which folding looks which norm follows which convolution: that is the same at any side, and this one suits every family."""


@dataclass(frozen=True)
class Maps:
    """Grad-CAM of one batch at one layer, float32, on the network's device.

    Attributes:
        maps: (N, h, w), the evidence for the target class: ``raw`` where positive, else 0. In units of the
            class score per position, *not* scaled to the map's own maximum.
        raw: (N, h, w), signed: before the ReLU.
        weights: (N, C), spatial mean of the gradient of the target's score with respect to each channel.
        logits: (N, K), the class scores.
        target: (N,), int64, the explained class.
    """

    maps: torch.Tensor
    raw: torch.Tensor
    weights: torch.Tensor
    logits: torch.Tensor
    target: torch.Tensor


@dataclass(frozen=True)
class Explained:
    """Maps of many eyes at several layers, as :func:`save_maps` writes them.

    Attributes:
        raw: Layer name to (N, h, w) float32, signed and unscaled.
        logits: (N, K) float32.
        target: (N,) int64, the explained class.
        image_ids: (N,) str.
    """

    raw: dict[str, np.ndarray]
    logits: np.ndarray
    target: np.ndarray
    image_ids: np.ndarray

    @property
    def layers(self) -> list[str]:
        """Names of the layers, in the network's order."""
        return list(self.raw)

    def maps(self, layer: str) -> np.ndarray:
        """(N, h, w) float32, at least 0: the evidence *for* the target, as Grad-CAM shows it."""
        return np.maximum(self.raw[layer], 0)


def grad_cam(
    net: GradingNet, h: torch.Tensor, target: torch.Tensor | None, layers: Sequence[str] | None = None
) -> dict[str, Maps]:
    r"""Grad-CAM of a batch, computed in float32 from the trunk's output.

    .. math:: M = \mathrm{ReLU}\Big(\sum_k \alpha_k A_k\Big), \quad
        \alpha_k = \frac{1}{hw} \sum_{ij} \frac{\partial y_c}{\partial A_{kij}}

    for class score (logit) :math:`y_c` and activations :math:`A` (Selvaraju et al. 2017, eq. 1 and 2). The
    main paper's text averages over the channels where the code it calls sums them (docs/sources.md, A6): a constant
    factor of 1/C, which its display scaling removes. We sum.

    Args:
        net: A grading network. Runs in evaluation mode whatever its mode, which is restored.
        h: Output of ``net.trunk``, (N, ...), any float dtype.
        target: (N,) integer classes to explain; ``None`` explains the predicted ones.
        layers: Names from ``net.cam_layers``; ``None`` is all of them. All come from one pass of the tail.

    Returns:
        Layer name to :class:`Maps`, in the order asked for. If only the layer right before mean pooling and a linear head is asked
        for, the closed form is used: its gradient is the head's weight over the number of positions (docs/sources.md, A6), so no
        backward pass is needed.

    Raises:
        KeyError: If a layer is not one of the network's candidates, with their names.
        ValueError: If ``target`` is not one integer class in range for each of the N images.
    """
    layers = _layers(net, layers)
    if _is_affine(net, layers):
        return _closed_form(net, h, target, layers[0])
    with evaluating(net), torch.enable_grad(), torch.autocast(h.device.type, enabled=False):
        h = h.detach().to(torch.float32, copy=True).requires_grad_()
        with net.record(*layers) as activations:
            logits = net.tail(h)
        target = logits.argmax(1) if target is None else checked_target(target, logits)
        score = logits.gather(1, target[:, None]).sum()
        gradients = torch.autograd.grad(score, [activations[layer] for layer in layers])
        logits = logits.detach()
        found = {}
        for layer, gradient in zip(layers, gradients):
            weights = gradient.mean((2, 3))
            raw = torch.einsum("nc,nchw->nhw", weights, activations[layer].detach())
            found[layer] = Maps(raw.clamp(min=0), raw, weights, logits, target)
    return found


def _is_affine(net: GradingNet, layers: Sequence[str]) -> bool:
    """Whether the class scores are affine in the mean of the one layer asked for, so that no gradient is needed."""
    return net.pooled and list(layers) == list(net.cam_layers)[-1:] and net.head != "mlp"


@torch.no_grad()
def _closed_form(
    net: GradingNet, h: torch.Tensor, target: torch.Tensor | None, layer: str
) -> dict[str, Maps]:
    """Grad-CAM where the score is an affine function of the mean of a layer."""
    with evaluating(net), torch.autocast(h.device.type, enabled=False):
        with net.record(layer) as activations:
            logits = net.tail(h.float())
        target = logits.argmax(1) if target is None else checked_target(target, logits)
        activation = activations[layer]
        head, _ = heads.collapsed(net.net.get_submodule(net.head_path))
        weights = head.to(activation)[target] / activation[0, 0].numel()
        raw = torch.einsum("nc,nchw->nhw", weights, activation)
    return {layer: Maps(raw.clamp(min=0), raw, weights, logits, target)}


def explain_images(
    net: GradingNet,
    images: np.ndarray,
    image_ids: Sequence[str],
    size: int,
    compute: Compute,
    rows: np.ndarray | None = None,
    target: np.ndarray | None = None,
    layers: Sequence[str] | None = None,
    batch_size: int = 16,
) -> Explained:
    """Grad-CAM of many eyes: one pass of the trunk, one of the tail and back, whatever the number of layers.

    Args:
        net: A grading network on the device of ``compute``.
        images: (M, S, S, 3) uint8 RGB, may be memory-mapped: one batch is in memory at a time.
        image_ids: One for each explained image.
        size: Side of the network's input, pixels.
        compute: Device, and the precision of the trunk; the tail and the maps are float32 in any precision. In float32 on a CPU the
            norms of the trunk may be folded into its convolutions, which moves last digits of a map.
        rows: Which images, in which order; ``None`` is all.
        target: (N,) classes to explain; ``None`` explains the predicted ones (the paper's choice).
        layers: As in :func:`grad_cam`.
        batch_size: Images at a time; on a CPU no more than ``net.trunk_batch``.

    Raises:
        ValueError: If ``image_ids``, ``rows`` and ``target`` differ in length; also as :func:`grad_cam`.
    """
    from drstudy.training import prediction

    rows = np.arange(len(images)) if rows is None else np.asarray(rows)
    _one_for_each(rows, image_ids, target)
    layers = _layers(net, layers)
    batch_size = batch_size if compute.is_cuda else min(batch_size, net.trunk_batch)
    trunk = _trunk(net, size, compute, layers, len(rows))
    began = told = time.monotonic()
    parts: dict[str, list[np.ndarray]] = {layer: [] for layer in layers}
    logits, targets = [], []
    for batch, h in prediction.in_batches(trunk, net, images, rows, size, compute, batch_size):
        wanted = None if target is None else torch.as_tensor(np.asarray(target[batch]), device=h.device)
        maps = grad_cam(net, h, wanted, layers)
        for layer in layers:
            parts[layer].append(maps[layer].raw.cpu().numpy())
        logits.append(maps[layers[0]].logits.cpu().numpy())
        targets.append(maps[layers[0]].target.cpu().numpy())
        done = batch.stop
        if time.monotonic() - told >= REPORT_SECONDS and done < len(rows):
            told = time.monotonic()
            print(f"maps: {done} of {len(rows)} eyes, {done / (told - began):.0f} a second", flush=True)
    return Explained(
        {layer: np.concatenate(found) for layer, found in parts.items()},
        np.concatenate(logits),
        np.concatenate(targets),
        np.asarray(image_ids, dtype=str),
    )


def _trunk(
    net: GradingNet, size: int, compute: Compute, layers: Sequence[str], images: int
) -> Callable[[torch.Tensor], torch.Tensor]:
    """The trunk that is fastest for so many images.

    In float32 it is a folded one only where the map is a continuous function of the activations, so that other rounding moves no more than last
    digits. A gradient is not continuous: rounding can move an activation across a ReLU, and a map with it. It is folded only
    in families whose convolutions then also apply the activations, since in others it gains little.
    """
    if compute.precision != "fp32":
        return folding.folded(net, min(size, PROBE_SIDE), compute.dtype).trunk
    joins = type(net).join_activations is not GradingNet.join_activations
    if joins and not compute.is_cuda and images >= FOLD_FROM and _is_affine(net, layers):
        return folding.folded(net, min(size, PROBE_SIDE)).trunk
    return net.trunk


def of_grades(
    net: GradingNet, images: np.ndarray, image_ids: Sequence[str], rows: np.ndarray, compute: Compute
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Grad-CAM of a network of five grades at its own input size and last layer: of the grade that it predicts, which its user would see, and of
    its most probable grade above 0, which is evidence for disease also where it predicts none.

    Args:
        net: Network with ``input_size``, on the device of ``compute``.
        images, image_ids, rows, compute: As in :func:`explain_images`.

    Returns:
        Maps (N, h, w), at least 0, of the predicted grade and of disease; and the grade above 0 of each eye, (N,).
    """
    layer = list(net.cam_layers)[-1]

    def maps(target: np.ndarray | None) -> Explained:
        return explain_images(net, images, image_ids, net.input_size, compute, rows, target, [layer])

    predicted = maps(None)
    grades = 1 + predicted.logits[:, 1:].argmax(1)
    return predicted.maps(layer), maps(grades).maps(layer), grades


def display(maps: np.ndarray) -> np.ndarray:
    """Scale each map to 0..1 by its own minimum and maximum, for the eye only: magnitudes are lost.

    Args:
        maps: (..., h, w) float.

    Returns:
        The same shape; a flat map, which has no contrast to show, becomes 0 everywhere.
    """
    low = maps.min((-2, -1), keepdims=True)
    span = maps.max((-2, -1), keepdims=True) - low
    return (maps - low) / np.where(span == 0, 1, span)


def upsample(maps: np.ndarray, size: int) -> np.ndarray:
    """Bring maps to the side of the photograph: bilinear, pixel centres in place (``align_corners=False``).

    A non-negative map stays so.

    Args:
        maps: (N, h, w) float.
        size: Side, pixels.

    Returns:
        (N, size, size) float32.
    """
    tensor = torch.as_tensor(np.asarray(maps, dtype=np.float32))[:, None]
    return functional.interpolate(tensor, size=(size, size), mode="bilinear", align_corners=False)[
        :, 0
    ].numpy()


def choose_images(part: pd.DataFrame, max_images: int, seed: int) -> pd.DataFrame:
    """At most so many eyes, drawn evenly over the grades: a grade with few gives all, the others fill up.

    Args:
        part: Rows of a split, with a column ``grade`` that may be missing.
        max_images: 0 is no limit.
        seed: Seed of the draw.

    Returns:
        The chosen rows in their order, index reset.
    """
    if 0 < max_images < len(part):
        turn = part.sample(frac=1, random_state=seed).groupby("grade", dropna=False).cumcount()
        keep = turn.sort_values(kind="stable").index[:max_images]
        part = part.loc[part.index.isin(keep)]
    return part.reset_index(drop=True)


def targets(part: pd.DataFrame, target: str) -> np.ndarray | None:
    """The classes to explain, as :func:`explain_images` takes them.

    Args:
        part: Rows with a column ``grade``.
        target: ``predicted`` or ``grade``.

    Raises:
        ValueError: If ``target`` is ``grade`` and an eye has none.
    """
    if target == "predicted":
        return None
    if part["grade"].isna().any():
        count = int(part["grade"].isna().sum())
        raise ValueError(
            f"TARGET is 'grade', but {count} of {len(part)} eyes have none. Set it to 'predicted'."
        )
    return part["grade"].to_numpy(np.int64)


def save_maps(explained: Explained, path: str | os.PathLike[str]) -> None:
    """Write ``maps.npz``, atomically: ``image_ids``, ``layers``, ``target``, ``logits``, ``raw_<layer>``."""
    arrays = {f"raw_{layer}": raw for layer, raw in explained.raw.items()}
    with paths.atomic(path) as temporary:
        np.savez_compressed(
            temporary,
            image_ids=explained.image_ids,
            layers=np.asarray(explained.layers, dtype=str),
            target=explained.target,
            logits=explained.logits,
            **arrays,
        )


def load_maps(path: str | os.PathLike[str]) -> Explained:
    """Read what :func:`save_maps` wrote."""
    with np.load(path, allow_pickle=False) as file:
        raw = {str(layer): file[f"raw_{layer}"] for layer in file["layers"]}
        return Explained(raw, file["logits"], file["target"], file["image_ids"])


@contextlib.contextmanager
def evaluating(net: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block; each module has its own mode again afterwards."""
    modes = {module: module.training for module in net.modules()}
    try:
        for module in modes:
            module.training = False
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _one_for_each(rows: np.ndarray, image_ids: Sequence[str], target: np.ndarray | None) -> None:
    """Refuse a number of names or classes that is not the number of images."""
    if len(image_ids) != len(rows) or (target is not None and len(target) != len(rows)):
        given = f"{len(image_ids)} image_ids and {'no' if target is None else len(target)} targets"
        raise ValueError(
            f"{len(rows)} images are to be explained, but there are {given}: give one for each image."
        )


def _layers(net: GradingNet, layers: Sequence[str] | None) -> list[str]:
    return [layers] if isinstance(layers, str) else list(layers or net.cam_layers)


def checked_target(target: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """The classes to explain, (N,) int64 on the device of ``logits`` (N, K).

    Raises:
        ValueError: If ``target`` is not one integer class in range for each of the N images.
    """
    n, classes = logits.shape
    if target.shape != (n,) or target.dtype.is_floating_point or target.dtype == torch.bool:
        found = f"{target.dtype} of shape {tuple(target.shape)}"
        raise ValueError(f"target is {found}; give one integer class for each of the {n} images.")
    low, high = int(target.min()), int(target.max())
    if low < 0 or high >= classes:
        raise ValueError(f"target goes from {low} to {high}; classes are 0 to {classes - 1}.")
    return target.to(logits.device, torch.int64)
