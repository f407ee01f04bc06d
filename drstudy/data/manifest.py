"""The manifest: one row per image, the same columns for every source, checked on entry."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

import pandas as pd
import pandera.pandas as pa

from drstudy.core.names import AMD_COLUMNS, AMD_GRADES, GRADES

COLUMNS = ("image_id", "path", "patient_id", "eye", "grade", "source")
WHOLE = ("grade", "true_grade", "gradable", "mask_values", *AMD_COLUMNS)
"""Columns of whole numbers. Those of AMD are there only where a source says something of it: ``amd_grade`` (0 to 3, see
:data:`drstudy.core.names.AMD_NAMES`) where it is graded, ``amd`` (0 or 1) where there is AMD at all or none; missing is not annotated.
A yes or no is never written as a grade. Only a phantom has the second and the third: the grade before label noise, and whether it can
be graded. ``mask_values`` is the value (1 to 255) from which on a pixel of the row's mask files belongs to the mask; only a
source whose files have several values has it. Where it is missing, the file itself says what it covers
(:func:`drstudy.data.masks.judge`)."""
MASK = "mask_[A-Z]+"
"""Columns with the path of a mask, ``mask_<CODE>``."""
PROBLEM_COLUMNS = ("file", "problem", "action")
EXCLUDED = "excluded"
"""The action of a problem that costs an image; others begin with ``used``, or are ``ignored``."""
IGNORED = "ignored"


class ManifestError(ValueError):
    """A table that is not a manifest, with each column or row that is wrong."""


SCHEMA = pa.DataFrameSchema(
    {
        "image_id": pa.Column(str, [pa.Check.str_length(min_value=1)], unique=True),
        "path": pa.Column(str, [pa.Check.str_length(min_value=1)]),
        "patient_id": pa.Column(str, [pa.Check.str_length(min_value=1)]),
        "eye": pa.Column(str, [pa.Check.isin(["left", "right", ""])]),
        "grade": pa.Column("Int64", [pa.Check.isin(GRADES)], nullable=True),
        "source": pa.Column(str, [pa.Check.str_length(min_value=1)]),
        rf"^{MASK}$": pa.Column(str, regex=True, required=False),
        "true_grade": pa.Column("Int64", [pa.Check.isin(GRADES)], required=False),
        "gradable": pa.Column("Int64", [pa.Check.isin([0, 1])], required=False),
        "amd_grade": pa.Column("Int64", [pa.Check.isin(AMD_GRADES)], required=False, nullable=True),
        "amd": pa.Column("Int64", [pa.Check.isin([0, 1])], required=False, nullable=True),
        "mask_values": pa.Column("Int64", [pa.Check.in_range(1, 255)], required=False, nullable=True),
        r"^lesion_[A-Z]+$": pa.Column(
            "Int64", [pa.Check.isin([0, 1])], regex=True, required=False, nullable=True
        ),
    },
    index=pa.Index(int),
)


def build(rows: Iterable[dict] | pd.DataFrame) -> pd.DataFrame:
    """Order, type and check the rows of a manifest.

    Args:
        rows: With at least ``image_id`` and ``path``; a missing ``patient_id`` is the image id, a missing
            ``eye`` is ``""``, a missing ``grade`` is ``<NA>``.

    Returns:
        Sorted by ``image_id``, index 0..N-1; columns :data:`COLUMNS`, then ``mask_*`` (path or ``""``),
        ``lesion_*`` (Int64, 0 or 1), then any other column of the source.

    Raises:
        ManifestError: As :func:`validate`.
    """
    frame = pd.DataFrame(rows).reset_index(drop=True)
    for name in ("image_id", "path"):
        if name not in frame:
            frame[name] = pd.Series(dtype=str)
    for name, default in (("patient_id", ""), ("eye", ""), ("grade", pd.NA), ("source", "")):
        if name not in frame:
            frame[name] = default
    masks = sorted(name for name in frame if re.fullmatch(MASK, name))
    text = [name for name in frame if (name in COLUMNS and name != "grade") or name in masks]
    frame[text] = frame[text].fillna("").astype(str)
    frame["patient_id"] = frame["patient_id"].where(frame["patient_id"] != "", frame["image_id"])
    whole = [name for name in frame if name in WHOLE or name.startswith("lesion_")]
    for name in whole:
        numbers = pd.to_numeric(frame[name].replace("", pd.NA), errors="coerce")
        odd = frame.loc[numbers.isna() & frame[name].notna() & (frame[name] != ""), name]
        odd = pd.concat([odd, frame.loc[numbers.notna() & (numbers % 1 != 0), name]])
        if len(odd):
            raise ManifestError(
                f"The manifest is not valid: column {name} has {len(odd)} value(s) that are no whole numbers, such as {odd.iloc[0]!r}."
            )
        frame[name] = numbers.astype("Int64")
    lesions = sorted(name for name in frame if name.startswith("lesion_"))
    others = [name for name in frame if name not in (*COLUMNS, *masks, *lesions)]
    frame = frame[[*COLUMNS, *masks, *lesions, *others]]
    return validate(frame.sort_values("image_id", kind="stable", ignore_index=True))


def validate(frame: pd.DataFrame) -> pd.DataFrame:
    """Check a manifest and return it.

    Raises:
        ManifestError: Naming each column that is missing or has a wrong value, and the first such values; or images whose grade
            of AMD and whose AMD contradict each other.
    """
    try:
        checked = SCHEMA.validate(frame, lazy=True)
    except pa.errors.SchemaErrors as error:
        cases = error.failure_cases
        lines = []
        for (column, check), found in cases.groupby(["column", "check"], dropna=False, sort=False):
            examples = ", ".join(repr(value) for value in found["failure_case"].head(3))
            lines.append(f"  - {column}: {check}; {len(found)} case(s), such as {examples}")
        raise ManifestError("The manifest is not valid:\n" + "\n".join(lines)) from None
    if {*AMD_COLUMNS} <= {*checked}:
        odd = checked[((checked["amd_grade"] > 0) != (checked["amd"] == 1)).fillna(False).astype(bool)]
        if len(odd):
            raise ManifestError(
                f"The manifest is not valid: {len(odd)} image(s) have a grade of AMD that contradicts amd, such as "
                f"{odd['image_id'].iloc[0]!r} with amd_grade {odd['amd_grade'].iloc[0]} and amd {odd['amd'].iloc[0]}."
            )
    return checked


def read(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read ``manifest.csv`` back with its types.

    Raises:
        ManifestError: As :func:`validate`.
    """
    return build(pd.read_csv(path, dtype=str, keep_default_na=False))


def problems(rows: Iterable[tuple[str, str, str]] = ()) -> pd.DataFrame:
    """A quarantine table (file, problem, action) in the order given."""
    return pd.DataFrame(list(rows), columns=list(PROBLEM_COLUMNS), dtype=str)


def problem_kinds(problem: pd.Series) -> pd.Series:
    """The kind of each problem: problems that differ only in a number, a quoted name or a remark in brackets are one kind."""
    plain = problem.str.replace(r"\s*\(.*\)", "", regex=True)
    return plain.str.replace(r"(: )?('[^']*'|(?<![-\w])-?\d[\d.x]*)", "…", regex=True)


def graded(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows that have a grade."""
    return frame[frame["grade"].notna()]
