"""The fundus phantom: the photographs with their masks and lesions, and the files."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from drstudy.data.phantom import (
    ANATOMY_CODES,
    LESION_CODES,
    PhantomConfig,
    contact_sheet,
    grade_from_lesions,
    plan,
    render,
    write,
)

ROOT = Path(__file__).resolve().parents[3]


# ---- photographs, masks, lesions -------------------------------------------------------------------------


def check(config: PhantomConfig, index: int, grade: int) -> Counter:
    """Asserts that image, masks, lesions and grade of one eye agree; returns the codes it has."""
    phantom = render(config, index)
    size = config.size
    assert phantom.image.shape == (size, size, 3)
    assert phantom.image.dtype == np.uint8
    assert set(phantom.masks) == {*LESION_CODES, *ANATOMY_CODES}
    assert phantom.grade == grade == grade_from_lesions(phantom.lesions)
    inside = phantom.masks["FOV"]
    assert 0.45 < inside.mean() <= 1.0
    codes = set(phantom.lesions["code"])
    for code, mask in phantom.masks.items():
        assert mask.shape == (size, size)
        assert mask.dtype == bool
        assert not (mask & ~inside).any(), code
        if code in LESION_CODES:
            assert mask.any() == (code in codes), code
    assert phantom.masks["VESSEL"].any()
    for one in phantom.lesions.itertuples():  # each lesion owns a part of its mask, at its place
        reach = max(1, int(np.ceil(1.3 * one.radius_dd * phantom.disc_diameter_px)))
        row, column = int(one.y), int(one.x)
        window = phantom.masks[one.code][
            max(0, row - reach) : row + reach + 1, max(0, column - reach) : column + reach + 1
        ]
        assert window.any(), one
    return Counter(codes)


@pytest.mark.parametrize(("size", "difficulty"), [(64, 0.0), (97, 1.0), (160, 0.5)])
def test_image_masks_lesions_and_grade_agree(size, difficulty):
    # several hundred eyes were checked in this way when the phantom was written; here a sample of them
    config = PhantomConfig(
        n_patients=36,
        size=size,
        difficulty=difficulty,
        seed=size,
        distribution=(1, 1, 1, 1, 1),
        ungradable=0.1,
        laser=0.8,
    )
    seen = Counter()
    for index, grade in enumerate(plan(config)["grade"]):
        seen += check(config, index, grade)
    assert set(seen) == set(LESION_CODES) or size != 64


@pytest.mark.parametrize("size", [384, 768])
def test_full_size(size):
    config = PhantomConfig(n_patients=2, size=size)
    check(config, 1, plan(config)["grade"][1])


def test_geometry_does_not_depend_on_the_size():
    small, large = (render(PhantomConfig(n_patients=6, size=size), 4) for size in (96, 192))
    assert small.grade == large.grade
    assert len(small.lesions) == len(large.lesions)
    np.testing.assert_allclose(
        2 * small.lesions[["x", "y"]].to_numpy(float), large.lesions[["x", "y"]].to_numpy(float)
    )
    a = cv2.resize(large.image, (96, 96), interpolation=cv2.INTER_AREA).astype(float)
    # the same eye: the pictures differ by noise and resampling only (a grey level of 255 is about 0.4 %)
    assert np.abs(a - small.image).mean() < 8


def test_disc_is_nasal_and_brighter_than_its_surroundings():
    config = PhantomConfig(n_patients=8, size=128, difficulty=0.0, ungradable=0.0)
    for index in range(16):
        phantom = render(config, index)
        if phantom.eye == "left":
            assert phantom.disc_xy[0] < phantom.fovea_xy[0]
        else:
            assert phantom.disc_xy[0] > phantom.fovea_xy[0]
        gap = np.hypot(*np.subtract(phantom.disc_xy, phantom.fovea_xy)) / phantom.disc_diameter_px
        assert 2.0 < gap < 3.0  # anatomy: about 2.5 disc diameters
        disc, vessel = phantom.masks["DISC"], phantom.masks["VESSEL"]
        if disc.sum() > 30:
            around = (
                cv2.dilate(disc.astype(np.uint8), np.ones((25, 25))).astype(bool)
                & ~disc
                & phantom.masks["FOV"]
                & ~vessel
            )
            assert phantom.image[disc & ~vessel].mean() > 1.05 * phantom.image[around].mean()


def test_same_bytes_in_any_order_and_process(tmp_path):
    config = PhantomConfig(n_patients=3, size=96, seed=11)

    def digest(index):
        phantom = render(config, index)
        hasher = hashlib.sha256(phantom.image.tobytes())
        for code in sorted(phantom.masks):
            hasher.update(np.packbits(phantom.masks[code]).tobytes())
        hasher.update(phantom.lesions.to_csv().encode())
        return hasher.hexdigest()

    forwards = [digest(i) for i in range(6)]
    assert [digest(i) for i in reversed(range(6))][::-1] == forwards
    assert len(set(forwards)) == 6
    assert np.array_equal(render(config, "p0001_right").image, render(config, 3).image)
    script = (
        "import sys, hashlib; from drstudy.data.phantom import *; "
        "p = render(PhantomConfig(n_patients=3, size=96, seed=11), 4); "
        "sys.stdout.write(hashlib.sha256(p.image.tobytes()).hexdigest())"
    )
    other = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert other.stdout == hashlib.sha256(render(config, 4).image.tobytes()).hexdigest()
    assert not np.array_equal(render(replace(config, seed=12), 4).image, render(config, 4).image)


def test_unknown_eye_is_refused():
    config = PhantomConfig(n_patients=2, size=64)
    for wrong in (4, -1, "p0002_left", "p0_left", "cat"):
        with pytest.raises(KeyError, match="no eye"):
            render(config, wrong)
    with pytest.raises(ValueError, match="unknown lesion code"):
        render(config, 0, without=("HAEM",))


@pytest.mark.parametrize("code", LESION_CODES)
def test_masks_are_where_the_paint_is(code):
    """Without its lesions of one code the same photograph differs at the mask, and only there."""
    config = PhantomConfig(
        n_patients=40,
        size=256,
        difficulty=0.0,
        ungradable=0.0,
        laser=1.0,
        seed=5,
        distribution=(0, 0, 1, 2, 3),
    )
    for index in range(2 * config.n_patients):
        # look at the lesion list on a small picture first: the lesions are the same at every size
        if code not in set(render(replace(config, size=64), index).lesions["code"]):
            continue
        phantom, bare = render(config, index), render(config, index, without=(code,))
        assert not bare.masks[code].any()
        change = np.abs(phantom.image.astype(int) - bare.image).max(2)
        mask = phantom.masks[code]
        # 5 px: the optical blur (sigma about 0.4 px here) and the soft edges of the lesions
        near = cv2.dilate(mask.astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (11, 11))) > 0
        assert change[~near].max(initial=0) <= 3, "paint without mask"
        # a scar may lie under a haemorrhage: ask for most of the mask, not for all of it
        assert np.median(change[mask]) >= 3, "mask without paint"
        for other in {*LESION_CODES, *ANATOMY_CODES} - {code, "VESSEL"}:
            assert np.array_equal(phantom.masks[other], bare.masks[other])
        return
    pytest.fail(f"no eye with {code}")


def test_difficulty_lowers_contrast_and_changes_nothing_else():
    contrast = []
    for difficulty in (0.0, 0.5, 1.0):
        config = PhantomConfig(
            n_patients=3, size=96, ungradable=0.0, difficulty=difficulty, distribution=(0, 0, 1, 1, 0)
        )
        found = []
        for index in range(6):
            phantom, bare = render(config, index), render(config, index, without=("HE", "MA"))
            mask = phantom.masks["HE"] | phantom.masks["MA"]
            found.append((bare.image[..., 1].astype(float) - phantom.image[..., 1])[mask].mean())
        contrast.append(np.mean(found))
    assert contrast[0] > 1.03 * contrast[1]  # the strongest lesions are opaque already
    assert contrast[1] > 1.5 * contrast[2] > 0
    easy, hard = (render(PhantomConfig(n_patients=4, size=64, difficulty=d), 5) for d in (0.0, 1.0))
    pd.testing.assert_frame_equal(
        easy.lesions.drop(columns="strength"), hard.lesions.drop(columns="strength")
    )


def test_laser_scars_do_not_decide_the_grade():
    table = plan(PhantomConfig(n_patients=3000))
    treated = table[table["treated"]]["grade"]
    assert set(treated) == {0, 1, 2, 3, 4}
    assert (treated == 4).mean() < 0.75
    config = PhantomConfig(n_patients=3000, size=64)
    for grade in range(5):
        phantom = render(config, int(treated.index[treated == grade][0]))
        assert (phantom.lesions["code"] == "LASER").any()
        assert phantom.grade == grade


# ---- files -----------------------------------------------------------------------------------------------


def contents(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_write_resume_and_refuse(tmp_path):
    config = PhantomConfig(n_patients=4, size=96, label_noise=0.5, seed=1)
    calls = []
    root = write(
        config, tmp_path / "study", workers=1, progress=lambda done, total: calls.append((done, total))
    )
    assert calls[-1] == (8, 8)
    assert sorted(calls) == calls
    whole = contents(root)
    assert json.loads((root / "phantom.json").read_text())["config"] == config.to_dict()

    labels, table = pd.read_csv(root / "labels.csv"), plan(config)
    assert list(labels.columns) == [
        "image_id", "patient_id", "eye", "grade", "true_grade", "gradable",
        *(f"lesion_{code}" for code in LESION_CODES),
    ]  # fmt: skip
    assert (labels["grade"] == table["label"]).all()
    assert (labels["true_grade"] == table["grade"]).all()
    for index, row in labels.iterrows():
        phantom = render(config, index)
        jpeg = np.asarray(Image.open(root / "images" / f"{row.image_id}.jpeg"))
        assert np.abs(jpeg.astype(int) - phantom.image).mean() < 4  # JPEG at quality 92
        for code in (*LESION_CODES, *ANATOMY_CODES):
            path = root / "masks" / f"{row.image_id}_{code}.png"
            assert path.exists() == phantom.masks[code].any()
            if path.exists():
                mask = Image.open(path)
                assert mask.mode == "1"
                assert np.array_equal(np.asarray(mask), phantom.masks[code])
            if code in LESION_CODES:
                assert row[f"lesion_{code}"] == path.exists()

    # an interrupted, damaged study is completed to the same bytes, and what is whole is not written again
    (root / "phantom.json").unlink()
    (root / "labels.csv").unlink()
    (root / ".phantom-unfinished.json").write_text(json.dumps({"format": 1, "config": config.to_dict()}))
    image = root / "images" / "p0001_left.jpeg"
    image.write_bytes(image.read_bytes()[:500])
    next((root / "masks").glob("p0002_right_*.png")).unlink()
    untouched = root / "images" / "p0000_left.jpeg"
    before = untouched.stat().st_mtime_ns
    write(config, root, workers=1)
    assert contents(root) == whole
    assert untouched.stat().st_mtime_ns == before

    with pytest.raises(ValueError, match=r"another configuration \(seed is 1, wanted 2\)"):
        write(replace(config, seed=2), root)
    assert contents(root) == whole
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "mine.jpeg").write_bytes(b"x")
    with pytest.raises(ValueError, match="not empty"):
        write(config, tmp_path / "photos")
    with pytest.raises(ValueError, match="workers"):
        write(config, tmp_path / "other", workers=0)


def test_write_leaves_no_half_file_when_it_fails(tmp_path, monkeypatch):
    config = PhantomConfig(n_patients=2, size=64)
    from drstudy.data.phantom import writing

    def fail(source, target):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(writing.os, "replace", fail)
        with pytest.raises(OSError, match="disk full"):
            write(config, tmp_path / "study", workers=1)
    assert not [p for p in (tmp_path / "study").rglob("*") if p.is_file()]
    write(config, tmp_path / "study", workers=1)
    assert (tmp_path / "study" / "phantom.json").exists()


def test_write_in_processes_gives_the_same_bytes(tmp_path):
    config = PhantomConfig(n_patients=100, size=64)
    from drstudy.data.phantom import writing

    one = write(replace(config, n_patients=5), tmp_path / "one", workers=1)
    patch = pytest.MonkeyPatch()
    patch.setattr(writing, "POOL_PIXELS", 0)
    try:
        two = write(replace(config, n_patients=5), tmp_path / "two", workers=2)
    finally:
        patch.undo()
    assert contents(one) == contents(two)


def test_contact_sheet(tmp_path):
    path = tmp_path / "figures" / "sheet.png"
    sheet = contact_sheet(PhantomConfig(n_patients=2, size=96), path, per_grade=1)
    assert sheet.dtype == np.uint8
    assert sheet.shape[1] >= 5 * 96
    assert sheet.shape[0] >= 2 * 96
    assert np.array_equal(np.asarray(Image.open(path)), sheet)
    outlined = sheet[sheet.shape[0] // 2 :, :, :].astype(int)
    assert (outlined.max(2) - outlined.min(2) > 150).any()  # saturated outlines
