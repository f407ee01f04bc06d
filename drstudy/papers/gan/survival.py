"""Which lesions survive a generator's size: what cannot be seen at 64 pixels cannot be generated at 64 pixels.

Each lesion of each real eye is scaled down, with its photograph, by area averaging. Two questions are asked at each size. Is the lesion at
least one pixel wide? Does it stand out from its surroundings by the Rose criterion (Rose 1948; ``docs/sources.md``, G1)? Visible is less than recognisable: the criterion
says that something is there, not that its shape can be told. A grade whose
defining lesions pass in fewer than half of its eyes is reported as not generable at that size. The three thresholds are constants of this module and were
fixed before the first run. They are choices of this study.

Lesions are the connected parts of a mask, so lesions that touch count as one. Photographs without masks cannot be measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from drstudy.core.names import GRADE_NAMES, LESIONS, NAMES
from drstudy.core.records import Record
from drstudy.data import labels, manifest
from drstudy.data.dataset import Dataset
from drstudy.evaluation import statistics
from drstudy.explain.measures import scores
from drstudy.explain.methods import cam
from drstudy.show import intervals

SIZES = (64, 128, 256)
"""Sides of the generated photographs that are considered, pixels."""

ROSE = 5.0
"""Least contrast-to-noise ratio times the square root of the area in pixels, by the Rose criterion."""

LEAST_DIAMETER = 1.0
"""Least diameter of a circle of the lesion's area, pixels."""

LEAST_SHARE = 0.5
"""Least share of a grade's eyes whose defining lesions are visible, for the grade to count as generable."""

DEFINING: Mapping[int, tuple[str, ...]] = {
    1: ("MA",),
    2: ("HE", "EX", "SE", "VB", "IRMA"),
    3: ("VB", "IRMA"),
    4: ("NV", "PRH"),
}
"""Lesions that define a grade of the International Clinical scale. Grade 3 is also reached by haemorrhages, see :data:`MANY`."""

MANY = 80
"""Haemorrhages above which an eye may have more than 20 in each of four quadrants (the 4 of the 4-2-1 rule)."""

QUANTISATION = 12**-0.5
"""Standard deviation of rounding to whole grey levels: the least noise of an 8-bit photograph."""

RING = 2
"""Least width of the surroundings of a lesion, pixels; larger lesions have surroundings of half their diameter."""

FEWEST_PIXELS = 8
"""Least number of pixels of the surroundings, from which mean and noise are estimated."""

COLUMNS = [
    *("image_id", "patient_id", "grade", "code", "lesion", "size"),
    *("diameter_px", "cnr", "rose", "visible"),
]


def measurable(audit: Record) -> bool:
    """Whether any photograph of an audit comes with a mask of a lesion.

    Args:
        audit: Record of notebook 01.
    """
    table = manifest.read(audit.path("manifest.csv"))
    return any((table.get(f"mask_{code}", pd.Series(dtype=str)) != "").any() for code in LESIONS)


def lesions(
    audit: Record, data: Dataset, sizes: Sequence[int] = SIZES, split: str = "train", most: int = 0
) -> pd.DataFrame:
    """Size and visibility of each lesion at each size.

    Args:
        audit: Record of notebook 01, for the masks.
        data: Photographs of the same audit.
        sizes: Sides of generated photographs, pixels. Those above the side of the stored photographs cannot be measured and have no rows.
        split: Split whose eyes are measured. A generator learns from ``train``.
        most: Number of eyes at most, drawn evenly over the grades from 1 upwards; 0 is all.

    Returns:
        One row per lesion and size with :data:`COLUMNS`: ``lesion`` is a number within eye and code, ``diameter_px`` and ``cnr`` (contrast-to-noise
        ratio) refer to that size, ``rose`` is the ratio times the square root of the effective area. ``cnr`` and ``rose`` are NaN, and the lesion is
        not ``visible``, where there are too few pixels around it. No rows where there are no masks.

    Raises:
        ValueError: If a size is not a positive whole number.
    """
    if bad := [size for size in sizes if int(size) != size or size < 1]:
        raise ValueError(f"SIZES has {bad[0]!r}; a side is a positive whole number of pixels.")
    if not measurable(audit):
        return pd.DataFrame(columns=COLUMNS)
    eyes = data.part(split)
    eyes = eyes[eyes["grade"].fillna(0) > 0]
    eyes = cam.choose_images(eyes, most, seed=0)
    read, parts = labels.mask_reader(audit, LESIONS), []
    fitting = [int(size) for size in sizes if size <= data.images.shape[1]]
    for eye in eyes.to_dict("records"):
        masks = read(eye["image_id"])
        annotated = {code: mask for code, mask in masks.masks.items() if mask is not None and mask.any()}
        for size in fitting:
            found = measure_eye(data.images[eye["row"]], annotated, masks.field, size)
            about = {name: eye[name] for name in ("image_id", "patient_id", "grade")}
            parts.append(found.assign(**about, size=size))
    whole = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=COLUMNS)
    return whole.reindex(columns=COLUMNS).astype({"visible": bool, "grade": "int64"})


