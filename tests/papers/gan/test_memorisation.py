"""Copies of training photographs: the test must catch planted ones, and must not accuse a generator that made none."""

from __future__ import annotations

import math

import numpy as np
import pytest
from pictures_made import SIZE, Blocks, eyes

from drstudy.papers.gan import memorisation, pictures
from drstudy.papers.gan.pictures import Pictures


@pytest.fixture(scope="module")
def real():
    return eyes(60, 0, "train"), eyes(40, 1, "other")


def fresh(count: int, seed: int) -> Pictures:
    made = eyes(count, seed)
    return pictures.generated(made.images, made.grades)


@pytest.fixture(scope="module")
def honest(real):
    return memorisation.check(*real, fresh(50, 2), Blocks(), 100, 0)


def row(found, space, kind):
    table = found.summary
    return table[(table["space"] == space) & (table["kind"] == kind)].iloc[0]


@pytest.mark.parametrize("space", memorisation.SPACES)
def test_planted_copies_are_caught_and_new_pictures_are_not_accused(honest, space):
    for kind in ("exact", "mirrored", "noised"):
        planted = row(honest, space, f"planted, {kind}")
        assert planted["flagged"] == planted["pictures"] == 12
        assert planted["verdict"] == "caught"
    made = row(honest, space, "generated")
    assert made["verdict"] == "no copies found"
    assert made["by_chance"] == pytest.approx(1 / 41)
    assert made["as_near"] == 0
    assert 0.3 < made["auc"] < 0.7


def test_probability_by_chance():
    """Two pictures and one held-out photograph: the two smallest of three ratios are both of pictures in one of three orders."""
    assert memorisation.chance(0, 2, 1) == 1
    assert memorisation.chance(1, 2, 1) == pytest.approx(2 / 3)
    assert memorisation.chance(2, 2, 1) == pytest.approx(1 / 3)
    assert memorisation.chance(10, 10, 40) == pytest.approx(1 / math.comb(50, 10))


def test_a_generator_that_copies_is_found(real):
    """Every fifth picture is a training photograph, mirrored and noised."""
    some = fresh(50, 3)
    images = some.images.copy()
    copied = np.arange(0, 50, 5)
    noise = np.random.default_rng(4).normal(0, 4, (10, SIZE, SIZE, 3))
    images[copied] = (real[0].images[20:30, :, ::-1] + noise).clip(0, 255).astype(np.uint8)
    found = memorisation.check(*real, pictures.generated(images, some.grades), Blocks(), 100, 0)
    for space in memorisation.SPACES:
        assert row(found, space, "generated")["verdict"] == "copies suspected"
        worst = memorisation.closest(found, space, pairs=10)
        assert set(worst["picture"]) == set(copied)
        assert dict(zip(worst["picture"], worst["train"])) == dict(zip(copied, range(20, 30)))
    said = memorisation.findings(found)
    assert "planted copies that were flagged: exact 12 of 12, mirrored 12 of 12, noised 12 of 12" in said[0]
    assert said[0].endswith("Verdict: copies suspected.")


class Blind:
    """An encoder that sees nothing of a picture but its grey mean, rounded so that copies are no nearer than others."""

    name = "blind"

    def features(self, some):
        images = some.images if isinstance(some, Pictures) else some
        mean = images.mean((1, 2, 3))
        return np.stack([np.sin(1e6 * mean), np.cos(1e6 * mean)], 1).astype(np.float32)


def test_a_test_that_misses_the_planted_copies_does_not_acquit(real):
    found = memorisation.check(*real, fresh(50, 2), Blind(), 100, 0)
    assert row(found, "features", "planted, noised")["verdict"] == "not caught"
    assert row(found, "features", "generated")["verdict"] == "not tested: planted copies were missed"
    assert row(found, "pixels", "generated")["verdict"] == "no copies found"


def test_nearest_by_hand():
    bank = np.array([[0.0, 0, 0, 0], [4, 0, 0, 0], [0, 0, 8, 0]])
    queries = np.array([[[1.0, 0, 0, 0], [0, 0, 5, 0]], [[0, 0, 0, 9], [3.5, 0, 0, 0]]])
    distance, place = memorisation.nearest(queries, bank)
    np.testing.assert_allclose(distance, [0.5, 0.25])  # 1 and 0.5 over the root of 4
    assert place.tolist() == [0, 1]
    forbidden = np.array([[True, False, False], [True, True, True]])
    distance, place = memorisation.nearest(queries, bank, forbidden)
    np.testing.assert_allclose(distance, [1.5, np.inf])
    assert place[0] == 1


def test_the_other_eye_of_a_held_out_patient_does_not_count():
    """Both eyes of each held-out patient are equal; without the rule every ratio would be infinite or undefined."""
    train, once = eyes(20, 5, "train"), eyes(10, 6, "other", each=1)
    twice = Pictures(*(np.repeat(getattr(once, name), 2, 0) for name in ("images", "grades", "patients")))
    found = memorisation.check(train, twice, fresh(10, 7), Blocks(), 20, 0).pictures
    held = found[found["kind"] == memorisation.HELD_OUT]
    assert (held["to_held_out"] > 1).all()
    assert np.isfinite(held["ratio"]).all()


def test_no_interval_of_few_patients(real):
    few = Pictures(real[1].images, real[1].grades, np.array([f"other-{i % 4}" for i in range(40)]))
    for held_out, made in ((few, fresh(20, 2)), (real[1], fresh(4, 2))):
        found = row(memorisation.check(real[0], held_out, made, Blocks(), 20, 0), "pixels", "generated")
        assert np.isfinite(found["auc"])
        assert np.isnan([found["auc_lo"], found["auc_hi"]]).all()


def test_bad_input_is_refused(real):
    train, held_out = real
    small = Pictures(train.images[:, :8, :8], train.grades, train.patients)
    with pytest.raises(ValueError, match="16, 16 and 8 pixels; they must be of one size"):
        memorisation.check(train, held_out, small, Blocks(), 10, 0)
    with pytest.raises(ValueError, match="30 patients are both in the training and in the held-out"):
        memorisation.check(train, train, fresh(5, 1), Blocks(), 10, 0)
    with pytest.raises(ValueError, match="All held-out photographs are of one patient"):
        memorisation.check(train, held_out.take(np.arange(2)), fresh(5, 1), Blocks(), 10, 0)
