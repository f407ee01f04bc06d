"""The whole study of a profile for a reader: one page, made from finished records only."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from PIL import Image

from drstudy.core import paths, records
from drstudy.study import checklists, claims, pipeline, verify

if TYPE_CHECKING:
    import jinja2

TEMPLATE = "report.html"
CHECKLIST = "checklist.html"
MOST_ROWS = 60
NUMBER = re.compile(r"[-−]?[0-9][-−0-9.,%\[\]()e+ ]*†?|[–=]|undefined|")
"""A cell that is set to the right: a number, an interval, or the absence of one."""
FIGURE_SCALE = 0.72
"""Screen pixels for each pixel of a figure (150 dpi), so that the text of all figures has one size, near the page's."""


@dataclass(frozen=True)
class Section:
    """One notebook's part of the report: which of its tables and figures are shown, in which order."""

    notebook: str
    title: str
    intro: str
    show: tuple[tuple[str, str, str], ...]
    """(table or figure, name, caption); what a run did not make is left out."""
    across: tuple[tuple[str, str, str], ...] = ()
    """(table, caption, query): the rows of that table that fit, of all runs side by side, where there are several."""


SECTIONS = (
    Section(
        pipeline.COMPARISON,
        "Backbones",
        "The paper's Table 2 beside ours, for every positive cut, since the paper does not name its own.",
        (
            (
                "table",
                "table2_display",
                "Test split. Sensitivity, specificity and accuracy at each cut, with 95 % intervals; the paper's rows as printed.",
            ),
            (
                "figure",
                "table2_ge2",
                "At grade 2 or more, beside the paper's numbers (hollow), on the assumption that this is its cut.",
            ),
            ("table", "summary", "Agreement with the reference grades."),
            ("table", "recalls", "Share of eyes of each grade that are called that grade."),
            ("figure", "confusion_matrices", "Confusion matrices, test split."),
            ("figure", "roc_curves", "ROC curves for each cut."),
            ("table", "recipe_deviations", "Where each recipe is not the paper's; = marks agreement."),
            ("table", "paper_arithmetic", "Which prevalence the paper's rows imply."),
            ("figure", "loss_curves", "Loss while training: the paper's figures 1 to 3."),
            ("table", "seed_spread", "Spread over seeds."),
            (
                "table",
                "oddities_display",
                "What each oddity of the paper is worth: one thing changed at a time, differences paired by patient.",
            ),
        ),
    ),
    Section(
        pipeline.RELIABILITY,
        "Reliability",
        "Which differences stand a test, whether the probabilities can be believed, and what a clinic would gain by them.",
        (
            (
                "table",
                "paired_tests",
                "Each network against DenseNet121. p_images takes eyes as independent (DeLong, McNemar); p_patients does not, "
                "and p_patients_holm also allows for the number of networks.",
            ),
            ("table", "intervals", "Percentile and BCa intervals side by side."),
            ("table", "variance_parts", "Spread over training seeds beside spread over test patients."),
            ("table", "temperatures", "Fitted on validation; above 1, the network was too sure."),
            ("figure", "reliability", "What was said against what was seen, before and after."),
            ("table", "calibration_display", "Calibration on test, before and after."),
            ("table", "operating_points", "Thresholds chosen on validation, and what they give on test."),
            (
                "figure",
                "decision_curves",
                "Net benefit of referring by the network, against referring all or none.",
            ),
        ),
    ),
    Section(
        pipeline.HEATMAPS,
        "Heatmaps",
        "Where the maps point, whether that is more than four maps that know nothing would give, and whether the maps depend on what was "
        "learnt.",
        (
            (
                "figure",
                "figure4",
                "The paper's figure 4: image, heat, overlay as printed, and a legible overlay with lesion outlines.",
            ),
            (
                "figure",
                "figure5",
                "The paper's figure 5: right, borderline and wrong, chosen by a stated rule.",
            ),
            (
                "figure",
                "beyond_chance",
                "What the map of the last layer scores beyond four maps that know nothing: right of the line, with its interval, is beyond chance.",
            ),
            (
                "table",
                "localisation_display",
                "Each layer, lesion and score less that of each baseline, percentage points with 95 % intervals of the paired difference. Cuts of "
                "Dice and IoU: Otsu's, half of the maximum, the best on all other patients (validation), the best on the eye itself (oracle).",
            ),
            (
                "table",
                "lesion_coverage_display",
                "How much of a single lesion lies in the hottest tenth of the field of view (10 % is chance), by size in disc diameters.",
            ),
            ("figure", "layers", "The same eyes at the candidate layers."),
            (
                "table",
                "heat_display",
                "Share of heat by region, against the region's share of the field of view.",
            ),
            ("figure", "heat_shares", "Heat by region, with 95 % intervals."),
            (
                "table",
                "localisation_by_group_display",
                "All lesions together, by right and wrong answers, and by grade.",
            ),
            (
                "table",
                "vessel_shift_display",
                "The paper's claim as a test: does the heat of missed severe eyes move from lesions to vessels?",
            ),
            (
                "figure",
                "methods",
                "Methods and finer maps (green) on lesions, less random maps on the same grid, on the eyes that were checked.",
            ),
            ("table", "methods_gain_display", "The same eyes: gain over Grad-CAM."),
            (
                "table",
                "faithfulness_display",
                "Probability of the class as pixels come and go in the map's order, less that of a random order.",
            ),
            ("figure", "cascade", "How alike a map stays as the weights become random, from the head down."),
            (
                "table",
                "sanity_display",
                "Likeness with the map of a network that has learnt nothing, with other seeds, and of the turned eye.",
            ),
        ),
        across=(
            (
                "localisation_display",
                "All lesions together, every network and layer.",
                "region == 'lesion' and metric in ('heat', 'hit', 'aupr', 'dice_validation')",
            ),
            (
                "vessel_shift_display",
                "The evidence for grade 0 less that for the true grade, severe eyes.",
                "comparison == 'normal against truth'",
            ),
        ),
    ),
    Section(
        pipeline.RAM,
        "RAM",
        "A network that regresses the grade, and the map whose mean is its score (Wang & Yang 2017). Networks of that paper start from random "
        "weights; the pretrained backbone shows what regression and its maps can do.",
        (
            (
                "table",
                "parameters",
                "Parameters of RAM and of its baseline with a dense head, built and counted at 512 px, beside print.",
            ),
            ("figure", "score_by_grade", "Scores of test eyes by their grade; dotted: where rounding cuts."),
            (
                "table",
                "agreement_display",
                "Agreement on test by size of the photograph, single eyes; cuts fitted on validation.",
            ),
            ("figure", "agreement_by_size", "The same, drawn."),
            (
                "table",
                "both_eyes",
                "Kappa of the single eye, which the map explains, and of a blend of both eyes, which it does not.",
            ),
            (
                "table",
                "map_and_score",
                "The map accounts for the score: largest gap between the score and the mean of the map plus the bias, in grades.",
            ),
            ("figure", "maps_ram_net5", "Signed maps of RAM net-5, and their fusion as the paper prints it."),
            ("figure", "maps_efficientnet_lite0", "The same of the pretrained backbone."),
            ("figure", "localisation", "Heat on lesions and the pointing game, against chance."),
            (
                "table",
                "lesion_differences",
                "Paired differences on lesions: fused against single sizes, and against Grad-CAM of a classification network.",
            ),
        ),
    ),
    Section(
        pipeline.LESIONS,
        "Lesions as labels",
        "A network that learns which lesions a photograph has, and a map for each (Jiang et al. 2020, of which only the abstract is public: "
        "labels, loss, thresholds and the rule from lesions to a diagnosis are choices of this study).",
        (
            (
                "table",
                "label_scores_display",
                "Thresholds were fitted on validation photographs of the data set that the networks learnt on. AUC within: among eyes of grade 2 or more, where severity gives less away.",
            ),
            (
                "figure",
                "label_scores",
                "AUC and average precision by label, with 95 % intervals; ticks are chance.",
            ),
            (
                "figure",
                "co_occurrence",
                "Of the eyes with the row's lesion, how many also have the column's.",
            ),
            (
                "table",
                "decisions_display",
                "Any DR from all lesions, referable DR from those beyond microaneurysms; thresholds for a wanted specificity on validation. The "
                "paper prints 93.9 % and 94.4 % for a decision that it does not name.",
            ),
            ("figure", "decisions", "The same, beside what the paper prints (hollow)."),
            (
                "figure",
                "beyond_chance",
                "What the map of each lesion scores on its own masks beyond four maps that know nothing.",
            ),
            (
                "table",
                "minus_grades_display",
                "The map of each lesion less that of a network of five grades, the same eyes; percentage points with 95 % intervals.",
            ),
            (
                "figure",
                "attention",
                "Whose mask does the map of a lesion lie on? Rows are maps, columns masks.",
            ),
            ("table", "outlined", "Outlines by cut: how many lesions have one, false alarms, Dice."),
            ("figure", "outlines", "Outlined eyes, right and wrong, chosen by a rule."),
        ),
    ),
    Section(
        pipeline.PAPER_AUDIT,
        "The paper's arithmetic",
        "What the printed numbers imply, computed from nothing but them.",
        (
            (
                "figure",
                "implied_prevalence",
                "Share of positives at which each row of Table 2 agrees with itself, with the range that rounding leaves, against every cut.",
            ),
            (
                "table",
                "macro_reading",
                "Could its sensitivity be a mean over the grades? The accuracy needed is above what that mean allows where it is not possible.",
            ),
            ("table", "sampler", "What the printed sampler weights draw from the printed class counts."),
            ("table", "network", "The printed network, counted."),
            (
                "table",
                "ram_parameters",
                "Parameters of RAM (Wang & Yang 2017), counted from its layers, beside the millions it prints.",
            ),
        ),
    ),
    Section(
        pipeline.AUDIT,
        "Data",
        "What was read, what was left out and why, and how patients were divided.",
        (
            ("figure", "examples_by_grade", "Training images drawn at random, by grade."),
            ("table", "class_counts", "Images by grade."),
            (
                "table",
                "quarantine_counts",
                "Files and labels that were left out, or used after a conversion.",
            ),
            ("table", "split", "Images by split and grade; both eyes of a patient are on one side."),
            ("figure", "measurements", "Sizes and image quality."),
            ("figure", "flagged", "The images that the quality rule flags most."),
            ("figure", "fellow_eyes", "One eye's grade against the other's."),
            ("figure", "leak", "What splitting by image would have leaked."),
        ),
    ),
    Section(
        pipeline.OVERSAMPLING,
        "Oversampling",
        "What the paper's sampler draws, and what oversampling does to each grade, on the validation split.",
        (
            ("figure", "class_shares", "Shares of the grades among an epoch's draws."),
            (
                "figure",
                "augmentations",
                "The augmentations that the paper names; the ranges are this study's.",
            ),
            ("figure", "recall_by_grade", "Recall by grade and sampler, short fine-tunes, validation split."),
            (
                "table",
                "leak_exposure",
                "Rows tested that have a copy, a near duplicate or a fellow eye in training.",
            ),
            (
                "table",
                "leaks_display",
                "What a leak is worth: scores on a study's own rows and on new patients, beside honest networks on the same rows.",
            ),
        ),
    ),
    Section(
        pipeline.VIEWS,
        "How many views",
        "A few augmented views of each image, made once, against a fresh one at every draw; on the validation split, after the last epoch.",
        (
            ("figure", "metric_by_views", "Scores by number of views, and paired differences to fresh ones."),
            ("table", "differences", "Differences to fresh views, with 95 % intervals over patients."),
        ),
    ),
    Section(
        pipeline.TRAINING,
        "Fine-tuning",
        "Each network: loss, test scores, model card.",
        (
            ("figure", "loss", "Loss while training, and after each epoch on validation."),
            ("table", "model_card", ""),
        ),
    ),
)


