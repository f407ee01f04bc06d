"""The output of ``drstudy explain``: what lies in it, whose it is, and how its pages are drawn."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drstudy.core import paths, records
from drstudy.core.names import GRADE_NAMES
from drstudy.show import style

if TYPE_CHECKING:
    import numpy as np

    from drstudy.data.images import Crop
    from drstudy.data.photograph import Photograph
    from drstudy.explain.measures.outlines import Outline
    from drstudy.explain.one import Explained
    from drstudy.study.networks import Network

MADE_BY = "drstudy explain"
NOTICE = "Research only. This is not a medical device. Do not use it for diagnosis or treatment."
"""Stands visibly on every page, and in every file of answers."""

PAGE, FACTS = "page.html", "explanation.json"
TABLE, WHOLE, INDEX = "explanations.csv", "explanations.json", "index.html"
"""Names of files: of one photograph; of all."""

GENERATOR = f'<meta name="generator" content="{MADE_BY}">'

STATUS_WORDS = {
    "outlined": "",
    "not predicted": "The predicted grade is 0. The map is evidence against disease, so nothing is outlined.",
    "no heat": "The map has no evidence for the predicted grade at this layer.",
    "flat": "The map is above the cut in the whole field of view, so an outline would show nothing.",
    "below the cut": "The map stays below the cut everywhere.",
    "too small": "All regions above the cut are smaller than a twelfth of a disc diameter, and are not drawn.",
}
"""Why there is no outline, by status."""

SCORE_WORDS = STATUS_WORDS | {
    "not predicted": "The score implies grade 0, so nothing is outlined.",
    "no heat": "Nothing in the photograph raises the score.",
}
"""The same for a network that regresses the grade."""


class OverwriteError(ValueError):
    """Something stands in the way that must not be overwritten."""


def about(network: Network) -> dict[str, Any]:
    """What a reader of the answers must know of the network; JSON-ready."""
    record, kind, explainer = (
        network.record,
        "synthetic" if network.synthetic else "training",
        network.explainer,
    )
    return {
        "result": paths.show(record.folder),
        "file": explainer.file.name,
        "sha256": network.sha256,
        "name": explainer.label,
        "learnt_from": f"{len(network.seen)} {kind} photographs ({network.source}, profile {record.data['profile']})",
        "synthetic": network.synthetic,
        "input_size": explainer.input_size,
        "temperature": explainer.temperature,
        "grade_cuts": list(explainer.cuts),
        "note": explainer.note,
        "map_cut": explainer.map_cut,
        "map_cut_note": explainer.map_cut_note,
        **{name: explainer.agreement.get(name) for name in ("qwk", "qwk_lo", "qwk_hi", "auc_ge2")},
    }


# --- whose it is --------------------------------------------------------------------------------------------


def check(output: Path, given: Mapping[str, Path], sha256: str) -> None:
    """Refuse to start if something in the output folder must not be overwritten.

    Args:
        output: The folder; may not exist.
        given: Folders of photographs that are about to be written, with the files that they explain.
        sha256: Digest of the network.

    Raises:
        OverwriteError: Naming what stands in the way, and what to do.
    """
    if output.exists() and not output.is_dir():
        raise OverwriteError(f"{output} is a file. Choose another folder with --output.")
    marks = {TABLE: "name,file,status,", INDEX: "<!doctype html>", WHOLE: "{"}
    for name, begins in marks.items():
        file = output / name
        if file.exists() and not _is_ours(file, begins):
            raise _in_the_way(file, "was not made by drstudy explain")
    for name, path in given.items():
        folder = output / name
        if folder.exists() and (why := _foreign(folder, path)):
            raise _in_the_way(folder, why)
    answers = [
        WHOLE,
        *(f"{folder.name}/{FACTS}" for folder in output.glob("*") if (folder / FACTS).is_file()),
    ]
    for name in answers:
        if (found := _read(output / name)) and found["network"]["sha256"] != sha256:
            raise _in_the_way(output / name, f"is of another network ({found['network']['result']})")


def _in_the_way(path: Path, why: str) -> OverwriteError:
    return OverwriteError(
        f"{path} {why}, and is not overwritten. Choose another folder with --output, or move it away."
    )


def _is_ours(file: Path, begins: str) -> bool:
    """Whether a file of the whole output is one that this command wrote."""
    if not file.is_file():
        return False
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    if file.name == WHOLE:
        return _read(file) is not None
    return text.startswith(begins) and (file.name == TABLE or GENERATOR in text)


def _read(file: Path) -> dict[str, Any] | None:
    """The content of one of our JSON files; None if it is not one."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return found if found["made_by"] == MADE_BY and found["network"]["sha256"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _foreign(folder: Path, path: Path) -> str:
    """Why a folder is not to be replaced by the explanation of a file; empty if it may be."""
    found = _read(folder / FACTS) if folder.is_dir() else None
    if found is None:
        return "was not made by drstudy explain"
    known = found.get("files", {})
    for file in folder.rglob("*"):
        name = file.relative_to(folder).as_posix()
        if name == FACTS:
            continue
        if name not in known:
            return f"has a file that drstudy explain did not make ({name})"
        if paths.sha256(file) != known[name]:
            return f"has a file that was changed since ({name})"
    if Path(found["answer"]["file"]).resolve() != path.resolve():
        return f"explains another file of that name ({found['answer']['file']})"
    return ""


