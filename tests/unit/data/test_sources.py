"""Every layout, and label files as people really save them: what is wrong is named, what is right goes on."""

from __future__ import annotations

import pandas as pd
import pytest
from photographs import encoded, eyepacs, photograph
from PIL import Image

from drstudy.core import paths
from drstudy.data import sources
from drstudy.papers.transfer import params

SMALL = encoded(photograph(0, 64))


PLAIN = "image,level\n1_left,2\n1_right,0\n"


def touch(root, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(SMALL)


def kaggle(root, labels: str, *names: str, encoding: str = "utf-8") -> sources.Source:
    touch(root, *(f"train/{name}" for name in names))
    (root / "trainLabels.csv").write_bytes(labels.encode(encoding))
    return sources.load("eyepacs", root)


def grades(source: sources.Source) -> dict[str, int]:
    return dict(zip(source.manifest["image_id"], source.manifest["grade"]))


def told(source: sources.Source) -> list[tuple[str, str, str]]:
    """Problems with the folders taken off their file names."""
    rows = source.problems.to_numpy()
    return [(file.rpartition("/")[2], problem, action) for file, problem, action in rows]


# --- layouts ---------------------------------------------------------------------------------------------


def test_eyepacs(tmp_path):
    table = eyepacs(tmp_path, 3, 64)
    source = sources.load("eyepacs", tmp_path)
    assert grades(source) == dict(zip(table["image"], table["level"]))
    assert list(source.manifest["patient_id"]) == ["0", "0", "1", "1", "2", "2"]
    assert list(source.manifest["eye"]) == ["left", "right"] * 3
    assert all(paths.resolve(path).is_file() for path in source.manifest["path"])
    assert source.problems.empty


def test_aptos_says_that_it_has_no_patients(tmp_path):
    touch(tmp_path, "train_images/00a.png", "train_images/00b.png")
    (tmp_path / "train.csv").write_text("id_code,diagnosis\n00a,2\n00b,0\n")
    source = sources.load("aptos", tmp_path)
    assert grades(source) == {"00a": 2, "00b": 0}
    assert list(source.manifest["patient_id"]) == ["00a", "00b"]
    assert "own patient" in source.notes[0]


def idrid(root) -> None:
    base = "A. Segmentation/1. Original Images"
    touch(root, f"{base}/a. Training Set/IDRiD_01.jpg", f"{base}/b. Testing Set/IDRiD_55.jpg")
    truths = root / "A. Segmentation/2. All Segmentation Groundtruths"
    for part, folder, name in (
        ("a. Training Set", "1. Microaneurysms", "IDRiD_01_MA.tif"),
        ("a. Training Set", "5. Optic Disc", "IDRiD_01_OD.tif"),
        ("b. Testing Set", "4. Soft Exudates", "IDRiD_55_SE.tif"),
        ("b. Testing Set", "4. Soft Exudates", "IDRiD_77_SE.tif"),
    ):
        (truths / part / folder).mkdir(parents=True, exist_ok=True)
        mask = Image.new("1", (64, 64))
        mask.putpixel((20, 30), 1)
        mask.save(truths / part / folder / name)


def test_idrid_segmentation_has_masks_and_no_grades(tmp_path):
    idrid(tmp_path)
    source = sources.load("idrid", tmp_path)
    frame = source.manifest.set_index("image_id")
    assert list(frame.index) == ["IDRiD_01", "IDRiD_55"]
    assert frame["grade"].isna().all()
    assert frame.loc["IDRiD_01", "mask_DISC"].endswith("IDRiD_01_OD.tif")
    assert frame.loc["IDRiD_55", "mask_MA"] == ""
    assert list(frame["lesion_SE"]) == [0, 1]
    assert told(source) == [("IDRiD_77_SE.tif", "mask without an image, or of an unknown kind", "ignored")]
    assert any("no grade" in note for note in source.notes)


def test_idrid_grading_keeps_the_two_parts_apart(tmp_path):
    idrid(tmp_path)
    grading = tmp_path / "B. Disease Grading"
    originals = ("a. Training Set", "b. Testing Set")
    touch(grading, *(f"1. Original Images/{part}/IDRiD_001.jpg" for part in originals))
    tables = grading / "2. Groundtruths"
    tables.mkdir()
    head = "Image name,Retinopathy grade,Risk of macular edema ,,\n"
    (tables / "a. IDRiD_Disease Grading_Training Labels.csv").write_text(head + "IDRiD_001,3,2,,\n,,,,\n")
    (tables / "b. IDRiD_Disease Grading_Testing Labels.csv").write_text(head + "IDRiD_001,0,0,,\n")
    source = sources.load("idrid", tmp_path)
    found = grades(source)
    assert found["IDRiD_train_001"] == 3
    assert found["IDRiD_test_001"] == 0
    assert len(found) == 4


@pytest.mark.parametrize(
    ("head", "lines"),
    [
        ("image,patient_id,eye,grade", ["12_left.jpg,12,left,2.0", "12_right.jpg,12,right,0"]),
        ("id_code,diagnosis", ["12_left,2", "12_right,0"]),
        ("Image name,Retinopathy grade,Patient,Laterality", ["12_left,2,12,OS", "12_right,0,12,OD"]),
        ("filename,label,other", ["sub/12_left.jpg,2,x", "sub/12_right.jpg,0,y"]),
        ("path;level", ["sub\\12_left.jpg;2", "sub\\12_right.jpg;0"]),
    ],
)
def test_folder_with_a_table_of_any_names(tmp_path, head, lines):
    touch(tmp_path, "sub/12_left.jpg", "sub/12_right.jpg")
    (tmp_path / "labels.csv").write_text("\n".join([head, *lines]))
    source = sources.load("folder", tmp_path)
    assert grades(source) == {"12_left": 2, "12_right": 0}
    assert set(source.manifest["patient_id"]) == {"12"}
    assert list(source.manifest["eye"]) == ["left", "right"]


def test_folder_a_grade_by_name_or_number(tmp_path):
    touch(tmp_path, "No_DR/a.png", "Mild/b.png", "Moderate/c.png", "Severe/d.png", "Proliferate_DR/e.png")
    (tmp_path / "notes").mkdir()
    source = sources.load("folder", tmp_path)
    assert grades(source) == {"a": 0, "b": 1, "c": 2, "d": 3, "e": 4}
    assert told(source) == [("notes", "not one of the grade folders", "ignored")]
    touch(tmp_path, "notes/f.png")
    with pytest.raises(sources.SourceError, match=r"no grade: notes \(Mild is 1.*IGNORE"):
        sources.load("folder", tmp_path)
    source = sources.load("folder", tmp_path, ignored=["notes"])
    assert grades(source) == {"a": 0, "b": 1, "c": 2, "d": 3, "e": 4}
    assert told(source)[0] == ("notes", "left out by IGNORE", "ignored")
    other = tmp_path / "other"
    touch(other, "0/a.png", "4_PDR/b.png")
    assert grades(sources.load("folder", other)) == {"a": 0, "b": 4}


def test_names_repeated_in_grade_folders_stay_apart(tmp_path):
    touch(tmp_path, "0/1.png", "2/1.png", "2/2.png")
    source = sources.load("folder", tmp_path)
    assert grades(source) == {"0_1": 0, "2_1": 2, "2_2": 2}
    assert any("several grade folders" in note for note in source.notes)


def test_phantom_reads_what_the_phantom_writes(monkeypatch, tmp_path):
    monkeypatch.setenv("DRSTUDY_DATA", str(tmp_path))
    chosen = params.DataAudit(n_patients=3, phantom_size=64, workers=1, image_size=32)
    source = sources.of(chosen)
    labels = pd.read_csv(source.root / "labels.csv")
    assert grades(source) == dict(zip(labels["image_id"], labels["grade"]))
    assert source.manifest["path"].str.startswith("data/phantom/").all()
    for row in source.manifest.to_dict("records"):
        for name in [name for name in row if name.startswith("lesion_")]:
            assert bool(row.get(f"mask_{name[7:]}", "")) == bool(row[name])
    assert sources.of(chosen).root == source.root
    assert sources.prepare_phantom(params.DataAudit(n_patients=3, phantom_size=64, seed=1)) != source.root


# --- labels as they come ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "encoding", "problem"),
    [
        (PLAIN, "utf-8-sig", "text is UTF-8 with a byte-order mark, not plain UTF-8"),
        (PLAIN, "utf-16", "text is UTF-16, not plain UTF-8"),
        ("image;level\n1_left;2\n1_right;0\n", "utf-8", "columns are separated by ';', not by commas"),
        ("image\tlevel\n1_left\t2\n1_right\t0\n", "utf-8", "columns are separated by '\\t', not by commas"),
        ("image,level,note\n1_left,2,Größe\n1_right,0,\n", "latin-1", "text is Latin-1, not plain UTF-8"),
    ],
)
def test_tables_saved_by_other_programs_are_read_and_noted(tmp_path, labels, encoding, problem):
    source = kaggle(tmp_path, labels, "1_left.jpeg", "1_right.jpeg", encoding=encoding)
    assert grades(source) == {"1_left": 2, "1_right": 0}
    assert told(source) == [("trainLabels.csv", problem, "used: read as such")]


