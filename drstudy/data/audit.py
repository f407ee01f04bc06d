"""What is there, and what is wrong with it, before anything is trained: quality, duplicates, fellow eyes, and
the check.

None of this replaces a reader of photographs: the flags are a screening rule with its thresholds in plain
sight.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field

import cv2
import numpy as np
import pandas as pd

from drstudy.core import paths, records
from drstudy.data import decoding, measures, sources, splits
from drstudy.data import manifest as manifests
from drstudy.data.decoding import BadImage
from drstudy.data.images import ImageStore, prepare
from drstudy.data.manifest import EXCLUDED, GRADES

DARKEST = 30.0
"""Mean luminance of the field (0 to 255) below which a photograph is flagged ``dark``."""
MOST_SHADOW = 0.35
"""Share of the field below level 25 above which it is flagged ``shadow``."""
MOST_GLARE = 0.12
"""Share of the field above level 240 above which it is flagged ``glare``."""
LEAST_SHARPNESS = 1.0
"""Fine detail of the green channel, in % of its mean, below which it is flagged ``blurred`` (blur or
haze)."""

FLAGS = {
    "dark": ("brightness", "below", DARKEST),
    "shadow": ("dark_share", "above", MOST_SHADOW),
    "glare": ("white_share", "above", MOST_GLARE),
    "blurred": ("sharpness", "below", LEAST_SHARPNESS),
}
"""Flag: (measurement, side, threshold). The thresholds were set by eye on photographs of the Kaggle set and
of ODIR, so that what lies beyond them could hardly be graded; they are not fitted to any label."""

DETAIL_SIDE = 64
DETAIL_SIGMA = 4.0
NEAR_CORRELATION = 0.93
"""Two crops are near duplicates if their fine detail correlates at least this much. Among real photographs of
different eyes 0.91 was the most that was seen (two with the same glare); copies made lighter, smaller or more
compressed had 0.88 to 1."""
HASH_BLOCK = 512

DUPLICATE_COLUMNS = ("image_id_a", "image_id_b", "distance", "correlation", "kind")


# --- one table an audit ---------------------------------------------------------------------------


def usable(manifest: pd.DataFrame, store: ImageStore) -> pd.DataFrame:
    """The rows of a manifest whose image could be decoded into the store."""
    return manifest[manifest["image_id"].isin(store.index["image_id"])].reset_index(drop=True)


def quarantine(source: sources.Source, store: ImageStore) -> pd.DataFrame:
    """All problems, those of labels and files first, then those of decoding: columns file, problem,
    action."""
    return pd.concat([source.problems, store.problems], ignore_index=True)


def problem_counts(problems: pd.DataFrame) -> pd.DataFrame:
    """Problems by kind and action: columns problem, action, files. Numbers and names are taken out of the
    problem's text."""
    kinds = problems.assign(problem=_kind(problems["problem"]))
    return kinds.groupby(["problem", "action"], sort=False).size().reset_index(name="files")


def _kind(problem: pd.Series) -> pd.Series:
    """Problems that differ only in a number, a quoted name or a remark in brackets become one."""
    plain = problem.str.replace(r"\s*\(.*\)", "", regex=True)
    return plain.str.replace(r"(: )?('[^']*'|(?<![-\w])-?\d[\d.x]*)", "…", regex=True)


def table(store: ImageStore) -> pd.DataFrame:
    """The store's measurements with the column ``flags``: names joined by ``;``, empty where there are
    none."""
    flags = pd.DataFrame({name: _flagged(store.measures, *rule) for name, rule in FLAGS.items()})
    joined = [";".join(flags.columns[row]) for row in flags.to_numpy()]
    return store.measures.assign(flags=joined)


def _flagged(measured: pd.DataFrame, column: str, side: str, threshold: float) -> pd.Series:
    return measured[column] < threshold if side == "below" else measured[column] > threshold


def flag_counts(audit: pd.DataFrame) -> pd.DataFrame:
    """Images by flag, with the rule in words: columns flag, rule, images, share."""
    named = audit["flags"].str.split(";")
    rows = [
        {
            "flag": name,
            "rule": f"{column} {side} {threshold:g}",
            "images": sum(name in flags for flags in named),
        }
        for name, (column, side, threshold) in FLAGS.items()
    ]
    rows.append({"flag": "any", "rule": "at least one of these", "images": int((audit["flags"] != "").sum())})
    return pd.DataFrame(rows).assign(share=lambda counts: counts["images"] / max(1, len(audit)))


