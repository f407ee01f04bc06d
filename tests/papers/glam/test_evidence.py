"""Rules that make one map of several heads, by hand: what implies what, whose a cell is, which scale counts, what windows cover."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from drstudy.papers.glam import evidence, patches

NAN = np.nan


def test_a_rarer_label_implies_a_more_frequent_one():
    """Label 0 is there in 6 of 8; label 1 in 2, always with 0; label 2 in 4, half of them with 0."""
    labels = np.array(
        [[1, 1, 0], [1, 1, 0], [1, 0, 1], [1, 0, 1], [1, 0, 0], [1, 0, 0], [0, 0, 1], [0, 0, 1]], float
    )
    assert evidence.implied_by(labels) == ((1,), (), ())


@pytest.mark.parametrize(("together", "expected"), [(9, ((1,), ())), (8, ((), ()))])
def test_nine_in_ten_are_enough(together, expected):
    labels = np.zeros((40, 2))
    labels[:10, 1] = 1
    labels[:together, 0] = labels[10:30, 0] = 1
    assert evidence.implied_by(labels) == expected


def test_labels_that_are_equally_frequent_imply_nothing():
    """Or each would be taken from the other, and nothing would be left."""
    assert evidence.implied_by(np.array([[1, 1], [1, 1], [0, 0.0]])) == ((), ())


def test_unknown_labels_are_left_out():
    """Label 1 has label 0 in each of the 2 photographs in which both are known. Frequencies are those among the known: 3 of 4, 4 of 6."""
    labels = np.array([[1, 1], [1, 1], [NAN, 1], [NAN, 1], [1, 0], [0, 0.0]])
    assert evidence.implied_by(labels) == ((1,), ())
    assert evidence.implied_by(np.where(labels == 0, NAN, labels)) == ((), ()), "all known are present"
    assert evidence.implied_by(np.array([[1, NAN], [0, NAN]])) == ((), ()), "nobody looked for the second"
    assert evidence.implied_by(np.array([[NAN, 1.0], [NAN, 0]])) == ((), ())


def test_a_cell_belongs_to_one_lesion():
    own = torch.tensor([3.0, 3.0, -1.0, 3.0])
    other = torch.tensor([2.0, -5.0, 1.0, 0.0])
    third = torch.tensor([1.0, -7.0, 4.0, -1.0])
    z = torch.stack([own, other, third]).view(1, 3, 2, 2)
    found = evidence.exclusive(z, ((1, 2), (), (1,)))
    assert found[0, 0].flatten().tolist() == [1, 3, -5, 3], "less the greater of both, where that is above 0"
    assert torch.equal(found[0, 1], z[0, 1])
    assert found[0, 2].flatten().tolist() == [-1, -7, 3, -1]
    assert torch.equal(evidence.exclusive(z, ((), (), ())), z)


def test_combined_is_the_weighted_mean_on_one_grid():
    fine = torch.arange(32.0).view(1, 2, 4, 4)
    coarse = torch.tensor([10.0, 20.0]).view(1, 2, 1, 1).expand(1, 2, 2, 2)
    found = evidence.combined([fine, coarse], [(1.0, 0.5), (0.0, 0.5)], 4)
    assert torch.equal(found[:, 0], fine[:, 0])
    assert torch.equal(found[:, 1], (fine[:, 1] + 20) / 2)


def test_small_lesions_take_the_finest_trusted_scale_and_others_their_mean():
    areas = np.array([[0.95, 0.83, 0.95, 0.80], [0.99, 0.92, 0.99, 0.91], [0.97, 0.96, 0.99, 0.90]])
    weights = np.array(evidence.scale_weights(areas, ("MA", "EX", "NV", "SE")))
    np.testing.assert_allclose(weights[:, 0], [1, 0, 0])  # the finest is within 0.05 of the best
    np.testing.assert_allclose(weights[:, 1], [0, 1, 0])  # the finest cannot predict the label
    np.testing.assert_allclose(weights[:, 2], [1 / 3, 1 / 3, 1 / 3])
    np.testing.assert_allclose(weights[:, 3], [0, 0.5, 0.5])


def test_maps_on_other_grids():
    maps = torch.tensor([[[[0.0, 4.0], [0.0, 4.0]]]])
    assert evidence.to_side(maps, 2) is maps
    assert evidence.to_side(maps, 4)[0, 0, 0].tolist() == [0, 1, 3, 4]
    lit = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    lit[..., :2, 0] = lit[..., 2, 2] = True
    assert evidence.inside(lit, 2)[0, 0].tolist() == [[True, False], [False, False]], (
        "half of a cell, and a quarter"
    )
    assert evidence.inside(lit, 4) is lit


def test_cells_of_windows():
    corners = torch.tensor([[[0, 0], [3, 2]], [[-1, -1], [2, 3]]])
    found = patches.covered(corners, (2, 2), (5, 5))
    assert found.shape == (2, 1, 5, 5)
    by_hand = torch.zeros(2, 1, 5, 5, dtype=torch.bool)
    by_hand[0, 0, 0:2, 0:2] = by_hand[0, 0, 3:5, 2:4] = by_hand[1, 0, 2:4, 3:5] = True
    assert torch.equal(found, by_hand), "what was not proposed covers nothing"