def test_windows_line_ends_quotes_blank_lines_and_spaces(tmp_path):
    labels = '"image","level"\r\n "1_left" , 2\r\n\r\n"1_right.jpeg",0.0\r\n'
    assert grades(kaggle(tmp_path, labels, "1_left.jpeg", "1_right.jpeg")) == {"1_left": 2, "1_right": 0}


@pytest.mark.parametrize(
    ("label", "problem"),
    [
        ("5", "label 5 is outside 0 to 4"),
        ("-1", "label -1 is outside 0 to 4"),
        ("", "label missing"),
        ("NaN", "label missing"),
        ("2.5", "label 2.5 is not a whole number"),
        ("inf", "label inf is not a whole number"),
        ("moderate", "label 'moderate' is not a number"),
    ],
)
def test_labels_that_are_no_grades_are_left_out_by_name(tmp_path, label, problem):
    source = kaggle(tmp_path, f"image,level\n1_left,{label}\n1_right,0\n", "1_left.jpeg", "1_right.jpeg")
    assert grades(source) == {"1_right": 0}
    assert told(source) == [("1_left.jpeg", problem, "excluded")]


def test_missing_and_extra_files_are_named(tmp_path):
    labels = "image,level\n1_left,2\n2_left,1\n"
    source = kaggle(tmp_path, labels, "1_left.jpeg", "3_left.jpeg", ".hidden.jpeg")
    assert grades(source) == {"1_left": 2}
    assert told(source) == [
        ("2_left", "missing file: there is a label but no image", "excluded"),
        ("3_left.jpeg", "no label: there is an image but no row for it", "excluded"),
    ]