def class_counts(manifest: pd.DataFrame) -> pd.DataFrame:
    """Images by grade.

    Returns:
        Columns grade, images, share (of the graded images), share_from_here (of those with this grade or a
        higher one), patients (with at least one such eye); shares are NaN without graded images.
    """
    graded = manifests.graded(manifest)
    at_or_above = {0: 1.0 if len(graded) else float("nan"), **prevalence(manifest)}
    rows = []
    for grade in GRADES:
        part = graded[graded["grade"] == grade]
        rows.append(
            {
                "grade": grade,
                "images": len(part),
                "share": len(part) / len(graded) if len(graded) else float("nan"),
                "share_from_here": at_or_above[grade],
                "patients": part["patient_id"].nunique(),
            }
        )
    return pd.DataFrame(rows)


def prevalence(manifest: pd.DataFrame) -> dict[int, float]:
    """Share of the graded images at or above each grade 1 to 4; NaN without graded images."""
    grades = manifests.graded(manifest)["grade"]
    return {cut: float((grades >= cut).mean()) if len(grades) else float("nan") for cut in GRADES[1:]}


# --- fellow eyes ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class FellowEyes:
    """How the grades of the two eyes of a patient agree.

    Attributes:
        table: (5, 5) counts, rows the left eye's grade, columns the right's.
        pairs: Number of patients with one graded image of each eye.
        kappa: Quadratic weighted kappa of left against right; ``None`` where there are too few pairs or one
            grade only.
        same, within_one: Shares of pairs with equal grades, and with grades at most one apart; ``None``
            without pairs.
    """

    table: pd.DataFrame
    pairs: int
    kappa: float | None
    same: float | None
    within_one: float | None


def fellow_eyes(manifest: pd.DataFrame) -> FellowEyes:
    """Compare left with right over the patients that have one graded image of each."""
    graded = manifests.graded(manifest)
    sides = graded[graded["eye"] != ""].copy()
    sides = sides[~sides.duplicated(["patient_id", "eye"], keep=False)]
    both = sides.assign(grade=sides["grade"].astype(int)).pivot(
        index="patient_id", columns="eye", values="grade"
    )
    both = both.reindex(columns=["left", "right"]).dropna().astype(int)
    counts = pd.crosstab(both["left"], both["right"]).reindex(
        index=list(GRADES), columns=list(GRADES), fill_value=0
    )
    if both.empty:
        return FellowEyes(counts, 0, None, None, None)
    apart = (both["left"] - both["right"]).abs()
    kappa = None
    if len(both) > 1 and both.stack().nunique() > 1:
        from sklearn.metrics import cohen_kappa_score

        kappa = float(
            cohen_kappa_score(both["left"], both["right"], weights="quadratic", labels=list(GRADES))
        )
    return FellowEyes(counts, len(both), kappa, float((apart == 0).mean()), float((apart <= 1).mean()))


# --- duplicates -----------------------------------------------------------------------------------


def duplicates(store: ImageStore, bits: int) -> pd.DataFrame:
    """Exact and near duplicates, whoever's they are.

    Exact: the same stored pixels (so also the same file). Near: perceptual hashes (64-bit DCT) at most
    ``bits`` apart, *and* fine detail that correlates at :data:`NEAR_CORRELATION` or more; the hash alone
    collides often, as all fundus photographs look alike. Hashes are compared all with all, in blocks of
    packed bits (35,000 images: 6e8 comparisons). A copy that is turned, mirrored or cut differently is not
    found.

    Args:
        store: The image store.
        bits: Greatest Hamming distance, 0 to 64.

    Returns:
        ``image_id_a, image_id_b, distance, correlation, kind`` (``exact`` or ``near``), one row a pair. Of
        equal images each is paired with the first, which alone is compared with the others.
    """
    ids = store.index["image_id"].to_numpy()
    exact = _equal_pairs(store.measures)
    copies = {copy for _, copy in exact}
    first = np.array([place for place in range(len(ids)) if place not in copies], dtype=int)
    hashes = np.array([int(value, 16) for value in store.measures["phash"]], dtype=np.uint64)
    rows = [(a, b, int(np.bitwise_count(hashes[a] ^ hashes[b])), 1.0, "exact") for a, b in exact]
    details: dict[int, np.ndarray] = {}
    for one, other, distance in _close_pairs(hashes[first], bits):
        a, b = int(first[one]), int(first[other])
        for place in (a, b):
            if place not in details:
                details[place] = detail(np.asarray(store.images[place]))
        correlation = float(np.dot(details[a].astype(np.float32), details[b].astype(np.float32)))
        if correlation >= NEAR_CORRELATION:
            rows.append((a, b, distance, round(correlation, 4), "near"))
    rows.sort(key=lambda row: (row[4], row[0], row[1]))
    return pd.DataFrame([(ids[a], ids[b], *rest) for a, b, *rest in rows], columns=list(DUPLICATE_COLUMNS))


