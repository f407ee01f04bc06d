"""Lesions as labels of a whole photograph: present, absent, or not annotated.

A label is derived from a lesion mask by a minimum area, or read from the source or from a table. A lesion that was not
annotated is not absent: its label stays unknown, and no loss and no score counts it.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from drstudy.core import paths, records
from drstudy.core.names import FIELD
from drstudy.data import images, manifest

MASKS, MANIFEST = "masks", "manifest"
"""Where labels come from, beside a CSV."""

MEASURED, ABSENT, NOT_ANNOTATED = "measured", "absent", "not annotated"
"""What is known of a structure in a photograph; see :func:`status`."""


class LabelError(ValueError):
    """Labels that cannot be read, or not for these photographs."""


class LabelWarning(UserWarning):
    """Rows of a table of labels that name no photograph."""


def read(audit: records.Record, codes: Sequence[str], origin: str, least_area: float) -> pd.DataFrame:
    """The labels of every photograph of the split.

    Args:
        audit: Record of notebook 01.
        codes: Lesions, such as ``MA``.
        origin: ``masks``, ``manifest`` or the path of a CSV.
        least_area: Area from which a mask counts as present, as a share of the field of view; used with ``masks``.

    Returns:
        One row per image of ``split.csv``, in its order: ``image_id``, and one column per code, Int64: 1 present, 0 absent,
        ``<NA>`` not annotated. From masks also ``area_<CODE>``, the share of the field of view that the mask covers (NaN
        where it is not known).

    Raises:
        LabelError: If the CSV is missing, lacks a column, has another value or names none of the photographs.
    """
    names = pd.read_csv(audit.path("split.csv"), dtype=str, keep_default_na=False)["image_id"]
    table = manifest.read(audit.path("manifest.csv")).set_index("image_id").loc[names]
    if origin == MASKS:
        found = from_areas(areas(audit, names, codes), codes, least_area)
    elif origin == MANIFEST:
        columns = {code: table.get(f"lesion_{code}", pd.Series(pd.NA, table.index)) for code in codes}
        found = pd.DataFrame(columns).astype("Int64")
    else:
        found = _from_csv(origin, codes, table.index)
    return found.reset_index(names="image_id")


def store_of(audit: records.Record) -> images.ImageStore:
    """The image store of an audit."""
    return images.open_store(
        paths.resolve(json.loads(audit.path("images.json").read_text(encoding="utf-8"))["store"])
    )


def from_areas(share: pd.DataFrame, codes: Sequence[str], least_area: float) -> pd.DataFrame:
    """Labels from areas: present from ``least_area`` on, absent below it, unknown where the area is unknown.

    A mask below the least area, like a stray pixel of an annotator's brush, counts as absent.

    Args:
        share: ``area_<CODE>``, NaN where not annotated.

    Returns:
        One column per code, Int64, and then those of ``share``.
    """
    labels = {}
    for code in codes:
        area = share[f"area_{code}"]
        labels[code] = (area >= least_area).astype("Int64").mask(area.isna())
    return pd.DataFrame(labels, index=share.index).join(share)


def areas(audit: records.Record, image_ids: Sequence[str], codes: Sequence[str]) -> pd.DataFrame:
    """Share of the field of view that each lesion covers, measured at the size of the image store.

    Args:
        audit: Record of notebook 01.
        image_ids: N photographs of its manifest.
        codes: Lesions.

    Returns:
        ``area_<CODE>`` by ``image_id``, 0 to 1: 0 where the lesion is absent, NaN where it was not annotated. See
        :func:`status` for the rule.
    """
    read_masks, rows = mask_reader(audit, codes), []
    for image_id in image_ids:
        eye = read_masks(image_id)
        rows.append({f"area_{code}": _share(eye.masks[code], eye.field) for code in codes})
    return pd.DataFrame(rows, index=pd.Index(image_ids, name="image_id"))


def _share(mask: np.ndarray | None, field: np.ndarray) -> float:
    return np.nan if mask is None else mask[field].sum(dtype=np.float64) / field.sum()


def status(whole: pd.DataFrame, codes: Sequence[str]) -> pd.DataFrame:
    """What is known of each structure in each photograph. This is the one rule for masks that are not there.

    - ``measured``: there is a mask file.
    - ``absent``: there is no file, and the manifest says that the structure is absent (``lesion_<CODE>`` is 0). If the
      manifest says nothing of it in any photograph of the source, the structure is absent where other photographs of the same
      source have such files, because a data set ships no file for a lesion that an eye does not have.
    - ``not annotated``: all others. Nothing is known, so no loss and no score may count the structure as absent.

    Args:
        whole: The whole manifest, so that the other photographs of a source are known.
        codes: Codes of lesions or of the anatomy.

    Returns:
        One row per photograph in the manifest's order, with ``image_id`` as the index; one column per code.
    """
    table = whole.set_index("image_id")
    found = {}
    for code in codes:
        there = table.get(f"mask_{code}", pd.Series("", table.index)) != ""
        elsewhere = there.groupby(table["source"]).transform("any").astype(bool)
        said = table.get(f"lesion_{code}", pd.Series(pd.NA, table.index)).astype("Int64")
        stated = said.notna().groupby(table["source"]).transform("any").astype(bool)
        absent = elsewhere.where(~stated, (said == 0).fillna(False).astype(bool))
        found[code] = np.select([there, absent], [MEASURED, ABSENT], NOT_ANNOTATED)
    return pd.DataFrame(found, index=table.index, columns=list(codes))


@dataclass(frozen=True)
class EyeMasks:
    """The masks of one photograph, in the geometry of the image store.

    Attributes:
        masks: Code to (S, S) float32, the share of each pixel that is covered, 0 to 1; all 0 where the structure is absent,
            ``None`` where it was not annotated. Codes that have a file come first.
        status: Code to :data:`MEASURED`, :data:`ABSENT` or :data:`NOT_ANNOTATED`.
        field: (S, S) bool, the field of view: from its file, or found in the photograph where there is none.
    """

    masks: dict[str, np.ndarray | None]
    status: dict[str, str]
    field: np.ndarray


def mask_reader(audit: records.Record, codes: Sequence[str]) -> Callable[[str], EyeMasks]:
    """A reader of the masks of one photograph at a time, by the rule of :func:`status`.

    A mask file is read as the share of each pixel that it covers, so that a microaneurysm smaller than a pixel keeps its
    area.

    Args:
        audit: Record of notebook 01.
        codes: Codes of lesions or of the anatomy.

    Returns:
        A function from image_id to :class:`EyeMasks`. It raises ``KeyError`` if the photograph is not in the audit, and
        :class:`drstudy.data.decoding.BadImage` if a mask cannot be read.
    """
    table, store = manifest.read(audit.path("manifest.csv")), store_of(audit)
    known, rows = status(table, codes), table.set_index("image_id")

    def read_masks(image_id: str) -> EyeMasks:
        size, said = store.image_size, known.loc[image_id].to_dict()
        crop = store.crop(image_id)
        masks = images.load_masks(rows.loc[image_id], crop, (*codes, FIELD), size, coverage=True)
        field = masks.pop(FIELD, None)
        field = images.fov_mask(store.images[store.row(image_id)]) if field is None else field >= 0.5
        for code in codes:
            if code not in masks:
                masks[code] = np.zeros((size, size), np.float32) if said[code] == ABSENT else None
        return EyeMasks(masks, said, field)

    return read_masks


def _from_csv(path: str, codes: Sequence[str], names: pd.Index) -> pd.DataFrame:
    file = paths.resolve(path)
    if not file.is_file():
        raise LabelError(f"LABELS is {path!r}: neither '{MASKS}' nor '{MANIFEST}' nor a CSV file.")
    try:
        table = pd.read_csv(file, dtype=str, keep_default_na=False)
    except (ValueError, OSError) as error:  # no text, no columns, lines of different lengths
        raise LabelError(
            f"{paths.show(file)} cannot be read as a table of UTF-8 text ({str(error).strip()})."
        ) from None
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
    table["image_id"] = [_without_suffix(name, names) for name in table["image_id"]]
    twice = table.loc[table["image_id"].duplicated(), "image_id"]
    if len(twice):
        raise LabelError(f"{paths.show(file)} names {twice.iloc[0]!r} more than once.")
    found = table.set_index("image_id")[list(codes)].reindex(names)
    if found.isna().all(axis=None):
        raise LabelError(
            f"{paths.show(file)} names none of the {len(names)} photographs, such as {names[0]!r}."
        )
    strangers = table.loc[~table["image_id"].isin(names), "image_id"]
    if len(strangers):
        warnings.warn(
            f"{len(strangers)} of {len(table)} rows of {paths.show(file)} name no photograph of this split, such as {strangers.iloc[0]!r}.",
            LabelWarning,
            stacklevel=2,
        )
    return found.apply(lambda column: pd.to_numeric(column.str.strip(), errors="coerce")).astype("Int64")


def _without_suffix(name: str, names: pd.Index) -> str:
    """The id that a table's name means: as it stands, or without the suffix of an image."""
    stem, _, suffix = name.strip().rpartition(".")
    return stem if name not in names and suffix and stem in names else name


def as_array(labels: pd.DataFrame, codes: Sequence[str]) -> np.ndarray:
    """(N, L) float: 1, 0, and NaN where not annotated."""
    return labels[list(codes)].astype("Float64").to_numpy(dtype=float, na_value=np.nan)


def counts(labels: pd.DataFrame, split: pd.DataFrame, codes: Sequence[str]) -> pd.DataFrame:
    """How many photographs, and patients, have each lesion, by split.

    Args:
        labels: Result of :func:`read`.
        split: ``image_id``, ``patient_id``, ``split``.

    Returns:
        One row per code and split: ``lesion, split, images, present, absent, not_annotated, patients_present, share``
        (the share of the annotated images in which it is present).
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
