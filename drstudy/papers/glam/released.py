"""GLAM as released (Liu et al. 2021; ``docs/sources.md``, D2), written from a description of the release, with each oddity as a setting.

The global network gives a coarse saliency map of the whole image at three scales. Windows of high saliency are cropped out of the image
at full resolution, and the local network segments inside them. Both learn from labels of whole images alone.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from drstudy.models import nets
from drstudy.models.compat import torchvision
from drstudy.models.nets import GradingNet
from drstudy.papers.glam import patches
from drstudy.papers.glam.patches import Upsampling

BasicBlock = torchvision.models.resnet.BasicBlock

GLOBAL_WIDTHS, GLOBAL_STRIDES, GLOBAL_BLOCKS = (16, 32, 64, 128, 256), (1, 2, 2, 2, 2), 2
LOCAL_WIDTHS, LOCAL_BLOCKS = (64, 128, 256, 512), (3, 4, 6, 3)

SCALES = ("stage3", "stage4", "stage5")
"""Stages of the global network that have a saliency map."""

MIXTURE = (0.2, 0.6, 0.2)
"""Weight of the map of each of :data:`SCALES` in the global map."""

GREY = {"released": (0.299, 0.587, 0.144), "fixed": (0.299, 0.587, 0.114)}
"""Weights of red, green and blue. Those of the release sum to 1.03 (``docs/sources.md``, D5)."""


@dataclass(frozen=True)
class Settings:
    """How maps become scores, patches and a final map. The defaults are those of the release.

    Attributes:
        crop: Side of a crop, pixels.
        share: Share t of the positions of a map whose mean is the score of the image.
        patches: Number K of patches per image.
        local_share: Share q of the positions of all patches together whose mean is the local score.
        upsampling: ``nearest`` (released) or ``bilinear``, of every map.
        overlap, misplace: See :func:`drstudy.papers.glam.patches.paste`; released: ``overwrite``, True.
        fusion: See :func:`drstudy.papers.glam.patches.fuse`.
        flat, least: See :func:`drstudy.papers.glam.patches.propose`. The release fails on flat maps.
        fill: See :func:`drstudy.papers.glam.patches.crop`.
        grey: ``released`` or ``fixed``, one of :data:`GREY`.
    """

    crop: int = 512
    share: float = 0.03
    patches: int = 1
    local_share: float = 0.3
    upsampling: Upsampling = "nearest"
    overlap: Literal["overwrite", "mean"] = "overwrite"
    misplace: bool = True
    fusion: Literal["released", "fixed"] = "released"
    flat: Literal["first", "none"] = "first"
    least: float = 0.0
    fill: Literal["minimum", "edge"] = "minimum"
    grey: Literal["released", "fixed"] = "released"


# --- the networks ------------------------------------------------------------------------------------


class PreactivationBlock(nn.Module):
    """Basic residual block whose norms and ReLUs come before its two 3 x 3 convolutions.

    The 1 x 1 shortcut at the start of a stage reads the input after norm and ReLU, as is usual for such networks (**a choice**; the
    source does not say).
    """

    def __init__(self, channels: int, width: int, stride: int, shortcut: bool) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.shortcut = nn.Conv2d(channels, width, 1, stride, bias=False) if shortcut else None

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.norm1(x))
        skipped = x if self.shortcut is None else self.shortcut(active)
        return skipped + self.conv2(F.relu(self.norm2(self.conv1(active))))


class GlobalNet(nn.Module):
    """Pre-activation ResNet of 22 layers with a saliency map at each of :data:`SCALES` (``docs/sources.md``, D2: global network).

    Args:
        channels: Channels of the input: 1 as released, or 3.
        classes: Number of labels.
        width: Factor of all widths; 1 as released.
        upsampling: How the maps of stages 4 and 5 come to the size of stage 3, before the sigmoid.
        closing: Where norm and ReLU come between the sum of the last residual block and a saliency head. ``last``: at stage 5 only, as
            released, so that the heads of stages 3 and 4 read raw sums (D5). ``all``: at every scale; the stages themselves still hand
            on raw sums.
    """

    def __init__(
        self,
        channels: int = 1,
        classes: int = 2,
        width: float = 1.0,
        upsampling: Upsampling = "nearest",
        closing: Literal["last", "all"] = "last",
    ) -> None:
        super().__init__()
        if closing not in ("last", "all"):
            raise ValueError(f"CLOSING is {closing!r}; it must be 'last' or 'all'.")
        self.channels, self.classes, self.upsampling = channels, classes, upsampling
        widths = _scaled(GLOBAL_WIDTHS, width)
        self.conv = nn.Conv2d(channels, widths[0], 7, 2, 3, bias=False)
        self.pool = nn.MaxPool2d(3, 2)
        stages, before = {}, widths[0]
        for number, (own, stride) in enumerate(zip(widths, GLOBAL_STRIDES), 1):
            first = PreactivationBlock(before, own, stride, shortcut=True)
            rest = [PreactivationBlock(own, own, 1, shortcut=False) for _ in range(GLOBAL_BLOCKS - 1)]
            stages[f"stage{number}"] = nn.Sequential(first, *rest)
            before = own
        self.stages = nn.ModuleDict(stages)
        at = dict(zip(stages, widths))
        closed = SCALES if closing == "all" else SCALES[-1:]
        self.closing = nn.ModuleDict({name: nn.BatchNorm2d(at[name]) for name in closed})
        _initialise(self)
        self.heads = nn.ModuleDict({name: nn.Conv2d(at[name], classes, 1, bias=False) for name in SCALES})

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, channels, H, W) to saliency (B, 3, classes, h, w), float32 in 0 to 1, on the grid of stage 3.

        The scales are in the order of :data:`SCALES`. The grid has about a sixteenth of the side: 184 x 120 for 2944 x 1920.
        """
        x, maps = self.pool(self.conv(x)), []
        for name, stage in self.stages.items():
            x = stage(x)
            if name in SCALES:
                read = F.relu(self.closing[name](x)) if name in self.closing else x
                maps.append(self.heads[name](read).float())
        grid = (maps[0].shape[2], maps[0].shape[3])
        return torch.stack([patches.enlarge(one, grid, self.upsampling) for one in maps], 1).sigmoid()


