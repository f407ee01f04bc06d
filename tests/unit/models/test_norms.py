"""Batch norms of an untrained network: their statistics are estimated from images."""

from __future__ import annotations

import pytest
import torch
from networks import batch, moved
from torch import nn

from drstudy.models import nets, norms


def test_calibrated_norms_keep_activations_in_scale():
    net = nets.build("resnet18", seed=1)
    net.freeze()
    net.train()
    modes = [module.training for module in net.modules()]
    shifted = [3 * batch(8, seed=i) + 2 for i in range(3)]
    momenta = [module.momentum for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    weights = {name: q.clone() for name, q in net.named_parameters()}
    norms.calibrate(net, lambda: iter(shifted))
    assert [module.training for module in net.modules()] == modes
    assert [m.momentum for m in net.modules() if isinstance(m, nn.BatchNorm2d)] == momenta
    assert moved(weights, dict(net.named_parameters())) == set()
    net.eval()
    seen = []
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(lambda m, i, o: seen.append((o.mean().item(), o.std().item())))
    with torch.no_grad():
        net(3 * batch(8, seed=9) + 2)
    means, spreads = torch.tensor(seen).T
    # the layers' affine maps are the identity, so mean 0 and spread 1, up to a new batch of 8 images
    assert means.abs().max() < 0.2
    assert ((spreads - 1).abs() < 0.3).all()
    fresh = nets.build("resnet18", seed=1).eval()
    with torch.no_grad():
        assert not 0.7 < fresh.trunk(3 * batch(8, seed=9) + 2).std() < 1.3, "uncalibrated it would not hold"


def test_without_norms_no_batch_is_asked_for():
    net = nets.empty("vgg11", "single")
    norms.calibrate(net, lambda: pytest.fail("a network without norms has nothing to estimate"))


def test_calibration_is_the_mean_over_batches():
    net = nets.build("resnet18", seed=1)
    batches = [batch(4, seed=0), batch(4, seed=1) + 1]
    norms.calibrate(net, lambda: iter(batches))
    with torch.no_grad():
        first = torch.stack([net.net.conv1(x).mean((0, 2, 3)) for x in batches]).mean(0)
    assert torch.allclose(net.net.bn1.running_mean, first, atol=1e-5)
    assert net.net.bn1.num_batches_tracked == 2
