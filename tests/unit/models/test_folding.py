"""Folded trunks: the same output up to rounding, and a refusal where that does not hold."""

from __future__ import annotations

import pytest
import torch
from networks import LITES

from drstudy.models import folding, nets


@pytest.mark.parametrize("name", ["densenet121", "resnet18", "vgg11_bn", *LITES, "mobilenet_v3_small"])
def test_folding_changes_the_trunk_by_rounding_only(name):
    """Statistics are drawn at random, so a norm that is lost or folded twice changes the output by far more than 1e-4."""
    net = nets.build(name).eval()
    net.freeze()
    generator = torch.Generator().manual_seed(0)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    x = torch.randn(2, 3, 64, 64, generator=generator)
    faster = folding.folded(net, 64)
    norms = [sum(isinstance(m, torch.nn.BatchNorm2d) for m in one.modules()) for one in (net, faster)]
    assert norms[1] < norms[0]
    with torch.no_grad():
        expected = net.trunk(x)
        assert (faster.trunk(x) - expected).abs().max() < 1e-4 * expected.abs().max()
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    tail = next(p for p in net.parameters() if p.requires_grad)
    assert any(p is tail for p in faster.parameters()), "what is not folded is shared"
    half = folding.folded(net, 64, torch.bfloat16)
    assert next(m for m in half.modules() if isinstance(m, torch.nn.Conv2d)).weight.dtype == torch.bfloat16
    assert tail.dtype == torch.float32


def test_folding_refuses_a_convolution_that_is_used_twice():
    class Twice(nets.ResNet):
        def trunk(self, x):
            h = self.net.conv1(x)
            return self.net.bn1(h) + h

    net = nets.build("resnet18").eval()
    net.__class__ = Twice
    net.net.bn1.running_mean.fill_(0.5)
    with pytest.raises(RuntimeError, match="used twice"):
        folding.folded(net, 64)
