"""The figures and tables that the README shows: copied from finished results, never typed.

``figures/manifest.json`` says of each file which notebook, run and digest it comes from; the README's tables stand between markers
and are rewritten from the same results.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from drstudy.core import paths, records
from drstudy.papers import registry
from drstudy.papers.base import AMD, AUDIT, Shown
from drstudy.study import claims, verify

if TYPE_CHECKING:
    import numpy as np

    from drstudy.data.phantom import PhantomConfig

WIDEST = 1400
"""Pixels; larger pictures are scaled down for the page."""

COMMITTED = ("settings.csv", "costs.csv")
"""Files under ``figures/`` that are those of the committed results of the profile, ``reference/<profile>/``."""

CONTACT_SHEET = "phantom.jpg"

AMD_SHEET = "phantom_amd.jpg"
"""Drawn from the parameters of the profile's audit of eyes with AMD. It stays as it was where the profile has none, or did not run it."""

DRAWN = (CONTACT_SHEET, AMD_SHEET)
"""Files under ``figures/`` that are drawn anew rather than copied from a result."""

CLAIMS = "claims.csv"
"""Judged from all results of the profile, so of no single one."""


def shown() -> dict[str, Shown]:
    """What the papers show, by the name of the file under ``figures/``."""
    return {one.name: one for paper in registry.PAPERS for one in paper.figures}


def blocks() -> dict[str, str]:
    """README block: the table under ``figures/`` that it is made from."""
    tables = [*COMMITTED, *(name for name in shown() if name.endswith(".csv")), CLAIMS]
    return {name.removesuffix(".csv"): name for name in tables}


def update(profile: str = "demo", only: Sequence[str] = ()) -> list[Path]:
    """Write ``figures/`` with its manifest, and the tables of the README, from finished records of a profile.

    Args:
        profile: Name of the profile.
        only: Names of notebooks; files, and claims, of all others stay as they were. Empty is all.

    Returns:
        The files written.

    Raises:
        records.RecordError: If a result is missing.
        ValueError: If ``only`` names no notebook.
    """
    folder = paths.root() / "figures"
    if unknown := sorted(set(only) - set(registry.NOTEBOOKS)):
        raise ValueError(f"There is no notebook {unknown[0]!r}; there are {', '.join(registry.NOTEBOOKS)}.")
    before = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    manifest = _of_results(profile, folder, before, only)
    if only:
        manifest |= {name: before[name] for name in (*DRAWN, *COMMITTED)}
    else:
        manifest |= {AMD_SHEET: before[AMD_SHEET]} | _of_audit(profile, folder)
        manifest |= _of_reference(profile, folder)
    _write_claims(profile, folder / CLAIMS, only)
    manifest[CLAIMS] = {"notebook": "", "run": "", "profile": profile, "file": "drstudy.study.claims.ledger"}
    for name, entry in manifest.items():
        entry["sha256"] = paths.sha256(folder / name)
    records.write_json(manifest, folder / "manifest.json")
    readme = paths.root() / "README.md"
    text = readme.read_text(encoding="utf-8")
    with paths.atomic(readme) as temporary:
        temporary.write_text(filled(text, folder), encoding="utf-8", newline="\n")
    return [*(folder / name for name in manifest), folder / "manifest.json", readme]


def _write_claims(profile: str, file: Path, only: Sequence[str]) -> None:
    """The ledger's rows; of claims that look up no notebook of ``only`` the rows that stand there already, if any."""
    columns = ["claim", "place", "found", "verdict", "reason"]
    table = claims.write(profile)[columns]
    if only:
        fresh = {
            claim.says for claim in claims.read() if {one.notebook for one in claim.evidence} & set(only)
        }
        old = pd.read_csv(file, dtype=str, keep_default_na=False).set_index(["claim", "place"])
        rows = [
            row if row["claim"] in fresh or key not in old.index else {**row, **old.loc[key].to_dict()}
            for row in table.to_dict("records")
            for key in [(row["claim"], row["place"])]
        ]
        table = pd.DataFrame(rows, columns=columns)
    with paths.atomic(file) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")


