"""The figures and tables that the README shows: copied from finished results, never typed.

``figures/manifest.json`` says of each file which notebook, run and digest it comes from; the README's tables stand between markers
and are rewritten from the same results.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd

from drstudy.core import paths, records
from drstudy.study import claims, pipeline, verify

WIDEST = 1400
"""Pixels; larger pictures are scaled down for the page."""

SHOWN = {
    "table2_ge2.png": (pipeline.COMPARISON, "", "figures/table2_ge2.png"),
    "recall_by_grade.png": (pipeline.COMPARISON, "", "figures/recall_by_grade.png"),
    "confusion_matrices.png": (pipeline.COMPARISON, "", "figures/confusion_matrices.png"),
    "oversampling.png": (pipeline.OVERSAMPLING, "", "figures/recall_by_grade.png"),
    "heatmap_figure4.jpg": (pipeline.HEATMAPS, "efficientnet_lite0-seed0", "figures/figure4.png"),
    "heatmap_figure5.jpg": (pipeline.HEATMAPS, "efficientnet_lite0-seed0", "figures/figure5.png"),
    "heat_shares.png": (pipeline.HEATMAPS, "efficientnet_lite0-seed0", "figures/heat_shares.png"),
    "table2.csv": (pipeline.COMPARISON, "", "tables/table2_display.csv"),
    "summary.csv": (pipeline.COMPARISON, "", "tables/summary.csv"),
    "oddities.csv": (pipeline.COMPARISON, "", "tables/oddities_display.csv"),
    "leaks.csv": (pipeline.OVERSAMPLING, "", "tables/leaks_display.csv"),
    "heat.csv": (pipeline.HEATMAPS, "efficientnet_lite0-seed0", "tables/heat_display.csv"),
}
"""File under ``figures/``: notebook, variant, and the file of that result."""

FURTHER = {
    "ram_agreement.csv": (pipeline.RAM, "", "tables/agreement_display.csv"),
    "ram_lesions.csv": (pipeline.RAM, "", "tables/lesion_differences.csv"),
    "lesion_scores.csv": (pipeline.LESIONS, "", "tables/label_scores_display.csv"),
    "lesion_decisions.csv": (pipeline.LESIONS, "", "tables/decisions_display.csv"),
    "lesion_maps.csv": (pipeline.LESIONS, "", "tables/minus_grades_display.csv"),
    "lesion_attention.png": (pipeline.LESIONS, "", "figures/attention.png"),
    "lesion_outlines.jpg": (pipeline.LESIONS, "", "figures/outlines.png"),
    "views.csv": (pipeline.VIEWS, "", "tables/differences.csv"),
}
"""As :data:`SHOWN`, of notebooks that ``--study all`` adds; where there is no such result, the file stays as it was."""

COMMITTED = ("settings.csv", "costs.csv")
"""Files under ``figures/`` that are those of the committed results of the profile, ``reference/<profile>/``."""

TABLES = {
    name: f"{name}.csv"
    for name in (
        *("settings", "costs"),
        *("table2", "summary", "heat", "oddities", "leaks", "claims", "views"),
        *("ram_agreement", "ram_lesions", "lesion_scores", "lesion_decisions", "lesion_maps"),
    )
}
"""README block: the file it is made from."""

CONTACT_SHEET = "phantom.jpg"

CLAIMS = "claims.csv"
"""Judged from all results of the profile, so of no single one."""


def update(profile: str = "demo") -> list[Path]:
    """Write ``figures/`` with its manifest, and the tables of the README, from finished records of a profile.

    Returns:
        The files written.

    Raises:
        records.RecordError: If a result is missing.
    """
    folder = paths.root() / "figures"
    manifest: dict[str, dict] = {}
    before = json.loads((folder / "manifest.json").read_text())
    for name, (notebook, variant, file) in (SHOWN | FURTHER).items():
        place = paths.results() / profile / notebook / variant
        if name in before and name in FURTHER and not (place / "run.json").is_file():
            manifest[name] = before[name]
            continue
        record = records.load(place)
        source = record.path(file)
        _copy(source, folder / name)
        commit = record.data["git"]["commit"] or ""
        manifest[name] = {
            "notebook": notebook,
            "run": record.name,
            "profile": profile,
            "file": file,
            "source_sha256": paths.sha256(source),
            "commit": commit,
        }
    audit = records.load(paths.results() / profile / pipeline.AUDIT)
    _contact_sheet(audit, folder / CONTACT_SHEET)
    manifest[CONTACT_SHEET] = {
        "notebook": pipeline.AUDIT,
        "run": audit.name,
        "profile": profile,
        "file": "drstudy.data.phantom.contact_sheet",
    }
    for name in COMMITTED:
        source = verify.folder(profile) / name
        if not source.is_file():
            raise records.RecordError(
                f"{paths.show(source)} is missing; `drstudy reference --profile {profile}` writes it."
            )
        _copy(source, folder / name)
        entry = {"notebook": "", "run": "", "profile": profile, "file": paths.show(source)}
        manifest[name] = entry | {"source_sha256": paths.sha256(source)}
    with paths.atomic(folder / CLAIMS) as temporary:
        columns = ["claim", "place", "found", "verdict", "reason"]
        claims.write(profile)[columns].to_csv(temporary, index=False, lineterminator="\n")
    manifest[CLAIMS] = {"notebook": "", "run": "", "profile": profile, "file": "drstudy.study.claims.ledger"}
    for name, entry in manifest.items():
        entry["sha256"] = paths.sha256(folder / name)
    records.write_json(manifest, folder / "manifest.json")
    readme = paths.root() / "README.md"
    text = readme.read_text(encoding="utf-8")
    with paths.atomic(readme) as temporary:
        temporary.write_text(filled(text, folder), encoding="utf-8")
    return [*(folder / name for name in manifest), folder / "manifest.json", readme]


def filled(text: str, folder: Path) -> str:
    """A README's text with each ``<!-- begin: NAME --> ... <!-- end: NAME -->`` filled from ``folder``.

    Raises:
        ValueError: If a block is missing.
    """
    for name, file in TABLES.items():
        pattern = re.compile(rf"(<!-- begin: {name} -->\n).*?(<!-- end: {name} -->)", re.DOTALL)
        if not pattern.search(text):
            raise ValueError(
                f"The README has no block for {name}: <!-- begin: {name} --> and <!-- end: {name} -->."
            )
        table = pd.read_csv(folder / file, dtype=str, keep_default_na=False)
        if name == "table2":  # the page shows one cut; the file has all
            table = table[table.iloc[:, 0].str.startswith(("grade ≥ 2", "not stated"))]
        table = markdown(table)
        text = pattern.sub(lambda match, text=table: match[1] + text + match[2], text)
    return text


def markdown(table: pd.DataFrame) -> str:
    """A table of texts in GitHub's form."""
    heads = ["" if str(head).startswith("Unnamed") else str(head) for head in table.columns]
    rows = [heads, ["---"] * len(heads), *table.to_numpy().tolist()]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |\n" for row in rows)


def _copy(source: Path, target: Path) -> None:
    """A table as it is; a picture scaled for the page, photographs as JPEG."""
    with paths.atomic(target) as temporary:
        if source.suffix != ".png":
            temporary.write_bytes(source.read_bytes())
            return
        from PIL import Image

        with Image.open(source) as opened:
            picture = opened.convert("RGB")
        picture.thumbnail((WIDEST, 10 * WIDEST), Image.Resampling.LANCZOS)
        picture.save(temporary, **({"quality": 85} if target.suffix == ".jpg" else {"optimize": True}))


def _contact_sheet(audit: records.Record, target: Path) -> None:
    from PIL import Image

    from drstudy.data import phantom

    p = audit.params
    config = phantom.PhantomConfig(
        n_patients=p["N_PATIENTS"],
        size=p["PHANTOM_SIZE"],
        seed=p["SEED"],
        distribution=p["DISTRIBUTION"],
        difficulty=p["DIFFICULTY"],
    )
    with paths.atomic(target) as temporary:
        Image.fromarray(phantom.contact_sheet(config, None)).save(temporary, quality=85)
