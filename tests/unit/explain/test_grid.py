"""Masks and maps on a grid: what a cell belongs to, which lesions there are, how large they are."""

import numpy as np
import pytest

from drstudy.explain.measures import grid, scores

SIZE, SIDE = 16, 4
WHOLE = np.ones((SIZE, SIZE), bool)


def empty():
    return np.zeros((SIZE, SIZE), np.float32)


def reader(**masks):
    return lambda image_id: {"FOV": WHOLE} | masks


def test_one_pixel_makes_a_cell_a_lesion_and_half_of_them_make_it_field_or_anatomy():
    one, half, less = empty(), empty(), empty()
    one[5, 6] = 0.5
    half[4:6, 4:8] = 1  # 8 of the 16 pixels of cell (1, 1)
    less[4:6, 4:8] = 1
    less[4, 4] = 0
    found = grid.pooled(reader(HE=one, DISC=half, VESSEL=less, EX=0.49 * half, SE=None), SIDE)("a")
    cell = np.zeros((SIDE, SIDE), bool)
    cell[1, 1] = True
    np.testing.assert_array_equal(found["HE"], cell)
    np.testing.assert_array_equal(found["DISC"], cell)
    assert not found["VESSEL"].any(), "less than half of the cell"
    assert not found["EX"].any(), "less than half of each pixel"
    assert found["SE"] is None
    assert found["FOV"].all()
    assert found["FOV"].dtype == bool
    assert grid.pooled(reader(HE=less), SIDE)("a")["HE"].sum() == 1


def test_pooling_equals_a_plain_loop():
    random = np.random.default_rng(0)
    masks = {code: random.random((24, 24)) for code in ("MA", "FOV", "FOVEA")}
    found = grid.pooled(lambda image_id: masks, 8)("a")
    for row in range(8):
        for column in range(8):
            block = {
                c: m[3 * row : 3 * row + 3, 3 * column : 3 * column + 3] >= 0.5 for c, m in masks.items()
            }
            assert found["MA"][row, column] == block["MA"].any()
            for code in ("FOV", "FOVEA"):
                assert found[code][row, column] == (block[code].mean() >= 0.5)


def test_a_grid_that_does_not_divide_the_masks_is_refused():
    with pytest.raises(ValueError, match="multiple of 5"):
        grid.pooled(reader(), 5)("a")
    with pytest.raises(ValueError, match="missing or empty"):
        grid.Grid(lambda image_id: {"FOV": ~WHOLE}, ["HE"], SIDE).eye("a")


def test_single_lesions_are_those_of_the_photograph_and_have_its_size():
    he = empty()
    he[0, 3] = he[0, 5] = 1  # two lesions, in cells (0, 0) and (0, 1), which touch on the grid
    he[8:12, 7:9] = 1  # one lesion in cells (2, 1) and (2, 2)
    eye = grid.Grid(reader(HE=he, MA=empty(), SE=None), ["HE", "MA", "SE", "lesion"], SIDE).eye("a")
    found = eye.lesions["HE"]
    disc_px = scores.ASSUMED_DISC * 2 * np.sqrt(SIZE**2 / np.pi)
    np.testing.assert_allclose(found.diameter_dd * disc_px, 2 * np.sqrt(np.array([1, 1, 8]) / np.pi))
    assert eye.disc_cells == pytest.approx(disc_px / 4)
    assert [part.tolist() for part in np.split(found.cell, found.start[1:])] == [[0], [1], [9, 10]]
    cut = np.zeros((3, SIDE**2), bool)
    cut[0, 1] = cut[1, [0, 10]] = True
    assert found.found(cut).tolist() == [[False, True, False], [True, False, True], [False] * 3]
    assert eye.lesions["MA"].found(cut).shape == (3, 0)
    assert eye.cover["SE"] is None
    assert "SE" not in eye.lesions
    np.testing.assert_array_equal(eye.cover["lesion"], eye.cover["HE"])
    assert eye.healthy is not None
    assert not eye.healthy


def test_healthy_is_without_any_annotated_lesion():
    assert grid.Grid(reader(HE=empty(), MA=None), ["MA"], SIDE).eye("a").healthy
    assert grid.Grid(reader(HE=None), ["HE"], SIDE).eye("a").healthy is None
    assert not grid.Grid(reader(HE=empty(), SE=WHOLE), ["HE"], SIDE).eye("a").healthy, "SE is not measured"


def test_without_the_disc_its_cells_and_the_lesions_inside_are_gone():
    disc, he = empty(), empty()
    disc[0:8, 0:8] = 1
    he[2, 2] = he[14, 14] = 1
    he[6:10, 6] = 1  # reaches out of the disc
    masks_of = reader(HE=he, DISC=disc)
    whole, without = (grid.Grid(masks_of, ["HE"], SIDE, option).eye("a") for option in (False, True))
    assert (whole.field.sum(), without.field.sum()) == (16, 12)
    assert (whole.cover["HE"].sum(), without.cover["HE"].sum()) == (4, 2)
    assert (len(whole.lesions["HE"].start), len(without.lesions["HE"].start)) == (3, 2)
    np.testing.assert_array_equal(without.lesions["HE"].diameter_dd, whole.lesions["HE"].diameter_dd[1:])
    assert without.disc_cells == whole.disc_cells, "the disc is still the measure"
    unknown = grid.Grid(reader(HE=he, DISC=None), ["HE"], SIDE, True).eye("a")
    assert unknown.field.all()


def test_each_eye_is_read_once():
    read = []

    def masks_of(image_id):
        read.append(image_id)
        return {"FOV": WHOLE, "HE": empty()}

    one = grid.Grid(masks_of, ["HE"], SIDE)
    assert one.eye("a") is one.eye("a")
    one.eye("b")
    assert read == ["a", "b"]


def test_maps_come_to_the_cells_of_the_field():
    field = WHOLE.copy()
    field[:4] = False
    one = grid.Grid(lambda image_id: {"FOV": field, "HE": empty(), "MA": empty()}, ["HE", "MA"], SIDE)
    own = np.arange(2 * SIDE**2, dtype=float).reshape(2, SIDE, SIDE)
    arrays = {"own": own[None], "shared": own[None, 1], "coarse": np.full((1, 2, 2), 3.0)}
    maps_of = grid.maps_of(arrays, ["a"])
    found = grid.in_field(maps_of("a"), one, one.eye("a"))
    assert found.shape == (3, 2, 12)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[0], own[:, 1:].reshape(2, -1))
    np.testing.assert_array_equal(found[1], [own[1, 1:].ravel()] * 2)
    assert (found[2] == 3).all()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 4, 4)), "or .2, h, w."),
        (np.zeros((2, 8, 8)), "finer than the grid"),
        (np.full((4, 4), np.nan), "not finite"),
    ],
)
def test_maps_that_do_not_fit_are_refused(array, message):
    one = grid.Grid(reader(HE=empty(), MA=empty()), ["HE", "MA"], SIDE)
    with pytest.raises(ValueError, match=message):
        grid.in_field({"x": array}, one, one.eye("a"))
    with pytest.raises(ValueError, match="has 1 eyes; there are 2"):
        grid.maps_of({"x": np.zeros((1, 4, 4))}, ["a", "b"])
