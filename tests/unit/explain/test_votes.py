"""Votes of experts: their agreement by hand and by drawing, and maps against their regions."""

import numpy as np
import pandas as pd
import pytest

from drstudy.explain.measures import aggregate, grid, votes

SIDE = 8
FOV = np.ones((SIDE, SIDE), bool)


def test_agreement_by_hand():
    # 10 pixels with one mark, 5 with two, none with three, 5 with four: 10 + 10 + 0 + 20 marks
    found = votes.agreement(np.array([[80, 10, 5, 0, 5], [100, 0, 0, 0, 0], [0, 0, 0, 0, 7]]))
    np.testing.assert_allclose(found[0], [1, 30 / 40, 20 / 40, 20 / 40], rtol=1e-12)
    assert np.isnan(found[1]).all()
    assert found[2].tolist() == [1, 1, 1, 1]


def test_agreement_is_what_drawing_marks_gives():
    random = np.random.default_rng(0)
    marks = random.random((4, 500)) < random.random(500) ** 2
    marked = marks.sum(0)
    found = votes.agreement(votes.count(marked.astype(np.uint8), np.ones(500, bool), 4))
    # every mark of every expert is equally likely to be drawn: count them all
    for least in (1, 2, 3, 4):
        others = [(marks[np.arange(4) != k].sum(0) >= least - 1)[marks[k]] for k in range(4)]
        assert found[least - 1] == pytest.approx(np.concatenate(others).mean(), rel=1e-12)


def eye():
    """Four nested squares: 36, 16, 4 and 1 pixels have at least one, two, three and four votes."""
    marked = np.zeros((SIDE, SIDE), np.uint8)
    marked[1:7, 1:7] = 1
    marked[2:6, 2:6] = 2
    marked[3:5, 3:5] = 3
    marked[3, 3] = 4
    return marked


def test_maps_against_the_regions_of_at_least_so_many_experts():
    known = {
        "a": {"FOV": FOV, "HE": eye(), "MA": None},
        "b": {"FOV": FOV, "HE": np.minimum(eye(), 2), "MA": 0 * eye()},
    }
    point = np.zeros((SIDE, SIDE))
    point[2, 2] = 1
    maps_of = grid.maps_of({"flat": np.ones((2, SIDE, SIDE)), "point": np.stack([point] * 2)}, ["a", "b"])
    patients = {"a": "1", "b": "2"}
    table = votes.measure(["a", "b"], maps_of, known.__getitem__, ["HE", "MA"], SIDE, patients, tolerance=0.0)
    cells = table.set_index(["image_id", "map", "region", "votes"]).sort_index()
    assert not (cells.index.get_level_values("image_id") == "a")[
        cells.index.get_level_values("region") == "MA"
    ].any()
    flat = cells.loc[("a", "flat", "HE")]
    np.testing.assert_allclose(flat["heat"], np.array([36, 16, 4, 1]) / 64, rtol=1e-6)
    np.testing.assert_allclose(flat["hit"], flat["hit_chance"])
    assert cells.loc[("a", "point", "HE"), "hit"].tolist() == [1, 1, 0, 0]
    # 20 pixels have one vote, 12 have two, 3 have three, 1 has four: 57 marks
    np.testing.assert_allclose(flat["agreement"], np.array([57, 37, 13, 4]) / 57, rtol=1e-12)
    nothing = cells.loc[("b", "point", "HE")]
    assert nothing[["heat", "hit", "agreement"]].isna().any(axis=1).tolist() == [False, False, True, True]
    summary = aggregate.aggregate(
        table, pd.DataFrame(), patients, 10, 0, by=("region", "votes"), metrics=votes.METRICS
    )
    rows = summary.set_index(["map", "region", "votes", "metric"])
    assert rows.loc[("point", "HE", 2, "hit"), ["units", "value"]].tolist() == [2, 1]
    assert rows.loc[("point", "HE", 3, "hit"), ["units", "value"]].tolist() == [1, 0]
