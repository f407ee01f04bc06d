"""Heads: seven layers are one affine map, and the numbers of parameters of the paper."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from drstudy.models import heads, nets


def test_seven_linear_layers_collapse_to_one_affine_map():
    torch.manual_seed(0)
    head = heads.make("paper", 1024)
    layers = list(head)
    widths = [(layer.in_features, layer.out_features) for layer in layers]
    assert widths == [(1024, 512), (512, 256), (256, 128), (128, 64), (64, 32), (32, 16), (16, 5)]
    matrix, offset = torch.eye(1024, dtype=torch.float64), torch.zeros(1024, dtype=torch.float64)
    for layer in layers:
        weight, bias = layer.weight.detach().double(), layer.bias.detach().double()
        matrix, offset = weight @ matrix, weight @ offset + bias
    x = torch.randn(16, 1024)
    with torch.no_grad():
        found = head(x).double()
    # float32 sums of a thousand terms; the logits differ from image to image by a thousand times more
    assert (found - (x.double() @ matrix.T + offset)).abs().max() < 1e-5
    assert found.std(0).min() > 1e-3


def test_the_papers_head_shrinks_the_logits_as_spec_a3_computes():
    torch.manual_seed(0)
    x = torch.randn(256, 1024).abs()
    spread = {kind: heads.make(kind, 1024)(x).std(0).mean().item() for kind in ("single", "paper")}
    assert 10 < spread["single"] / spread["paper"] < 60  # docs/sources.md, A3: about 23 for one draw


def test_mlp_and_unknown_heads():
    head = heads.make("mlp", 64)
    assert sum(q.numel() for q in head.parameters()) == 64 * 256 + 256 + 256 * 5 + 5
    assert any(isinstance(module, nn.ReLU) for module in head)
    with pytest.raises(ValueError, match="HEAD is 'double'; it must be 'paper', 'single' or 'mlp'"):
        heads.make("double", 8)


def test_densenet121_has_the_papers_numbers_of_parameters():
    """docs/sources.md, A3."""
    counts = {}
    for head in ("paper", "single"):
        net = nets.empty("densenet121", head)
        net.freeze()
        counts[head] = net.count()
        counts[head]["head"] = sum(q.numel() for q in net.net.classifier.parameters())
    assert counts["paper"] == {
        "parameters_total": 7_653_829,
        "parameters_trainable": 1_185_733,
        "head": 699_973,
    }
    assert counts["single"]["head"] == 5_125
    assert counts["single"]["parameters_trainable"] == 157_760 + 161_920 + 166_080 + 5_125
