"""Scores of maps whose answer is known: equal to the mask, its complement, constant, shifted; ties, empties."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, jaccard_score

from drstudy.explain.measures import localisation, scores

SIZE = 60
SQUARE = np.zeros((SIZE, SIZE), bool)
SQUARE[20:30, 20:40] = True  # 200 of 3600 pixels
SHARE = SQUARE.mean()
ROUNDING = 1e-9
"""Sums of whole numbers in double precision; maps are float64 here."""


def scored(heat, cover=SQUARE):
    """Scores of one map on a field of view that is the whole picture."""
    found = scores.Ranked(np.asarray(heat, float).reshape(1, -1)).scores(np.asarray(cover, float).ravel())
    return {name: values[0] for name, values in found.items()}


def test_a_map_equal_to_the_mask_is_perfect():
    found = scored(SQUARE)
    assert found.pop("curve").tolist() == [1] * 19
    assert found == {"aupr": 1, "dice_otsu": 1, "dice_fixed": 1, "dice_oracle": 1}


def test_the_complement_finds_nothing_until_everything_is_taken():
    found = scored(~SQUARE)
    assert found["dice_otsu"] == found["dice_fixed"] == 0
    everything = 2 * SHARE / (1 + SHARE)
    assert found["dice_oracle"] == pytest.approx(everything, abs=ROUNDING)
    assert found["aupr"] == pytest.approx(SHARE, abs=ROUNDING)
    assert not found["curve"].any()


def test_a_constant_map_is_chance():
    found = scored(np.full((SIZE, SIZE), 0.7))
    assert found["aupr"] == pytest.approx(SHARE, abs=ROUNDING)
    for name in ("dice_otsu", "dice_fixed", "dice_oracle"):
        assert found[name] == pytest.approx(2 * SHARE / (1 + SHARE), abs=ROUNDING), name


@pytest.mark.parametrize(("shift", "shared"), [(0, 200), (5, 150), (10, 100), (20, 0)])
def test_a_shifted_blob_loses_what_it_leaves(shift, shared):
    found = scored(np.roll(SQUARE, shift, axis=1))
    for name in ("dice_otsu", "dice_fixed"):
        assert found[name] == pytest.approx(shared / 200, abs=ROUNDING), name
        assert scores.iou(found[name]) == pytest.approx(shared / (400 - shared), abs=ROUNDING)
    rest = (200 - shared) / 200 * SHARE
    assert found["aupr"] == pytest.approx((shared / 200) ** 2 + rest, abs=ROUNDING)


def test_equals_scikit_learn_on_maps_with_many_ties():
    random = np.random.default_rng(0)
    for levels in (3, 20, 10**6):
        heat = random.integers(levels, size=(SIZE, SIZE)) + 3 * SQUARE
        found = scored(heat)
        assert found["aupr"] == pytest.approx(
            average_precision_score(SQUARE.ravel(), heat.ravel()), abs=ROUNDING
        )
        cut = heat >= 0.5 * heat.max()
        assert found["dice_fixed"] == pytest.approx(f1_score(SQUARE.ravel(), cut.ravel()), abs=ROUNDING)
        overlap = jaccard_score(SQUARE.ravel(), cut.ravel())
        assert scores.iou(found["dice_fixed"]) == pytest.approx(overlap, abs=ROUNDING)
        every = [f1_score(SQUARE.ravel(), (heat >= t).ravel()) for t in np.unique(heat)[-40:]]
        assert found["dice_oracle"] >= max(every) - ROUNDING
        if levels <= 20:
            assert found["dice_oracle"] == pytest.approx(max(every), abs=ROUNDING)


def test_otsu_parts_two_hills():
    random = np.random.default_rng(1)
    heat = np.where(SQUARE, random.normal(10, 0.5, SQUARE.shape), random.normal(3, 0.5, SQUARE.shape))
    assert scored(heat)["dice_otsu"] == 1


def test_order_of_pixels_and_scale_of_the_map_do_not_matter():
    random = np.random.default_rng(2)
    heat, order = random.random(SIZE**2), random.permutation(SIZE**2)
    first, second = scored(heat), scored(1000 * heat[order], SQUARE.ravel()[order])
    for name in first:
        np.testing.assert_allclose(first[name], second[name], atol=ROUNDING)


def test_a_random_map_has_the_share_of_the_area_on_average():
    random = np.random.default_rng(3)
    found = [scored(random.random((SIZE, SIZE)))["aupr"] for _ in range(200)]
    # the spread of one is 0.005; the mean of 200 is within four standard errors, and biased up by about 1/200
    assert np.mean(found) == pytest.approx(SHARE + 0.0005, abs=4 * np.std(found) / np.sqrt(200) + 0.001)


def test_a_pixel_half_covered_counts_half():
    cover = SQUARE / 2
    found = scored(SQUARE, cover)
    assert found["dice_fixed"] == pytest.approx(2 * 100 / (200 + 100), abs=ROUNDING)
    assert found["aupr"] == pytest.approx(0.5, abs=ROUNDING)


def test_best_fraction_is_of_the_mean_and_the_lower_of_equals():
    curves = np.zeros((3, 19))
    curves[0, 4], curves[1, 4], curves[1, 10] = 0.4, 0.4, 0.7
    curves[2] = np.nan
    assert scores.best_fraction(curves) == pytest.approx(0.25)
    assert scores.best_fraction(np.ones((2, 19))) == pytest.approx(0.05)
    with pytest.raises(ValueError, match="No eye"):
        scores.best_fraction(curves[2:])


def test_the_hottest_tenth_is_a_tenth_whatever_the_map():
    random = np.random.default_rng(4)
    maps = np.stack([np.ones(1003), random.random(1003), random.integers(3, size=1003), np.arange(1003) == 5])
    hottest = scores.Ranked(maps.astype(float)).hottest()
    np.testing.assert_allclose(hottest.sum(1), 100.3)
    np.testing.assert_allclose(hottest[0], 0.1)
    assert set(np.flatnonzero(hottest[1] == 1)) == set(np.argsort(-maps[1])[:100])
    assert hottest[3, 5] == 1
    np.testing.assert_allclose(np.delete(hottest[3], 5), 99.3 / 1002)


def test_each_lesion_has_its_size_and_what_covers_it():
    fov = np.ones((SIZE, SIZE), bool)
    cover = np.zeros((SIZE, SIZE))
    cover[5, 5] = 1  # one pixel: 1.13 across
    cover[40:50, 40:50] = 1  # 11.3 across
    cover[10:12, 30:32] = 0.5  # four half pixels: 1.6 across
    hot = np.zeros((2, SIZE, SIZE))
    hot[0, 40:45, 40:50] = hot[0, 5, 5] = 1
    hot[1] = 0.1
    found = scores.lesions(hot.reshape(2, -1), cover, fov, disc_px=20.0)
    assert list(found["map"]) == [0, 0, 0, 1, 1, 1]
    first = found[found["map"] == 0]
    assert first["coverage"].tolist() == [1, 0, 0.5]
    assert list(first["size"]) == ["below 1/12", "below 1/12", "1/4 and more"]
    np.testing.assert_allclose(first["diameter_dd"], 2 * np.sqrt(np.array([1, 2, 100]) / np.pi) / 20)
    np.testing.assert_allclose(found[found["map"] == 1]["coverage"], 0.1)
    assert scores.lesions(hot.reshape(2, -1), cover * 0, fov, 20.0).empty
    middle = scores.lesions(hot.reshape(2, -1), cover, fov, disc_px=60.0)
    assert list(middle["size"])[2] == "1/12 to 1/4"


def test_disc_diameter_is_measured_or_said_to_be_assumed():
    rows, columns = np.indices((200, 200))
    fov = (rows - 100) ** 2 + (columns - 100) ** 2 <= 90**2
    disc = ((rows - 100) ** 2 + (columns - 60) ** 2 <= 12**2).astype(np.float32)
    assert scores.disc_diameter(disc, fov) == (pytest.approx(24, rel=0.02), True)  # on a lattice
    for absent in (None, 0 * disc):
        assert scores.disc_diameter(absent, fov) == (pytest.approx(24, rel=0.02), False)  # 180 / 7.5


def test_an_eye_s_table_has_the_scores_of_lesions_and_of_nothing_else():
    fov = np.ones((SIZE, SIZE), bool)
    masks = {"FOV": fov, "HE": SQUARE, "EX": SQUARE & False, "DISC": SQUARE.T, "VESSEL": None}
    heat = np.stack([SQUARE, np.zeros_like(SQUARE)]).astype(np.float32)
    table, lesions = localisation.measure_eye(heat, masks)
    cells = table.set_index(["map", "kind", "region"])
    assert cells.loc[(0, "mask", "HE"), localisation.SCORES].tolist() == [1, 1, 1, 1]
    assert cells.loc[(0, "mask", "lesion"), "aupr"] == 1
    for key in ((0, "mask", "EX"), (0, "mask", "disc"), (0, "part", "lesion"), (1, "mask", "HE")):
        assert cells.loc[key, localisation.SCORES].isna().all()
    assert lesions["map"].tolist() == [0], "a map without heat covers nothing"
    assert lesions["coverage"].tolist() == [1]
