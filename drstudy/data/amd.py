"""Age-related macular degeneration (AMD) as labels: a grade, a yes or no, or not annotated.

Some sources grade AMD, some only say whether there is any, and most say nothing. These are two columns, ``amd_grade`` and ``amd``, so that
a yes or no never stands for a grade. A manifest without the columns says nothing of AMD.
"""

from __future__ import annotations

import pandas as pd

from drstudy.core import records
from drstudy.core.names import AMD_COLUMNS, AMD_GRADES, AMD_NAMES
from drstudy.data import manifest as manifests

DISEASES = ("neither", "DR only", "AMD only", "DR + AMD")
"""What an eye has, of which both diseases are known."""

UNKNOWN = "unknown"
"""What an eye has, of which one disease or both are not known."""


def columns(frame: pd.DataFrame) -> list[str]:
    """Those of ``amd_grade`` and ``amd`` that a manifest or a split has."""
    return [name for name in AMD_COLUMNS if name in frame]


def labels(manifest: pd.DataFrame) -> pd.DataFrame:
    """The labels of AMD in a manifest.

    Returns:
        One row per image, in its order and with its index: ``image_id``, ``amd_grade`` (Int64, 0 to 3) and ``amd`` (Int64, 0 or 1), ``<NA>``
        where not annotated. Where there is a grade, ``amd`` follows from it: 1 from grade 1 on.
    """
    nothing = pd.Series(pd.NA, manifest.index, dtype="Int64")
    grade, whether = (manifest.get(name, nothing) for name in AMD_COLUMNS)
    whether = whether.fillna((grade >= 1).astype("Int64"))
    return pd.DataFrame({"image_id": manifest["image_id"], "amd_grade": grade, "amd": whether})


def known(frame: pd.DataFrame) -> pd.Series:
    """(N,) bool: whether anything is known of AMD in each image of a manifest or a split."""
    found = pd.Series(False, frame.index)
    for name in columns(frame):
        found |= frame[name].notna()
    return found


def targets(audit: records.Record) -> pd.DataFrame:
    """Labels of AMD for :meth:`drstudy.data.dataset.Dataset.with_targets`.

    Args:
        audit: Record of notebook 01.

    Returns:
        ``image_id``, and ``amd_grade`` and ``amd`` as floats, NaN where not annotated; one row per image of the manifest.
    """
    found = labels(manifests.read(audit.path("manifest.csv")))
    return found.astype({name: "Float64" for name in AMD_COLUMNS}).astype(
        {name: float for name in AMD_COLUMNS}
    )


def disease(manifest: pd.DataFrame) -> pd.Series:
    """Which of the two diseases each image shows: one of :data:`DISEASES`, or :data:`UNKNOWN` where not both are known."""
    retinopathy, macular = manifest["grade"], labels(manifest)["amd"]
    both = retinopathy.notna() & macular.notna()
    number = (retinopathy > 0).astype("Int64") + 2 * (macular > 0).astype("Int64")
    return number.where(both).map(dict(enumerate(DISEASES))).astype(object).fillna(UNKNOWN)


def groups(frame: pd.DataFrame) -> dict[str, pd.Series]:
    """Kinds of eyes that are worth a look, each with its (N,) bool of the images of a manifest or a split.

    Each grade of AMD among eyes of which no DR is known, or AMD at all where it is not graded; then eyes with both diseases.
    Kinds that do not occur are left out.
    """
    said, retinopathy = labels(frame), frame["grade"]
    alone, ungraded = retinopathy.fillna(0) == 0, said["amd_grade"].isna()
    found = {name: alone & (said["amd_grade"] == grade) for grade, name in zip(AMD_GRADES, AMD_NAMES)}
    found["no AMD, not graded"] = alone & ungraded & (said["amd"] == 0)
    found["AMD, not graded"] = alone & ungraded & (said["amd"] == 1)
    found["DR + AMD"] = (retinopathy > 0) & (said["amd"] == 1)
    plain = {name: chosen.fillna(False).astype(bool) for name, chosen in found.items()}
    return {name: chosen for name, chosen in plain.items() if chosen.any()}


def counts(manifest: pd.DataFrame) -> pd.DataFrame:
    """Images by what they have of each disease.

    Returns:
        One row for each grade of AMD that occurs, then for AMD without a grade, and for AMD that is not annotated: ``amd``, ``no_dr``, ``dr``,
        ``dr_unknown``, ``images``, ``patients``.
    """
    said, grade = labels(manifest), manifest["grade"]
    ungraded = said["amd_grade"].isna()
    groups = {f"grade {one}": (said["amd_grade"] == one) for one in AMD_GRADES}
    groups |= {
        "no, not graded": ungraded & (said["amd"] == 0),
        "yes, not graded": ungraded & (said["amd"] == 1),
    }
    groups["not annotated"] = said["amd"].isna()
    rows = []
    for name, group in groups.items():
        chosen = group.fillna(False).astype(bool)
        part = grade[chosen]
        row = {"amd": name, "no_dr": int((part == 0).sum()), "dr": int((part > 0).sum())}
        row |= {"dr_unknown": int(part.isna().sum()), "images": len(part)}
        rows.append(row | {"patients": manifest.loc[chosen, "patient_id"].nunique()})
    table = pd.DataFrame(rows)
    return table[table["images"] > 0].reset_index(drop=True)