def rows(output: Path) -> list[dict[str, Any]]:
    """The rows of all photographs that were explained or refused in this folder so far."""
    found = {}
    for row in (_read(output / WHOLE) or {}).get("photographs", []):
        if row["status"] == "refused" or (output / row["name"] / FACTS).is_file():
            found[row["name"]] = row
    for file in sorted(output.glob(f"*/{FACTS}")):
        if one := _read(file):
            found[file.parent.name] = one["answer"]
    return list(found.values())


# --- one photograph -----------------------------------------------------------------------------------------


def write_one(
    folder: Path, row: dict[str, Any], photograph: Photograph, found: Explained, network: Network
) -> None:
    """Write all files of one photograph into a fresh folder, ``explanation.json`` last.

    Args:
        folder: Empty folder.
        row: Its row of the table.
        photograph: The photograph.
        found: What the network says of it.
        network: The network.
    """
    from drstudy.show import explained

    highest = scale(found, network)
    pictures = {
        "photograph": explained.enlarged(photograph.image),
        "map": explained.with_map(photograph.image, found.heat, highest),
        "outlines": explained.with_outlines(photograph.image, found.outlines),
    }
    for name, picture in pictures.items():
        (folder / f"{name}.png").write_bytes(explained.encoded(picture, "PNG"))
    (folder / PAGE).write_text(_page(row, photograph, found, network, pictures, highest), encoding="utf-8")
    content = {
        "made_by": MADE_BY,
        "notice": NOTICE,
        "network": about(network),
        "answer": row,
        "map": {
            "layer": found.layer,
            "of": "score" if found.score is not None else f"grade {found.predicted}",
            "unit": f"{network.explainer.map_unit}, signed",
            "values": found.raw.tolist(),
        },
        "crop": {name: getattr(photograph.crop, name) for name in ("x0", "y0", "side", "width", "height")},
        "outlines": [polygons(one, photograph.crop, len(photograph.image)) for one in found.outlines],
        "outlines_status": found.status or network.explainer.map_cut_note,
        "files": {file.name: paths.sha256(file) for file in sorted(folder.iterdir())},
    }
    records.write_json(content, folder / FACTS)


def scale(found: Explained, network: Network) -> float:
    """The value of the hottest colour: that of validation eyes, so that colours mean the same in all photographs; of a map of which none is
    kept, as of grade 0, its own maximum."""
    if network.explainer.highest and found.comparable:
        return network.explainer.highest
    return float(found.heat.max())


