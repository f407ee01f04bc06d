"""A frozen backbone read at several strides, with small heads that give evidence for each label in each cell (``docs/sources.md``, D6).

This is the fundus form of GLAM's global network, and a choice of this study: features of strides 4 to 32 of any declared backbone
(:mod:`drstudy.models.stages`), and heads that only differ in which strides they read and how a map becomes a score. The same
features serve all heads, so they are computed once and cached.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from drstudy.models import nets
from drstudy.models.base import GradingNet
from drstudy.models.stages import stages
from drstudy.papers.glam.recipe import HeadSpec

LIT = 0.06
"""Brightness from which a pixel belongs to the field of view: maximum of its channels, scaled to 0..1."""

UNLIKELY = -2.0
"""First bias of the evidence: a probability of 0.12 in each cell, since lesions are rare."""


class Head(nn.Module):
    """Evidence for each label on the grid of the finest stride that it reads.

    Each stride has a 1x1 projection on its own grid. The sums go from coarse to fine, enlarged bilinearly, and a 1x1 layer gives the
    logits. ``local`` adds a depthwise 3x3 layer at the finest grid. ``decoder`` adds a full 3x3 layer at each grid, as the decoder of a
    U-Net has.

    Args:
        channels: Stride to number of channels of the features.
        spec: What the head reads.
        outputs: Number L of labels.
        hidden: Width.
    """

    def __init__(self, channels: Mapping[int, int], spec: HeadSpec, outputs: int, hidden: int) -> None:
        super().__init__()
        self.strides = sorted(spec.strides, reverse=True)
        self.project = nn.ModuleDict({str(s): nn.Conv2d(channels[s], hidden, 1) for s in self.strides})
        finest, groups = str(self.strides[-1]), hidden if spec.kind == "local" else 1
        mixing = {"pointwise": [], "local": [finest], "decoder": [str(s) for s in self.strides]}[spec.kind]
        self.mix = nn.ModuleDict({s: nn.Conv2d(hidden, hidden, 3, padding=1, groups=groups) for s in mixing})
        self.evidence = nn.Conv2d(hidden, outputs, 1)
        nn.init.constant_(self.evidence.bias, UNLIKELY)

    def forward(self, features: Mapping[int, Tensor]) -> Tensor:
        """Logits (B, L, h, w) from features by stride."""
        coarser: Tensor | None = None
        for stride in self.strides:
            x = self.project[str(stride)](features[stride])
            if coarser is not None:
                x = x + F.interpolate(coarser, size=x.shape[-2:], mode="bilinear", align_corners=False)
            if str(stride) in self.mix:
                x = F.relu(x)
                x = x + self.mix[str(stride)](x)
            coarser = x
        return self.evidence(F.relu(coarser))


class Standard(nn.Module):
    """Features less their mean, over their standard deviation, both per channel and fixed before training."""

    def __init__(self, channels: Mapping[int, int]) -> None:
        super().__init__()
        for stride, number in channels.items():
            self.register_buffer(f"mean{stride}", torch.zeros(1, number, 1, 1))
            self.register_buffer(f"deviation{stride}", torch.ones(1, number, 1, 1))

    def forward(self, features: Mapping[int, Tensor]) -> dict[int, Tensor]:
        return {
            stride: (x - getattr(self, f"mean{stride}")) / getattr(self, f"deviation{stride}")
            for stride, x in features.items()
        }

    @torch.no_grad()
    def measure(self, batches: Sequence[Mapping[int, Tensor]]) -> None:
        """Set means and deviations from the features of some photographs."""
        for stride in batches[0]:
            values = torch.cat([batch[stride].float().transpose(0, 1).flatten(1) for batch in batches], 1)
            getattr(self, f"mean{stride}").copy_(values.mean(1).view(1, -1, 1, 1))
            getattr(self, f"deviation{stride}").copy_(values.std(1).clamp(min=1e-3).view(1, -1, 1, 1))


class _Parts(nn.Module):
    """The modules of a :class:`PyramidNet`."""

    def __init__(self, backbone: GradingNet, channels: Mapping[int, int], heads: Mapping[str, Head]) -> None:
        super().__init__()
        self.backbone, self.standard = backbone, Standard(channels)
        self.heads = nn.ModuleDict(heads)


class PyramidNet(GradingNet):
    """A backbone whose trunk gives features of several strides, with named heads.

    The trunk's output is one tensor: the features of all strides on the coarsest grid, a cell's finer positions side by side in the
    channels (``pixel_unshuffle``, which loses nothing), so that a feature store can keep it. The first channels are the field of
    view at the finest stride: the share of each cell's pixels that are lit.

    Attributes:
        options: What :func:`build` was given.
        strides: Strides of the features, from fine to coarse.
        channels: Stride to number of channels.
    """

    pooled = False
    stride_multiple = 32
    trunk_batch = 8
    head_path = "heads"
    options: dict[str, Any]

    def _declare(self) -> None:
        base = self.net.backbone
        self.mean, self.std = base.mean, base.std
        self.trainable = ()

    def prepared(self, channels: Mapping[int, int]) -> PyramidNet:
        """Set strides and channels; return the network."""
        self.channels, self.strides = dict(channels), sorted(channels)
        self.layers = {s: path for s, path in stages(self.net.backbone).items() if s in self.channels}
        return self

    def join_activations(self) -> None:
        self.net.backbone.join_activations()

    def trunk(self, x: Tensor) -> Tensor:
        """Normalised photographs (N, 3, S, S) to the packed features (N, D, S / coarsest, S / coarsest)."""
        found = features_of(self.net.backbone, self.layers, x)
        lit = lit_share(x, self.mean, self.std, self.strides[0])
        coarsest = self.strides[-1]
        packed = [F.pixel_unshuffle(lit, coarsest // self.strides[0])]
        packed += [F.pixel_unshuffle(found[stride], coarsest // stride) for stride in self.strides]
        return torch.cat(packed, 1)

    def unpack(self, h: Tensor) -> tuple[dict[int, Tensor], Tensor]:
        """Features by stride, standardised, and the field of view (B, 1, h, w) bool at the finest stride, from the trunk's output."""
        coarsest, finest = self.strides[-1], self.strides[0]
        sizes = [(coarsest // finest) ** 2, *(self.channels[s] * (coarsest // s) ** 2 for s in self.strides)]
        lit, *parts = h.split(sizes, 1)
        found = {s: F.pixel_shuffle(part, coarsest // s) for s, part in zip(self.strides, parts)}
        found = {s: x.contiguous(memory_format=torch.channels_last) for s, x in found.items()}
        return self.net.standard(found), F.pixel_shuffle(lit, coarsest // finest) > 0.5

    def tail(self, h: Tensor) -> Tensor:
        """Greatest evidence of the first head for each label, (N, L): logits, for code that knows no maps."""
        features, _ = self.unpack(h)
        first = next(iter(self.net.heads.values()))
        return first(features).amax((2, 3))

    def describe(self, input_size: int) -> dict[str, Any]:
        return super().describe(input_size) | {"outputs": self.outputs, "options": self.options}


def features_of(backbone: GradingNet, layers: Mapping[int, str], x: Tensor) -> dict[int, Tensor]:
    """Outputs of the named layers for normalised photographs, by stride."""
    found: dict[int, Tensor] = {}
    hooks = [
        backbone.net.get_submodule(path).register_forward_hook(
            lambda module, given, output, stride=stride: found.__setitem__(stride, output)
        )
        for stride, path in layers.items()
    ]
    try:
        backbone(x)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def lit_share(x: Tensor, mean: Sequence[float], std: Sequence[float], stride: int) -> Tensor:
    """Share of each cell's pixels that are brighter than :data:`LIT`, (N, 1, S / stride, S / stride), dtype of the input."""
    scaled = x * x.new_tensor(std).view(1, -1, 1, 1) + x.new_tensor(mean).view(1, -1, 1, 1)
    return F.avg_pool2d((scaled.amax(1, keepdim=True) > LIT).to(x.dtype), stride)


def build(
    backbone: str,
    weights: str,
    seed: int,
    outputs: int,
    strides: Sequence[int],
    hidden: int,
    heads: Mapping[str, HeadSpec],
) -> PyramidNet:
    """The network with the weights asked for and fresh heads.

    Args:
        backbone, weights, seed: As in :func:`drstudy.models.nets.build`.
        outputs: Number of labels.
        strides: Strides of the features that are kept.
        hidden: Width of the heads.
        heads: Name to what each head reads.

    Raises:
        ValueError: If the backbone has no such stride, with those that it has.
    """
    return _assemble(nets.build(backbone, weights=weights, seed=seed), seed, outputs, strides, hidden, heads)


def _assemble(
    base: GradingNet,
    seed: int,
    outputs: int,
    strides: Sequence[int],
    hidden: int,
    heads: Mapping[str, HeadSpec],
) -> PyramidNet:
    known = stages(base)
    if missing := sorted(set(strides) - set(known)):
        raise ValueError(
            f"{base.backbone} has no features of stride {missing[0]}; it has {', '.join(map(str, known))}."
        )
    layers = {stride: known[stride] for stride in sorted(strides)}
    channels = _channels(base, layers)
    with nets.seeded(seed):
        made = {name: Head(channels, spec, outputs, hidden) for name, spec in heads.items()}
    net = PyramidNet(base.backbone, _Parts(base, channels, made), "single").prepared(channels)
    net.outputs, net.weights_used = outputs, base.weights_used
    net.options = {
        "outputs": outputs,
        "strides": sorted(strides),
        "hidden": hidden,
        "heads": {name: spec.model_dump(mode="json") for name, spec in heads.items()},
    }
    net.freeze("eval")
    return net


@torch.no_grad()
def _channels(base: GradingNet, layers: Mapping[int, str]) -> dict[int, int]:
    was = base.training
    first = next(base.parameters())
    probe = torch.zeros(1, 3, 64, 64, device=first.device, dtype=first.dtype)
    found = features_of(base.eval(), layers, probe)
    base.train(was)
    return {stride: found[stride].shape[1] for stride in layers}


def rebuild(about: dict[str, Any]) -> PyramidNet:
    """The empty network of a :meth:`PyramidNet.describe`, for :func:`drstudy.training.prediction.load`."""
    options = dict(about["options"])
    heads = {name: HeadSpec(**spec) for name, spec in options.pop("heads").items()}
    base = nets.empty(about["backbone"], "single")
    with torch.device("meta"):
        return _assemble(base, 0, heads=heads, **options)
