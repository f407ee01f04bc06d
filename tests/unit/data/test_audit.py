"""The audit: flags, counts, fellow eyes, and what later notebooks read."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pandas as pd
import pytest
from photographs import encoded, eyepacs, photograph, scaled, stored

from drstudy.core import records
from drstudy.data import audit, duplicates, images, sources, splits
from drstudy.data import manifest as manifests
from drstudy.papers.transfer import params

# --- quality ---------------------------------------------------------------------------------------------


def test_flags_are_raised_for_what_they_name_and_for_nothing_else(tmp_path):
    plain = photograph(1)
    y, x = np.mgrid[:300, :300]
    inside = plain.max(axis=2) > 0
    shadow, glare = plain.copy(), plain.copy()
    shadow[inside & (x < 145)] = scaled(plain, 0.12)[inside & (x < 145)]
    glare[inside & (y > 220)] = 255
    pictures = {
        "plain": plain,
        "dark": scaled(plain, 0.25),
        "shadow": shadow,
        "glare": glare,
        "blurred": np.where(inside[:, :, None], cv2.GaussianBlur(plain, (0, 0), 9), 0).astype(np.uint8),
    }
    store, _ = stored(tmp_path, {name: encoded(picture) for name, picture in pictures.items()})
    flags = audit.table(store).set_index("image_id")["flags"]
    assert flags["plain"] == ""
    assert {name: flag.split(";") for name, flag in flags.items() if flag} == {
        "dark": ["dark", "shadow"],
        "shadow": ["shadow"],
        "glare": ["glare"],
        "blurred": ["blurred"],
    }
    counts = audit.flag_counts(audit.table(store)).set_index("flag")["images"]
    assert counts.to_dict() == {"dark": 1, "shadow": 2, "glare": 1, "blurred": 1, "any": 4}


def test_brightness_is_that_of_the_field_not_of_the_frame(tmp_path):
    narrow = np.zeros((400, 900, 3), np.uint8)
    narrow[50:350, 300:600] = photograph(2)
    store, _ = stored(tmp_path, {"wide": encoded(narrow), "close": encoded(photograph(2))})
    measured = store.measures.set_index("image_id")
    assert measured.loc["wide", "brightness"] == pytest.approx(measured.loc["close", "brightness"], rel=0.01)
    assert measured.loc["wide", "field_share"] < 0.5 * measured.loc["close", "field_share"]


# --- fellow eyes and counts ------------------------------------------------------------------------------


def graded(*pairs: tuple[int, int]) -> pd.DataFrame:
    rows = [
        {
            "image_id": f"{who}_{eye}",
            "path": "x",
            "patient_id": str(who),
            "eye": eye,
            "grade": grade,
            "source": "t",
        }
        for who, both in enumerate(pairs)
        for eye, grade in zip(("left", "right"), both)
    ]
    return manifests.build(rows)


def test_fellow_eyes_by_hand():
    manifest = graded((0, 0), (0, 1), (2, 2), (4, 2))
    alone = {"image_id": "9_left", "path": "x", "patient_id": "9", "eye": "left", "grade": 3, "source": "t"}
    fellows = audit.fellow_eyes(manifests.build([*manifest.to_dict("records"), alone]))
    assert fellows.pairs == 4
    assert (fellows.same, fellows.within_one) == (0.5, 0.75)
    assert fellows.table.loc[0, 1] == fellows.table.loc[4, 2] == fellows.table.loc[2, 2] == 1
    # squared differences: seen 0+1+0+4; expected over all 16 combinations of {0,0,2,4} with {0,1,2,2},
    # divided by 4
    by_chance = sum((left - right) ** 2 for left in (0, 0, 2, 4) for right in (0, 1, 2, 2)) / 4
    assert fellows.kappa == pytest.approx(1 - 5 / by_chance)


def test_fellow_eyes_without_pairs_or_with_one_grade():
    assert audit.fellow_eyes(graded().assign(eye="")).pairs == 0
    one = audit.fellow_eyes(graded((0, 0), (0, 0)))
    assert (one.pairs, one.kappa, one.same) == (2, None, 1.0)


def test_class_counts_and_prevalence_by_hand():
    counts = audit.class_counts(graded((0, 0), (0, 2), (2, 4)))
    assert counts["images"].tolist() == [3, 0, 2, 0, 1]
    assert counts["patients"].tolist() == [2, 0, 2, 0, 1]
    assert counts["share_from_here"].tolist() == pytest.approx([1, 0.5, 0.5, 1 / 6, 1 / 6])
    none = graded((0, 0)).assign(grade=pd.array([pd.NA, pd.NA], dtype="Int64"))
    assert np.isnan(audit.prevalence(none)[2])


def test_problem_counts_put_like_with_like():
    problems = manifests.problems(
        [
            ("a", "label 7 is outside 0 to 4", "excluded"),
            ("b", "label 9 is outside 0 to 4", "excluded"),
            ("c", "truncated file (image file is truncated (8 bytes not processed))", "excluded"),
        ]
    )
    assert audit.problem_counts(problems)["files"].tolist() == [2, 1]


# --- save --------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::drstudy.data.splits.SplitWarning")
def test_saved_files_and_metrics(tmp_path, monkeypatch):
    monkeypatch.setenv("DRSTUDY_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("DRSTUDY_DATA", str(tmp_path / "data"))
    eyepacs(tmp_path / "set", 12)
    (tmp_path / "set" / "train" / "11_left.jpeg").write_bytes(b"broken")
    source = sources.load("eyepacs", tmp_path / "set")
    store = images.build(source.manifest, 64, workers=1)
    manifest = audit.usable(source.manifest, store)
    pairs = duplicates.find(store, 6)
    split = splits.make(manifest, (0.5, 0.25, 0.25), 0, duplicates=pairs)
    problems, measured = audit.quarantine(source, store), audit.table(store)
    pairs = duplicates.annotate(pairs, manifest, split)
    run = records.start(params.DataAudit())
    audit.save(run, manifest, problems, measured, pairs, split, store)
    numbers = audit.metrics(
        manifest,
        problems,
        measured,
        pairs,
        split,
        audit.fellow_eyes(manifest),
        splits.leak(manifest, (0.5, 0.25, 0.25), 0),
    )
    run.metric(**numbers)
    run.finish()
    assert (numbers["n_images"], numbers["n_patients"], numbers["n_quarantined"]) == (23, 12, 1)
    assert numbers["fellow_eye_pairs"] == 11
    assert numbers["n_train"] + numbers["n_validation"] + numbers["n_test"] == 23
    where = json.loads(run.path("images.json").read_text())
    assert images.open_store(where["store"]).info["sha256"] == where["sha256"]
    pd.testing.assert_frame_equal(manifests.read(run.path("manifest.csv")), manifest)
    assert pd.read_csv(run.path("split.csv"))["split"].isin(splits.SPLITS).all()
    assert pd.read_csv(run.path("quarantine.csv"))["problem"].tolist() == [
        "not an image, or its beginning is damaged"
    ]
