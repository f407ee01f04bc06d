"""Maps finer than the 7 by 7 of a last layer: the main paper's stated future work, four ways, with the same trained weights.

What these say: where the evidence lies, on a finer grid. What they cannot say is more than the network knows: a finer map of a
network that looks at the wrong place is wrong in more detail. Whether a way is a gain is for the localisation measures.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from drstudy.explain.methods import cam, methods
from drstudy.models import nets, stages

if TYPE_CHECKING:
    from drstudy.models.nets import GradingNet

FACTOR = 2
"""By how much the input is enlarged for ``resolution``."""

SHIFT = 1 / 28
"""Of the side: a quarter of the cells of a 7 by 7 map."""

VIEWS: tuple[tuple[bool, int, float, float], ...] = (
    *((flip, turns, 0, 0) for flip in (False, True) for turns in range(4)),
    *((False, 0, dy, dx) for dy in (-SHIFT, SHIFT) for dx in (-SHIFT, SHIFT)),
)
"""Mirrored left to right, then so many quarter turns, then moved down and right by so much of the side."""


def finer(
    net: GradingNet,
    x: Tensor,
    way: str,
    method: str = "grad_cam",
    target: np.ndarray | Tensor | None = None,
    layer: str | None = None,
    *,
    batch_size: int = 16,
) -> np.ndarray:
    """Maps of many eyes on a finer grid.

    ============== =====================================================================================
    ``coarse``     the map as it is, for comparison
    ``fusion``     :func:`fusion`: Layer-CAM of earlier layers within the map
    ``views``      :func:`views`: mean over flips, turns and small shifts, registered
    ``resolution`` the same weights on the input enlarged by :data:`FACTOR`
    ``stride 1``   :func:`stride_one`: no subsampling before the last stage, which is dilated instead
    ============== =====================================================================================

    Args:
        net, x, method, target, layer, batch_size: As in :func:`drstudy.explain.methods.methods.explain`; ``None`` explains, in each way,
            the class that the network predicts for the eye as it is.
        way: One of :data:`WAYS`.

    Returns:
        (N, h, w) float32, signed and unscaled, finer than the layer.

    Raises:
        KeyError: If the way is unknown.
        ValueError: If the way is not possible for this backbone.
    """
    if way not in WAYS:
        raise KeyError(f"There is no way {way!r} to finer maps; there are {', '.join(WAYS)}.")
    if target is None:
        target = _predicted(net, x, batch_size)
    return WAYS[way](net, x, method, target, layer, batch_size)


def fusion(
    net: GradingNet,
    x: Tensor,
    method: str = "grad_cam",
    target: np.ndarray | Tensor | None = None,
    layer: str | None = None,
    batch_size: int = 16,
) -> np.ndarray:
    r"""The map, given detail by Layer-CAM at earlier stages of the trunk.

    .. math:: M = \uparrow\! M_L^+ \cdot \frac{1}{J} \sum_j \frac{\uparrow\! M_j^+}{\max M_j^+}

    for the last layer's map :math:`M_L` and Layer-CAM :math:`M_j` (Jiang et al. 2021) at the ends of the stages of stride 8 and 16, all
    brought to the grid of the finest. Deep layers know the class, early ones the place: the product is large where both
    are. Its unit is that of :math:`M_L`; scaling by the maximum makes the stages, whose gradients differ in size, count alike.
    """
    layer = layer or list(net.cam_layers)[-1]
    early = stage_layers(net)
    found = []
    for begin in range(0, len(x), batch_size):
        part = slice(begin, begin + batch_size)
        wanted = None if target is None else target[part]
        raw = {
            name: methods.explain(net, x[part], "layer_cam", wanted, name, batch_size=batch_size)
            for name in early
        }
        raw[layer] = methods.explain(net, x[part], method, wanted, layer, batch_size=batch_size)
        found.append(_fused({name: methods.evidence(maps) for name, maps in raw.items()}, layer))
    return np.concatenate(found)


def views(
    net: GradingNet,
    x: Tensor,
    method: str = "grad_cam",
    target: np.ndarray | Tensor | None = None,
    layer: str | None = None,
    batch_size: int = 16,
) -> np.ndarray:
    """Mean of the maps of flipped, turned and shifted views, each brought back to where the eye is (:data:`VIEWS`).

    Shifts by a fraction of a cell show the eye to the layer's grid at other offsets; their mean, taken at the side of the photograph,
    has detail between the cells. What a shift moves out of the frame is repeated from the edge on the other side, and is left out of
    the mean there.

    Returns:
        (N, H, W).
    """
    side = x.shape[-1]
    total, count = np.zeros((len(x), side, side), np.float32), np.zeros((side, side), np.float32)
    for flip, turns, down, right in VIEWS:
        dy, dx = round(down * side), round(right * side)
        turned = shifted(torch.rot90(x.flip(-1) if flip else x, turns, (-2, -1)), dy, dx)
        raw = cam.upsample(methods.explain(net, turned, method, target, layer, batch_size=batch_size), side)
        inside = shifted(torch.ones(1, 1, side, side), dy, dx, fill=0)
        back, weight = (
            shifted(maps, -dy, -dx, fill=0).numpy()[:, 0]
            for maps in (torch.from_numpy(raw)[:, None] * inside, inside)
        )
        back, weight = (np.rot90(maps, -turns, (-2, -1)) for maps in (back, weight))
        if flip:
            back, weight = back[..., ::-1], weight[..., ::-1]
        total += back
        count += weight[0]
    return total / count


def shifted(x: Tensor, dy: int, dx: int, fill: float | None = None) -> Tensor:
    """Move (N, C, H, W) down by ``dy`` and right by ``dx`` pixels; what comes in repeats the edge, or is ``fill``."""
    height, width = x.shape[-2:]
    pad = (max(dx, 0), max(-dx, 0), max(dy, 0), max(-dy, 0))
    big = F.pad(x, pad, mode="replicate") if fill is None else F.pad(x, pad, value=fill)
    top, left = max(-dy, 0), max(-dx, 0)
    return big[..., top : top + height, left : left + width]


def stride_one(net: GradingNet) -> GradingNet:
    """A copy whose last subsampling is gone: the layers after it are dilated by 2, so their weights keep their meaning.

    At every second position of every second row the features are *exactly* those of the original network (the tests hold them to
    that); between them lies what it never computed (Yu et al. 2017, dilated residual networks). Scores change, since the mean
    is over four times the positions. Maps have twice the side.

    Args:
        net: ResNet, DenseNet or EfficientNet-Lite, not changed.

    Raises:
        ValueError: For other backbones. VGG's head reads its positions one by one, so a finer grid would be read wrongly.
    """
    fine = copy.deepcopy(net)
    if isinstance(fine, nets.ResNet):
        _open(module for module in fine.net.layer4.modules() if isinstance(module, nn.Conv2d))
    elif isinstance(fine, nets.DenseNet):
        fine.net.features.transition3.pool = nn.Sequential(
            nn.ReplicationPad2d((0, 1, 0, 1)), nn.AvgPool2d(2, stride=1)
        )
        _open(module for module in fine.net.features.denseblock4.modules() if isinstance(module, nn.Conv2d))
    elif isinstance(fine, nets.EfficientNetLite):
        _open(block._depthwise_conv for block in fine.net._blocks[stages.strided_blocks(fine)[-1] :])
    else:
        raise ValueError(
            f"A stride-1 last stage is not possible for {net.backbone}; it is for ResNet, DenseNet and EfficientNet-Lite."
        )
    return fine


def stage_layers(net: GradingNet) -> tuple[str, str]:
    """Module paths of the last layers before the map's own grid is reached: of stride 8 and 16 (VGG: 4 and 8).

    Raises:
        ValueError: For a backbone whose stages are not declared (:mod:`drstudy.models.stages`).
    """
    known = stages.stages(net)
    return (known[4], known[8]) if isinstance(net, nets.VGG) else (known[8], known[16])


def _fused(maps: dict[str, np.ndarray], layer: str) -> np.ndarray:
    side = max(each.shape[-1] for each in maps.values())
    grown = {name: cam.upsample(each, side) for name, each in maps.items()}
    detail = []
    for name, each in grown.items():
        if name != layer:
            top = each.max((1, 2), keepdims=True)
            detail.append(each / np.where(top > 0, top, 1))
    return grown[layer] * np.mean(detail, 0)


def _coarse(net, x, method, target, layer, batch_size) -> np.ndarray:
    return methods.explain(net, x, method, target, layer, batch_size=batch_size)


def _resolution(net, x, method, target, layer, batch_size) -> np.ndarray:
    big = F.interpolate(x, scale_factor=FACTOR, mode="bilinear", align_corners=False)
    return methods.explain(net, big, method, target, layer, batch_size=batch_size)


def _stride_one(net, x, method, target, layer, batch_size) -> np.ndarray:
    return methods.explain(stride_one(net), x, method, target, layer, batch_size=batch_size)


WAYS: dict[str, Callable[..., np.ndarray]] = {
    "coarse": _coarse,
    "fusion": fusion,
    "views": views,
    "resolution": _resolution,
    "stride 1": _stride_one,
}


@torch.no_grad()
def _predicted(net: GradingNet, x: Tensor, batch_size: int) -> Tensor:
    device = next(net.parameters()).device
    with cam.evaluating(net):
        return torch.cat([net(part.to(device)).argmax(1) for part in x.split(batch_size)])


def _open(convolutions: Iterable[nn.Conv2d]) -> None:
    """Stride 1 where it was 2; the convolutions after it reach twice as far. The window's left and upper edge stays."""
    for conv in convolutions:
        reach = conv.kernel_size[0] - 1
        pads = getattr(conv, "pads", None)  # EfficientNet-Lite's own, before and after
        if conv.stride[0] == 2:
            conv.stride = (1, 1)
            if pads is not None:
                conv.pads = (pads[0], reach - pads[0])
        elif reach:
            conv.dilation = (2, 2)
            conv.padding = tuple(2 * pad for pad in conv.padding)
            if pads is not None:
                conv.pads = (2 * pads[0], 2 * pads[1])
