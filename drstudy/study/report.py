"""The whole study of a profile for a reader: one page that holds all it shows, made from finished records only."""

from __future__ import annotations

import base64
import functools
import gzip
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from drstudy.core import paths, records
from drstudy.papers import registry
from drstudy.papers.base import NOT_REPORTED, Section
from drstudy.show import readable
from drstudy.study import checklists, claims, digests, pictures, plan, turning, verify

if TYPE_CHECKING:
    import jinja2

TEMPLATE = "report.html"
CHECKLIST = "checklist.html"
MOST_ROWS = 400
"""Rows of a table in the page; the file of the result has all."""
FIGURE_SCALE = 0.72
"""Screen pixels for each pixel of a figure (150 dpi), so that the text of all figures has one size, near the page's."""
VERDICTS = claims.WORST_FIRST[:0:-1] + claims.WORST_FIRST[:1]
"""In the order in which the page shows them: what was tested, the best first, and then what could not be."""


def write(profile_name: str) -> Path:
    """Write ``results/<profile>/report/index.html``, the notebooks as HTML with and without code, drafts of the
    checklists and the model card, ``summary.json`` and ``claims.csv``.

    ``index.html`` holds its figures, tables, scripts and checklists, so that it can be sent alone. Only the notebooks and records that it links
    lie beside it.

    Raises:
        KeyError: If there is no such profile.
        records.RecordError: If none of its stages is finished.
    """
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
    environment = _environment()
    context = {
        "profile": profile,
        "sections": [
            section
            for section in (_section(s, found, building) for s in registry.sections())
            if section["parts"]
        ],
        "missing": [stage.name for stage in plan.waiting(profile_name)],
        "claims": _claims(profile_name, found),
        "verdicts": VERDICTS,
        "verified": _verified(profile_name),
        "checklists": _checklists(profile_name, found, building, environment.get_template(CHECKLIST)),
        "absent": NOT_REPORTED,
        "runs": _shown(_runs(found), RUN_TERMS),
        "synthetic": any(r.params.get("SOURCE") == "phantom" for r in found),
        "untrained": any(r.metrics.get("weights_used") == "none" for r in found),
        "datatables": datatables(),
    }
    (building / "index.html").write_text(environment.get_template(TEMPLATE).render(context), encoding="utf-8")
    results = {record.name: paths.sha256(record.folder / "run.json") for record in found}
    records.write_json(digests.of_report(profile_name) | {"results": results}, building / "made_by.json")
    shutil.rmtree(folder, ignore_errors=True)
    building.rename(folder)
    metrics = {record.name: record.metrics for record in found}
    records.write_json(metrics, paths.results() / profile_name / "summary.json")
    return folder / "index.html"


def _environment() -> jinja2.Environment:
    """Templates, with the style sheet and the script as texts, since the page fetches nothing."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("drstudy.study"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["infinity"] = math.inf
    environment.globals["style"] = (digests.TEMPLATES / "report.css").read_text(encoding="utf-8")
    environment.globals["script"] = (digests.TEMPLATES / "report.js").read_text(encoding="utf-8")
    return environment


@functools.cache
def datatables() -> str:
    """DataTables with jQuery, as the package itables brings it for use offline: gzip and base64, which the page's script unpacks."""
    from itables.utils import read_package_file

    return base64.b64encode(
        gzip.compress(read_package_file("html", "dt_bundle.js").encode(), mtime=0)
    ).decode("ascii")


