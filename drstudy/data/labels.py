"""Lesions as labels of a whole photograph: present, absent, or not annotated.

A label is derived from a lesion mask by a minimum area, or read from the source or from a table. What nobody looked for is not absent:
it stays unknown, and no loss and no score counts it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pandas as pd

from drstudy.core import paths, records
from drstudy.data import images, manifest

MASKS, MANIFEST = "masks", "manifest"
"""Where labels come from, beside a CSV."""


class LabelError(ValueError):
    """Labels that cannot be read, or not for these photographs."""


def read(audit: records.Record, codes: Sequence[str], origin: str, least_area: float) -> pd.DataFrame:
    """The labels of every photograph of the split.

    Args:
        audit: Record of notebook 01.
        codes: Lesions, such as ``MA``.
        origin: ``masks``, ``manifest`` or the path of a CSV.
        least_area: Of ``masks``, as a share of the field of view.

    Returns:
        One row an image of ``split.csv``, in its order: ``image_id``, and a column a code, Int64: 1 present, 0 absent, ``<NA>`` not
        annotated; from masks also ``area_<CODE>``, the share of the field of view that the mask covers (NaN where it is not known).

    Raises:
        LabelError: If the CSV is missing, lacks a column, has another value or names none of the photographs.
    """
    names = pd.read_csv(audit.path("split.csv"), dtype=str)["image_id"]
    table = manifest.read(audit.path("manifest.csv")).set_index("image_id").loc[names]
    if origin == MASKS:
        found = from_areas(areas(audit, table, codes), codes, least_area)
    elif origin == MANIFEST:
        columns = {code: table.get(f"lesion_{code}", pd.Series(pd.NA, table.index)) for code in codes}
        found = pd.DataFrame(columns).astype("Int64")
    else:
        found = _from_csv(origin, codes, table.index)
    return found.reset_index(names="image_id")


def store_of(audit: records.Record) -> images.ImageStore:
    """The image store of an audit."""
    return images.open_store(paths.resolve(json.loads(audit.path("images.json").read_text())["store"]))


def from_areas(share: pd.DataFrame, codes: Sequence[str], least_area: float) -> pd.DataFrame:
    """The rule: present from ``least_area`` on, absent below it, unknown where the area is.

    A mask below the least area, like a stray pixel of an annotator's brush, counts as absent.

    Args:
        share: ``area_<CODE>``, NaN where not annotated.

    Returns:
        A column a code, Int64, and then those of ``share``.
    """
    labels = {}
    for code in codes:
        area = share[f"area_{code}"]
        labels[code] = (area >= least_area).astype("Int64").mask(area.isna())
    return pd.DataFrame(labels, index=share.index).join(share)


def areas(audit: records.Record, table: pd.DataFrame, codes: Sequence[str]) -> pd.DataFrame:
    """Share of the field of view that each lesion covers, measured at the size of the image store.

    Without a mask file a lesion has no area where the manifest says that it is absent, or where other photographs of the source have
    such files (a data set ships none for a lesion that an eye has not); else nothing is known of it.

    Args:
        audit: Record of notebook 01.
        table: Rows of its manifest by ``image_id``.
        codes: Lesions.

    Returns:
        ``area_<CODE>`` by ``image_id``, 0 to 1, NaN where not annotated.
    """
    store = store_of(audit)
    files = {code: table.get(f"mask_{code}", pd.Series("", table.index)) != "" for code in codes}
    elsewhere = {code: there.groupby(table["source"]).transform("any") for code, there in files.items()}
    rows = []
    for image_id, row in table.iterrows():
        masks = images.load_masks(row, store.crop(image_id), (*codes, "FOV"), store.image_size, coverage=True)
        field = masks["FOV"] >= 0.5 if "FOV" in masks else images.fov_mask(store.images[store.row(image_id)])
        found = {}
        for code in codes:
            said = row.get(f"lesion_{code}", pd.NA)
            absent = elsewhere[code][image_id] if pd.isna(said) else said == 0
            found[f"area_{code}"] = (
                masks[code][field].sum(dtype=np.float64) / field.sum()
                if code in masks
                else 0.0
                if absent
                else np.nan
            )
        rows.append(found)
    return pd.DataFrame(rows, index=table.index)


def _from_csv(path: str, codes: Sequence[str], names: pd.Index) -> pd.DataFrame:
    file = paths.resolve(path)
    if not file.is_file():
        raise LabelError(f"LABELS is {path!r}: neither '{MASKS}' nor '{MANIFEST}' nor a CSV file.")
    table = pd.read_csv(file, dtype=str, keep_default_na=False)
    missing = [name for name in ("image_id", *codes) if name not in table]
    if missing:
        raise LabelError(
            f"{paths.show(file)} lacks the columns {', '.join(missing)}; it has {', '.join(table)}."
        )
    for code in codes:
        strange = sorted(set(table[code].str.strip()) - {"0", "1", ""})
        if strange:
            raise LabelError(
                f"{paths.show(file)}, column {code}: {strange[0]!r} is no label; write 1 (present), 0 (absent) or nothing "
                "(not annotated)."
            )
    twice = table.loc[table["image_id"].duplicated(), "image_id"]
    if len(twice):
        raise LabelError(f"{paths.show(file)} names {twice.iloc[0]!r} more than once.")
    found = table.set_index("image_id")[list(codes)].reindex(names)
    if found.isna().all(axis=None):
        raise LabelError(
            f"{paths.show(file)} names none of the {len(names)} photographs, such as {names[0]!r}."
        )
    return found.apply(lambda column: pd.to_numeric(column.str.strip(), errors="coerce")).astype("Int64")


def as_array(labels: pd.DataFrame, codes: Sequence[str]) -> np.ndarray:
    """(N, L) float: 1, 0, and NaN where not annotated."""
    return labels[list(codes)].astype("Float64").to_numpy(dtype=float, na_value=np.nan)


def counts(labels: pd.DataFrame, split: pd.DataFrame, codes: Sequence[str]) -> pd.DataFrame:
    """How many photographs, and patients, have each lesion, by split.

    Args:
        labels: Of :func:`read`.
        split: ``image_id``, ``patient_id``, ``split``.

    Returns:
        A row a code and split: ``lesion, split, images, present, absent, not_annotated, patients_present, share`` (present of the
        annotated).
    """
    whole = split.merge(labels, on="image_id", validate="one_to_one")
    rows = []
    for code in codes:
        for name, part in whole.groupby("split", sort=False):
            there = part[code] == 1
            there = there.fillna(False).astype(bool)
            known = part[code].notna().sum()
            rows.append(
                {
                    "lesion": code,
                    "split": name,
                    "images": len(part),
                    "present": there.sum(),
                    "absent": known - there.sum(),
                    "not_annotated": len(part) - known,
                    "patients_present": part.loc[there, "patient_id"].nunique(),
                    "share": there.sum() / known if known else np.nan,
                }
            )
    return pd.DataFrame(rows)
