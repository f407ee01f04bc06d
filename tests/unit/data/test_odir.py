"""ODIR: who has AMD by the keywords, what is not annotated, and rows that contradict themselves."""

from __future__ import annotations

import pandas as pd
import pytest
from photographs import encoded, photograph

from drstudy.core import paths
from drstudy.data import amd, sources, splits
from drstudy.data.sources import odir

REAL = "../shared/data/odir_mini"
ROWS = [
    ("1_left.jpg", "1", "left", "0.0", "normal", "normal fundus"),
    ("1_right.jpg", "1", "right", "", "amd", "dry age-related macular degeneration"),
    ("2_left.jpg", "2", "left", "2.0", "dr", "moderate non proliferative retinopathy"),
    ("2_right.jpg", "2", "right", "1.0", "dr", "drusen; mild nonproliferative retinopathy"),
    ("3_left.jpg", "3", "left", "", "dr", "proliferative diabetic retinopathy"),
]
HEADER = ("image", "patient_id", "eye", "grade", "class3", "keywords")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "preprocessed_images").mkdir()
    for number, row in enumerate(ROWS):
        picture = photograph(number, 48, centre=(24, 24), radius=22)
        (tmp_path / "preprocessed_images" / row[0]).write_bytes(encoded(picture))
    write(tmp_path)
    return tmp_path


def write(root, rows=ROWS, header=HEADER) -> None:
    pd.DataFrame(rows, columns=list(HEADER))[list(header)].to_csv(root / "labels.csv", index=False)


@pytest.mark.parametrize(
    ("keywords", "expected"),
    [
        ("normal fundus", 0),
        ("dry age-related macular degeneration", 1),
        ("Wet Age-Related Macular Degeneration; glaucoma", 1),
        ("moderate non proliferative retinopathy", 0),
        ("macular epiretinal membrane; mild nonproliferative retinopathy", 0),
        ("drusen; mild nonproliferative retinopathy", None),
        ("moderate non proliferative retinopathy; atrophic change", None),
        ("glaucoma; macular pigmentation disorder", None),
        ("spotted membranous change", None),
        ("drusen; dry age-related macular degeneration", 1),
        ("", None),
        (" ; ", None),
    ],
)
def test_amd_follows_from_the_keywords(keywords, expected):
    assert odir.amd_of(keywords) == expected


def test_a_yes_or_no_is_no_grade_and_an_empty_cell_is_not_annotated(folder):
    source = sources.load("odir", folder)
    table = source.manifest.set_index("image_id")
    assert "amd_grade" not in table
    assert table["amd"].astype(object).where(table["amd"].notna(), None).tolist() == [0, 1, 0, None, 0]
    assert table["grade"].astype(object).where(table["grade"].notna(), None).tolist() == [0, None, 2, 1, None]
    assert table.loc["1_right", "patient_id"] == "1"
    assert table["eye"].tolist() == ["left", "right", "left", "right", "left"]
    assert source.problems.empty
    assert "1 eyes with it, 3 without, 1 of which" in source.notes[0]
    assert amd.disease(source.manifest).tolist() == ["neither", "unknown", "DR only", "unknown", "unknown"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class3": "glaucoma"}, "class3 of '1_left.jpg' is 'glaucoma'; it must be one of normal, dr, amd"),
        (
            {"keywords": "wet age-related macular degeneration"},
            "of class3 'normal', but its keywords are 'wet",
        ),
        ({"class3": "amd"}, "of class3 'amd', but its keywords are 'normal fundus'"),
        ({"keywords": "cataract"}, "do not name 'normal fundus'"),
        ({"grade": "2"}, "of class3 'normal', but its grade is 2"),
    ],
)
def test_a_row_that_contradicts_itself_is_refused(folder, change, message):
    first = dict(zip(HEADER, ROWS[0])) | change
    write(folder, [tuple(first.values()), *ROWS[1:]])
    with pytest.raises(sources.SourceError, match=message):
        sources.load("odir", folder)


def test_missing_columns_files_and_bad_grades_are_named(folder):
    write(folder, header=HEADER[:-1])
    with pytest.raises(sources.SourceError, match="has no column keywords"):
        sources.load("odir", folder)
    write(
        folder,
        [
            *ROWS[:2],
            ("2_left.jpg", "2", "left", "7", "dr", "moderate non proliferative retinopathy"),
            *ROWS[3:],
        ],
    )
    (folder / "preprocessed_images" / "3_left.jpg").unlink()
    problems = sources.load("odir", folder).problems.set_index("problem")
    assert "label 7 is outside 0 to 4" in problems.index
    assert "missing file: there is a label but no image" in problems.index


def test_the_real_table():
    if not paths.resolve(REAL).is_dir():
        pytest.skip(f"{REAL} is not there")
    table = sources.load("odir", REAL).manifest
    counts = amd.counts(table).set_index("amd")
    assert counts.loc["yes, not graded", ["no_dr", "dr", "dr_unknown"]].tolist() == [0, 0, 163]
    assert counts.loc["no, not graded", "no_dr"] == 600
    assert counts.loc[["no, not graded", "not annotated"], "dr"].sum() == 600
    assert table["patient_id"].nunique() == 982
    split = splits.make(table, (0.6, 0.15, 0.25), 0)
    splits.check(split)
    assert not (split["split"] == splits.UNGRADED).any()
    shares = splits.balance(split, "amd").pipe(lambda found: found[1] / found.sum(axis=1))
    assert shares.max() - shares.min() < 0.01