def _claims(profile_name: str, found: Sequence[records.Record]) -> list[dict[str, Any]]:
    """The ledger, best verdicts first, each with what would change it; writes ``claims.csv`` as well."""
    table = claims.write(profile_name)
    rows = []
    for claim, row in zip(claims.read(), table.to_dict("records"), strict=True):
        numbers = claims.look_up(claim, found)
        tested = row["verdict"] != claims.NOT_TESTABLE
        rows.append(
            {
                "id": claim.id,
                "says": row["claim"],
                "place": row["place"],
                "measured": row["measured by"],
                "tolerance": readable.plain(row["tolerance"]),
                "found": readable.plain(row["found"]),
                "verdict": row["verdict"],
                "order": VERDICTS.index(row["verdict"]),
                "reason": readable.plain(row["reason"]),
                "parts": turning.parts(claim, numbers) if tested else [],
                "rules": list(dict.fromkeys(turning.rule(claim, one) for one in claim.evidence)),
                "changes": turning.change(claim, numbers),
            }
        )
    return sorted(rows, key=lambda row: row["order"])


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
        "moved": _shown(moved) if len(moved) else None,
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
        about = {"title": sheet.title, "header": header, "source": sheet.source, "rows": rows}
        written.append({"id": f"checklist-{sheet.name}", "page": f"{sheet.name}.html", **about})
    return written


def _section(section: Section, found: list[records.Record], folder: Path) -> dict[str, Any]:
    terms = {name: readable.Term(*words) for name, words in section.columns.items()}
    beside = [item for entry in section.across if (item := _across(section.notebook, *entry, found, terms))]
    parts = (
        [{"id": f"{section.notebook}-beside", "heading": "side by side", "items": beside, "reader": ""}]
        if beside
        else []
    )
    for record in found:
        if record.data["notebook"] != section.notebook:
            continue
        items = [
            item
            for kind, name, caption in section.show
            if (item := _item(record, kind, name, caption, terms))
        ]
        reader, code = _notebook(record, folder)
        variant = record.data["variant"]
        parts.append(
            {
                "id": f"{section.notebook}-{variant}",
                "heading": readable.value(variant),
                "items": items,
                "reader": reader,
                "code": code,
                "folder": f"../{record.name}",
            }
        )
    return {"id": section.notebook, "title": section.title, "intro": section.intro, "parts": parts}


def _item(
    record: records.Record, kind: str, name: str, caption: str, terms: Mapping[str, readable.Term]
) -> dict[str, Any] | None:
    """What the page shows of one table or figure; None if the run made none, or an empty one."""
    file = record.folder / (f"tables/{name}.csv" if kind == "table" else f"figures/{name}.png")
    if not file.is_file():
        return None
    if kind == "figure":
        picture = pictures.embed(file)
        shown = {
            "src": picture.src,
            "width": round(picture.width * FIGURE_SCALE),
            "height": round(picture.height * FIGURE_SCALE),
        }
        return {"kind": kind, "caption": caption, **shown}
    frame = pd.read_csv(file)
    return {"kind": kind, "caption": caption, **_shown(frame, terms, name)} if len(frame) else None


def _across(
    notebook: str,
    name: str,
    caption: str,
    query: str,
    found: list[records.Record],
    terms: Mapping[str, readable.Term],
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
    return {"kind": "table", "caption": caption, **_shown(whole, terms, name)}


def _shown(
    frame: pd.DataFrame, terms: Mapping[str, readable.Term] | None = None, name: str = ""
) -> dict[str, Any]:
    """A table for the template, with what its headings mean."""
    table = readable.table(frame, terms, MOST_ROWS, name)
    return {"table": table, "legend": readable.legend(table)}


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


RUN_TERMS = {
    "stage": readable.Term("stage", "Notebook and variant: the folder of the result."),
    "seconds": readable.Term("time, s", "Wall-clock time of the notebook."),
    "memory": readable.Term("peak memory, MiB", "Largest memory of the notebook's process."),
    "weights": readable.Term("weights", "What the network started from."),
    "commit": readable.Term("commit", "State of the project; changed: with edits that are in no commit."),
}
"""Columns of the table of runs."""


def _runs(found: list[records.Record]) -> pd.DataFrame:
    rows = []
    for record in found:
        git = record.data["git"]
        commit = (git["commit"] or "no repository")[:10] + (" (changed)" if git["dirty"] else "")
        rows.append(
            {
                "stage": record.name,
                "seconds": round(record.data["seconds"]),
                "memory": round(record.data["peak_rss_mb"]),
                "device": record.data["device"],
                "weights": record.metrics.get("weights_used", readable.DASH),
                "commit": commit,
            }
        )
    return pd.DataFrame(rows)