class LocalNet(nn.Module):
    """ResNet-34 with stride 1 in all stages: one value per 4 x 4 pixels (``docs/sources.md``, D2: local network).

    Layers have the names of torchvision's ``resnet34``, whose weights fit at width 1.

    Args:
        classes: Number of labels.
        width: Factor of all widths; 1 as released.
        blocks: Number of basic blocks in each of the four stages.
    """

    def __init__(self, classes: int = 2, width: float = 1.0, blocks: Sequence[int] = LOCAL_BLOCKS) -> None:
        super().__init__()
        widths = _scaled(LOCAL_WIDTHS, width)
        self.conv1 = nn.Conv2d(3, widths[0], 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        before = widths[0]
        for number, (own, count) in enumerate(zip(widths, blocks, strict=True), 1):
            join = None
            if before != own:
                join = nn.Sequential(nn.Conv2d(before, own, 1, bias=False), nn.BatchNorm2d(own))
            rest = [BasicBlock(own, own) for _ in range(count - 1)]
            self.add_module(f"layer{number}", nn.Sequential(BasicBlock(before, own, downsample=join), *rest))
            before = own
        _initialise(self)
        self.head = nn.Conv2d(before, classes, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Patches (N, 1 or 3, s, s) to maps (N, classes, s/4, s/4), float32 in 0 to 1. Grey is repeated to three channels."""
        x = x.expand(-1, 3, -1, -1) if x.shape[1] == 1 else x
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.head(x).float().sigmoid()


CHANNELS = 8
"""Scaled networks have multiples of so many channels: with 2 or 3, backward passes of convolutions wrote past their memory on AVX2 processors."""


def _scaled(widths: Sequence[int], factor: float) -> list[int]:
    """Scaled widths as multiples of :data:`CHANNELS`; those of the release stay as they are at factor 1."""
    return [max(CHANNELS, CHANNELS * round(factor * width / CHANNELS)) for width in widths]


def _initialise(net: nn.Module) -> None:
    """He et al.'s normal weights for convolutions (**a choice**). Heads, made afterwards, keep PyTorch's."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


# --- the system --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Coarse:
    """What the global network gives for B images and C labels.

    Attributes:
        maps: (B, 3, C, h, w) saliency of each of :data:`SCALES`.
        saliency: (B, C, h, w) global map S_g, weighted by :data:`MIXTURE`.
        scales: (B, 3, C) score of each scale, the mean of its highest positions.
        averaged: (B, C) score of the plain mean of the three maps.
        score: (B, C) prediction of the release: the mean of ``scales``.
    """

    maps: Tensor
    saliency: Tensor
    scales: Tensor
    averaged: Tensor
    score: Tensor


@dataclass(frozen=True)
class Fine:
    """What the local network gives for B images, C labels and K patches.

    Attributes:
        corners: (B, K, 2) int64, pixels, upper left. Patches that were not proposed lie wholly outside the image.
        proposed: (B, K) bool.
        maps: (B, K, C, s/4, s/4) saliency of each patch.
        score: (B, C) mean of the highest positions of all proposed patches together; NaN without one.
    """

    corners: Tensor
    proposed: Tensor
    maps: Tensor
    score: Tensor

    @property
    def joined(self) -> Tensor:
        """All patches of an image as one map (B, C, K, positions)."""
        return joined(self.maps)

    @property
    def valid(self) -> Tensor:
        """Positions of :attr:`joined` that are of a proposed patch, (B, 1, K, positions) bool."""
        return self.proposed[:, None, :, None].expand(-1, 1, -1, self.maps.shape[-2] * self.maps.shape[-1])


def joined(maps: Tensor) -> Tensor:
    """Maps of patches (B, K, C, h, w) as one map per image and class, (B, C, K, h * w)."""
    return maps.flatten(3).transpose(1, 2)


@dataclass(frozen=True)
class Segmentation:
    """Scores and maps of B images of H x W pixels, for C labels.

    Attributes:
        coarse, fine: The parts; ``coarse.score`` is the prediction of the release, which ignores ``fine.score``.
        local: (B, C, H, W) canvas S_local with the maps of the patches, 0 elsewhere.
        covered: (B, 1, H, W) bool, where a patch is.
        whole: (B, C, H, W) final map S.
    """

    coarse: Coarse
    fine: Fine
    local: Tensor
    covered: Tensor
    whole: Tensor


class Glam(nn.Module):
    """The global and the local network, and what is between them.

    Args:
        global_net, local_net: The networks. Another global network must give maps of the form of :meth:`GlobalNet.forward`.
        settings: How maps become scores, patches and a final map.
    """

    def __init__(self, global_net: GlobalNet, local_net: LocalNet, settings: Settings) -> None:
        super().__init__()
        self.global_net, self.local_net, self.settings = global_net, local_net, settings

    def prepare(self, x: Tensor) -> Tensor:
        """Photographs as the networks take them: grey where the global network takes one channel, each standardised by itself.

        Args:
            x: (B, 1 or 3, H, W) float, any scale.

        Returns:
            (B, channels, H, W) float32 with mean 0 and standard deviation 1 per image. A standard deviation below 1e-4 counts as 1e-4, so
            that a uniform image stays uniform.
        """
        x = x.float()
        if self.global_net.channels == 1 and x.shape[1] == 3:
            x = (x * x.new_tensor(GREY[self.settings.grey])[:, None, None]).sum(1, keepdim=True)
        centred = x - x.mean((1, 2, 3), keepdim=True)
        return centred / centred.square().mean((1, 2, 3), keepdim=True).sqrt().clamp(min=1e-4)

    def coarse(self, x: Tensor) -> Coarse:
        """The global network's maps and scores of prepared images (B, channels, H, W)."""
        maps = self.global_net(x)
        share = self.settings.share
        mixture = maps.new_tensor(MIXTURE)[:, None, None, None]
        scales = patches.top_mean(maps.flatten(1, 2), share).unflatten(1, maps.shape[1:3])
        averaged = patches.top_mean(maps.mean(1), share)
        return Coarse(maps, (maps * mixture).sum(1), scales, averaged, scales.mean(1))

    def fine(self, x: Tensor, saliency: Tensor) -> Fine:
        """The local network's maps of the patches that a global map (B, C, h, w) proposes on prepared images. No gradient reaches the map."""
        s, image, grid = self.settings, tuple(x.shape[-2:]), tuple(saliency.shape[-2:])
        window = patches.window_of(s.crop, grid, image)
        cells = patches.propose(saliency, s.patches, window, s.flat, s.least)
        corners = patches.to_pixels(cells, grid, image, s.crop)
        cut = patches.crop(x, corners, s.crop, s.fill)
        maps = self.local_net(cut.flatten(0, 1)).unflatten(0, cut.shape[:2])
        proposed = patches.proposed(cells)
        valid = proposed[:, None, :, None].expand(-1, 1, -1, maps.shape[-2] * maps.shape[-1])
        return Fine(corners, proposed, maps, patches.top_mean(joined(maps), s.local_share, valid))

    def enlarged(self, coarse: Coarse, image: tuple[int, int]) -> Tensor:
        """The global map at the size of the image, (B, C, H, W)."""
        return patches.enlarge(coarse.saliency, image, self.settings.upsampling)

    def fuse(self, coarse: Coarse, fine: Fine, image: tuple[int, int]) -> Segmentation:
        """The final map of both parts, for images of this height and width."""
        s = self.settings
        local, covered = patches.paste(
            fine.maps, fine.corners, s.crop, image, s.overlap, s.misplace, s.upsampling
        )
        whole = patches.fuse(self.enlarged(coarse, image), local, covered, s.fusion)
        return Segmentation(coarse, fine, local, covered, whole)

    def forward(self, x: Tensor) -> Segmentation:
        """Scores and maps of prepared images (B, channels, H, W); see :meth:`prepare`."""
        coarse = self.coarse(x)
        return self.fuse(coarse, self.fine(x, coarse.saliency), tuple(x.shape[-2:]))


class ReleasedNet(GradingNet):
    """GLAM as the rest of the study takes networks: photographs scaled to [0, 1] go in, one logit per label comes out.

    ``net`` is the :class:`Glam`. The trunk hands photographs on; nothing is frozen.

    Attributes:
        options: What :func:`build` was given.
    """

    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    head_path = "global_net.heads"
    options: dict[str, Any]

    def _declare(self) -> None:
        self.trainable = ("global_net", "local_net")

    def trunk(self, x: Tensor) -> Tensor:
        """The photographs themselves."""
        return x

    def tail(self, h: Tensor) -> Tensor:
        """Logits (B, C) of the release's prediction, which is the global network's alone."""
        return torch.logit(self.net.coarse(self.net.prepare(h)).score, eps=1e-6)

    def describe(self, input_size: int) -> dict[str, Any]:
        return super().describe(input_size) | {
            "outputs": self.outputs,
            "options": copy.deepcopy(self.options),
        }


def build(
    classes: int,
    settings: Settings,
    channels: int = 3,
    width: float = 1.0,
    blocks: Sequence[int] = LOCAL_BLOCKS,
    closing: Literal["last", "all"] = "last",
    seed: int = 0,
) -> ReleasedNet:
    """The system with random weights.

    Args:
        classes: Number of labels.
        settings: How maps become scores, patches and a final map.
        channels: Of the global network's input: 1 (grey, as released) or 3.
        width: Factor of the widths of both networks.
        blocks: See :class:`LocalNet`.
        closing: See :class:`GlobalNet`.
        seed: Seed of the weights.

    Raises:
        ValueError: If ``channels`` is neither 1 nor 3.
    """
    if channels not in (1, 3):
        raise ValueError(f"CHANNELS is {channels}; it must be 1 (grey) or 3 (colour).")
    with nets.seeded(seed):
        global_net = GlobalNet(channels, classes, width, settings.upsampling, closing)
        glam = Glam(global_net, LocalNet(classes, width, blocks), settings)
    net = ReleasedNet("glam_released", glam, "single")
    net.outputs = classes
    net.options = {
        "classes": classes,
        "settings": dataclasses.asdict(settings),
        "channels": channels,
        "width": width,
        "blocks": list(blocks),
        "closing": closing,
    }
    net.freeze("eval")
    return net


def rebuild(about: dict[str, Any]) -> ReleasedNet:
    """The empty network of a :meth:`ReleasedNet.describe`, for :func:`drstudy.training.prediction.load`."""
    options = dict(about["options"])
    with torch.device("meta"):
        return build(settings=Settings(**options.pop("settings")), **options)


def parameters() -> dict[str, int]:
    """Parameters of the two networks as released, with 1 channel and 2 classes: ``parameters_global``, ``parameters_local``."""
    with torch.device("meta"):
        found = {"global": GlobalNet(), "local": LocalNet()}
    return {f"parameters_{name}": sum(q.numel() for q in net.parameters()) for name, net in found.items()}
