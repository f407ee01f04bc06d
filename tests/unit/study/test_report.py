"""The report: partial results, honest notes, what a table shows. (Its links: tests/notebooks/test_smoke.py.)"""

from __future__ import annotations

import shutil

import matplotlib
import nbformat
import pandas as pd
import pytest
from PIL import Image

from drstudy.core import paths, records
from drstudy.papers.base import AUDIT
from drstudy.papers.transfer import params
from drstudy.study import checklists, plan, reference, report, verify

matplotlib.use("agg")


@pytest.fixture
def finish(own_folders, monkeypatch):
    """A function that leaves a finished stage of the smoke profile, with one table and one figure."""
    monkeypatch.setattr(records, "git_state", lambda: {"commit": "0123456789abcdef", "dirty": True})

    def make(cls=params.DataAudit, table="class_counts", figure="examples_by_grade", frame=None, **metrics):
        from matplotlib.figure import Figure

        run = records.start(cls())
        run.table(pd.DataFrame({"grade": [0, 1], "share": [0.75, 0.25]}) if frame is None else frame, table)
        run.figure(Figure(figsize=(2, 1)), figure)
        run.metric(**metrics)
        cells = [
            nbformat.v4.new_markdown_cell("# The notebook"),
            nbformat.v4.new_code_cell("SECRET_OF_CODE = 1"),
        ]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), run.path("executed.ipynb"))
        run.finish()

    return make


def text(page) -> str:
    return page.read_text(encoding="utf-8")


def test_nothing_finished_is_an_error_that_says_what_to_run(own_folders):
    with pytest.raises(records.RecordError, match="drstudy reproduce --profile smoke"):
        report.write("smoke")
    assert not (paths.results() / "smoke" / "report").exists()


def test_partial_results_say_what_is_missing(finish):
    finish()
    page = text(report.write("smoke"))
    missing = ", ".join(stage.name for stage in plan.plan("smoke") if stage.notebook != AUDIT)
    assert f"Not finished, and therefore not in this report: {missing}." in page
    assert 'id="01_data_audit"' in page
    assert 'id="02_oversampling"' not in page
    assert "<td>0</td>" not in page, "numbers are set to the right"
    assert '<td class="number">0.75</td>' in page
    assert "0123456789 (changed)" in page
    with Image.open(paths.results() / "smoke/01_data_audit/figures/examples_by_grade.png") as picture:
        width = round(picture.width * report.FIGURE_SCALE)
    assert f'src="../01_data_audit/figures/examples_by_grade.png" width="{width}"' in page


def test_notes_follow_from_the_records(finish):
    finish()
    page = text(report.write("smoke"))
    assert "synthetic" in page
    assert "no pretraining" not in page
    finish(params.FineTuning, "model_card", "loss", weights_used="none")
    assert "no pretraining" in text(report.write("smoke"))


def test_notebooks_with_and_without_code(finish):
    finish()
    folder = report.write("smoke").parent
    assert "SECRET_OF_CODE" in text(folder / "01_data_audit_code.html")
    assert "SECRET_OF_CODE" not in text(folder / "01_data_audit.html")
    assert "The notebook" in text(folder / "01_data_audit.html")


def test_report_replaces_an_older_one_whole(finish):
    finish()
    page = report.write("smoke")
    (page.parent / "old.html").write_text("old")
    assert report.write("smoke") == page
    assert not (page.parent / "old.html").exists()


def test_checklists_are_written_and_linked(finish):
    finish(n_images=17)
    page = report.write("smoke")
    for name in [file.stem for file in checklists.sheets()]:
        assert f'href="{name}.html"' in text(page)
        draft = text(page.parent / f"{name}.html")
        assert "Machine-filled draft" in draft
        assert f'<td class="absent">{checklists.NOT_REPORTED}</td>' in draft
        assert f'href="{name}.md"' in draft
        assert "Machine-filled draft" in text(page.parent / f"{name}.md")
    assert "17 of the source" not in text(page), "answers stand on their own page"
    assert "Used: 17 of the source." in text(page.parent / "claim_2024.html")


def test_values_are_escaped(finish):
    finish(frame=pd.DataFrame({"grade": ["<script>alert(1)</script>"]}))
    assert "<script>alert" not in text(report.write("smoke"))