def measure_eye(
    image: np.ndarray, masks: Mapping[str, np.ndarray], field: np.ndarray, size: int
) -> pd.DataFrame:
    """Every lesion of one eye at one size.

    A lesion is a template c, the share of each pixel that it covers. With the mean b and the standard deviation s of the pixels around it, its
    contrast-to-noise ratio is |sum c (I - b)| / (s sum c), and its effective area is (sum c)^2 / sum c^2. Their ``rose`` is the signal-to-noise
    ratio of the matched filter; where all pixels are wholly covered it is the ratio times the square root of their number. Of the three
    colour channels the best counts.

    Args:
        image: (S, S, 3) uint8 RGB.
        masks: Code to (S, S) float, share of each pixel that is covered.
        field: (S, S) bool, the field of view.
        size: Side after scaling, at most S, pixels.

    Returns:
        ``code, lesion, diameter_px, cnr, rose, visible``.
    """
    small = _scaled(image.astype(np.float32), size)
    inside = _scaled(field.astype(np.float32), size) > 0.999
    whole = _scaled(np.minimum(sum(masks.values()), 1) if masks else np.zeros(field.shape), size)
    rows = []
    for code, mask in masks.items():
        parts = scores.components(mask, field, 1.0)
        for lesion in range(len(parts.area)):
            mine = parts.lesion == lesion
            alone = np.zeros(field.sum(), np.float32)
            alone[parts.pixel[mine]] = parts.share[mine]
            cover = np.zeros(field.shape, np.float32)
            cover[field] = alone
            rows.append(
                {"code": code, "lesion": lesion} | _stands_out(small, _scaled(cover, size), whole, inside)
            )
    return pd.DataFrame(rows, columns=["code", "lesion", "diameter_px", "cnr", "rose", "visible"])


def _scaled(picture: np.ndarray, size: int) -> np.ndarray:
    """Area averaging, float32."""
    import cv2

    return cv2.resize(np.asarray(picture, np.float32), (size, size), interpolation=cv2.INTER_AREA)


def _stands_out(
    image: np.ndarray, cover: np.ndarray, whole: np.ndarray, inside: np.ndarray
) -> dict[str, float | bool]:
    """The measures of one lesion: (s, s, 3) image, (s, s) coverage by this lesion and by all, (s, s) field of view."""
    import cv2

    area = float(cover.sum(dtype=np.float64))
    diameter = 2 * np.sqrt(area / np.pi)
    width = max(RING, int(np.ceil(diameter / 2)))
    rows, columns = (np.flatnonzero(cover.any(axis=axis)) for axis in (1, 0))
    window = tuple(slice(max(0, at[0] - width), at[-1] + width + 1) for at in (rows, columns))
    cover, around = cover[window].astype(np.float64), image[window].astype(np.float64)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * width + 1, 2 * width + 1))
    near = cv2.dilate((cover > 0).astype(np.uint8), disc) > 0
    ring = near & (whole[window] <= 0) & inside[window]
    if ring.sum() < FEWEST_PIXELS:
        return {"diameter_px": diameter, "cnr": np.nan, "rose": np.nan, "visible": False}
    noise = np.maximum(around[ring].std(axis=0), QUANTISATION)
    signal = np.abs(np.einsum("yx,yxc->c", cover, around - around[ring].mean(axis=0)))
    cnr = float((signal / noise).max() / area)
    rose = cnr * area / float(np.sqrt((cover**2).sum()))
    return {
        "diameter_px": diameter,
        "cnr": cnr,
        "rose": rose,
        "visible": bool(rose >= ROSE and diameter >= LEAST_DIAMETER),
    }


