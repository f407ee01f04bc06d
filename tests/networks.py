"""Small networks and batches for the tests of models: norms that are not the identity, and what a step has moved."""

from __future__ import annotations

import torch
from torch import nn

from drstudy.models import weights

TORCHVISION = ["densenet121", "resnet18", "vgg11", "mobilenet_v2", "efficientnet_b0", "convnext_tiny"]
LITE = "efficientnet_lite0"
LITES = tuple(weights.BUNDLED)


def batch(n=3, size=64, seed=0):
    """Noise of the shape of normalised images."""
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


def stir(net, seed=2):
    """Batch norms that are not the identity, so that one left out or taken twice is seen."""
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.5, 1.5, generator=generator)
            for tensor in (module.bias.data, module.running_mean):
                tensor.normal_(0, 0.2, generator=generator)
    return net


def moved(before, after):
    """Names of the tensors that differ."""
    return {name for name in before if not torch.equal(before[name], after[name])}
