"""Loaders, store and audit on real photographs, where they are at hand (they are not part of the project)."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from drstudy.core import paths
from drstudy.data import audit, checking, duplicates, images, sources, splits

SETS = {
    "eyepacs": "../shared/data/eyepacs_mini",
    "idrid": "../shared/data/idrid_mini",
    "folder": "../shared/data/odir_mini",
}
EVERY = 6

pytestmark = pytest.mark.real


def needed(source: str) -> str:
    if not paths.resolve(SETS[source]).is_dir():
        pytest.skip(f"{SETS[source]} is absent: it holds real photographs, which are not part of the project")
    return SETS[source]


def test_kaggle_photographs(tmp_path):
    source = sources.load("eyepacs", needed("eyepacs"))
    assert source.problems.empty
    assert (source.manifest.groupby("patient_id")["eye"].nunique() == 2).all()
    counts = source.manifest["grade"].value_counts()
    assert counts.idxmax() == 0
    assert set(counts.index) == {0, 1, 2, 3, 4}
    some = source.manifest[source.manifest["patient_id"].astype(int) % EVERY == 1].reset_index(drop=True)
    store = images.build(some, 224, workers=1, folder=tmp_path)
    assert len(store.index) == len(some)
    # fields fill their crop, also of dark and cut photographs: the wider side reaches both edges
    for place in range(len(some)):
        mask = images.fov_mask(np.asarray(store.images[place]))
        assert max(np.ptp(np.flatnonzero(mask.any(axis=axis))) for axis in (0, 1)) >= 224 - 8
    fellows = audit.fellow_eyes(source.manifest)
    assert fellows.kappa > 0.5
    split = splits.make(source.manifest, (0.6, 0.15, 0.25), 0)
    splits.check(split)
    shares = splits.balance(split).sum(axis=1) / len(split)
    assert np.allclose(shares, (0.6, 0.15, 0.25), atol=0.01)


def test_one_photograph_entered_as_both_eyes_is_found(tmp_path):
    source = sources.load("eyepacs", needed("eyepacs"))
    near = source.manifest["patient_id"].astype(int).between(10350, 10400)
    store = images.build(source.manifest[near].reset_index(drop=True), 128, workers=1, folder=tmp_path)
    found = duplicates.find(store, 6)
    assert found[["image_id_a", "image_id_b", "kind"]].to_numpy().tolist() == [
        ["10363_left", "10363_right", "near"]
    ]


def test_lesion_masks_of_idrid_lie_on_lesions(tmp_path):
    source = sources.load("idrid", needed("idrid"))
    assert source.manifest["grade"].isna().all()
    store = images.build(source.manifest, 384, workers=1, folder=tmp_path)
    checked = 0
    for _, row in source.manifest.iterrows():
        masks = images.load_masks(row, store.crop(row["image_id"]), ["MA", "EX", "DISC"], 384)
        image = np.asarray(store.images[store.row(row["image_id"])])
        field = images.fov_mask(image)
        green = image[:, :, 1].astype(np.float32)
        brighter = green - cv2.blur(green, (65, 65))
        # hard exudates and the disc are brighter than the retina around them
        for code in ("EX", "DISC"):
            if masks[code].any():
                assert brighter[masks[code]].mean() > 5
                assert (masks[code] & field).sum() > 0.98 * masks[code].sum()
                checked += 1
        # microaneurysms are so small that a mask sampled by nearest neighbour would lose some of them
        assert masks["MA"].any()
    assert checked > 20
    assert set(splits.make(source.manifest, (0.6, 0.15, 0.25), 0)["split"]) == {"test"}


def test_odir_loads_through_the_folder_source(tmp_path):
    source = sources.load("folder", needed("folder"))
    assert set(source.problems["problem"]) == {"label missing"}
    assert (source.problems["action"] == "excluded").all()
    some = source.manifest[source.manifest["patient_id"].isin(["2365", "3047", "952", "4133", "81"])]
    store = images.build(some.reset_index(drop=True), 128, workers=1, folder=tmp_path)
    found = duplicates.find(store, 6)
    # one eye under two patients; the pairs that share only their glare (952, 4133 and 81) are not accused
    assert found[["image_id_a", "image_id_b"]].to_numpy().tolist() == [["2365_left", "3047_left"]]


@pytest.mark.parametrize("source", SETS)
def test_check_says_usable(source):
    report = checking.check(source, needed(source), decode=10)
    assert report.ok, report.text
    assert report.examined == 10
