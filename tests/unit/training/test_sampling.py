"""Sampling of rare grades: the paper's numbers, and draws that follow them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from drstudy.training import sampling

KAGGLE = np.array([25810, 2443, 5292, 873, 708])
"""Images of each grade in the Kaggle training set (docs/sources.md, A1)."""
SMALL = np.array([600, 60, 120, 20, 16])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def grades_of(counts):
    return np.random.default_rng(0).permutation(np.repeat(np.arange(5), counts))


def test_paper_weights_give_the_shares_and_repeats_of_spec_a2():
    shares = sampling.expected_shares("paper", KAGGLE)
    assert np.round(100 * shares, 1).tolist() == [19.7, 18.6, 20.2, 20.0, 21.6]
    repeats = sampling.expected_repeats("paper", KAGGLE)
    assert round(repeats[4], 1) == 10.7
    assert round(repeats[3], 1) == 8.0
    assert round(repeats[0], 2) == 0.27


def test_other_samplers_by_hand():
    assert sampling.expected_shares("inverse", KAGGLE) == pytest.approx([0.2] * 5, abs=1e-15)
    assert sampling.expected_shares("none", KAGGLE) == pytest.approx(KAGGLE / 35126, abs=1e-15)
    # one over the root of the count: the mass of a grade is the root of its count
    assert sampling.expected_shares("sqrt", [100, 0, 25, 4, 9]) == pytest.approx(
        np.array([10, 0, 5, 2, 3]) / 20, abs=1e-15
    )


@pytest.mark.parametrize("sampler", sampling.SAMPLERS)
def test_an_absent_grade_has_no_weight_no_share_and_no_repeat(sampler):
    counts = [10, 0, 5, 1, 0]
    for values in (
        sampling.grade_weights(sampler, counts),
        sampling.expected_shares(sampler, counts),
        sampling.expected_repeats(sampler, counts),
    ):
        assert np.isfinite(values).all()
        assert (values[[1, 4]] == 0).all()
        assert (values[[0, 2, 3]] > 0).all()


@pytest.mark.parametrize("sampler", ["paper", "inverse", "sqrt"])
def test_draws_follow_the_expected_shares(sampler):
    grades = grades_of(SMALL)
    drawn = torch.cat([sampling.draw(sampler, grades, seeded(i)) for i in range(60)]).numpy()
    found = np.bincount(grades[drawn], minlength=5) / len(drawn)
    expected = sampling.expected_shares(sampler, SMALL)
    # 4 standard errors of a share of n independent draws; weights one a grade would draw images 0..4 alone
    assert np.abs(found - expected).max() < 4 * np.sqrt(expected * (1 - expected) / len(drawn)).max()
    assert len(drawn) == 60 * len(grades)
    assert len(np.unique(drawn)) == len(grades), "within a grade every image is drawn at times"


def test_draws_within_a_grade_are_even():
    grades = grades_of(SMALL)
    drawn = torch.cat([sampling.draw("paper", grades, seeded(i)) for i in range(60)]).numpy()
    times = np.bincount(drawn, minlength=len(grades))[grades == 4]
    # a Poisson count of mean m: chi-squared statistic over 15 degrees of freedom; 37.7 is its 99.9 % point
    assert ((times - times.mean()) ** 2 / times.mean()).sum() < 37.7


def test_none_is_a_permutation():
    drawn = sampling.draw("none", grades_of(SMALL), seeded())
    assert sorted(drawn.tolist()) == list(range(SMALL.sum()))
    assert drawn.tolist() != list(range(SMALL.sum()))


@pytest.mark.parametrize("sampler", sampling.SAMPLERS)
def test_draws_follow_from_the_generator_alone(sampler):
    grades = grades_of(SMALL)
    torch.manual_seed(1)
    first = sampling.draw(sampler, grades, seeded(5))
    torch.manual_seed(2)
    assert torch.equal(first, sampling.draw(sampler, grades, seeded(5)))
    assert not torch.equal(first, sampling.draw(sampler, grades, seeded(6)))
    assert first.dtype == torch.int64


def test_errors():
    with pytest.raises(ValueError, match="'uniform'; it must be one of none, sqrt, inverse, paper"):
        sampling.grade_weights("uniform", KAGGLE)
    for counts in ([0] * 5, [1, 2, 3], [-1, 2, 0, 0, 0]):
        with pytest.raises(ValueError, match="five grades"):
            sampling.grade_weights("paper", counts)
