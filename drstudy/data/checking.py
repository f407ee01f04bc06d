"""The check of a data set before anything is computed: layout, labels, files, and a sample of the pictures."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from drstudy.core import paths
from drstudy.core.names import GRADES
from drstudy.data import decoding, measures, sources
from drstudy.data import manifest as manifests
from drstudy.data.decoding import BadImage
from drstudy.data.images import prepare
from drstudy.data.manifest import EXCLUDED


@dataclass(frozen=True)
class Report:
    """What ``data check`` found.

    Attributes:
        source: As it was read; ``None`` if it could not be.
        problems: Columns file, problem, action: labels, files, and those images that were opened.
        examined: How many images were decoded.
        errors: Why the data cannot be used; empty if they can.
        lines: The report as printed.
    """

    source: sources.Source | None
    problems: pd.DataFrame
    examined: int
    errors: tuple[str, ...]
    lines: tuple[str, ...] = field(repr=False, default=())

    @property
    def ok(self) -> bool:
        """Whether a study can be run on these data."""
        return not self.errors

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


def check(
    source: str,
    root: str | os.PathLike[str],
    decode: int = 200,
    max_megapixels: float = 120.0,
    image_size: int = 224,
    listed: int = 5,
    pattern: str = "",
    ignored: Sequence[str] = (),
    most_lost: float = sources.MOST_LOST,
) -> Report:
    """Look at a data set before anything is computed: layout, labels, files, and a sample of the pictures.

    Args:
        source: phantom, eyepacs, aptos, idrid, diaretdb1, odir, folder or pooled.
        root: Folder of the data set.
        decode: Number of images to decode in full, spread evenly over the manifest; 0 decodes all. Of the
            others only presence and size on disk are checked.
        max_megapixels: Larger pictures would be left out.
        image_size: Side of the crops of the store whose size is reported, pixels.
        listed: Number of examples that the text gives of each problem.
        pattern, ignored: See :func:`drstudy.data.sources.load`.
        most_lost: Share of the rows and files that may be left out. Of pictures that were not opened as many are taken to be lost as of those
            that were.

    Returns:
        What was found. A folder that is not such a data set is an error in the report, not an exception.
    """
    try:
        read = sources.load(source, root, pattern, ignored)
    except (sources.SourceError, manifests.ManifestError) as error:
        return Report(
            None, manifests.problems(), 0, (str(error),), (f"{source} in {root}", f"ERROR: {error}")
        )
    manifest = read.manifest
    places = np.arange(len(manifest))
    if decode and decode < len(manifest):
        places = np.unique(np.linspace(0, len(manifest) - 1, decode).round().astype(int))
    found, sizes, unreadable = _examine(manifest.iloc[places], max_megapixels)
    empty = [path for path in manifest["path"].drop(places) if _is_empty(path)]
    found_empty = manifests.problems((path, "empty file", EXCLUDED) for path in empty)
    problems = pd.concat([read.problems, found, found_empty], ignore_index=True)
    errors = _errors(manifest, len(places), unreadable)
    errors += _losses(problems, manifest, (len(places), unreadable, len(empty)), most_lost, str(root))
    lines = _describe(read, manifest, image_size, len(places), sizes)
    lines += _list(problems, listed)
    lines += [f"ERROR: {error}" for error in errors] or ["Usable."]
    return Report(read, problems, len(places), tuple(errors), tuple(lines))


def _losses(
    problems: pd.DataFrame, manifest: pd.DataFrame, opened: tuple[int, int, int], most_lost: float, where: str
) -> list[str]:
    """Whether too much was left out; of pictures that were not opened as many are taken to be lost as of those that were."""
    examined, unreadable, empty = opened
    unopened = round((len(manifest) - examined) * unreadable / max(1, examined))
    guess = manifests.problems([("", "not opened, as likely damaged", EXCLUDED)] * unopened)
    if manifest.empty:
        return []
    try:
        used = len(manifest) - unreadable - unopened - empty
        sources.check_losses(pd.concat([problems, guess]), used, most_lost, where)
    except sources.SourceError as error:
        return [str(error)]
    return []


def _is_empty(path: str) -> bool:
    try:
        return not paths.resolve(path).stat().st_size
    except OSError:
        return True


def _examine(rows: pd.DataFrame, max_megapixels: float) -> tuple[pd.DataFrame, Counter, int]:
    problems: list[tuple[str, str, str]] = []
    sizes: Counter = Counter()
    unreadable = 0
    for path in rows["path"]:
        resolved = paths.resolve(path)
        try:
            _, record = prepare(
                decoding.read_bytes(resolved), resolved.suffix, measures.MEASURE_SIDE, max_megapixels
            )
        except BadImage as error:
            unreadable += 1
            problems.append((path, str(error), EXCLUDED))
            continue
        sizes[record["width"], record["height"], record["format"]] += 1
        problems += [(path, problem, action) for problem, action in record["notes"]]
    return manifests.problems(problems), sizes, unreadable


def _errors(manifest: pd.DataFrame, examined: int, unreadable: int) -> list[str]:
    if manifest.empty:
        return ["No image can be used: see the problems above."]
    errors = []
    if examined and unreadable == examined:
        errors.append(f"None of the {examined} images that were opened can be decoded.")
    elif unreadable > 0.5 * examined:
        errors.append(
            f"{unreadable} of the {examined} images that were opened cannot be decoded: is the download "
            "complete?"
        )
    graded = manifests.graded(manifest)
    if len(graded) and graded["grade"].nunique() == 1:
        errors.append(
            f"All images have the grade {graded['grade'].iloc[0]}: nothing can be learnt from these labels."
        )
    return errors


def _describe(
    source: sources.Source, manifest: pd.DataFrame, image_size: int, examined: int, sizes: Counter
) -> list[str]:
    graded = manifests.graded(manifest)
    counts = [int((graded["grade"] == grade).sum()) for grade in GRADES]
    both = manifest[manifest["eye"] != ""].groupby("patient_id")["eye"].nunique()
    ungraded = len(manifest) - len(graded)
    stored = len(manifest) * image_size**2 * 3
    lines = [
        f"{source.name} in {paths.show(source.root)}",
        f"  images that can be used   {len(manifest)} of {manifest['patient_id'].nunique()} patients, "
        f"{int((both == 2).sum())} of them with both eyes",
        f"  grades 0 to 4             {', '.join(map(str, counts))}; without a grade {ungraded}",
    ]
    masks = {
        name[5:]: int((manifest[name] != "").sum()) for name in manifest if re.fullmatch(manifests.MASK, name)
    }
    if masks:
        lines.append(
            "  masks                     " + ", ".join(f"{code} {count}" for code, count in masks.items())
        )
    common = ", ".join(f"{w}x{h} {kind} ({count})" for (w, h, kind), count in sizes.most_common(3))
    more = f" and {len(sizes) - 3} more sizes" if len(sizes) > 3 else ""
    lines.append(
        f"  opened and decoded        {examined} of {len(manifest)}: {common or 'none could be'}{more}"
    )
    folder = paths.show(paths.data() / "images")
    lines.append(f"  image store at {image_size:<4}       {stored / 1e9:.2f} GB in {folder}")
    return lines + [f"  note: {note}" for note in source.notes]


def _list(problems: pd.DataFrame, listed: int) -> list[str]:
    lines = []
    kinds = problems.assign(kind=manifests.problem_kinds(problems["problem"]))
    for (kind, action), found in kinds.groupby(["kind", "action"], sort=False):
        lines.append(f"  problem: {kind}: {len(found)} ({action})")
        lines += [f"    {row.file}: {row.problem}" for row in found.head(listed).itertuples()]
        if len(found) > listed:
            lines.append(f"    and {len(found) - listed} more")
    return lines or ["  no problem found"]