def test_repeated_ids(tmp_path):
    labels = "image,level\n1_left,2\n1_left,2\n2_left,0\n2_left,3\n3_left,1\n"
    source = kaggle(tmp_path, labels, "1_left.jpeg", "2_left.jpeg", "3_left.jpeg")
    assert grades(source) == {"1_left": 2, "3_left": 1}
    assert told(source) == [
        ("1_left.jpeg", "id '1_left' occurs 2 times with the same label", "used: once"),
        ("2_left.jpeg", "id '2_left' occurs 2 times with different labels (0, 3)", "excluded"),
    ]


def test_two_files_for_one_label_are_left_out(tmp_path):
    source = kaggle(tmp_path, "image,level\n1_left,2\n2_left,0\n", "1_left.jpeg", "1_left.png", "2_left.png")
    assert grades(source) == {"2_left": 0}
    assert "2 files fit the label '1_left'" in told(source)[0][1]


def test_lines_that_do_not_fit_are_named_by_number(tmp_path):
    labels = "image,level\n1_left\n1_right,0\n2_left,1,7\n"
    source = kaggle(tmp_path, labels, "1_left.jpeg", "1_right.jpeg", "2_left.jpeg")
    assert grades(source) == {"1_right": 0}
    lines = [file for file, _, _ in told(source) if "line" in file]
    assert lines == ["trainLabels.csv, line 2", "trainLabels.csv, line 4"]


