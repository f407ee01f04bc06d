"""Where the stages of a backbone end: the last layer of each stride, for maps and features that are finer than the last layer."""

from __future__ import annotations

from torch import nn

from drstudy.models import nets
from drstudy.models.base import GradingNet


def stages(net: GradingNet) -> dict[int, str]:
    """Stride to the path of the last module of that stride, below ``net.net``, from fine to coarse.

    A stage of stride s has a map of ``S / s`` cells per side for an input of S pixels. Stride 2 is left out: its features are edges and
    colours.

    Args:
        net: ResNet, DenseNet, VGG or EfficientNet-Lite.

    Raises:
        ValueError: For a backbone whose stages are not declared here.
    """
    if isinstance(net, nets.FineResNet):  # its last stage keeps the stride of the one before
        return {4: "layer1", 8: "layer2", 16: "layer3"}
    if isinstance(net, nets.ResNet):
        return {4: "layer1", 8: "layer2", 16: "layer3", 32: "layer4"}
    if isinstance(net, nets.DenseNet):
        blocks = {4: "features.denseblock1", 8: "features.denseblock2", 16: "features.denseblock3"}
        return blocks | {32: "features.norm5"}
    if isinstance(net, nets.EfficientNetLite):
        strided = strided_blocks(net)
        ends = [*(block - 1 for block in strided), len(net.net._blocks) - 1]
        return {stride: f"_blocks.{end}" for stride, end in zip((4, 8, 16, 32), ends[-4:])}
    if isinstance(net, nets.VGG):
        pools = [i for i, module in enumerate(net.net.features) if isinstance(module, nn.MaxPool2d)]
        return {stride: f"features.{pool - 1}" for stride, pool in zip((4, 8, 16), pools[-3:])}
    raise ValueError(
        f"The stages of {net.backbone} are not declared; use a ResNet, DenseNet, VGG or EfficientNet-Lite."
    )


def strided_blocks(net: nets.EfficientNetLite) -> list[int]:
    """Indices of EfficientNet-Lite's blocks that halve the side."""
    return [i for i, block in enumerate(net.net._blocks) if block._depthwise_conv.stride[0] == 2]
