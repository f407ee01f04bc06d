"""The audit: what the data hold and what is wrong with them, before anything is trained. Duplicates are looked for in
:mod:`drstudy.data.duplicates`.

None of this replaces a reader of photographs: the flags are a screening rule with its thresholds in plain
sight.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from drstudy.core import paths, records
from drstudy.core.names import AMD_GRADES, GRADES, SPLITS
from drstudy.data import amd, sources, splits
from drstudy.data import manifest as manifests
from drstudy.data.images import ImageStore
from drstudy.data.manifest import EXCLUDED

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


def usable(manifest: pd.DataFrame, store: ImageStore) -> pd.DataFrame:
    """The rows of a manifest whose image could be decoded into the store."""
    return manifest[manifest["image_id"].isin(store.index["image_id"])].reset_index(drop=True)


def quarantine(source: sources.Source, store: ImageStore) -> pd.DataFrame:
    """All problems, those of labels and files first, then those of decoding: columns file, problem,
    action.

    Raises:
        sources.SourceError: If more was left out than the data set may lose (``MOST_LOST``).
    """
    problems = pd.concat([source.problems, store.problems], ignore_index=True)
    used = len(source.manifest) - int((store.problems["action"] == EXCLUDED).sum())
    sources.check_losses(problems, used, source.most_lost, paths.show(source.root))
    return problems


def problem_counts(problems: pd.DataFrame) -> pd.DataFrame:
    """Problems by kind and action: columns problem, action, files. Numbers and names are taken out of the
    problem's text."""
    kinds = problems.assign(problem=manifests.problem_kinds(problems["problem"]))
    return kinds.groupby(["problem", "action"], sort=False).size().reset_index(name="files")


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
        paths.write_csv(frame, run.path(f"{name}.csv"))
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
    none. Pooled data also have ``n_duplicates_across_sources``, and data with labels of AMD ``n_amd<grade>`` (where graded), ``n_amd`` and
    ``n_amd_free``."""
    counts = class_counts(manifest)["images"]
    parts = split["split"].value_counts()
    return {
        "n_images": len(manifest),
        "n_patients": manifest["patient_id"].nunique(),
        "n_graded": int(counts.sum()),
        **{f"n_grade{grade}": int(count) for grade, count in zip(GRADES, counts)},
        **{f"n_{name}": int(parts.get(name, 0)) for name in SPLITS},
        **{f"prevalence_ge{cut}": share for cut, share in prevalence(manifest).items()},
        "n_quarantined": int((problems["action"] == EXCLUDED).sum()),
        "n_noted": int((problems["action"] != EXCLUDED).sum()),
        "n_flagged": int((audit["flags"] != "").sum()),
        "n_exact_duplicates": int((pairs["kind"] == "exact").sum()),
        "n_near_duplicates": int((pairs["kind"] != "exact").sum()),
        "n_duplicates_across_patients": int((~pairs["same_patient"]).sum()),
        "n_duplicates_across_splits": int((~pairs["same_split"]).sum()),
        **_across_sources(manifest, pairs),
        **_macular(manifest),
        "fellow_eye_pairs": fellows.pairs,
        "fellow_eye_kappa": fellows.kappa,
        "fellow_eye_same_grade": fellows.same,
        "leaked_share_by_image": leak["expected"],
        "leaked_share": splits.leaked(split),
    }


def _macular(manifest: pd.DataFrame) -> dict[str, int]:
    """Numbers of images by what is known of AMD; nothing if nothing is."""
    if not amd.columns(manifest):
        return {}
    said = amd.labels(manifest)
    counts = {f"n_amd{grade}": int((said["amd_grade"] == grade).sum()) for grade in AMD_GRADES}
    whether = {"n_amd": int((said["amd"] == 1).sum()), "n_amd_free": int((said["amd"] == 0).sum())}
    return (counts if "amd_grade" in manifest else {}) | whether


def _across_sources(manifest: pd.DataFrame, pairs: pd.DataFrame) -> dict[str, int]:
    """Number of duplicate pairs whose images come from two sources; nothing if there is one source."""
    if manifest["source"].nunique() < 2:
        return {}
    source = manifest.set_index("image_id")["source"]
    a, b = (pairs[f"image_id_{side}"].map(source) for side in "ab")
    return {"n_duplicates_across_sources": int((a != b).sum())}