def test_table_sets_numbers_right_and_words_left():
    frame = pd.DataFrame(
        {
            "Unnamed: 0": ["a", "b"],
            "interval": ["0.05 [-0.26, 0.64]", "1.00 [0.50, 1.00] †"],
            "number": [0.123456, float("nan")],
            "large": [25810.0, 1234.5],
            "word": ["2 of 3", "none"],
        }
    )
    found = report._table(frame)
    assert found["columns"] == [
        ("", False),
        ("interval", True),
        ("number", True),
        ("large", True),
        ("word", False),
    ]
    assert found["rows"][0] == ("a", "0.05 [-0.26, 0.64]", "0.123", "25,810", "2 of 3")
    assert found["rows"][1][2:4] == ("–", "1,234")
    assert found["notes"] == "†: undefined in some resamples, which the interval leaves out."


def test_long_table_says_that_it_was_cut():
    rows = report.MOST_ROWS + 5
    found = report._table(pd.DataFrame({"n": range(rows)}))
    assert len(found["rows"]) == report.MOST_ROWS
    assert found["notes"] == f"The first {report.MOST_ROWS} of {rows} rows."


def test_tables_of_several_runs_stand_side_by_side(finish):
    frame = pd.DataFrame({"region": ["lesion", "MA"], "score": [0.5, 0.25]})
    finish(params.HeatmapAnalysis, "localisation_display", "figure4", frame)
    found = records.find("smoke")
    one = report._across(
        params.HeatmapAnalysis.notebook, "localisation_display", "all", "region == 'lesion'", found
    )
    assert one is None, "a single run has no other beside it"
    other = found[0].data | {"variant": "vgg16-seed0"}
    item = report._across(
        params.HeatmapAnalysis.notebook, "localisation_display", "all", "region == 'lesion'",
        [*found, records.Record(found[0].folder, other)],
    )  # fmt: skip
    assert item["columns"] == [("run", False), ("region", False), ("score", True)]
    assert item["rows"] == [("densenet121-seed0", "lesion", "0.5"), ("vgg16-seed0", "lesion", "0.5")]


def test_the_page_shows_several_runs_side_by_side(finish, monkeypatch):
    frame = pd.DataFrame({"region": ["lesion"], "metric": ["hit"], "score": [0.5]})
    finish(params.HeatmapAnalysis, "localisation_display", "figure4", frame)
    one = records.find("smoke")[0]
    several = [one, records.Record(one.folder, one.data | {"variant": "vgg16-seed0"})]
    monkeypatch.setattr(report.records, "find", lambda profile: several)
    monkeypatch.setattr(report.claims, "write", lambda profile: pd.DataFrame({"profile": [profile]}))
    page = text(report.write("smoke"))
    assert "<h3>side by side</h3>" in page
    assert page.count("<td>vgg16-seed0</td>") == 1


def test_page_says_how_far_the_committed_results_are_reproduced(finish, own_folders, monkeypatch):
    monkeypatch.setattr(verify, "folder", lambda profile: own_folders / "reference" / profile)
    monkeypatch.setattr(reference, "_check", lambda *_: None)
    monkeypatch.setattr("drstudy.core.devices.calibration", lambda: 0.25)
    finish()
    assert "Reproduced on this machine" not in text(report.write("smoke"))
    (own_folders / "other").mkdir()
    shutil.copytree(paths.results() / "smoke", own_folders / "other" / "smoke")
    reference.write("smoke", {"other": own_folders / "other" / "smoke"})
    page = text(report.write("smoke"))
    line = "2 numbers: 2 identical, 0 within tolerance, 0 inside the interval, 0 chaotic, 0 outside; no verdicts compared"
    assert f"<b>Reproduced on this machine:</b> {line}." in page
    finish(frame=pd.DataFrame({"grade": [0, 1], "share": [0.5, 0.5]}))
    page = text(report.write("smoke"))
    assert "0 identical, 0 within tolerance, 0 inside the interval, 0 chaotic, 2 outside" in page
    assert "outside: 01_data_audit class_counts" in page
    assert (paths.results() / "smoke" / "verify.csv").is_file()