def test_names_without_an_eye_are_their_own_patient(tmp_path):
    source = kaggle(tmp_path, "image,level\nscan7,2\n", "scan7.jpeg")
    assert source.manifest[["patient_id", "eye"]].to_numpy().tolist() == [["scan7", ""]]


def test_an_eye_that_is_neither_is_left_blank_and_told(tmp_path):
    touch(tmp_path, "a.jpg")
    (tmp_path / "labels.csv").write_text("image,grade,eye\na.jpg,1,both\n")
    source = sources.load("folder", tmp_path)
    assert source.manifest["eye"].tolist() == [""]
    assert told(source) == [("a.jpg", "eye 'both' is neither left nor right", "used: eye left blank")]


def test_no_label_is_ever_changed(tmp_path):
    table = eyepacs(tmp_path, 10, 64)
    table.loc[3, "level"] = 9
    table.to_csv(tmp_path / "trainLabels.csv", index=False)
    source = sources.load("eyepacs", tmp_path)
    written = dict(zip(table["image"], table["level"]))
    assert all(written[name] == grade for name, grade in grades(source).items())
    assert len(source.manifest) + len(source.problems) == len(table)


# --- folders that are not the data set -------------------------------------------------------------------


def test_errors_say_what_is_expected(tmp_path):
    with pytest.raises(sources.SourceError, match="no source 'kaggle'; there are phantom, eyepacs"):
        sources.load("kaggle", tmp_path)
    with pytest.raises(sources.SourceError, match="is not a folder"):
        sources.load("eyepacs", tmp_path / "none")
    with pytest.raises(sources.SourceError, match="DATA_ROOT '' is not a folder"):
        sources.load("eyepacs", "")
    with pytest.raises(sources.SourceError, match=r"trainLabels\.csv is missing.*train/<patient>"):
        sources.load("eyepacs", tmp_path)
    with pytest.raises(sources.SourceError, match="neither a label file nor one folder a grade"):
        sources.load("folder", tmp_path)
    with pytest.raises(sources.SourceError, match=r"neither 'A\. Segmentation' nor"):
        sources.load("idrid", tmp_path)


def test_packed_sets_and_wrong_columns_are_recognised(tmp_path):
    (tmp_path / "trainLabels.csv").write_text("image,level\n1_left,2\n")
    (tmp_path / "train.zip.001").write_bytes(b"x")
    with pytest.raises(sources.SourceError, match=r"train\.zip\.001 must be unpacked"):
        sources.load("eyepacs", tmp_path)
    (tmp_path / "trainLabels.csv").write_text("picture,level\n1_left,2\n")
    with pytest.raises(sources.SourceError, match="no column image; it has picture, level"):
        sources.load("eyepacs", tmp_path)
    (tmp_path / "trainLabels.csv").write_text("")
    with pytest.raises(sources.SourceError, match="holds no rows"):
        sources.load("eyepacs", tmp_path)


def test_two_label_files_are_not_guessed_between(tmp_path):
    touch(tmp_path, "a.jpg")
    for name in ("old.csv", "new.csv"):
        (tmp_path / name).write_text("image,grade\na.jpg,1\n")
    with pytest.raises(sources.SourceError, match=r"2 label files \(new\.csv, old\.csv\)"):
        sources.load("folder", tmp_path)
