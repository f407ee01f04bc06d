"""Counts of RAM's parameters, against the authors' code and against real layers."""

import pandas as pd
import pytest
import torch
from torch import nn

from drstudy.papers.ram import arithmetic


def test_ram_parameters_are_those_that_the_paper_prints():
    """docs/sources.md, E3, which has them from the authors' code."""
    table = arithmetic.parameters()
    expected = pd.DataFrame(
        {
            "baseline net-5": (5_518_688, 4_259_968, 2_624_001, 12_402_657),
            "RAM net-5": (5_518_688, 4_210_048, 513, 9_729_249),
            "baseline net-4": (5_555_712, 4_285_408, 2_624_001, 12_465_121),
            "RAM net-4": (5_555_712, 4_285_408, 513, 9_841_633),
        },
        index=["weights", "untied_biases", "head", "total"],
    ).T
    pd.testing.assert_frame_equal(table[list(expected)], expected, check_names=False)
    assert table["agrees"].all()


@pytest.mark.parametrize("network", list(arithmetic.NETWORKS))
def test_counts_equal_those_of_real_layers(network):
    """The convolutions built in torch (their own, tied, biases), run on an image; positions from the
    activations."""
    layers, pool, _ = arithmetic.NETWORKS[network]
    found = arithmetic.count_parameters(layers, 448, pool)
    x, weights, tied, untied = torch.zeros(1, 3, 448, 448), 0, 0, 0
    for layer in layers:
        if isinstance(layer, arithmetic.Pool):
            x = nn.functional.max_pool2d(x, layer.kernel, layer.stride)
            continue
        pad = layer.kernel // 2 if layer.pad is None else layer.pad
        conv = nn.Conv2d(x.shape[1], layer.channels, layer.kernel, layer.stride, pad)
        x = conv(x).detach()
        weights, tied, untied = weights + conv.weight.numel(), tied + conv.bias.numel(), untied + x[0].numel()
    assert (found["weights"], found["tied_biases"], found["untied_biases"]) == (weights, tied, untied)
    assert found["last_map"] == x.shape[-1]
    if pool:
        wide = nn.functional.avg_pool2d(x, pool.kernel, pool.stride)[0].numel()
        dense = [nn.Linear(wide, 1024), nn.Linear(512, 1024), nn.Linear(512, 1)]
    else:
        dense = [nn.Linear(x.shape[1], 1)]
    assert found["head"] == sum(q.numel() for layer in dense for q in layer.parameters())
