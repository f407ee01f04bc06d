"""A file of lesion maps: what is written is read, and what does not fit is refused; outlines at a value; one map of all lesions."""

from __future__ import annotations

import numpy as np
import pytest

from drstudy.core import records
from drstudy.explain.checks import verdicts
from drstudy.explain.measures import lesion_maps, outlines


def maps(eyes=3, labels=2, side=4):
    random = np.random.default_rng(0)
    return random.random((eyes, labels, side, side))


def test_what_is_written_is_read(tmp_path):
    given = maps()
    file = tmp_path / lesion_maps.FILE
    lesion_maps.save(file, given, ["a", "b", "c"], ["MA", "HE"], [0.3, np.nan])
    found = lesion_maps.load(file)
    np.testing.assert_array_equal(found.probabilities, given.astype(np.float16))
    assert found.probabilities.dtype == np.float16
    assert (found.image_ids.tolist(), found.codes.tolist()) == (["a", "b", "c"], ["MA", "HE"])
    np.testing.assert_array_equal(found.cuts, [0.3, np.nan])
    assert found.of("b").dtype == np.float32
    np.testing.assert_array_equal(found.of("b"), given[1].astype(np.float16))
    with pytest.raises(KeyError, match="no maps of d; the file has 3 other eyes"):
        found.of("d")


def test_what_does_not_fit_is_refused(tmp_path):
    with pytest.raises(ValueError, match="for 2 eyes and 2 codes"):
        lesion_maps.save(tmp_path / "a.npz", maps(), ["a", "b"], ["MA", "HE"], [0.3, 0.4])
    with pytest.raises(ValueError, match="with cuts of shape"):
        lesion_maps.save(tmp_path / "a.npz", maps(), ["a", "b", "c"], ["MA", "HE"], [0.3])
    with pytest.raises(ValueError, match="after the sigmoid"):
        lesion_maps.save(tmp_path / "a.npz", maps() - 1, ["a", "b", "c"], ["MA", "HE"], [0.3, 0.4])
    assert not list(tmp_path.iterdir())
    np.savez(tmp_path / "b.npz", raw=maps())
    with pytest.raises(ValueError, match="lacks codes, cuts, image_ids, probabilities"):
        lesion_maps.load(tmp_path / "b.npz")


def test_outlines_at_a_value_of_the_map():
    """A cut at 0.5 takes what is above it in any eye; half of the maximum would take the faint eye too."""
    fov = np.ones((8, 8), bool)
    bright, faint = np.zeros((1, 8, 8)), np.zeros((1, 8, 8))
    bright[0, 2:4, 2:4], faint[0, 2:4, 2:4] = 0.9, 0.4
    given = ([0.8], [0.5], fov, [0.5])
    found = outlines.regions(bright, *given, smallest=0, by_value=True)
    assert found.status == ("outlined",)
    assert np.argwhere(found.masks[0]).tolist() == [[2, 2], [2, 3], [3, 2], [3, 3]]
    assert outlines.regions(faint, *given, smallest=0, by_value=True).status == ("below the cut",)
    assert outlines.regions(faint, *given, smallest=0).status == ("outlined",)
    assert outlines.regions(bright, [0.8], [0.5], fov, [np.nan], by_value=True).status == ("no cut",)
    assert outlines.regions(bright, [0.4], [0.5], fov, [0.5], by_value=True).status == ("not predicted",)
    with pytest.raises(ValueError, match="one value of the map for each of the 1 labels"):
        outlines.regions(bright, [0.8], [0.5], fov, 0.5, by_value=True)


def test_one_map_of_all_lesions(tmp_path):
    given = maps()
    lesion_maps.save(tmp_path / lesion_maps.FILE, given, ["a", "b", "c"], ["MA", "HE"], [0.3, 0.4])
    record = records.Record(tmp_path, {"outputs": {lesion_maps.FILE: ""}})
    found = verdicts.of_lesions(record, ["c", "a"])
    assert list(found) == ["finer: lesion maps"]
    np.testing.assert_array_equal(found["finer: lesion maps"], given.astype(np.float16)[[2, 0]].max(1))
