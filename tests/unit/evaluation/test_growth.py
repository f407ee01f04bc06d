"""The power law of the number of photographs: known laws are found again, bounds hold, and the band widens where nothing was measured."""

from __future__ import annotations

import numpy as np
import pytest

from drstudy.evaluation import growth

SIZES = np.array([60, 120, 240, 480, 960])


def law(limit: float, gap: float, rate: float) -> np.ndarray:
    return limit - gap * SIZES.astype(float) ** -rate


@pytest.mark.parametrize(("limit", "gap", "rate"), [(0.9, 2.0, 0.4), (0.7, 3.0, 0.6), (0.95, 20.0, 1.0)])
def test_a_known_law_is_found_again(limit, gap, rate):
    found = growth.fit(SIZES, law(limit, gap, rate))
    # the rates on the grid are 4.8 % apart, so the limit is found to 0.01 and the scores to 0.001
    assert found[2] == pytest.approx(rate, rel=0.03)
    assert found[0] == pytest.approx(limit, abs=0.01)
    assert growth.predict(found, SIZES) == pytest.approx(law(limit, gap, rate), abs=1e-3)
    assert growth.predict(found, np.array([35126])) == pytest.approx(limit - gap * 35126**-rate, abs=0.01)


def test_a_law_whose_limit_would_pass_the_highest_score_is_bounded():
    steep = 0.2 + 0.15 * np.log(SIZES / 60)  # rises for ever
    found = growth.fit(SIZES, steep)
    assert found[0] <= 1.0
    assert growth.predict(found, np.array([10**7]))[0] <= 1.0


def test_what_does_not_rise_has_no_gap_and_what_is_unknown_stays_unknown():
    falling, unknown = 0.8 - 0.0001 * SIZES, np.full(len(SIZES), np.nan)
    found = growth.fit(SIZES, np.stack([falling, unknown]))
    assert found[0, :2] == pytest.approx([falling.mean(), 0.0])
    assert np.isnan(found[1]).all()


def test_many_curves_at_once_are_each_by_itself():
    curves = np.stack([law(0.9, 2.0, 0.4), law(0.7, 3.0, 0.6)]).reshape(2, 1, -1)
    found = growth.fit(SIZES, curves)
    assert found.shape == (2, 1, 3)
    for one, many in zip(curves[:, 0], found[:, 0]):
        assert np.array_equal(growth.fit(SIZES, one), many)


def test_too_few_sizes_are_refused():
    with pytest.raises(ValueError, match="at least 4 distinct sizes; there are 3"):
        growth.fit(np.array([10, 20, 30, 30]), np.zeros(4))


def test_the_band_contains_the_truth_and_widens_outside():
    random = np.random.default_rng(0)
    truth = law(0.8, 2.5, 0.5)
    observed = truth + random.normal(0, 0.02, len(SIZES))
    draws = np.concatenate([observed[None], observed + random.normal(0, 0.02, (500, len(SIZES)))])
    band = growth.band(SIZES, draws, np.array([480, 3000, 35126]))
    assert band["extrapolated"].tolist() == [False, True, True]
    width = (band["hi"] - band["lo"]).to_numpy()
    assert width[0] < width[1] < width[2]
    expected = 0.8 - 2.5 * band["size"].to_numpy(float) ** -0.5
    assert ((band["lo"] <= expected) & (expected <= band["hi"])).all()
