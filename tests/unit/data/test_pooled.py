"""Several data sets as one: parts, names, patients, what only some parts annotate, duplicates across parts."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from photographs import encoded, eyepacs, photograph
from PIL import Image

from drstudy.core import paths
from drstudy.data import audit, checking, duplicates, images, labels, sources, splits
from drstudy.data import manifest as manifests
from drstudy.data.sources import pooled
from drstudy.papers.transfer import params
from drstudy.study import outside

SIDE = 64
REAL = ("../shared/data/eyepacs_mini", "../shared/data/dr600_mini")


def clinic(root, names=("0_left", "0_right", "z"), first: int = 50) -> None:
    """A folder with a table, whose ids are partly those of :func:`photographs.eyepacs`."""
    root.mkdir()
    rows = ["image,patient_id,eye,grade"]
    for number, name in enumerate(names):
        (root / f"{name}.jpg").write_bytes(encoded(photograph(first + number, SIDE)))
        rows.append(f"{name}.jpg,{name.split('_')[0]},,{number % 5}")
    (root / "labels.csv").write_text("\n".join(rows))


def votes(root) -> None:
    """Two photographs of the DIARETDB1 layout; three experts marked a haemorrhage in the first."""
    (root / "images").mkdir(parents=True)
    (root / "votes" / "HE").mkdir(parents=True)
    for number, name in enumerate("ab"):
        (root / "images" / f"{name}.jpg").write_bytes(encoded(photograph(80 + number, SIDE)))
    marks = np.zeros((SIDE, SIDE), np.uint8)
    marks[20:40, 20:40] = 180
    Image.fromarray(marks).save(root / "votes" / "HE" / "a.png")


@pytest.fixture
def two(tmp_path):
    """``DATA_ROOT`` of a Kaggle set of five patients and a folder of two, both of which have a patient 0."""
    eyepacs(tmp_path / "kaggle set", 5, SIDE)
    clinic(tmp_path / "clinic")
    return f"eyepacs:{tmp_path / 'kaggle set'} + folder:{tmp_path / 'clinic'}"


def test_every_row_of_every_part_with_ids_and_patients_of_its_own(two, tmp_path):
    source = sources.load("pooled", two)
    table = source.manifest
    alone = sources.load("eyepacs", tmp_path / "kaggle set").manifest
    own = table[table["source"] == "kaggle set"].reset_index(drop=True)
    assert list(own["image_id"]) == list("kaggle set-" + alone["image_id"])
    assert list(own["grade"]) == list(alone["grade"])
    assert list(own["eye"]) == list(alone["eye"])
    assert list(own["path"]) == list(alone["path"])
    assert dict(table["source"].value_counts()) == {"kaggle set": 10, "clinic": 3}
    assert table.groupby("patient_id")["source"].nunique().max() == 1
    assert table["patient_id"].nunique() == 5 + 2, "patient 0 of one set is not patient 0 of the other"
    assert (source.name, source.root) == ("pooled", tmp_path)
    assert [note.split(":")[0] for note in source.notes] == ["kaggle set", "clinic"]
    assert source.problems.empty


@pytest.mark.filterwarnings("ignore::drstudy.data.splits.SplitWarning")
def test_a_split_keeps_the_patients_of_both_parts_whole(two):
    table = sources.load("pooled", two).manifest
    split = splits.make(table, (0.5, 0.25, 0.25), 0)
    splits.check(split)
    assert len(split) == 13


def test_problems_of_every_part_are_kept(two, tmp_path):
    (tmp_path / "clinic" / "labels.csv").write_text(
        "image,patient_id,eye,grade\n0_left.jpg,0,,9\n0_right.jpg,0,,1\n"
    )
    with (tmp_path / "kaggle set" / "trainLabels.csv").open("a") as file:
        file.write("gone_left,1\n")
    source = sources.load("pooled", two)
    assert len(source.manifest) == 11
    assert [file.split("/")[-1] for file in source.problems["file"]] == ["gone_left", "0_left.jpg", "z.jpg"]


def test_what_one_part_annotates_is_unknown_in_the_other(tmp_path):
    eyepacs(tmp_path / "graded", 2, SIDE)
    votes(tmp_path / "marked")
    root = f"eyepacs:{tmp_path / 'graded'} + diaretdb1:{tmp_path / 'marked'}"
    for least, present in ((3, 1), (4, 0)):
        table = sources.load("pooled", root, votes=least).manifest.set_index("image_id")
        assert list(table.loc[["marked-a", "marked-b"], "lesion_HE"]) == [present, 0]
        assert table.loc[table["source"] == "graded", "lesion_HE"].isna().all()
        assert table.loc["graded-0_left", "mask_values"] is pd.NA
        assert table.loc["marked-a", "mask_values"] == 60 * least
        assert table.loc["marked-a", "grade"] is pd.NA
        known = labels.status(table.reset_index(), ("HE", "MA"))
        assert set(known.loc[table["source"] == "graded", "HE"]) == {"not annotated"}
        assert set(known["MA"]) == {"not annotated"}
    assert list(known.loc[["marked-a", "marked-b"], "HE"]) == ["measured", "absent"]


@pytest.mark.filterwarnings("ignore::drstudy.data.splits.SplitWarning")
def test_a_photograph_in_two_parts_is_found_and_stays_on_one_side(two, tmp_path):
    copied = (tmp_path / "kaggle set" / "train" / "3_left.jpeg").read_bytes()
    (tmp_path / "clinic" / "z.jpg").write_bytes(copied)
    table = sources.load("pooled", two).manifest
    store = images.build(table, SIDE, 1, folder=tmp_path / "stores")
    pairs = duplicates.find(store, 6)
    assert ["clinic-z", "kaggle set-3_left"] in pairs[["image_id_a", "image_id_b"]].to_numpy().tolist()
    for seed in range(5):
        split = splits.make(table, (0.4, 0.3, 0.3), seed, duplicates=pairs)
        side = split.set_index("image_id")["split"]
        assert side["clinic-z"] == side["kaggle set-3_left"] == side["kaggle set-3_right"]
    pairs = duplicates.annotate(pairs, table, split)
    leak = {"expected": 0.0}
    found = audit.metrics(
        table, manifests.problems(), audit.table(store), pairs, split, audit.fellow_eyes(table), leak
    )
    source = table.set_index("image_id")["source"]
    across = sum(source[a] != source[b] for a, b in pairs[["image_id_a", "image_id_b"]].to_numpy())
    assert found["n_duplicates_across_sources"] == across >= 1


@pytest.mark.parametrize(
    ("root", "said"),
    [
        ("", "has one part"),
        ("eyepacs:{a}", "has one part"),
        ("{a} + folder:{b}", "does not begin with a source and a colon"),
        ("eyepacs:{a} + kaggle:{b}", "The sources are phantom, eyepacs, aptos"),
        ("eyepacs:{a} + pooled:{b}", "The part 'pooled:"),
        ("eyepacs:{a} + folder:", "The part 'folder:'"),
        ("eyepacs:{a} + eyepacs:{a}", "Two parts of DATA_ROOT are named"),
        ("eyepacs:{a} + folder:{b}/a-b", "named 'a' and 'a-b'"),
        ("eyepacs:{a} + folder:{b}/gone", "is not a folder. A folder has one CSV"),
        ("eyepacs:{a} + folder:{b}", "labels.csv|neither a label file"),
    ],
)
def test_a_wrong_data_root_says_what_is_wrong(tmp_path, root, said):
    eyepacs(tmp_path / "a", 1, SIDE)
    (tmp_path / "b").mkdir()
    with pytest.raises(sources.SourceError, match=said):
        sources.load("pooled", root.format(a=tmp_path / "a", b=tmp_path / "b"))


def test_files_of_two_parts_and_phantoms_beside_photographs_are_refused(two, tmp_path):
    (tmp_path / "again").symlink_to(tmp_path / "clinic")
    with pytest.raises(sources.SourceError, match=r"3 files belong to two parts .*clinic/0_left.jpg"):
        sources.load("pooled", f"folder:{tmp_path / 'clinic'} + folder:{tmp_path / 'again'}")
    part = sources.load("folder", tmp_path / "clinic")
    phantom = sources.Source("phantom", part.root, part.manifest.assign(gradable=1), part.problems)
    with pytest.raises(sources.SourceError, match=r"Only b has the column gradable: a phantom can be pooled"):
        pooled.pool({"a": part, "b": phantom})


def test_notebook_and_data_check_take_it(two):
    assert len(sources.of(params.DataAudit(source="pooled", data_root=two)).manifest) == 13
    report = checking.check("pooled", two)
    assert report.ok
    assert "13 of 7 patients" in report.text
    assert not checking.check("pooled", "eyepacs:nowhere").ok


def test_a_row_without_a_patient_joins_the_patient_of_its_name(tmp_path):
    for name in ("Patient7_L", "Patient7-R", "Patient8-R", "other"):
        (tmp_path / f"{name}.jpg").write_bytes(encoded(photograph(0, SIDE)))
    (tmp_path / "labels.csv").write_text(
        "image,patient_id,eye,grade\nPatient7_L.jpg,Patient7,L,0\nPatient7-R.jpg,,,1\nPatient8-R.jpg,,,2\nother.jpg,,,3\n"
    )
    source = sources.load("folder", tmp_path)
    found = source.manifest.set_index("image_id")
    assert found["patient_id"].to_dict() == {
        "Patient7_L": "Patient7",
        "Patient7-R": "Patient7",
        "Patient8-R": "Patient8",
        "other": "other",
    }
    assert found["eye"].to_dict() == {
        "Patient7_L": "left",
        "Patient7-R": "right",
        "Patient8-R": "right",
        "other": "",
    }
    assert [file.split("/")[-1] for file in source.problems["file"]] == ["Patient7-R.jpg", "Patient8-R.jpg"]
    assert source.notes[-1].startswith("1 of 4 photographs name no patient, such as 'other'")


def test_a_name_without_a_number_joins_a_patient_of_the_table_only(tmp_path):
    for name in ("Smith_L", "Smith_R", "Jones_R"):
        (tmp_path / f"{name}.jpg").write_bytes(encoded(photograph(0, SIDE)))
    (tmp_path / "labels.csv").write_text(
        "image,patient_id,eye,grade\nSmith_L.jpg,Smith,L,0\nSmith_R.jpg,,,1\nJones_R.jpg,,,2\n"
    )
    source = sources.load("folder", tmp_path)
    found = source.manifest.set_index("image_id")
    assert found["patient_id"].to_dict() == {"Smith_L": "Smith", "Smith_R": "Smith", "Jones_R": "Jones_R"}
    assert found["eye"].to_dict() == {"Smith_L": "left", "Smith_R": "right", "Jones_R": ""}


@pytest.mark.real
def test_two_real_sets():
    for root in REAL:
        if not paths.resolve(root).is_dir():
            pytest.skip(f"{root} is absent: it holds real photographs, which are not part of the project")
    source = sources.load("pooled", f"eyepacs:{REAL[0]} + folder:{REAL[1]}")
    assert dict(source.manifest["source"].value_counts()) == {"eyepacs_mini": 658, "dr600_mini": 398}
    assert source.manifest["patient_id"].nunique() == 329 + 199, (
        "the one row without a patient has a fellow eye"
    )
    assert source.manifest.groupby("patient_id").size().eq(2).all()


def test_the_folder_of_each_part_is_a_dependency_of_the_result(two, tmp_path):
    asked = params.DataAudit(source="pooled", data_root=two)
    before = outside.of(asked)
    assert [one["path"] for one in before.values()] == [
        paths.show(tmp_path / "kaggle set"),
        paths.show(tmp_path / "clinic"),
    ]
    assert outside.changes(before, outside.of(asked)) == []
    (tmp_path / "clinic" / "z.jpg").unlink()
    assert outside.changes(before, outside.of(asked)) == [". has 2 files, it had 3"]