def _of_results(profile: str, folder: Path, before: dict[str, dict], only: Sequence[str]) -> dict[str, dict]:
    """Copy what the papers show; a file of a further notebook that was not run stays as it was."""
    manifest = {}
    for name, one in shown().items():
        owner = one.profile or profile
        place = paths.results() / owner / one.notebook / one.variant
        further = registry.NOTEBOOKS[one.notebook].study != "core"
        kept = one.notebook not in only if only else further and not (place / "run.json").is_file()
        kept = kept or (bool(one.profile) and not (place / "run.json").is_file())
        if name in before and kept:
            manifest[name] = before[name]
            continue
        record = records.load(place)
        source = record.path(one.file)
        _copy(source, folder / name)
        manifest[name] = {
            "notebook": one.notebook,
            "run": record.name,
            "profile": owner,
            "file": one.file,
            "source_sha256": paths.sha256(source),
            "commit": record.data["git"]["commit"] or "",
        }
    return manifest


def _of_audit(profile: str, folder: Path) -> dict[str, dict]:
    """Draw the contact sheets of the phantoms that the profile's photographs are of."""
    from drstudy.data import phantom

    place = paths.results() / profile / AUDIT
    found = {CONTACT_SHEET: _drawn(profile, place, phantom.contact_sheet, folder / CONTACT_SHEET)}
    if (place / AMD / "run.json").is_file():
        found[AMD_SHEET] = _drawn(profile, place / AMD, amd_sheet, folder / AMD_SHEET)
    return found


def amd_sheet(config: PhantomConfig, path: None) -> np.ndarray:
    """The sheet of a phantom with AMD, with photographs large enough to see small drusen, whatever the size that its profile can afford."""
    from drstudy.data import phantom

    return phantom.amd_sheet(replace(config, size=384), path, pairs=2, thumbnail=256)


def _of_reference(profile: str, folder: Path) -> dict[str, dict]:
    """Copy the tables of the committed results."""
    manifest = {}
    for name in COMMITTED:
        source = verify.folder(profile) / name
        if not source.is_file():
            raise records.RecordError(
                f"{paths.show(source)} is missing; `drstudy reference --profile {profile}` writes it."
            )
        _copy(source, folder / name)
        entry = {"notebook": "", "run": "", "profile": profile, "file": paths.show(source)}
        manifest[name] = entry | {"source_sha256": paths.sha256(source)}
    return manifest


def filled(text: str, folder: Path) -> str:
    """A README's text with each ``<!-- begin: NAME --> ... <!-- end: NAME -->`` filled from ``folder``.

    Raises:
        ValueError: If a block is missing.
    """
    pages = shown()
    for name, file in blocks().items():
        pattern = re.compile(rf"(<!-- begin: {name} -->\n).*?(<!-- end: {name} -->)", re.DOTALL)
        if not pattern.search(text):
            raise ValueError(
                f"The README has no block for {name}: <!-- begin: {name} --> and <!-- end: {name} -->."
            )
        table = pd.read_csv(folder / file, dtype=str, keep_default_na=False)
        if file in pages and pages[file].rows:
            table = table[table.iloc[:, 0].str.startswith(pages[file].rows)]
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


def _drawn(
    profile: str, place: Path, draw: Callable[[PhantomConfig, None], np.ndarray], target: Path
) -> dict[str, str]:
    """Draw a sheet of the phantom of an audit; its entry of the manifest."""
    from PIL import Image

    from drstudy.data.sources.phantom import config_of

    audit = records.load(place)
    sheet = draw(config_of({name.lower(): value for name, value in audit.params.items()}), None)
    with paths.atomic(target) as temporary:
        Image.fromarray(sheet).save(temporary, quality=85)
    drawn_by = f"drstudy.data.phantom.{draw.__name__}"
    return {"notebook": AUDIT, "run": audit.name, "profile": profile, "file": drawn_by}
