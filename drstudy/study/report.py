"""The whole study of a profile for a reader: one page, made from finished records only."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from PIL import Image

from drstudy.core import paths, records
from drstudy.papers import registry
from drstudy.papers.base import NOT_REPORTED, Section
from drstudy.study import checklists, claims, digests, plan, verify

if TYPE_CHECKING:
    import jinja2

TEMPLATE = "report.html"
CHECKLIST = "checklist.html"
MOST_ROWS = 60
NUMBER = re.compile(r"[-−]?[0-9][-−0-9.,%\[\]()e+ ]*†?|[–=]|undefined|")
"""A cell that is set to the right: a number, an interval, or the absence of one."""
FIGURE_SCALE = 0.72
"""Screen pixels for each pixel of a figure (150 dpi), so that the text of all figures has one size, near the page's."""


def write(profile_name: str) -> Path:
    """Write ``results/<profile>/report/index.html``, the notebooks as HTML with and without code, drafts of the
    checklists and the model card, ``summary.json`` and ``claims.csv``.

    Raises:
        KeyError: If there is no such profile.
        records.RecordError: If none of its stages is finished.
    """
    import jinja2

    profile = plan.profile(profile_name)
    found = records.find(profile_name)
    if not found:
        raise records.RecordError(
            f"Nothing of {profile_name} is finished yet, so there is nothing to report. Run `drstudy reproduce --profile {profile_name}`."
        )
    folder = paths.results() / profile_name / "report"
    building = folder.with_name(".report-building")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("drstudy.study"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    context = {
        "profile": profile,
        "sections": [
            section
            for section in (_section(s, found, building) for s in registry.sections())
            if section["parts"]
        ],
        "missing": [stage.name for stage in plan.waiting(profile_name)],
        "claims": _table(claims.write(profile_name).drop(columns="profile")),
        "verified": _verified(profile_name),
        "checklists": _checklists(profile_name, found, building, environment.get_template(CHECKLIST)),
        "runs": _table(_runs(found)),
        "synthetic": any(r.params.get("SOURCE") == "phantom" for r in found),
        "untrained": any(r.metrics.get("weights_used") == "none" for r in found),
    }
    (building / "index.html").write_text(environment.get_template(TEMPLATE).render(context), encoding="utf-8")
    results = {record.name: paths.sha256(record.folder / "run.json") for record in found}
    records.write_json(digests.of_report(profile_name) | {"results": results}, building / "made_by.json")
    shutil.rmtree(folder, ignore_errors=True)
    building.rename(folder)
    metrics = {record.name: record.metrics for record in found}
    records.write_json(metrics, paths.results() / profile_name / "summary.json")
    return folder / "index.html"


def _verified(profile_name: str) -> dict[str, Any] | None:
    """How far the committed results are reproduced here; None for a profile that has none."""
    if not (verify.folder(profile_name) / "tolerances.csv").is_file():
        return None
    found = verify.write(profile_name)
    numbers = found.numbers[found.numbers["class"] != "identical"]
    moved = numbers.groupby(["stage", "class"], sort=False).size().unstack(fill_value=0)
    moved = moved.reindex(columns=[name for name in verify.CLASSES[1:] if name in moved]).reset_index()
    return {
        "ok": found.ok,
        "line": found.line,
        "costs": found.cost_line,
        "lines": found.lines()[2:],
        "moved": _table(moved) if len(moved) else None,
    }


def _checklists(
    profile_name: str, found: list[records.Record], folder: Path, template: jinja2.Template
) -> list[dict[str, str]]:
    """Write every checklist as a page and as Markdown; returns what the report says of each."""
    known = checklists.facts(profile_name, found)
    written = []
    for file in checklists.sheets():
        sheet = checklists.read(file)
        filled = checklists.fill(sheet, known)
        header = checklists.header(profile_name, filled)
        rows = filled.to_dict("records")
        page = template.render(
            sheet=sheet, profile=profile_name, header=header, rows=rows, absent=NOT_REPORTED
        )
        (folder / f"{sheet.name}.html").write_text(page, encoding="utf-8")
        (folder / f"{sheet.name}.md").write_text(checklists.markdown(sheet, filled, header), encoding="utf-8")
        written.append({"page": f"{sheet.name}.html", "title": sheet.title, "header": header})
    return written


def _section(section: Section, found: list[records.Record], folder: Path) -> dict[str, Any]:
    beside = [item for entry in section.across if (item := _across(section.notebook, *entry, found))]
    parts = [{"heading": "side by side", "items": beside, "reader": ""}] if beside else []
    for record in found:
        if record.data["notebook"] != section.notebook:
            continue
        items = [item for kind, name, caption in section.show if (item := _item(record, kind, name, caption))]
        reader, code = _notebook(record, folder)
        relative = f"../{record.name}"
        parts.append(
            {
                "heading": record.data["variant"],
                "items": items,
                "reader": reader,
                "code": code,
                "folder": relative,
            }
        )
    return {"id": section.notebook, "title": section.title, "intro": section.intro, "parts": parts}


def _item(record: records.Record, kind: str, name: str, caption: str) -> dict[str, Any] | None:
    """What the page shows of one table or figure; None if the run made none, or an empty one."""
    file = record.folder / (f"tables/{name}.csv" if kind == "table" else f"figures/{name}.png")
    if not file.is_file():
        return None
    if kind == "figure":
        with Image.open(file) as picture:
            width = round(picture.width * FIGURE_SCALE)
        return {
            "kind": kind,
            "caption": caption,
            "src": f"../{record.name}/figures/{name}.png",
            "width": width,
        }
    frame = pd.read_csv(file)
    return {"kind": kind, "caption": caption, **_table(frame)} if len(frame) else None


def _across(
    notebook: str, name: str, caption: str, query: str, found: list[records.Record]
) -> dict[str, Any] | None:
    """One table of all runs of a notebook, only the rows that fit the query; None for a single run."""
    tables = [
        (record.data["variant"], pd.read_csv(record.folder / f"tables/{name}.csv"))
        for record in found
        if record.data["notebook"] == notebook and f"tables/{name}.csv" in record.data["outputs"]
    ]
    if len(tables) < 2:
        return None
    rows = [frame.query(query).assign(run=run) for run, frame in tables]
    whole = pd.concat(rows, ignore_index=True)
    whole.insert(0, "run", whole.pop("run"))
    return {"kind": "table", "caption": caption, **_table(whole)}


def _table(frame: pd.DataFrame) -> dict[str, Any]:
    """Texts of a table, and which of its columns hold numbers (they are set to the right)."""
    shown = frame.head(MOST_ROWS)
    texts = {column: [_text(value) for value in shown[column]] for column in shown}
    names = ["" if str(column).startswith("Unnamed") else str(column) for column in shown]
    numeric = [all(NUMBER.fullmatch(text) for text in column) for column in texts.values()]
    notes = []
    if len(frame) > len(shown):
        notes.append(f"The first {len(shown)} of {len(frame)} rows.")
    if any("†" in text for column in texts.values() for text in column):
        notes.append("†: undefined in some resamples, which the interval leaves out.")
    return {
        "columns": list(zip(names, numeric)),
        "rows": list(zip(*texts.values())),
        "notes": " ".join(notes),
    }


def _text(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    if np.isnan(value):
        return "–"
    return f"{value:,.0f}" if value.is_integer() or abs(value) >= 1000 else f"{value:.3g}"


def _notebook(record: records.Record, folder: Path) -> tuple[str, str]:
    """The executed notebook as HTML, without and with code; file names in the report's folder."""
    import nbformat
    from nbconvert import HTMLExporter

    notebook = nbformat.read(record.path("executed.ipynb"), as_version=4)
    stem = record.name.replace("/", "_")
    for suffix, hide in (("", True), ("_code", False)):
        exporter = HTMLExporter(exclude_input=hide, exclude_input_prompt=True, exclude_output_prompt=True)
        exporter.require_js_url = exporter.jquery_url = exporter.mathjax_url = (
            ""  # nothing is fetched when the page is read
        )
        html, _ = exporter.from_notebook_node(notebook, resources={"metadata": {"name": record.name}})
        html = html.replace(
            'href="../README.md#what-it-costs"', 'href="index.html#runs"'
        )  # what this very run took
        (folder / f"{stem}{suffix}.html").write_text(html, encoding="utf-8")
    return f"{stem}.html", f"{stem}_code.html"


def _runs(found: list[records.Record]) -> pd.DataFrame:
    rows = []
    for record in found:
        git = record.data["git"]
        commit = (git["commit"] or "no repository")[:10] + (" (changed)" if git["dirty"] else "")
        rows.append(
            {
                "run": record.name,
                "seconds": f"{record.data['seconds']:.0f}",
                "peak memory, MiB": f"{record.data['peak_rss_mb']:.0f}",
                "device": record.data["device"],
                "weights": record.metrics.get("weights_used", ""),
                "commit": commit,
            }
        )
    return pd.DataFrame(rows)
