"""The released network is built from its description, with random weights, and its loss by hand."""

from __future__ import annotations

import math

import pytest
import torch

from drstudy.core import paths, settings
from drstudy.models import nets
from drstudy.papers.sall import params, released


def test_the_released_network_has_three_heads_on_pooled_features():
    """Only construction: random weights, no pretrained file."""
    net = released.Released(weights="none").eval()
    with torch.no_grad():
        logits = net(torch.zeros(1, 3, released.INPUT_SIZE, released.INPUT_SIZE))
    assert {name: tuple(values.shape) for name, values in logits.items()} == {
        "dr": (1, 5),
        "amd": (1, 4),
        "arteriosclerosis": (1, 2),
    }
    assert [head[1].in_features for head in net.heads.values()] == [2048] * 3


def test_its_loss_by_hand():
    """All logits 0: the cross-entropy of each head is the logarithm of its classes, whatever the labels."""
    logits = {name: torch.zeros(2, count) for name, count in released.CLASSES.items()}
    labels = torch.zeros(2, 11)
    labels[:, [0, 5, 9]] = 1
    assert released.loss(logits, labels).item() == pytest.approx(
        math.log(5) + math.log(4) + math.log(2), rel=1e-6
    )
    logits["amd"][0, 0] = 3.0  # divided by T = 3 it is 1
    changed = (math.log(3 + math.e) - 1 + math.log(4)) / 2
    assert released.loss(logits, labels).item() == pytest.approx(
        math.log(5) + changed + math.log(2), rel=1e-6
    )
    with pytest.raises(ValueError, match="11 columns, not 10"):
        released.loss(logits, labels[:, :10])


def test_the_profile_odir_has_the_values_of_the_release():
    given = settings.read(paths.root() / "params" / "odir" / "13_sall.yaml")
    p = params.Sall.check(given)
    recipe = p.recipe("released", 0)
    assert (p.backbone, p.input_size, recipe.own_temperature) == (
        released.BACKBONE,
        released.INPUT_SIZE,
        released.TEMPERATURE,
    )
    assert p.backbone in nets.names()
