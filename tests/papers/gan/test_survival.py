"""Which lesions survive a size: hand-made lesions whose contrast and noise are known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from drstudy.papers.gan import pictures, survival

SIDE = 64
FIELD = np.ones((SIDE, SIDE), bool)


def chessboard(level=100, noise=4):
    """Grey levels ``level +- noise`` in turn: the standard deviation of every even neighbourhood is ``noise``."""
    y, x = np.mgrid[:SIDE, :SIDE]
    return np.repeat((level + noise * (-1) ** (x + y))[..., None], 3, 2).astype(np.uint8)


def squares(image, side, contrast, at=(20, 20)):
    """A photograph with one square lesion, darker by ``contrast`` in green, and its mask."""
    image, mask = image.copy(), np.zeros((SIDE, SIDE), np.float32)
    where = (slice(at[0], at[0] + side), slice(at[1], at[1] + side))
    image[(*where, 1)] -= contrast
    mask[where] = 1
    return image, mask


def test_contrast_and_rose_by_hand():
    """A lesion of 4 x 4 pixels, 12 levels darker than surroundings of deviation 4: ratio 3, and 3 times the root of 16 pixels."""
    image, mask = squares(chessboard(), 4, 12)
    (row,) = survival.measure_eye(image, {"HE": mask}, FIELD, SIDE).to_dict("records")
    assert row["diameter_px"] == pytest.approx(2 * np.sqrt(16 / np.pi))
    assert row["cnr"] == pytest.approx(3.0, rel=0.01)  # the ring has an odd number of pixels in a few rows
    assert row["rose"] == pytest.approx(12.0, rel=0.01)
    assert row["visible"]


def test_area_averaging_dilutes_what_is_smaller_than_a_pixel():
    """One dark pixel of 64 covers a quarter of a pixel of 32, so a quarter of its contrast is left; noise averages out to rounding."""
    image, mask = squares(chessboard(noise=0), 1, 40)
    (row,) = survival.measure_eye(image, {"MA": mask}, FIELD, SIDE // 2).to_dict("records")
    assert row["diameter_px"] == pytest.approx(2 * np.sqrt(0.25 / np.pi))
    assert row["cnr"] == pytest.approx(10 / survival.QUANTISATION, rel=1e-6)
    assert row["rose"] == pytest.approx(row["cnr"], rel=1e-6)  # one pixel
    assert not row["visible"]  # it is smaller than a pixel, whatever its contrast


def test_the_best_channel_counts_and_other_lesions_are_no_surroundings():
    image, mask = squares(chessboard(), 4, 12)
    other, near = squares(image, 3, 60, at=(20, 25))
    (row, _) = survival.measure_eye(other, {"HE": mask, "EX": near}, FIELD, SIDE).to_dict("records")
    assert row["cnr"] == pytest.approx(3.0, rel=0.02)
    faint, mask = squares(chessboard(), 4, 0)
    (row,) = survival.measure_eye(faint, {"HE": mask}, FIELD, SIDE).to_dict("records")
    assert row["rose"] < 0.5
    assert not row["visible"]


def test_a_lesion_without_surroundings_is_not_visible():
    mask = np.ones((SIDE, SIDE), np.float32)
    (row,) = survival.measure_eye(chessboard(), {"HE": mask}, FIELD, SIDE).to_dict("records")
    assert np.isnan(row["rose"])
    assert not row["visible"]
    assert survival.measure_eye(chessboard(), {}, FIELD, 32).empty


def found_of(*rows):
    """(image, grade, code, number of lesions, how many of them visible)."""
    table = []
    for image, grade, code, count, visible in rows:
        for lesion in range(count):
            row = {
                "image_id": image,
                "patient_id": image,
                "grade": grade,
                "code": code,
                "lesion": lesion,
                "size": 64,
            }
            table.append(row | {"diameter_px": 2.0, "cnr": 3.0, "rose": 6.0, "visible": lesion < visible})
    return pd.DataFrame(table, columns=survival.COLUMNS)


def test_grades_by_what_defines_them():
    found = found_of(
        ("a", 1, "MA", 3, 0),
        ("b", 1, "MA", 3, 1),
        ("c", 1, "MA", 2, 0),
        ("d", 3, "HE", 81, 81),  # more than 80 haemorrhages
        ("e", 3, "HE", 81, 80),  # of which not enough are left
        ("f", 3, "HE", 20, 20),  # nothing that defines grade 3: the label is not explained
        ("g", 3, "IRMA", 1, 1),
        ("h", 4, "NV", 1, 1),
        ("h", 4, "MA", 9, 0),
    )
    grades = survival.by_grade(found, 50, 0, sizes=(64, 128)).set_index(["grade", "size"])
    assert grades.loc[(1, 64), "value"] == pytest.approx(1 / 3)
    assert grades.loc[(1, 64), "generable"] == "no"
    assert grades.loc[(3, 64), ["eyes", "unexplained"]].tolist() == [3, 1]
    assert grades.loc[(3, 64), "value"] == pytest.approx(2 / 3)
    assert grades.loc[(4, 64), "generable"] == "yes"
    assert grades.loc[(2, 64), "generable"] == "not measurable"
    assert (grades.xs(128, level="size")["generable"] == "not measurable").all()
    assert survival.generable(grades.reset_index(), 64) == {
        0: "yes",
        1: "no",
        2: "not measurable",
        3: "yes",
        4: "yes",
    }
    said = survival.findings(grades.reset_index())
    assert said[0].startswith(
        "Grade 1 (mild NPDR), share of eyes whose defining lesions are visible: 64 px: no (0.33"
    )


def test_shares_by_lesion():
    found = found_of(("a", 1, "MA", 4, 1), ("b", 1, "MA", 4, 2), ("b", 2, "HE", 1, 1))
    table = survival.by_lesion(found, 50, 0).set_index("code")
    assert table.loc["MA", "value"] == pytest.approx(3 / 8)
    assert table.loc["MA", ["lesions", "eyes", "patients"]].tolist() == [8, 2, 2]
    assert table.loc["HE", "name"] == "haemorrhage"


def test_photographs_without_masks_are_not_measurable():
    empty = pd.DataFrame(columns=survival.COLUMNS).astype({"grade": "int64", "visible": bool})
    grades = survival.by_grade(empty, 50, 0)
    assert survival.by_lesion(empty, 50, 0).empty
    (said,) = survival.findings(grades)
    assert "not measurable" in said


def test_pictures_are_checked(coloured_eyes):
    data = coloured_eyes(size=64)
    some = pictures.real(data, ["validation", "test"], 32)
    assert (len(some), some.size) == (36, 32)
    part = data.part("validation")
    assert some.grades[:15].tolist() == part["grade"].tolist()
    exact = pictures.real(data, "validation", 64)
    np.testing.assert_array_equal(exact.images, data.images[part["row"].to_numpy()])
    made = pictures.generated(some.images, some.grades)
    assert len(set(made.patients)) == 36
    with pytest.raises(ValueError, match="but these are float64"):
        pictures.generated(some.images / 255, some.grades)
    with pytest.raises(ValueError, match=r"shape \(36, 3, 32, 32\)"):
        pictures.generated(np.moveaxis(some.images, 3, 1), some.grades)
    with pytest.raises(
        ValueError, match=r"from 0 to 4, but these are int64 with the values \[0, 1, 2, 3, 5\]"
    ):
        pictures.generated(some.images, np.where(some.grades == 4, 5, some.grades))
    with pytest.raises(ValueError, match="grades has the shape"):
        pictures.generated(some.images, some.grades[:-1])
    with pytest.raises(ValueError, match="There is no picture"):
        pictures.generated(some.images[:0], some.grades[:0])
    blind = coloured_eyes(size=64)
    blind.table.loc[0, "grade"] = pd.NA
    with pytest.raises(ValueError, match="1 photographs of the split train have no grade"):
        pictures.real(blind, "train", 32)