def _equal_pairs(measured: pd.DataFrame) -> list[tuple[int, int]]:
    groups = measured.groupby("crop_sha256", sort=False).indices.values()
    return sorted((int(places[0]), int(other)) for places in groups for other in places[1:])


def _close_pairs(hashes: np.ndarray, bits: int):
    """Pairs (a < b, distance) of hashes at most ``bits`` apart."""
    for start in range(0, len(hashes), HASH_BLOCK):
        block = hashes[start : start + HASH_BLOCK]
        distances = np.bitwise_count(block[:, None] ^ hashes[None, start:])
        for a, b in np.argwhere(distances <= bits):
            if b > a:
                yield int(start + a), int(start + b), int(distances[a, b])


def detail(crop: np.ndarray) -> np.ndarray:
    """Fine detail of a stored crop, for correlation: grey, 64 x 64, without its smooth part, inside the
    field.

    Args:
        crop: (S, S, 3) uint8 RGB.

    Returns:
        (4096,) float16 of unit length (all zero where there is no detail): a dot product is a correlation.
    """
    size = (DETAIL_SIDE, DETAIL_SIDE)
    grey = cv2.resize(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), size, interpolation=cv2.INTER_AREA).astype(
        np.float32
    )
    field_share = cv2.resize(measures.fov_mask(crop).astype(np.float32), size, interpolation=cv2.INTER_AREA)
    framed = cv2.copyMakeBorder(
        (field_share > 0.99).astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0
    )
    inner = cv2.erode(framed, np.ones((5, 5), np.uint8))[1:-1, 1:-1] > 0
    fine = grey - cv2.GaussianBlur(grey, (0, 0), DETAIL_SIGMA)
    fine = np.where(inner, fine - fine[inner].mean() if inner.any() else 0.0, 0.0).ravel()
    return (fine / max(1e-6, float(np.linalg.norm(fine)))).astype(np.float16)


def annotate(pairs: pd.DataFrame, manifest: pd.DataFrame, split: pd.DataFrame) -> pd.DataFrame:
    """Say of each duplicate pair whether patient, split and grade are the same; an unknown grade equals
    none."""
    by_id = manifest.set_index("image_id")
    side = split.set_index("image_id")["split"]
    a, b = pairs["image_id_a"], pairs["image_id_b"]
    grades = a.map(by_id["grade"]).astype("Int64"), b.map(by_id["grade"]).astype("Int64")
    return pairs.assign(
        same_patient=(a.map(by_id["patient_id"]) == b.map(by_id["patient_id"])).astype(bool),
        same_split=(a.map(side) == b.map(side)).astype(bool),
        same_grade=(grades[0] == grades[1]).fillna(False).astype(bool),
    )


def save(
    run: records.Run,
    manifest: pd.DataFrame,
    problems: pd.DataFrame,
    audit: pd.DataFrame,
    pairs: pd.DataFrame,
    split: pd.DataFrame,
    store: ImageStore,
) -> None:
    """Write what later notebooks read: ``manifest.csv``, ``quarantine.csv``, ``audit.csv``,
    ``duplicates.csv``, ``split.csv``, and ``images.json``, which says where the image store is and what it
    holds."""
    frames = {
        "manifest": manifest,
        "quarantine": problems,
        "audit": audit,
        "duplicates": pairs,
        "split": split,
    }
    for name, frame in frames.items():
        with paths.atomic(run.path(f"{name}.csv")) as temporary:
            frame.to_csv(temporary, index=False, lineterminator="\n")
    pixels = store.info["sha256"]
    where = {"store": paths.show(store.folder), "image_size": store.image_size, "sha256": pixels}
    records.write_json(where, run.path("images.json"))


