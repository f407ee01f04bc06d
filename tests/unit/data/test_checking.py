"""The check that comes before everything: what is there, what is wrong, and whether a study can be run on it."""

from __future__ import annotations

from photographs import eyepacs

from drstudy.data import checking


def test_check_tells_what_is_there_and_what_is_wrong(tmp_path):
    table = eyepacs(tmp_path, 6)
    (tmp_path / "train" / "1_left.jpeg").write_bytes(b"")
    (tmp_path / "train" / "2_left.jpeg").unlink()
    table.loc[table["image"] == "3_left", "level"] = 8
    table.to_csv(tmp_path / "trainLabels.csv", index=False)
    report = checking.check("eyepacs", tmp_path)
    assert not report.ok
    assert "more than 20%" in report.text
    report = checking.check("eyepacs", tmp_path, most_lost=0.5)
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
    report = checking.check("eyepacs", tmp_path, decode=2)
    assert report.examined == 2
    assert report.problems["problem"].tolist() == ["empty file"]


def test_check_of_what_cannot_be_used_says_so(tmp_path):
    missing = checking.check("eyepacs", tmp_path / "none")
    assert not missing.ok
    assert "ERROR: DATA_ROOT" in missing.text
    eyepacs(tmp_path, 3, grades=[2] * 6)
    assert "nothing can be learnt" in checking.check("eyepacs", tmp_path).text
    for path in (tmp_path / "train").iterdir():
        path.write_bytes(b"broken")
    assert any("None of the 6" in error for error in checking.check("eyepacs", tmp_path).errors)
    (tmp_path / "trainLabels.csv").write_text("image,level\n0_left,7\n")
    assert checking.check("eyepacs", tmp_path).errors == ("No image can be used: see the problems above.",)
