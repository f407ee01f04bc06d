"""Losses against hand values: cross-entropy of probabilities, unknown labels, mean and sum of L1."""

from __future__ import annotations

import math

import pytest
import torch

from drstudy.papers.glam import losses

NAN = math.nan


def test_cross_entropy_by_hand():
    scores = torch.tensor([[0.5, 0.9], [0.2, 0.25]])
    labels = torch.tensor([[1.0, 0.0], [NAN, 1.0]])
    expected = (math.log(2) - math.log(0.1) - math.log(0.25)) / 3
    assert losses.bce(scores, labels).item() == pytest.approx(expected, rel=1e-6)


def test_each_scale_counts_alike():
    scales = torch.tensor([[[0.5], [0.25], [0.1]]])
    expected = -(math.log(0.5) + math.log(0.25) + math.log(0.1)) / 3
    assert losses.bce(scales, torch.ones(1, 1)).item() == pytest.approx(expected, rel=1e-6)


def test_certain_and_wrong_is_finite():
    loss = losses.bce(torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 0.0]])).item()
    assert loss == pytest.approx(-math.log(losses.EPSILON), rel=5e-3), "1 - 1e-6 is rounded in float32"


def test_nothing_known_gives_zero_and_a_gradient_of_zero():
    scores = torch.full((2, 2), 0.3, requires_grad=True)
    loss = losses.bce(scores, torch.full((2, 2), NAN))
    loss.backward()
    assert loss.item() == 0
    assert scores.grad.tolist() == [[0, 0], [0, 0]]


def test_what_is_unknown_has_no_gradient():
    scores = torch.tensor([[0.3, NAN], [0.6, 0.2]], requires_grad=True)
    losses.bce(scores, torch.tensor([[1.0, 1.0], [NAN, 0.0]])).backward()
    expected = [[-1 / 0.3 / 2, 0], [0, 1 / 0.8 / 2]]
    assert torch.allclose(scores.grad, torch.tensor(expected), rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_losses_are_float32_under_autocast(dtype):
    scores = torch.tensor([[0.7, 0.2]], dtype=dtype)
    labels = torch.tensor([[1.0, 0.0]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = losses.bce(scores, labels)
        sparse = losses.sparsity(scores[..., None, None], "mean")
    assert loss.dtype == sparse.dtype == torch.float32
    exact = scores.double()
    expected = -(exact[0, 0].log() + (1 - exact[0, 1]).log()) / 2
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6), "no digit of bfloat16 in between"


def test_sum_is_mean_times_the_positions():
    maps = torch.rand(3, 2, 184, 120, generator=torch.Generator().manual_seed(0))
    mean, total = losses.sparsity(maps, "mean"), losses.sparsity(maps, "sum")
    assert mean.shape == (3, 2)
    torch.testing.assert_close(total, 22_080 * mean)
    assert losses.sparsity(torch.full((1, 1, 2, 3), 0.5), "sum").item() == 3.0
    with pytest.raises(ValueError, match="must be 'mean' or 'sum'"):
        losses.sparsity(maps, "l2")


def test_sparsity_of_valid_positions():
    maps = torch.tensor([[[[1.0, 2.0], [3.0, 5.0]]], [[[1.0, 1.0], [1.0, 1.0]]]])
    valid = torch.tensor([[[[True, False], [True, False]]], [[[False, False], [False, False]]]])
    assert losses.sparsity(maps, "sum", valid).tolist() == [[4.0], [0.0]]
    assert losses.sparsity(maps, "mean", valid).tolist() == [[2.0], [0.0]]


def test_the_whole_losses_are_the_sums_of_their_parts():
    labels = torch.tensor([[1.0, 0.0], [0.0, NAN]])
    generator = torch.Generator().manual_seed(3)
    scales, averaged, sparse = (
        torch.rand(shape, generator=generator) for shape in ((2, 3, 2), (2, 2), (2, 2))
    )
    found = losses.of_global(scales, averaged, sparse, labels, beta=0.25)
    expected = losses.bce(scales, labels) + losses.bce(averaged, labels) + 0.25 * sparse.mean()
    assert found["loss"].item() == pytest.approx(expected.item(), rel=1e-6)
    assert list(found) == ["loss", "loss_scales", "loss_averaged", "loss_l1"]
    local = losses.of_local(averaged, sparse, labels, beta=2.0)
    expected = losses.bce(averaged, labels) + 2 * sparse.mean()
    assert local["loss"].item() == pytest.approx(expected.item(), rel=1e-6)
    assert list(local) == ["loss", "loss_local", "loss_l1_local"]
