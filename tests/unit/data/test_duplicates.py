"""Duplicates: copies are found, other eyes are not."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from photographs import encoded, photograph, scaled, stored

from drstudy.data import duplicates, images, splits


def test_copies_are_found_and_other_eyes_are_not(tmp_path):
    plain = photograph(1)
    pictures = {f"{n}_left": encoded(photograph(n)) for n in range(1, 25)}
    pictures["30_left"] = encoded(plain)
    pictures["31_left"] = encoded(plain, quality=60)
    pictures["32_left"] = encoded(cv2.resize(plain, (200, 200), interpolation=cv2.INTER_AREA))
    pictures["33_left"] = encoded(scaled(plain, 1.15))
    pictures["34_left"] = encoded(plain, "PNG")
    store, manifest = stored(tmp_path, pictures)
    found = duplicates.find(store, 6)
    names = set(found["image_id_a"]) | set(found["image_id_b"])
    assert names == {"1_left", "30_left", "31_left", "32_left", "33_left", "34_left"}
    exact = found[found["kind"] == "exact"]
    assert exact[["image_id_a", "image_id_b"]].to_numpy().tolist() == [["1_left", "30_left"]]
    split = splits.make(manifest, (0.6, 0.15, 0.25), 0, duplicates=found)
    noted = duplicates.annotate(found, manifest, split)
    assert not noted["same_patient"].any()
    assert noted["same_split"].all()
    assert noted["same_grade"].all()


def turned(picture: np.ndarray, angle: float, mirror: bool = False) -> np.ndarray:
    picture = picture[:, ::-1] if mirror else picture
    centre = ((picture.shape[1] - 1) / 2, (picture.shape[0] - 1) / 2)
    return cv2.warpAffine(
        np.ascontiguousarray(picture), cv2.getRotationMatrix2D(centre, angle, 1), picture.shape[1::-1]
    )


@pytest.mark.parametrize(
    ("angle", "mirror"),
    [(90, False), (180, False), (270, False), (0, True), (90, True), (120, False), (33, True)],
)
def test_turned_and_mirrored_copies_are_found_and_kept_on_one_side(tmp_path, angle, mirror):
    pictures = {f"{n}_left": encoded(photograph(n)) for n in range(1, 25)}
    pictures["30_left"] = encoded(turned(photograph(7), angle, mirror), quality=85)
    store, manifest = stored(tmp_path, pictures)
    found = duplicates.find(store, 6)
    assert found[["image_id_a", "image_id_b", "kind"]].to_numpy().tolist() == [
        ["30_left", "7_left", "turned"]
    ]
    for seed in range(4):
        split = splits.make(manifest, (0.6, 0.15, 0.25), seed, duplicates=found)
        assert duplicates.annotate(found, manifest, split)["same_split"].all()
        splits.check(split, found)


def test_the_same_pixels_in_another_file_are_an_exact_copy(tmp_path):
    plain = photograph(3)
    store, _ = stored(tmp_path, {"1_left": encoded(plain, "PNG"), "2_left": encoded(plain, "BMP")})
    found = duplicates.find(store, 0)
    assert found[["kind", "distance", "correlation"]].to_numpy().tolist() == [["exact", 0, 1.0]]


def test_a_close_hash_alone_accuses_nobody(tmp_path):
    store, _ = stored(tmp_path, {f"{n}_left": encoded(photograph(n)) for n in range(12)})
    assert len(list(duplicates._close_pairs(np.zeros(12, np.uint64), 0))) == 66
    assert duplicates.find(store, 64).empty


@pytest.mark.parametrize("bits", [0, 2, 9])
def test_close_pairs_are_those_of_a_plain_count(bits, monkeypatch):
    monkeypatch.setattr(duplicates, "HASH_BLOCK", 7)
    rng = np.random.default_rng(bits)
    few = rng.integers(0, 2**63, 6, dtype=np.uint64)
    hashes = few[rng.integers(0, 6, 40)] ^ (np.uint64(1) << rng.integers(0, 60, 40).astype(np.uint64))
    expected = {
        (a, b, bin(int(hashes[a]) ^ int(hashes[b])).count("1")) for a in range(40) for b in range(a + 1, 40)
    }
    assert set(duplicates._close_pairs(hashes, bits)) == {pair for pair in expected if pair[2] <= bits}


def test_detail_correlates_with_itself_and_not_with_brightness():
    first, second = photograph(1, 128), photograph(2, 128)
    own = duplicates.detail(first).astype(float)
    assert own @ own == pytest.approx(1, abs=2e-3)  # float16 holds three digits
    assert own @ duplicates.detail(scaled(first, 0.6)).astype(float) > 0.97
    assert abs(own @ duplicates.detail(second).astype(float)) < 0.5
    assert not duplicates.detail(np.full((128, 128, 3), 90, np.uint8)).any()


def test_found_in_small_blocks_as_in_one(tmp_path, monkeypatch):
    pictures = {f"{n}_left": encoded(photograph(n)) for n in range(20)}
    pictures["40_left"] = encoded(photograph(2), quality=60)
    pictures["41_left"] = encoded(turned(photograph(19), 90), quality=85)
    store, _ = stored(tmp_path, pictures)
    whole = duplicates.find(store, 6)
    assert whole["kind"].value_counts().to_dict() == {"near": 1, "turned": 1}
    monkeypatch.setattr(duplicates, "HASH_BLOCK", 3)
    monkeypatch.setattr(duplicates, "KEPT_DETAILS", 2)
    pd.testing.assert_frame_equal(duplicates.find(store, 6), whole)


def test_memory_grows_little_with_the_number_of_images():
    """For each image a description of 3.5 kB, and no copy of its pixels, circles or fine detail (together 30 kB or more)."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (3 * duplicates.HASH_BLOCK, 32, 32, 3), dtype=np.uint8)

    def peak(count: int) -> int:
        hashes = rng.integers(0, 2**63, count, dtype=np.uint64)
        table = {
            "crop_sha256": [str(n) for n in range(count)],
            "phash": [f"{value:016x}" for value in hashes],
        }
        index = pd.DataFrame({"image_id": [str(n) for n in range(count)]})
        store = images.ImageStore(Path(), pixels[:count], index, pd.DataFrame(table), pd.DataFrame(), {})
        tracemalloc.start()
        try:
            assert duplicates.find(store, 6).empty
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(2)  # imports
    few, many = duplicates.HASH_BLOCK, 3 * duplicates.HASH_BLOCK
    assert (peak(many) - peak(few)) / (many - few) < 6000
