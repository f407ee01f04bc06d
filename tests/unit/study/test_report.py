"""The report: partial results, honest notes, what a table shows. (Its links: tests/notebooks/test_smoke.py.)"""

from __future__ import annotations

import base64
import gzip
import re
import shutil

import matplotlib
import nbformat
import pandas as pd
import pytest
from PIL import Image

from drstudy.core import paths, records
from drstudy.papers.base import AUDIT
from drstudy.papers.transfer import params
from drstudy.study import checklists, claims, plan, reference, report, verify

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
    assert '<td class="number" data-order="0.75">0.75</td>' in page
    assert "0123456789 (changed)" in page
    with Image.open(paths.results() / "smoke/01_data_audit/figures/examples_by_grade.png") as picture:
        width = round(picture.width * report.FIGURE_SCALE)
    assert re.search(rf'<img src="data:image/webp;base64,[^"]+" width="{width}"', page), (
        "figures are inside the page"
    )


def test_the_page_holds_all_that_it_shows(finish):
    """Only the notebooks and records that it links lie elsewhere, and the page marks these links."""
    finish()
    page = report.write("smoke")
    html = text(page)
    addresses = re.findall(r'\b(?:src|href)="([^"]+)"', html)
    beside = re.findall(r'class="beside" href="([^"]+)"', html)
    outside = [one for one in addresses if not one.startswith(("data:", "#")) and one not in beside]
    assert outside == []
    assert beside
    assert all((page.parent / one).resolve().is_file() for one in beside)
    assert not re.search(r"https?://", re.sub(r"http://www.w3.org/\d+/svg", "", html)), (
        "nothing is fetched, and nothing could be"
    )
    unpacked = gzip.decompress(base64.b64decode(report.datatables())).decode()
    assert "DataTables" in unpacked
    assert "license" in unpacked, "its licence goes with it"


def test_the_ledger_stands_first_with_what_would_change_each_verdict(finish):
    finish()
    page = text(report.write("smoke"))
    known = claims.read()
    assert page.count('<tr id="claim-') == len(known)
    assert page.index('id="claims"') < page.index('id="01_data_audit"')
    assert "Verdicts on the papers" in page
    first = page[page.index('<tr id="claim-') :]
    assert "The missing parts that the reason names are needed first." in first
    assert f"all <b>{len(known)}</b>" in page
    assert "no diagnosis" not in page
    assert "not for diagnosis" in page


def test_a_tested_claim_has_its_numbers_and_its_threshold(finish, monkeypatch):
    evidence = claims.Evidence(
        notebook=params.DataAudit.notebook, table="class_counts", where={"grade": "0"}, sign=1
    )
    claim = claims.Claim(
        id="c",
        paper="P",
        place="T",
        says="s",
        maps_to="m",
        own_networks=False,
        setting="any",
        evidence=(evidence,),
        needs="n",
    )
    monkeypatch.setattr(claims, "read", lambda: [claim])
    finish(frame=pd.DataFrame({"grade": [0], "value": [0.1], "lo": [-0.2], "hi": [0.4]}))
    page = text(report.write("smoke"))
    assert '<span class="verdict v2">inconclusive</span>' in page
    assert "If the lower limit (now -0.2) were above 0, the verdict would be “reproduced”." in page
    assert "0.1 [-0.2, 0.4]" in page
    assert 'class="strip"' in page


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
    assert "Used: 17 of the source." in text(page), "the page has the answers too, since it may be sent alone"
    assert "Used: 17 of the source." in text(page.parent / "claim_2024.html")


def test_values_are_escaped(finish):
    finish(frame=pd.DataFrame({"grade": ["<script>alert(1)</script>"]}))
    assert "<script>alert" not in text(report.write("smoke"))


def test_tables_of_several_runs_stand_side_by_side(finish):
    frame = pd.DataFrame({"region": ["lesion", "MA"], "score": [0.5, 0.25]})
    finish(params.HeatmapAnalysis, "localisation_display", "figure4", frame)
    found = records.find("smoke")
    one = report._across(
        params.HeatmapAnalysis.notebook, "localisation_display", "all", "region == 'lesion'", found, {}
    )
    assert one is None, "a single run has no other beside it"
    other = found[0].data | {"variant": "vgg16-seed0"}
    item = report._across(
        params.HeatmapAnalysis.notebook, "localisation_display", "all", "region == 'lesion'",
        [*found, records.Record(found[0].folder, other)], {},
    )  # fmt: skip
    table = item["table"]
    assert [(column.heading, column.numeric) for column in table.columns] == [
        ("network", False),
        ("region", False),
        ("score", True),
    ]
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["DenseNet121, seed 0", "all lesions", "0.5"],
        ["VGG16, seed 0", "all lesions", "0.5"],
    ]


def test_the_page_shows_several_runs_side_by_side(finish, monkeypatch):
    frame = pd.DataFrame({"region": ["lesion"], "metric": ["hit"], "score": [0.5]})
    finish(params.HeatmapAnalysis, "localisation_display", "figure4", frame)
    one = records.find("smoke")[0]
    several = [one, records.Record(one.folder, one.data | {"variant": "vgg16-seed0"})]
    monkeypatch.setattr(report.records, "find", lambda profile: several)
    monkeypatch.setattr(report, "_claims", lambda *_: [])
    page = text(report.write("smoke"))
    assert "<h3>side by side</h3>" in page
    assert page.count("<td>VGG16, seed 0</td>") == 1


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