def write(profile_name: str) -> Path:
    """Write ``results/<profile>/report/index.html``, the notebooks as HTML with and without code, drafts of the
    checklists and the model card, ``summary.json`` and ``claims.csv``.

    Raises:
        KeyError: If there is no such profile.
        records.RecordError: If none of its stages is finished.
    """
    import jinja2

    profile = pipeline.profile(profile_name)
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
            section for section in (_section(s, found, building) for s in SECTIONS) if section["parts"]
        ],
        "missing": [stage.name for stage in pipeline.waiting(profile_name)],
        "claims": _table(claims.write(profile_name).drop(columns="profile")),
        "verified": _verified(profile_name),
        "checklists": _checklists(profile_name, found, building, environment.get_template(CHECKLIST)),
        "runs": _table(_runs(found)),
        "synthetic": any(r.params.get("SOURCE") == "phantom" for r in found),
        "untrained": any(r.metrics.get("weights_used") == "none" for r in found),
    }
    (building / "index.html").write_text(environment.get_template(TEMPLATE).render(context), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    building.rename(folder)
    pipeline.write_summary(profile_name)
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
    for name in checklists.SHEETS:
        sheet = checklists.read(name)
        filled = checklists.fill(sheet, known)
        header = checklists.header(profile_name, filled)
        rows = filled.to_dict("records")
        page = template.render(
            sheet=sheet, profile=profile_name, header=header, rows=rows, absent=checklists.NOT_REPORTED
        )
        (folder / f"{name}.html").write_text(page, encoding="utf-8")
        (folder / f"{name}.md").write_text(checklists.markdown(sheet, filled, header), encoding="utf-8")
        written.append({"page": f"{name}.html", "title": sheet.title, "header": header})
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
