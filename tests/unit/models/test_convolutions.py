"""Convolutions that give PyTorch's numbers with fewer passes over memory."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from drstudy.models import folding, nets
from drstudy.models.convolutions import ClampedConv, PointwiseConv, SameConv


def padded_by_package(kernel: int, stride: int, pads: tuple[int, int]) -> nn.Conv2d:
    """A depthwise convolution as the package of EfficientNet-Lite makes it."""
    conv = nn.Conv2d(6, 6, kernel, stride, groups=6, bias=False)
    conv.static_padding = nn.ZeroPad2d((*pads, *pads))
    return conv


@pytest.mark.parametrize(
    ("kernel", "stride", "pads"), [(3, 1, (1, 1)), (5, 1, (2, 2)), (3, 2, (0, 1)), (5, 2, (1, 2))]
)
def test_convolution_that_pads_equals_padding_first(kernel, stride, pads):
    torch.manual_seed(0)
    conv, x, direction = padded_by_package(kernel, stride, pads), torch.randn(2, 6, 12, 12), None
    found = []
    for convert in (False, True):
        if convert:
            SameConv.convert(conv)
        conv.zero_grad()
        given = x.clone().requires_grad_()
        y = (
            conv(given)
            if convert
            else F.conv2d(conv.static_padding(given), conv.weight, None, stride, groups=6)
        )
        direction = torch.randn_like(y) if direction is None else direction
        y.backward(direction)
        found.append((y.detach(), given.grad, conv.weight.grad.clone()))
    assert type(conv) is SameConv
    for plain, ours in zip(*found):
        torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-5)


def test_padding_of_another_kind_is_left_alone():
    conv = padded_by_package(3, 1, (0, 2))
    SameConv.convert(conv)
    assert type(conv) is nn.Conv2d


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_pointwise_convolution_as_matrix_product(stride, memory_format):
    torch.manual_seed(0)
    conv = nn.Conv2d(8, PointwiseConv.LEAST, 1, stride)
    x = torch.randn(3, 8, 7, 7).contiguous(memory_format=memory_format)
    plain = torch.autograd.grad(conv(x).square().sum(), list(conv.parameters()))
    expected = conv(x)
    PointwiseConv.convert([conv])
    assert type(conv) is PointwiseConv
    torch.testing.assert_close(conv(x), expected, rtol=1e-5, atol=1e-5)
    assert conv(x).is_contiguous(memory_format=torch.channels_last)
    ours = torch.autograd.grad(conv(x).square().sum(), list(conv.parameters()))
    torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-3)


def test_only_layers_that_learn_become_matrix_products():
    net = nets.build("efficientnet_lite0")
    net.freeze()
    products = {name for name, module in net.net.named_modules() if isinstance(module, PointwiseConv)}
    assert products == {"_blocks.15._expand_conv", "_blocks.15._project_conv", "_conv_head"}


@pytest.mark.parametrize("available", [True, False])
def test_clamped_convolution(monkeypatch, available):
    torch.manual_seed(0)
    conv = padded_by_package(3, 2, (0, 1))
    conv.bias = nn.Parameter(torch.randn(6))
    SameConv.convert(conv)
    x = 5 * torch.randn(2, 6, 12, 12)
    expected = F.relu6(conv(x))
    if not available:
        monkeypatch.setattr(ClampedConv, "available", staticmethod(lambda _dtype: False))
    elif not ClampedConv.available():
        pytest.skip("this build of PyTorch has no fused convolution")
    with torch.no_grad():
        torch.testing.assert_close(ClampedConv(conv)(x), expected, rtol=1e-5, atol=1e-5)


def test_folded_trunk_has_no_separate_clamping():
    net = nets.build("efficientnet_lite0")
    fast = folding.folded(net, 64)
    assert isinstance(fast.net._conv_stem, ClampedConv)
    assert not isinstance(net.net._conv_stem, ClampedConv)


def test_bf16_is_left_to_pytorch_where_onednn_cannot_compute_it(monkeypatch):
    """As on a processor with AVX2 only: the operator would raise an error there."""
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False, raising=False)
    assert not ClampedConv.available(torch.bfloat16)
    conv = nn.Conv2d(3, 4, 3).to(torch.bfloat16)
    with torch.no_grad():
        out = ClampedConv(conv)(torch.rand(1, 3, 8, 8, dtype=torch.bfloat16))
    assert out.dtype == torch.bfloat16