def by_lesion(found: pd.DataFrame, resamples: int, seed: int) -> pd.DataFrame:
    """Share of visible lesions of each kind at each size.

    Args:
        found: Result of :func:`lesions`.
        resamples, seed: Number of resamples of the patient bootstrap, and seed of its draws.

    Returns:
        ``code, name, size, lesions, eyes, patients, diameter_px, cnr`` (medians), and the share of visible lesions as ``value, lo, hi``.
    """
    rows = []
    for code in [code for code in LESIONS if (found["code"] == code).any()]:
        for size, part in found[found["code"] == code].groupby("size"):
            share = statistics.mean_interval(
                part["visible"].to_numpy(float), part["patient_id"], resamples, seed
            )
            counts = {"lesions": len(part)} | {
                name: part[column].nunique()
                for name, column in (("eyes", "image_id"), ("patients", "patient_id"))
            }
            medians = {name: part[name].median() for name in ("diameter_px", "cnr")}
            rows.append({"code": code, "name": NAMES[code], "size": int(size)} | counts | medians | share)
    names = ["code", "name", "size", "lesions", "eyes", "patients", "diameter_px", "cnr", "value", "lo", "hi"]
    return pd.DataFrame(rows, columns=names)


def by_grade(found: pd.DataFrame, resamples: int, seed: int, sizes: Sequence[int] = SIZES) -> pd.DataFrame:
    """Share of the eyes of each grade with at least one visible lesion that defines the grade.

    Grade 3 counts as visible with visible venous beading or IRMA, or with more than :data:`MANY` visible haemorrhages. Eyes without any defining
    lesion in their masks (a label that the masks do not explain) are left out and counted in ``unexplained``.

    Args:
        found: Result of :func:`lesions`.
        resamples, seed: Number of resamples of the patient bootstrap, and seed of its draws.
        sizes: Sizes that were asked for.

    Returns:
        ``grade, size, eyes, unexplained, value, lo, hi, generable``; ``generable`` is ``yes``, ``no`` or ``not measurable``.
    """
    rows = []
    for grade in DEFINING:
        for size in sizes:
            part = found[(found["grade"] == grade) & (found["size"] == size)]
            eyes = pd.DataFrame(
                [
                    (patient, _defined(eye, grade), _defined(eye[eye["visible"]], grade))
                    for (_, patient), eye in part.groupby(["image_id", "patient_id"])
                ],
                columns=["patient_id", "there", "visible"],
            )
            known = eyes[eyes["there"].astype(bool)]
            share = statistics.mean_interval(
                known["visible"].to_numpy(float), known["patient_id"], resamples, seed
            )
            answer = "yes" if share["value"] >= LEAST_SHARE else "no"
            row = {"grade": grade, "size": size, "eyes": len(known), "unexplained": len(eyes) - len(known)}
            rows.append(row | share | {"generable": answer if len(known) else "not measurable"})
    return pd.DataFrame(rows)


def _defined(eye: pd.DataFrame, grade: int) -> bool:
    """Whether these lesions of one eye define the grade."""
    many = grade == 3 and int((eye["code"] == "HE").sum()) > MANY
    return many or bool(eye["code"].isin(DEFINING[grade]).any())


def findings(grades: pd.DataFrame) -> list[str]:
    """One sentence per grade: at which sizes it can be generated.

    Args:
        grades: Result of :func:`by_grade`.
    """
    if (grades["generable"] == "not measurable").all():
        return [
            "These photographs have no lesion masks at a sufficient size, so which lesions survive the scaling is not measurable here."
        ]
    sentences = []
    for grade, part in grades.groupby("grade"):
        shares = "; ".join(
            f"{row['size']} px: {row['generable']}"
            + (f" ({intervals.text(row['value'], row['lo'], row['hi'])})" if row["eyes"] else "")
            for row in part.to_dict("records")
        )
        sentences.append(
            f"Grade {grade} ({GRADE_NAMES[grade]}), share of eyes whose defining lesions are visible: {shares}."
        )
    return sentences


def generable(grades: pd.DataFrame, size: int) -> dict[int, str]:
    """Grade to ``yes``, ``no`` or ``not measurable`` at one size; grade 0 is defined by absence and always ``yes``."""
    part = grades[grades["size"] == size]
    return {0: "yes"} | dict(zip(part["grade"].astype(int), part["generable"]))