def metrics(
    manifest: pd.DataFrame,
    problems: pd.DataFrame,
    audit: pd.DataFrame,
    pairs: pd.DataFrame,
    split: pd.DataFrame,
    fellows: FellowEyes,
    leak: dict[str, float],
) -> dict[str, float | int | None]:
    """The numbers of the audit under the names that the record has; NaN or ``None`` where the data have
    none."""
    counts = class_counts(manifest)["images"]
    parts = split["split"].value_counts()
    return {
        "n_images": len(manifest),
        "n_patients": manifest["patient_id"].nunique(),
        "n_graded": int(counts.sum()),
        **{f"n_grade{grade}": int(count) for grade, count in zip(GRADES, counts)},
        **{f"n_{name}": int(parts.get(name, 0)) for name in splits.SPLITS},
        **{f"prevalence_ge{cut}": share for cut, share in prevalence(manifest).items()},
        "n_quarantined": int((problems["action"] == EXCLUDED).sum()),
        "n_noted": int((problems["action"] != EXCLUDED).sum()),
        "n_flagged": int((audit["flags"] != "").sum()),
        "n_exact_duplicates": int((pairs["kind"] == "exact").sum()),
        "n_near_duplicates": int((pairs["kind"] == "near").sum()),
        "n_duplicates_across_patients": int((~pairs["same_patient"]).sum()),
        "n_duplicates_across_splits": int((~pairs["same_split"]).sum()),
        "fellow_eye_pairs": fellows.pairs,
        "fellow_eye_kappa": fellows.kappa,
        "fellow_eye_same_grade": fellows.same,
        "leaked_share_by_image": leak["expected"],
        "leaked_share": splits.leaked(split),
    }


# --- the check ------------------------------------------------------------------------------------


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
) -> Report:
    """Look at a data set before anything is computed: layout, labels, files, and a sample of the pictures.

    Args:
        source: phantom, eyepacs, aptos, idrid or folder.
        root: Its folder.
        decode: Images that are decoded in full, spread evenly over the manifest; 0 decodes all. Of the others
            only presence and size on disk are looked at.
        max_megapixels: Larger pictures would be left out.
        image_size: Of the store whose size is told.
        listed: Examples of a problem that the text names.
    """
    try:
        read = sources.load(source, root)
    except (sources.SourceError, manifests.ManifestError) as error:
        return Report(
            None, manifests.problems(), 0, (str(error),), (f"{source} in {root}", f"ERROR: {error}")
        )
    manifest = read.manifest
    places = np.arange(len(manifest))
    if decode and decode < len(manifest):
        places = np.unique(np.linspace(0, len(manifest) - 1, decode).round().astype(int))
    found, sizes, unreadable = _examine(manifest.iloc[places], max_megapixels)
    empty = [path for path in manifest["path"].drop(places) if not paths.resolve(path).stat().st_size]
    found_empty = manifests.problems((path, "empty file", EXCLUDED) for path in empty)
    problems = pd.concat([read.problems, found, found_empty], ignore_index=True)
    errors = _errors(manifest, len(places), unreadable)
    lines = _describe(read, manifest, image_size, len(places), sizes)
    lines += _list(problems, listed)
    lines += [f"ERROR: {error}" for error in errors] or ["Usable."]
    return Report(read, problems, len(places), tuple(errors), tuple(lines))


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
    masks = {name[5:]: int((manifest[name] != "").sum()) for name in manifest if name.startswith("mask_")}
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
    kinds = problems.assign(kind=_kind(problems["problem"]))
    for (kind, action), found in kinds.groupby(["kind", "action"], sort=False):
        lines.append(f"  problem: {kind}: {len(found)} ({action})")
        lines += [f"    {row.file}: {row.problem}" for row in found.head(listed).itertuples()]
        if len(found) > listed:
            lines.append(f"    and {len(found) - listed} more")
    return lines or ["  no problem found"]