def polygons(outline: Outline, crop: Crop, size: int) -> dict[str, Any]:
    """One outline as polygons in pixel edges: of the crop, and of the photograph as it came.

    Args:
        outline: Outline in pixels of the crop.
        crop: The square that was cut out.
        size: Side of the crop, pixels.
    """

    def points(ring: np.ndarray, factor: float, dx: float, dy: float) -> list[list[float]]:
        return [[round(dx + factor * x, 2), round(dy + factor * y, 2)] for x, y in ring.tolist()]

    factor = crop.side / size
    return {
        "area_in_crop": outline.area,
        "in_crop": [points(ring, 1, 0, 0) for ring in outline.rings],
        "in_photograph": [points(ring, factor, crop.x0, crop.y0) for ring in outline.rings],
    }


def _environment():
    import jinja2

    return jinja2.Environment(
        loader=jinja2.PackageLoader("drstudy.study"), autoescape=True, undefined=jinja2.StrictUndefined
    )


def _page(
    row: dict[str, Any],
    photograph: Photograph,
    found: Explained,
    network: Network,
    pictures: dict[str, np.ndarray],
    highest: float,
) -> str:
    """The page of one photograph; it needs no other file."""
    from drstudy.show import explained

    words = STATUS_WORDS if found.score is None else SCORE_WORDS
    return (
        _environment()
        .get_template("explanation.html")
        .render(
            row=row,
            notice=NOTICE,
            generator=MADE_BY,
            network=about(network),
            grades=_grades(found, network),
            found=found,
            predicted=GRADE_NAMES[found.predicted],
            pictures={name: explained.address(picture) for name, picture in pictures.items()},
            highest=highest,
            unit=network.explainer.map_unit,
            shared_scale=bool(network.explainer.highest and found.comparable),
            colours=explained.heat_colours(),
            why_none=words.get(found.status, "") if found.status else network.explainer.map_cut_note,
            quality=_quality(photograph, network),
            size=f"{photograph.facts['width']} x {photograph.facts['height']}",
        )
    )


def _grades(found: Explained, network: Network) -> list[dict[str, Any]]:
    """One row per grade: its probabilities, or the range of the scores that imply it."""
    grades = [
        {"grade": k, "name": name, "colour": style.GRADE_COLOURS[k]} for k, name in enumerate(GRADE_NAMES)
    ]
    if found.score is None:
        own, best = found.probabilities.tolist(), found.best.tolist()
        return [row | {"best": best[k], "own": own[k]} for k, row in enumerate(grades)]
    cuts = [f"{cut:.2f}" for cut in network.explainer.cuts]
    ranges = [
        f"below {cuts[0]}",
        *(f"{low} to {high}" for low, high in pairwise(cuts)),
        f"{cuts[-1]} or more",
    ]
    return [row | {"range": text} for row, text in zip(grades, ranges)]


def _quality(photograph: Photograph, network: Network) -> list[dict[str, str]]:
    """The measures of the audit: of this photograph, the limit, and of the photographs that were learnt."""
    from drstudy.data import audit
    from drstudy.data.photograph import WORDS

    rules = {column: (flag, side, limit) for flag, (column, side, limit) in audit.FLAGS.items()}
    rows = []
    for name in network.seen.columns:
        flag, side, limit = rules.get(name, ("", "", 0))
        low, high = network.seen[name].quantile([0.01, 0.99])
        rows.append(
            {
                "name": WORDS[flag][1]
                if flag
                else f"{name.replace('_', ' ')} (standard deviation of the brightness)",
                "value": f"{photograph.facts[name]:.3g}",
                "limit": f"{'at least' if side == 'below' else 'at most'} {limit:g}" if flag else "–",
                "learnt": f"{low:.3g} to {high:.3g}",
            }
        )
    return rows


def index(whole: Sequence[dict[str, Any]], network: Network) -> str:
    """The page that lists all photographs of a folder."""
    rows = [
        row | {"page": f"{row['name']}/{PAGE}", "picture": f"{row['name']}/outlines.png"} for row in whole
    ]
    return (
        _environment()
        .get_template("explanations.html")
        .render(
            notice=NOTICE,
            generator=MADE_BY,
            network=about(network),
            explained=[row for row in rows if row["status"] != "refused"],
            refused=[row for row in rows if row["status"] == "refused"],
        )
    )
