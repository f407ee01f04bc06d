"""Losses, gradient reversal and discriminators of the SALL-style student, against numbers by hand."""

from __future__ import annotations

import math

import pytest
import torch

from drstudy.papers.sall import losses
from drstudy.papers.sall.model import Student, reverse

NAN = float("nan")


def test_gradient_reversal_by_hand():
    """f = 3 x, loss = f²: df = 2 f = 12 at x = 2, turned into -0.25 * 12, so dx = -9. The value passes unchanged."""
    x = torch.tensor([2.0], requires_grad=True)
    f = 3 * x
    out = reverse(f, 0.25)
    assert out.item() == 6
    (out**2).sum().backward()
    assert x.grad.item() == pytest.approx(3 * -0.25 * 12)


def test_hard_labels_by_hand():
    """Logits (0, ln 3): p = (1/4, 3/4). At T = 2 they are (0, ln sqrt 3). An unknown label costs nothing and teaches nothing."""
    logits = torch.tensor([[0.0, math.log(3)], [0.0, math.log(3)], [5.0, -5.0]], requires_grad=True)
    labels = torch.tensor([1.0, 0.0, NAN])
    each = losses.hard(logits, labels)
    assert each.tolist() == pytest.approx([math.log(4 / 3), math.log(4), 0], rel=1e-6)
    warm = losses.hard(logits, labels, temperature=2.0)[0].item()
    assert warm == pytest.approx(math.log(1 + math.sqrt(3)) - math.log(math.sqrt(3)), rel=1e-6)
    smooth = losses.hard(logits, labels, smoothing=0.2)[0].item()
    assert smooth == pytest.approx(0.9 * math.log(4 / 3) + 0.1 * math.log(4), rel=1e-6)
    each.sum().backward()
    assert (logits.grad[2] == 0).all()
    assert logits.grad[0].tolist() == pytest.approx([0.25, -0.25])


def test_soft_labels_by_hand():
    """q = (0.5, 0.5) against (1/4, 3/4) at T = 1; at T = 2 the square gives the factor 4; no soft label costs nothing."""
    logits = torch.tensor([[0.0, math.log(3)]] * 2)
    q = torch.tensor([[0.5, 0.5], [NAN, NAN]])
    plain = 0.5 * math.log(4) + 0.5 * math.log(4 / 3)
    assert losses.soft(logits, q, 1.0).tolist() == pytest.approx([plain, 0], rel=1e-6)
    root = math.sqrt(3)
    warm = 0.5 * math.log(1 + root) + 0.5 * math.log((1 + root) / root)
    assert losses.soft(logits, q, 2.0)[0].item() == pytest.approx(4 * warm, rel=1e-6)
    assert losses.soft(logits, q, 2.0, squared=False)[0].item() == pytest.approx(warm, rel=1e-6)


def test_soft_gradient_keeps_its_size_with_the_square():
    """d/dz of T² CE(q, softmax(z/T)) is T (softmax(z/T) - q)."""
    logits = torch.tensor([[0.3, -0.4, 1.0]], requires_grad=True)
    q = torch.tensor([[0.2, 0.3, 0.5]])
    losses.soft(logits, q, 3.0).sum().backward()
    wanted = 3 * ((logits.detach() / 3).softmax(1) - q)
    assert torch.allclose(logits.grad, wanted, atol=1e-6)


def test_confidence_and_entropy_by_hand():
    p = torch.tensor([[0.25] * 4, [1.0, 0, 0, 0], [0.5, 0.5, 0, 0], [NAN] * 4])
    assert losses.confidence(p).tolist() == pytest.approx([0, 1, 0.5, 0], abs=1e-6)
    assert losses.entropy(p) == pytest.approx((1 + 0 + 0.5) / 3, abs=1e-6)


@pytest.mark.parametrize("classes", [2, 4, 5])
def test_smoothing_has_the_wanted_entropy(classes):
    amount = losses.smoothing_of(0.6, classes)
    p = torch.full((1, classes), amount / classes, dtype=torch.float64)
    p[0, 0] += 1 - amount
    assert losses.entropy(p) == pytest.approx(0.6, abs=1e-7)
    assert losses.smoothing_of(0.0, classes) < 1e-6


def test_matching_by_hand():
    """Distances 1, 0, 1, 2 squared: mean 6/4; the teacher's mean square is (1 + 4 + 9 + 16) / 4."""
    teacher = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    student = torch.tensor([[2.0, 2.0], [4.0, 2.0]])
    assert losses.matching(student, teacher).item() == pytest.approx((6 / 4) / (30 / 4))
    assert losses.matching(student * 0, teacher).item() == pytest.approx(1)
    assert losses.matching(student[:0], teacher[:0]).item() == 0


def test_ramp_rises_from_0_to_almost_1():
    assert losses.ramp(0) == 0
    assert losses.ramp(0.5) == pytest.approx(2 / (1 + math.exp(-5)) - 1)
    assert 0.9999 < losses.ramp(1) < 1


def test_unknown_kinds_teach_a_discriminator_nothing():
    logits = torch.tensor([0.0, 3.0], requires_grad=True)
    loss = losses.told_apart(logits, torch.tensor([1.0, NAN]))
    assert loss.item() == pytest.approx(math.log(2))
    loss.backward()
    assert logits.grad.tolist() == pytest.approx([-0.5, 0])


def test_students_of_one_seed_share_the_encoder_whatever_their_heads():
    one, both = Student(6, 8, {"amd": 4}, seed=5), Student(6, 8, {"dr": 5, "amd": 4}, seed=5)
    assert torch.equal(one.shared.weight, both.shared.weight)
    assert torch.equal(one.heads["amd"].weight, both.heads["amd"].weight)
