"""Inference: probabilities of the five grades, and trained networks on disk."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from drstudy.core import paths, records
from drstudy.core.devices import Compute
from drstudy.core.names import N_GRADES
from drstudy.models import nets
from drstudy.models.nets import GradingNet
from drstudy.papers.ram import model as ram
from drstudy.training import transforms
from drstudy.training.features import Features

CUDA_BATCH = 64


@torch.no_grad()
def from_features(
    net: GradingNet, features: Features, split: str, compute: Compute, share: tuple[int, int] = (0, 1)
) -> np.ndarray:
    """Outputs (N, 5), of a regression (N, 1), float32 for a split's images, in the order of the split file.

    Args:
        net: Set to evaluation mode.
        features: Of the same network.
        split: ``validation`` or ``test``.
        compute: Device and precision.
        share: (rank, processes): only images rank, rank + processes, ..., dealt out without padding.

    Raises:
        ValueError: If ``split`` is neither validation nor test.
    """
    if split not in ("validation", "test"):
        raise ValueError(
            f"Features without augmentation are kept for validation and test, not for {split!r}."
        )
    rank, processes = share
    positions = np.flatnonzero(features.clean["split"].to_numpy() == split)[rank::processes]
    net.eval()
    with compute.autocast():
        parts = [net.tail(h).float().cpu() for h in features.unaugmented(positions)]
    return torch.cat(parts).numpy() if parts else np.empty((0, net.outputs), np.float32)


@torch.no_grad()
def predict(net: GradingNet, images: np.ndarray, compute: Compute, input_size: int) -> np.ndarray:
    """Probabilities (N, 5) float64 of stored images (N, S, S, 3) uint8, by the whole network."""
    net.eval()
    logits = []
    step = CUDA_BATCH if compute.is_cuda else net.trunk_batch
    for start in range(0, len(images), step):
        batch = transforms.to_input(images[start : start + step], input_size, net.mean, net.std)
        with compute.autocast():
            logits.append(net(compute.put(batch)).float().cpu())
    return softmax(torch.cat(logits).numpy())


def softmax(logits: np.ndarray) -> np.ndarray:
    """(N, 5) logits to probabilities in float64, each row summing to 1."""
    return torch.from_numpy(np.asarray(logits, dtype=np.float64)).softmax(1).numpy()


def table(net: GradingNet, features: Features, split: str, compute: Compute) -> pd.DataFrame:
    """Predictions of one split (validation or test) from its features; see :func:`frame`."""
    part = features.clean[features.clean["split"] == split]
    return frame(part, softmax(from_features(net, features, split, compute)))


def frame(part: pd.DataFrame, probabilities: np.ndarray) -> pd.DataFrame:
    """Predictions as ``predictions.csv`` holds them: ``image_id, patient_id, split, grade, p0..p4``."""
    columns = {f"p{k}": probabilities[:, k] for k in range(probabilities.shape[1])}
    return part[["image_id", "patient_id", "split", "grade"]].reset_index(drop=True).assign(**columns)


def write(predictions: pd.DataFrame, path: Path) -> None:
    """Write predictions atomically; probabilities in 17 digits, so that reading gives the same numbers."""
    with paths.atomic(path) as temporary:
        predictions.to_csv(temporary, index=False, lineterminator="\n", float_format="%.17g")


def save(net: GradingNet, path: Path, input_size: int) -> None:
    """Write a network that describes itself: all tensors, and backbone, head, weights and normalisation as metadata."""
    about = {
        "backbone": net.backbone,
        "head": net.head,
        "weights_used": net.weights_used,
        "frozen_bn": net.frozen_bn,
        "input_size": input_size,
        "mean": net.mean,
        "std": net.std,
    }
    if net.outputs != N_GRADES:
        about["outputs"] = net.outputs
    if isinstance(net, ram.RamNet):
        about["options"] = net.options
    with paths.atomic(path) as temporary:
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in net.state_dict().items()}
        save_file(state, temporary, metadata={"drstudy": json.dumps(about)})


def load(model: records.Record | Path) -> GradingNet:
    """A trained network in evaluation mode on the CPU, with ``input_size`` set.

    Args:
        model: A record of notebook 03, or a file (notebook 11 leaves several) that :func:`save` wrote.

    Raises:
        FileNotFoundError, ValueError: If the file is missing or was not written by :func:`save`.
    """
    path = model.path("model.safetensors") if isinstance(model, records.Record) else Path(model)
    try:
        with safe_open(path, "pt") as file:
            about = (file.metadata() or {}).get("drstudy")
    except SafetensorError as error:
        raise ValueError(
            f"{paths.show(path)} is not a whole safetensors file ({error}). Run notebook 03 for it again."
        ) from error
    if about is None:
        raise ValueError(
            f"{paths.show(path)} does not say which backbone it is; only files written by notebook 03 do."
        )
    about = json.loads(about)
    if "options" in about:
        with torch.device("meta"):
            net = ram.build(**about["options"])
    else:
        net = nets.empty(about["backbone"], about["head"], about.get("outputs", N_GRADES))
    net.load_state_dict(load_file(path), assign=True)
    net.weights_used, net.input_size = about["weights_used"], about["input_size"]
    net.freeze(about["frozen_bn"])
    return net.eval()
