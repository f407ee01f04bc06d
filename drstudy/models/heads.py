"""Classification heads: what replaces the last linear layer of a backbone."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

from drstudy.core.names import N_GRADES

PAPER_WIDTHS = (512, 256, 128, 64, 32, 16)
"""Hidden widths of the paper's head (docs/sources.md, A3): seven linear layers, with nothing between them."""


def make(kind: str, in_features: int, out_features: int = N_GRADES) -> nn.Module:
    """Build a head that maps (N, in_features) to logits (N, out_features).

    Args:
        kind: ``single`` is one linear layer (the paper's Table 1); ``paper`` the seven linear layers of its code, without
            a non-linearity, which collapse to one affine map but train more slowly (docs/sources.md, A3); ``mlp`` is our repair of
            it: two layers of width 256 with ReLU and dropout 0.2 between.
        in_features: Width of the pooled features. For other backbones than DenseNet121 the paper's "same settings"
            cannot be literal; here the chain starts at that backbone's width.
        out_features: Number of outputs.

    Raises:
        ValueError: If ``kind`` is unknown.
    """
    if kind == "single":
        return nn.Linear(in_features, out_features)
    if kind == "paper":
        widths = (in_features, *PAPER_WIDTHS, out_features)
        return nn.Sequential(*(nn.Linear(a, b) for a, b in pairwise(widths)))
    if kind == "mlp":
        return nn.Sequential(
            nn.Linear(in_features, 256), nn.ReLU(), nn.Dropout(0.2), nn.Linear(256, out_features)
        )
    raise ValueError(f"HEAD is {kind!r}; it must be 'paper', 'single' or 'mlp'.")


def collapsed(head: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """The one affine map that linear layers in a row are: weight (K, C) and bias (K,), float64 on the CPU.

    Raises:
        ValueError: If there is anything but linear layers in the head.
    """
    layers = list(head) if isinstance(head, nn.Sequential) else [head]
    if not all(type(layer) is nn.Linear for layer in layers):
        raise ValueError("Only linear layers in a row collapse to one; this head has others between them.")
    weight = torch.eye(layers[0].in_features, dtype=torch.float64)
    bias = torch.zeros(layers[0].in_features, dtype=torch.float64)
    for layer in layers:
        own, added = layer.weight.detach().cpu().double(), layer.bias.detach().cpu().double()
        weight, bias = own @ weight, own @ bias + added
    return weight, bias
