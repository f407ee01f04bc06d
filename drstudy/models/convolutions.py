"""Convolutions that give the same numbers as PyTorch's, up to rounding, with fewer passes over memory on a CPU.

Each is a ``nn.Conv2d`` with the same parameters under the same names, so weights load and save as ever. On a GPU they are what they
replace.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SameConv(nn.Conv2d):
    """TensorFlow's "same" padding without a padded copy of the input.

    The package of EfficientNet-Lite writes the input into a larger tensor of zeros before each convolution, which takes longer than a
    depthwise convolution itself. Here the convolution pads. It can pad only equally on both sides; where more pixels are wanted on the
    right and below, the kernel gets as many first rows and columns of zeros, which are multiplied with the pixels too many on the left.

    Attributes:
        pads: Rows of zeros above and below; the same number of columns on the left and right.
    """

    pads: tuple[int, int]

    @classmethod
    def convert(cls, net: nn.Module) -> None:
        """Make the convolutions with a module ``static_padding`` such ones; they stay where they are."""
        for module in net.modules():
            padding = getattr(module, "static_padding", None)
            if isinstance(module, nn.Conv2d) and padding is not None:
                left, right, top, bottom = getattr(padding, "padding", (0, 0, 0, 0))
                if (left, right) == (top, bottom) and right - left in (0, 1):
                    module.__class__ = cls
                    module.pads = (left, right)
                    module.static_padding = nn.Identity()

    def padded(self) -> tuple[Tensor, tuple[int, int]]:
        """The kernel, and by how many pixels the input is padded in height and width, on either side."""
        before, after = self.pads
        more = after - before
        return F.pad(self.weight, (more, 0, more, 0)) if more else self.weight, (after, after)

    def forward(self, x: Tensor) -> Tensor:
        weight, padding = self.padded()
        return F.conv2d(x, weight, self.bias, self.stride, padding, self.dilation, self.groups)


class PointwiseConv(nn.Conv2d):
    """A 1x1 convolution as the matrix product that it is.

    On channels-last memory nothing needs to be moved for that. The gain is in the backward pass: there oneDNN brings weights and
    activations into layouts of its own first, for each batch. With few output channels the two are equally fast.
    """

    LEAST = 256
    """Output channels from which it was faster in all precisions and on all kinds of processor that were tried."""

    @classmethod
    def convert(cls, modules: Iterable[nn.Module]) -> None:
        """Make the 1x1 convolutions among ``modules``, and among their children, such ones; they stay where they are."""
        for module in (child for parent in modules for child in parent.modules()):
            if (
                isinstance(module, nn.Conv2d)
                and module.kernel_size == (1, 1)
                and module.groups == 1
                and module.out_channels >= cls.LEAST
                and module.padding == (0, 0)
                and getattr(module, "pads", (0, 0)) == (0, 0)
            ):
                module.__class__ = cls

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu":
            return F.conv2d(x, self.weight, self.bias, self.stride)
        down, across = self.stride
        if (down, across) != (1, 1):
            x = x[:, :, ::down, ::across]
        n, c, h, w = x.shape
        rows = x.permute(0, 2, 3, 1).reshape(-1, c)
        return F.linear(rows, self.weight.flatten(1), self.bias).view(n, h, w, -1).permute(0, 3, 1, 2)


class ClampedConv(nn.Module):
    """A convolution and the ReLU6 that follows it, in one pass over memory; for inference.

    oneDNN clamps values while it writes them. PyTorch calls that only from what its compiler makes, so where there is no such operator
    the two are done one after the other.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    @staticmethod
    def available(dtype: torch.dtype = torch.float32) -> bool:
        """Whether this build of PyTorch has the operator, and oneDNN computes in ``dtype`` on this processor."""
        if not torch.backends.mkldnn.is_available() or not hasattr(
            torch.ops.mkldnn, "_convolution_pointwise"
        ):
            return False
        return dtype != torch.bfloat16 or torch.ops.mkldnn._is_mkldnn_bf16_supported()

    def forward(self, x: Tensor) -> Tensor:
        conv = self.conv
        if x.device.type != "cpu" or torch.is_grad_enabled() or not self.available(conv.weight.dtype):
            return F.relu6(conv(x))
        weight, padding = conv.padded() if isinstance(conv, SameConv) else (conv.weight, conv.padding)
        x = x.to(weight.dtype).contiguous(memory_format=torch.channels_last)
        settings = list(padding), list(conv.stride), list(conv.dilation), conv.groups
        return torch.ops.mkldnn._convolution_pointwise(
            x, weight, conv.bias, *settings, "hardtanh", [0.0, 6.0], ""
        )
