"""Weights of rare labels, and cross-entropy over what is known."""

import numpy as np
import torch

from drstudy.training import multilabel


def test_positive_weights_are_negatives_over_positives_within_limits():
    given = np.array([[1, 1, 0, 1, np.nan], [0, 1, 0, 1, np.nan], [0, 1, 0, 1, 1], [np.nan, 1, 0, 0, 0]])
    np.testing.assert_allclose(multilabel.positive_weights(given, 10), [2, 1, 1, 1 / 3, 1])
    np.testing.assert_allclose(multilabel.positive_weights(given, 1.5), [1.5, 1, 1, 1 / 1.5, 1])


def test_cross_entropy_is_the_mean_over_the_known_labels():
    logits = torch.tensor([[0.0, 2.0], [1.0, -1.0]])
    labels = torch.tensor([[1.0, float("nan")], [0.0, 1.0]])
    found = multilabel.cross_entropy(logits, labels, torch.tensor([3.0, 1.0]))
    by_hand = [3 * np.log(2), np.log1p(np.e), np.log1p(np.e)]
    assert abs(found.item() - np.mean(by_hand)) < 1e-6


def test_cross_entropy_of_nothing_known_is_0_with_a_gradient():
    logits = torch.zeros(2, 1, requires_grad=True)
    loss = multilabel.cross_entropy(logits, torch.full((2, 1), float("nan")), torch.ones(1))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.abs().max() == 0
