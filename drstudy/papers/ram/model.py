"""The networks of Wang & Yang 2017: regression of the grade by plain convolutions, with maps of the evidence (RAM) or a dense head.

Both heads sit on the same layers (:mod:`drstudy.papers.ram.layers`): ``ram`` is the mean over positions and one linear unit; ``baseline``, the
second place of the Kaggle competition, is RMS pooling, dropout, and two dense layers of 1024 merged by maxout, which no map can see
through. Biases are ``untied``, one per channel and position, so that a network takes one size of input only; ``tied`` is one per channel.
Lasagne's dense layer has a rectifier where none is asked for, and their output unit asks for none; ours is linear.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from drstudy.models import nets
from drstudy.models.nets import GradingNet
from drstudy.papers.ram import layers as ram_layers
from drstudy.papers.ram.layers import CROPS, DENSE, MAXOUT, NETWORKS, Conv

SLOPE = 0.01
"""Of the leaky ReLU."""

FIRST_BIAS = 0.05


class BiasedConv(nn.Module):
    """Convolution, a bias of its own at each position (or one per channel), leaky ReLU."""

    def __init__(self, channels: int, layer: Conv, side: int, untied: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, layer.channels, layer.kernel, layer.stride, layer.padding, bias=False)
        nn.init.orthogonal_(self.conv.weight)
        extent = (side, side) if untied else (1, 1)
        self.bias = nn.Parameter(torch.full((1, layer.channels, *extent), FIRST_BIAS))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return F.leaky_relu(x + self.bias.to(x.dtype), SLOPE)


class RMSPool(nn.Module):
    """Root of the mean square over windows."""

    def __init__(self, kernel: int, stride: int) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        return (F.avg_pool2d(x.float().square(), self.kernel, self.stride) + 1e-12).sqrt()


class Maxout(nn.Module):
    """The greatest of each so many neighbouring units."""

    def forward(self, x: Tensor) -> Tensor:
        return x.unflatten(1, (-1, MAXOUT)).amax(2)


class _Layers(nn.Module):
    """``features`` and ``head``, as :class:`RamNet` names them."""

    def __init__(self, network: str, size: int, untied: bool, batch_norm: bool) -> None:
        super().__init__()
        layers, pool = ram_layers.layers_of(network, size)
        sides = ram_layers.sides(layers, CROPS[size])
        last = max(i for i, layer in enumerate(layers) if isinstance(layer, Conv))
        channels, parts = 3, [nn.BatchNorm2d(3)] if batch_norm else []
        for i, (layer, side) in enumerate(zip(layers, sides)):
            if not isinstance(layer, Conv):
                parts.append(nn.MaxPool2d(layer.kernel, layer.stride, ceil_mode=layer.up))
                continue
            parts.append(BiasedConv(channels, layer, side, untied))
            channels = layer.channels
            if batch_norm and i < last:
                parts.append(nn.BatchNorm2d(channels))
        self.features = nn.Sequential(*parts)
        if pool is None:
            self.head = nn.Linear(channels, 1)
        else:
            wide, merged = channels * pool.side(sides[-1]) ** 2, DENSE // MAXOUT
            self.head = nn.Sequential(
                *(RMSPool(pool.kernel, pool.stride), nn.Flatten(), nn.Dropout(0.5)),
                *(nn.Linear(wide, DENSE), Maxout(), nn.Dropout(0.5)),
                *(nn.Linear(merged, DENSE), Maxout(), nn.Linear(merged, 1)),
            )
        for module in self.head.modules():
            if isinstance(module, nn.Linear):
                nn.init.orthogonal_(module.weight)
                nn.init.zeros_(module.bias)


class RamNet(GradingNet):
    """A network of the paper as the rest of the study takes them: nothing is frozen, the trunk only crops.

    Attributes:
        size: Of the photographs, pixels; the network sees the crop :data:`~drstudy.papers.ram.layers.CROPS` of it.
        options: What :func:`build` was given.
    """

    mean, std = (108.6 / 255, 75.9 / 255, 54.3 / 255), (70.5 / 255, 51.7 / 255, 43.0 / 255)
    head_path = "head"
    outputs = 1

    def _declare(self) -> None:
        self.trainable = ("features",)
        self.cam_layers = {"last_conv": "features"}

    def trunk(self, x: Tensor) -> Tensor:
        """The central crop."""
        cut = (x.shape[-1] - CROPS[self.size]) // 2
        return x[..., cut : x.shape[-2] - cut, cut : x.shape[-1] - cut] if cut else x

    def tail(self, h: Tensor) -> Tensor:
        x = self.tap("last_conv", self.net.features(h))
        return self.net.head(x.mean((2, 3)) if isinstance(self.net.head, nn.Linear) else x)

    def describe(self, input_size: int) -> dict[str, Any]:
        return super().describe(input_size) | {"options": self.options}

    @property
    def margin(self) -> float:
        """Share of the photograph's side that is cut off on each side."""
        return (1 - CROPS[self.size] / self.size) / 2

    def grid(self) -> tuple[float, float]:
        """Centre of the first cell of the map, and the step between cells, in pixels of a photograph of ``size``."""
        start, step = ram_layers.grid(ram_layers.layers_of(self.backbone, self.size)[0])
        return start + (self.size - CROPS[self.size]) / 2, step


def build(network: str, size: int, untied: bool = True, batch_norm: bool = False, seed: int = 0) -> RamNet:
    """A network with random weights, orthogonal as the paper's.

    Args:
        network: One of :data:`drstudy.papers.ram.layers.NETWORKS`.
        size: 128, 256 or 512: side of the photographs, pixels.
        untied: A bias for each channel and position; else one per channel.
        batch_norm: Before the first convolution, and after each but the last, as in the networks behind the paper's kappa.
        seed: Of the weights.

    Raises:
        ValueError: If there is no such network or it does not come in this size.
    """
    with nets.seeded(seed):
        net = RamNet(network, _Layers(network, size, untied, batch_norm), network.split("_")[0])
    net.size = size
    net.options = {"network": network, "size": size, "untied": untied, "batch_norm": batch_norm}
    net.freeze("eval")
    return net


def rebuild(about: dict[str, Any]) -> RamNet:
    """The empty network of a :meth:`RamNet.describe`, for :func:`drstudy.training.prediction.load`."""
    with torch.device("meta"):
        return build(**about["options"])


@torch.no_grad()
def transfer(source: RamNet, target: RamNet) -> list[str]:
    """Start a network for larger photographs from one for smaller ones: convolutions and norms, block by block.

    Untied biases are interpolated to the larger maps (**a choice**: the paper's code does not say). The head starts afresh.

    Returns:
        Names of the tensors that were taken over.
    """
    ours, taken = target.state_dict(), []
    for name, value in source.state_dict().items():
        if name not in ours or not name.startswith("net.features"):
            continue
        if name.endswith(".bias") and value.ndim == 4 and value.shape[:2] == ours[name].shape[:2]:
            value = F.interpolate(value, ours[name].shape[2:], mode="bilinear", align_corners=False)
        if value.shape == ours[name].shape:
            ours[name].copy_(value)
            taken.append(name)
    return taken


def parameters() -> dict[str, int]:
    """Parameters of the four networks that the paper counts, at 512 px with untied biases: ``parameters_<network>``."""
    counted = [name for name in NETWORKS if "visual" not in name]
    with torch.device("meta"):
        return {f"parameters_{name}": build(name, 512).count()["parameters_total"] for name in counted}
