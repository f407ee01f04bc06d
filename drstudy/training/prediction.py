"""Inference in batches, tables of predictions, and trained networks on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from drstudy.core import paths, records
from drstudy.core.devices import Compute
from drstudy.data.images import release
from drstudy.models import nets
from drstudy.models.nets import GradingNet
from drstudy.training import tensors, transforms
from drstudy.training.features import Features

CUDA_BATCH = 64

Result = TypeVar("Result")


@torch.no_grad()
def from_features(net: GradingNet, features: Features, split: str, compute: Compute) -> np.ndarray:
    """Outputs (N, outputs) float32 for a split's images, in the order of the split file.

    If several processes train together (``features.share``), each computes its part without padding, and all return the whole.

    Args:
        net: Network; it is set to evaluation mode.
        features: Features of the same network.
        split: ``validation`` or ``test``.
        compute: Device and precision.

    Raises:
        ValueError: If ``split`` is neither validation nor test.
    """
    if split not in ("validation", "test"):
        raise ValueError(
            f"Features without augmentation are kept for validation and test, not for {split!r}."
        )
    rank, processes = features.share
    positions = np.flatnonzero(features.clean["split"].to_numpy() == split)[rank::processes]
    net.eval()
    with compute.autocast():
        parts = [net.tail(h).float().cpu() for h in features.unaugmented(positions)]
    outputs = torch.cat(parts).numpy() if parts else np.empty((0, net.outputs), np.float32)
    if processes == 1:
        return outputs
    dealt: list = [None] * processes
    torch.distributed.all_gather_object(dealt, outputs)
    whole = np.empty((sum(map(len, dealt)), net.outputs), np.float32)
    for other, part in enumerate(dealt):
        whole[other::processes] = part
    return whole


@torch.no_grad()
def in_batches(
    forward: Callable[[Tensor], Result],
    net: GradingNet,
    images: np.ndarray,
    rows: np.ndarray,
    input_size: int,
    compute: Compute,
    batch_size: int = 0,
) -> Iterator[tuple[slice, Result]]:
    """Run photographs through a network, or a part of it, in batches. All predictions and maps of whole photographs go through here.

    Args:
        forward: Function of a batch (B, 3, S, S), float32, normalised, on the device. It runs without gradients and under the
            precision of ``compute``.
        net: Network; it is set to evaluation mode, and its mean and standard deviation normalise the photographs.
        images: (N, S, S, 3) uint8, the image store.
        rows: (M,) rows of ``images``, in order.
        input_size: Side of the input, pixels.
        compute: Device and precision.
        batch_size: Photographs per batch; 0 chooses a number that suits the device.

    Yields:
        The slice of ``rows`` in a batch, and the result of ``forward``.
    """
    net.eval()
    step = batch_size or (CUDA_BATCH if compute.is_cuda else net.trunk_batch)
    for start in range(0, len(rows), step):
        some = slice(start, min(start + step, len(rows)))
        batch = compute.put(transforms.to_input(images[rows[some]], input_size, net.mean, net.std))
        release(images)
        with compute.autocast():
            yield some, forward(batch)


def logits(
    net: GradingNet,
    images: np.ndarray,
    rows: np.ndarray,
    input_size: int,
    compute: Compute,
    batch_size: int = 0,
) -> np.ndarray:
    """Outputs (M, outputs) float32 of the whole network for photographs; arguments as of :func:`in_batches`."""
    found = in_batches(net, net, images, rows, input_size, compute, batch_size)
    parts = [outputs.float().cpu() for _, outputs in found]
    return torch.cat(parts).numpy() if parts else np.empty((0, net.outputs), np.float32)


def predict(net: GradingNet, images: np.ndarray, compute: Compute, input_size: int) -> np.ndarray:
    """Probabilities (N, 5) float64 of the whole network for stored images (N, S, S, 3) uint8."""
    return softmax(logits(net, images, np.arange(len(images)), input_size, compute))


def softmax(logits: np.ndarray) -> np.ndarray:
    """(N, 5) logits to probabilities in float64, each row summing to 1."""
    return torch.from_numpy(np.asarray(logits, dtype=np.float64)).softmax(1).numpy()


def table(net: GradingNet, features: Features, split: str, compute: Compute) -> pd.DataFrame:
    """Predictions of one split (validation or test) from its features; see :func:`frame`."""
    part = features.clean[features.clean["split"] == split]
    return frame(part, softmax(from_features(net, features, split, compute)))


def frame(part: pd.DataFrame, probabilities: np.ndarray) -> pd.DataFrame:
    """Predictions with the columns of ``predictions.csv``: ``image_id, patient_id, split, grade, p0..p4``."""
    columns = {f"p{k}": probabilities[:, k] for k in range(probabilities.shape[1])}
    return part[["image_id", "patient_id", "split", "grade"]].reset_index(drop=True).assign(**columns)


def write(predictions: pd.DataFrame, path: Path) -> None:
    """Write predictions atomically, with 17 digits, so that reading gives the same numbers."""
    with paths.atomic(path) as temporary:
        predictions.to_csv(temporary, index=False, lineterminator="\n", float_format="%.17g")


def save(net: GradingNet, path: Path, input_size: int) -> None:
    """Write a network atomically: all tensors, and the result of :meth:`GradingNet.describe` as metadata."""
    tensors.write(path, net.state_dict(), net.describe(input_size))


def load(
    model: records.Record | Path, rebuild: Callable[[dict[str, Any]], GradingNet] = nets.rebuild
) -> GradingNet:
    """A trained network in evaluation mode on the CPU, with ``input_size`` set.

    Args:
        model: Record with a ``model.safetensors``, or a file that :func:`save` wrote.
        rebuild: Function that makes an empty network from the result of :meth:`GradingNet.describe`. A paper whose networks are not in
            the registry of backbones gives its own.

    Raises:
        FileNotFoundError, ValueError: If the file is missing or was not written by :func:`save`.
    """
    path = model.path("model.safetensors") if isinstance(model, records.Record) else Path(model)
    try:
        about = tensors.read_facts(path)
    except tensors.BrokenFileError as error:
        raise ValueError(f"{error} Run the notebook that wrote it again.") from error
    if about is None:
        raise ValueError(
            f"{paths.show(path)} does not say which backbone it is; only files that this study wrote do."
        )
    try:
        net = rebuild(about)
        net.load_state_dict(tensors.read_tensors(path), assign=True)
        net.weights_used, net.input_size = about["weights_used"], about["input_size"]
        net.freeze(about["frozen_bn"])
    except tensors.BrokenFileError as error:
        raise ValueError(f"{error} Run the notebook that wrote it again.") from error
    except (KeyError, TypeError, RuntimeError, ValueError) as error:
        problem = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{paths.show(path)} is not the network that it says it is ({type(error).__name__}: {problem}). Run the notebook that wrote it again."
        ) from error
    return net.eval()
