"""Networks for tests of maps."""

from __future__ import annotations

import torch
from torch import nn

from drstudy.models import nets


def network(backbone, head="single", outputs=5):
    """Untrained, but with batch norms that are not the identity: statistics and scales are drawn."""
    net = nets.build(backbone, head=head, outputs=outputs, seed=1)
    torch.manual_seed(2)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
            nn.init.normal_(module.running_mean, 0, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    net.freeze()
    return net.eval()
