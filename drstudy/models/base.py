"""A network that grades: a frozen trunk and a tail that is fine-tuned.

The composition of the two parts is the network itself, layer for layer, so published weights load unchanged and layers
keep the names by which the papers call them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from drstudy.core.names import N_GRADES
from drstudy.models import heads
from drstudy.models.compat import torchvision
from drstudy.models.convolutions import PointwiseConv
from drstudy.models.weights import FINE, IMAGENET_MEAN, IMAGENET_STD


class GradingNet(nn.Module):
    """A backbone with a head, in two parts.

    Attributes:
        backbone: Name of the network; see :func:`drstudy.models.nets.names`.
        head: ``paper``, ``single`` or ``mlp``.
        outputs: Number of outputs of the head: 5 for grades, 1 for a regression, or one per label.
        weights_used: ``imagenet``, ``bundled``, ``none`` or a file name: what the trunk really started from.
        mean, std: Normalisation that belongs to the weights, for inputs scaled to [0, 1], per channel.
        net: The network with its own module names; :meth:`forward` equals ``net(x)``.
        frozen_bn: ``eval`` or ``track``; see :meth:`train`.
        cam_layers: Layers a map can be taken at, by public name: module path inside ``net``. The first is the
            paper's or the earliest, the last the one right before pooling.
        trunk_batch: Number of images in one pass of the trunk on a CPU; more fall out of a core's cache, and take memory.
        pooled: Whether nothing but mean pooling and the head comes after the last of the ``cam_layers``; with a linear head Grad-CAM
            there needs no gradient (docs/sources.md, A6).
    """

    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    head_path: str = "classifier"
    trainable: tuple[str, ...] = ()
    stride_multiple: int = 1
    trunk_batch: int = 16
    pooled: bool = False
    outputs: int = N_GRADES

    def __init__(self, backbone: str, net: nn.Module, head: str) -> None:
        super().__init__()
        self.backbone, self.head, self.net = backbone, head, net
        self.weights_used = "none"
        self.frozen_bn = "eval"
        self.cam_layers: dict[str, str] = {}
        self._box: dict[str, Tensor] | None = None
        self._wanted: tuple[str, ...] = ()
        self._declare()

    @classmethod
    def create(cls, backbone: str) -> nn.Module:
        """The published network of this name with random weights and its layer of 1000 classes."""
        return torchvision.models.get_model(backbone.removesuffix(FINE), weights=None)

    def _declare(self) -> None:
        """Set ``trainable``, ``head_path`` and ``cam_layers`` for this network."""
        raise NotImplementedError

    def trunk(self, x: Tensor) -> Tensor:
        """The frozen part: normalised images (N, 3, H, W) to features."""
        raise NotImplementedError

    def tail(self, h: Tensor) -> Tensor:
        """The fine-tuned part: the trunk's features to logits (N, 5)."""
        raise NotImplementedError

    def join_activations(self) -> None:
        """In a trunk whose norms are folded, let convolutions apply the activations after them; here they stay as they are."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images (N, 3, H, W) to logits (N, 5)."""
        return self.tail(self.trunk(x))

    def replace_head(self) -> None:
        """Put the head in the place of the 1000-class layer."""
        old = self.net.get_submodule(self.head_path)
        self.net.set_submodule(self.head_path, heads.make(self.head, old.in_features, self.outputs))

    def freeze(self, frozen_bn: str = "eval") -> None:
        """Let only the declared layers and the head learn.

        Args:
            frozen_bn: ``eval`` also holds the running statistics of frozen batch norms; ``track`` lets them drift, as the
                paper's code does (``requires_grad = False`` does not stop them; docs/sources.md, A3).
        """
        if frozen_bn not in ("eval", "track"):
            raise ValueError(f"FROZEN_BN is {frozen_bn!r}; it must be 'eval' or 'track'.")
        self.frozen_bn = frozen_bn
        self.requires_grad_(False)
        learning = [self.net.get_submodule(path) for path in (*self.trainable, self.head_path)]
        for module in learning:
            module.requires_grad_(True)
        PointwiseConv.convert(learning)
        self.train(self.training)

    def train(self, mode: bool = True) -> GradingNet:
        """As ``nn.Module.train``, but frozen layers stay in evaluation mode unless ``frozen_bn`` is ``track``."""
        super().train(mode)
        if mode and self.frozen_bn == "eval":
            self.net.eval()
            for path in (*self.trainable, self.head_path, *self._active_when_frozen()):
                self.net.get_submodule(path).train()
        return self

    def _active_when_frozen(self) -> tuple[str, ...]:
        """Frozen layers without statistics that still act while training (dropout of the tail)."""
        return ()

    def count(self) -> dict[str, int]:
        """Number of parameters: ``parameters_total`` and ``parameters_trainable``."""
        return {
            "parameters_total": sum(p.numel() for p in self.parameters()),
            "parameters_trainable": sum(p.numel() for p in self.parameters() if p.requires_grad),
        }

    def describe(self, input_size: int) -> dict[str, Any]:
        """What must be written beside the weights, so that a file can be read without knowing what is in it.

        A subclass with options of its own extends it: ``super().describe(input_size) | {"options": self.options}``.

        Args:
            input_size: Side of an input, pixels.

        Returns:
            Values that JSON can hold, in this order: ``backbone``, ``head``, ``weights_used``, ``frozen_bn``, ``input_size``,
            ``mean``, ``std``, and ``outputs`` if they are not the five grades.
        """
        about = {
            "backbone": self.backbone,
            "head": self.head,
            "weights_used": self.weights_used,
            "frozen_bn": self.frozen_bn,
            "input_size": input_size,
            "mean": self.mean,
            "std": self.std,
        }
        return about if self.outputs == N_GRADES else about | {"outputs": self.outputs}

    @contextlib.contextmanager
    def record(self, *layers: str) -> Iterator[dict[str, Tensor]]:
        """Collect the tail's activations at ``cam_layers`` names, in the graph, while the block runs.

        Raises:
            KeyError: If a layer is not one of ``cam_layers``.
        """
        for layer in layers:
            if layer not in self.cam_layers:
                raise KeyError(
                    f"{self.backbone} has no layer {layer!r} for maps; it has {', '.join(self.cam_layers)}."
                )
        self._box, self._wanted = {}, layers
        try:
            yield self._box
        finally:
            self._box, self._wanted = None, ()

    def tap(self, layer: str, activation: Tensor) -> Tensor:
        """Identity; hands ``activation`` to :meth:`record` where it asked for this layer."""
        if self._box is not None and layer in self._wanted:
            self._box[layer] = activation
        return activation
