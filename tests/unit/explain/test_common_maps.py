"""Maps in the common form: what is written is read, one map stands for all lesions, and what does not fit is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from drstudy.explain.measures import common_maps

EYES = pd.DataFrame({"image_id": ["a", "b", "c"], "split": ["validation", "test", "test"]})


def test_what_is_written_is_read(tmp_path):
    given = np.random.default_rng(0).random((3, 8, 8)).astype(np.float32)
    common_maps.save(tmp_path / common_maps.FILE, {"lesion": given, "MA": 2 * given}, EYES)
    found = common_maps.load(tmp_path / common_maps.FILE)
    assert (found.of("test"), found.of("validation")) == (["b", "c"], ["a"])
    np.testing.assert_array_equal(
        found.fitting("b", ("MA", "HE", "lesion")), np.stack([2 * given[1], 0 * given[1], given[1]])
    )
    assert [found.knows(name) for name in ("MA", "HE", "lesion")] == [True, False, True]
    with pytest.raises(KeyError, match="no maps of d; the file has 3 other eyes"):
        found.fitting("d", ("MA",))


def test_one_map_of_all_lesions_stands_for_each(tmp_path):
    given = np.random.default_rng(0).random((3, 8, 8)).astype(np.float32)
    common_maps.save(tmp_path / "m.npz", {"lesion": given}, EYES)
    found = common_maps.load(tmp_path / "m.npz")
    np.testing.assert_array_equal(found.fitting("c", ("MA", "lesion")), np.stack([given[2]] * 2))
    assert found.knows("MA")


def test_large_maps_take_half_the_room(tmp_path):
    common_maps.save(tmp_path / "m.npz", {"lesion": np.full((3, 64, 64), 0.3)}, EYES)
    assert common_maps.load(tmp_path / "m.npz").maps.dtype == np.float16


@pytest.mark.parametrize(
    ("maps", "eyes", "problem"),
    [
        ({"lesion": np.full((3, 4, 4), -1.0)}, EYES, "at least 0"),
        ({"lesion": np.full((3, 4, 4), np.nan)}, EYES, "finite"),
        ({"lesion": np.ones((2, 4, 4))}, EYES, "for 3 eyes"),
        ({"all": np.ones((3, 4, 4))}, EYES, "'all' is no lesion"),
        ({"lesion": np.ones((3, 4, 4))}, EYES.assign(image_id="a"), "more than once"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, maps, eyes, problem):
    with pytest.raises(ValueError, match=problem):
        common_maps.save(tmp_path / "m.npz", maps, eyes)
    assert not list(tmp_path.iterdir())


def test_another_file_is_told(tmp_path):
    np.savez(tmp_path / "m.npz", maps=np.ones((1, 1, 2, 2)))
    with pytest.raises(ValueError, match="lacks image_ids, regions, splits"):
        common_maps.load(tmp_path / "m.npz")
