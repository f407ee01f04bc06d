"""The file of fine lesion maps that notebooks hand on."""

from __future__ import annotations

import numpy as np
import pytest

from drstudy.explain.measures import lesion_maps


@pytest.fixture
def maps():
    return np.random.default_rng(0).random((3, 2, 4, 4))


def test_comes_back_as_it_was_written(maps, tmp_path):
    path = tmp_path / lesion_maps.FILE
    lesion_maps.save(path, maps, ["a", "b", "c"], ["MA", "EX"], [0.5, np.nan])
    found = lesion_maps.load(path)
    assert found.probabilities.dtype == np.float16
    np.testing.assert_array_equal(found.probabilities, maps.astype(np.float16))
    assert found.image_ids.tolist() == ["a", "b", "c"]
    assert found.codes.tolist() == ["MA", "EX"]
    np.testing.assert_array_equal(found.cuts, [0.5, np.nan])
    assert [file.name for file in tmp_path.iterdir()] == [lesion_maps.FILE]  # no temporary file is left


def test_gives_the_maps_of_one_eye(maps, tmp_path):
    kept = lesion_maps.save(tmp_path / "maps.npz", maps, ["a", "b", "c"], ["MA", "EX"], [0.5, 0.25])
    np.testing.assert_array_equal(kept.of("b"), maps[1].astype(np.float16).astype(np.float32))
    with pytest.raises(KeyError, match="no maps of d"):
        kept.of("d")


def test_refuses_what_does_not_fit(maps, tmp_path):
    for ids, codes, cuts in (
        (["a", "b"], ["MA", "EX"], [0.5, 0.5]),
        (["a", "b", "c"], ["MA"], [0.5]),
        (["a", "b", "c"], ["MA", "EX"], [0.5]),
    ):
        with pytest.raises(ValueError, match="they must be"):
            lesion_maps.save(tmp_path / "maps.npz", maps, ids, codes, cuts)
    with pytest.raises(ValueError, match="probabilities from 0 to 1"):
        lesion_maps.save(tmp_path / "maps.npz", 2 * maps + 1, ["a", "b", "c"], ["MA", "EX"], [0.5, 0.5])
    assert not list(tmp_path.iterdir())


def test_refuses_another_file(tmp_path):
    np.savez(tmp_path / "other.npz", codes=np.array(["MA"]))
    with pytest.raises(ValueError, match="lacks cuts, image_ids, probabilities"):
        lesion_maps.load(tmp_path / "other.npz")
