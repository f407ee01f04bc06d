"""The audit: flags, duplicates, fellow eyes, and the check that comes before everything."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pandas as pd
import pytest
from photographs import encoded, eyepacs, photograph

from drstudy.core import records
from drstudy.data import audit, images, sources, splits
from drstudy.data import manifest as manifests
from drstudy.papers.transfer import params


def store_of(tmp_path, pictures: dict[str, bytes], size: int = 128):
    """A store of named files and its manifest; names like ``3_left`` give patient and eye."""
    rows = []
    for name, content in pictures.items():
        path = tmp_path / f"{name}.jpeg"
        path.write_bytes(content)
        patient, _, eye = name.partition("_")
        eye = eye if eye in ("left", "right") else ""
        rows.append(
            {
                "image_id": name,
                "path": str(path),
                "patient_id": patient,
                "eye": eye,
                "grade": 0,
                "source": "t",
            }
        )
    manifest = manifests.build(rows)
    return images.build(manifest, size, workers=1, folder=tmp_path / "stores"), manifest


def scaled(picture: np.ndarray, factor: float) -> np.ndarray:
    return np.clip(picture * factor, 0, 255).astype(np.uint8)


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
    store, _ = store_of(tmp_path, {name: encoded(picture) for name, picture in pictures.items()})
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
    store, _ = store_of(tmp_path, {"wide": encoded(narrow), "close": encoded(photograph(2))})
    measured = store.measures.set_index("image_id")
    assert measured.loc["wide", "brightness"] == pytest.approx(measured.loc["close", "brightness"], rel=0.01)
    assert measured.loc["wide", "field_share"] < 0.5 * measured.loc["close", "field_share"]


# --- duplicates ------------------------------------------------------------------------------------------


def test_copies_are_found_and_other_eyes_are_not(tmp_path):
    plain = photograph(1)
    pictures = {f"{n}_left": encoded(photograph(n)) for n in range(1, 25)}
    pictures["30_left"] = encoded(plain)
    pictures["31_left"] = encoded(plain, quality=60)
    pictures["32_left"] = encoded(cv2.resize(plain, (200, 200), interpolation=cv2.INTER_AREA))
    pictures["33_left"] = encoded(scaled(plain, 1.15))
    pictures["34_left"] = encoded(plain, "PNG")
    store, manifest = store_of(tmp_path, pictures)
    found = audit.duplicates(store, 6)
    names = set(found["image_id_a"]) | set(found["image_id_b"])
    assert names == {"1_left", "30_left", "31_left", "32_left", "33_left", "34_left"}
    exact = found[found["kind"] == "exact"]
    assert exact[["image_id_a", "image_id_b"]].to_numpy().tolist() == [["1_left", "30_left"]]
    split = splits.make(manifest, (0.6, 0.15, 0.25), 0, duplicates=found)
    noted = audit.annotate(found, manifest, split)
    assert not noted["same_patient"].any()
    assert noted["same_split"].all()
    assert noted["same_grade"].all()


def test_the_same_pixels_in_another_file_are_an_exact_copy(tmp_path):
    plain = photograph(3)
    store, _ = store_of(tmp_path, {"1_left": encoded(plain, "PNG"), "2_left": encoded(plain, "BMP")})
    found = audit.duplicates(store, 0)
    assert found[["kind", "distance", "correlation"]].to_numpy().tolist() == [["exact", 0, 1.0]]


def test_a_close_hash_alone_accuses_nobody(tmp_path):
    store, _ = store_of(tmp_path, {f"{n}_left": encoded(photograph(n)) for n in range(12)})
    assert len(list(audit._close_pairs(np.zeros(12, np.uint64), 0))) == 66
    assert audit.duplicates(store, 64).empty


@pytest.mark.parametrize("bits", [0, 2, 9])
def test_close_pairs_are_those_of_a_plain_count(bits, monkeypatch):
    monkeypatch.setattr(audit, "HASH_BLOCK", 7)
    rng = np.random.default_rng(bits)
    few = rng.integers(0, 2**63, 6, dtype=np.uint64)
    hashes = few[rng.integers(0, 6, 40)] ^ (np.uint64(1) << rng.integers(0, 60, 40).astype(np.uint64))
    expected = {
        (a, b, bin(int(hashes[a]) ^ int(hashes[b])).count("1")) for a in range(40) for b in range(a + 1, 40)
    }
    assert set(audit._close_pairs(hashes, bits)) == {pair for pair in expected if pair[2] <= bits}


def test_detail_correlates_with_itself_and_not_with_brightness():
    first, second = photograph(1, 128), photograph(2, 128)
    own = audit.detail(first).astype(float)
    assert own @ own == pytest.approx(1, abs=2e-3)  # float16 holds three digits
    assert own @ audit.detail(scaled(first, 0.6)).astype(float) > 0.97
    assert abs(own @ audit.detail(second).astype(float)) < 0.5
    assert not audit.detail(np.full((128, 128, 3), 90, np.uint8)).any()


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


# --- check and save --------------------------------------------------------------------------------------


def test_check_tells_what_is_there_and_what_is_wrong(tmp_path):
    table = eyepacs(tmp_path, 6)
    (tmp_path / "train" / "1_left.jpeg").write_bytes(b"")
    (tmp_path / "train" / "2_left.jpeg").unlink()
    table.loc[table["image"] == "3_left", "level"] = 8
    table.to_csv(tmp_path / "trainLabels.csv", index=False)
    report = audit.check("eyepacs", tmp_path)
    assert report.ok
    assert report.examined == 10
    for text in (
        "10 of 6 patients",
        "empty file",
        "missing file",
        "outside 0 to 4",
        "120x120 JPEG (9)",
        "Usable.",
    ):
        assert text in report.text
    assert len(report.problems) == 3


def test_check_finds_an_empty_file_that_it_did_not_open(tmp_path):
    eyepacs(tmp_path, 6)
    (tmp_path / "train" / "2_right.jpeg").write_bytes(b"")
    report = audit.check("eyepacs", tmp_path, decode=2)
    assert report.examined == 2
    assert report.problems["problem"].tolist() == ["empty file"]


def test_check_of_what_cannot_be_used_says_so(tmp_path):
    missing = audit.check("eyepacs", tmp_path / "none")
    assert not missing.ok
    assert "ERROR: DATA_ROOT" in missing.text
    eyepacs(tmp_path, 3, grades=[2] * 6)
    assert "nothing can be learnt" in audit.check("eyepacs", tmp_path).text
    for path in (tmp_path / "train").iterdir():
        path.write_bytes(b"broken")
    assert any("None of the 6" in error for error in audit.check("eyepacs", tmp_path).errors)
    (tmp_path / "trainLabels.csv").write_text("image,level\n0_left,7\n")
    assert audit.check("eyepacs", tmp_path).errors == ("No image can be used: see the problems above.",)


@pytest.mark.filterwarnings("ignore::drstudy.data.splits.SplitWarning")
def test_saved_files_and_metrics(tmp_path, monkeypatch):
    monkeypatch.setenv("DRSTUDY_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("DRSTUDY_DATA", str(tmp_path / "data"))
    eyepacs(tmp_path / "set", 12)
    (tmp_path / "set" / "train" / "11_left.jpeg").write_bytes(b"broken")
    source = sources.load("eyepacs", tmp_path / "set")
    store = images.build(source.manifest, 64, workers=1)
    manifest = audit.usable(source.manifest, store)
    pairs = audit.duplicates(store, 6)
    split = splits.make(manifest, (0.5, 0.25, 0.25), 0, duplicates=pairs)
    problems, measured = audit.quarantine(source, store), audit.table(store)
    pairs = audit.annotate(pairs, manifest, split)
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
