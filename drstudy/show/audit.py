"""Figures of notebook 01: what the data are like. One function each; all return their Figure.

Where the data lack what a figure shows (grades, pairs of eyes), the figure says so instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from drstudy.core.names import GRADE_NAMES, GRADES
from drstudy.data import amd, splits
from drstudy.data import audit as audits
from drstudy.data.images import ImageStore
from drstudy.show import style
from drstudy.show.figures import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GALLERY_SEED = 0


def class_counts(counts: pd.DataFrame) -> Figure:
    """Images by grade, with their share. ``counts`` as :func:`drstudy.data.audit.class_counts`."""
    if not counts["images"].sum():
        return _nothing("No image has a grade.")
    figure, axes = new_figure(1, 1, 6.2, 3.0)
    axis = axes[0, 0]
    bars = axis.bar(
        [_grade_label(grade) for grade in counts["grade"]], counts["images"], color=style.GRADE_COLOURS
    )
    labels = [f"{row.images} ({row.share:.1%})" for row in counts.itertuples()]
    axis.bar_label(bars, labels, padding=2)
    axis.margins(y=0.15)
    axis.set(xlabel="grade", ylabel="images", title="Class counts")
    return figure


def measurements(audit: pd.DataFrame) -> Figure:
    """Field of view and quality as histograms, with the thresholds of the flags as dashed lines."""
    thresholds = {column: threshold for column, _, threshold in audits.FLAGS.values()}
    field_side = np.maximum(audit["field_x1"] - audit["field_x0"], audit["field_y1"] - audit["field_y0"])
    panels = [
        (field_side, "side of the field of view, pixels", None),
        (audit["field_share"], "share of the picture in the field", None),
        (audit["brightness"], "brightness (mean luminance, 0 to 255)", thresholds["brightness"]),
        (audit["sharpness"], "sharpness (fine detail, % of mean)", thresholds["sharpness"]),
        (audit["dark_share"], "share of the field in shadow", thresholds["dark_share"]),
        (audit["white_share"], "share of the field in glare", thresholds["white_share"]),
    ]
    figure, axes = new_figure(2, 3, 9.0, 4.6)
    for axis, (values, label, threshold) in zip(axes.flat, panels):
        limits = [values.min(), values.max(), *([] if threshold is None else [1.2 * threshold])]
        axis.hist(values, bins=24, range=(min(limits), max(limits)), color=style.NEUTRAL)
        axis.set_xlabel(label)
        if threshold is not None:
            axis.axvline(threshold, color="black", linestyle="--", linewidth=1)
    for axis in axes[:, 0]:
        axis.set_ylabel("images")
    figure.suptitle("Field of view and quality (dashed: threshold of a flag)", fontsize=11)
    return figure


def fellow_eyes(fellows: audits.FellowEyes) -> Figure:
    """Left against right grade, one patient one count."""
    if not fellows.pairs:
        return _nothing("No patient has a graded image of each eye.")
    counts = fellows.table.to_numpy()
    figure, axes = new_figure(1, 1, 4.2, 3.6)
    axis = axes[0, 0]
    axis.imshow(np.sqrt(counts), cmap=style.COUNTS_MAP)
    for (row, column), count in np.ndenumerate(counts):
        colour = "white" if np.sqrt(count) > 0.6 * np.sqrt(counts.max()) else "black"
        axis.text(column, row, str(count), ha="center", va="center", color=colour)
    axis.set(xticks=GRADES, yticks=GRADES, xlabel="grade of the right eye", ylabel="grade of the left eye")
    axis.spines[:].set_visible(False)
    kappa = "" if fellows.kappa is None else f", quadratic kappa {fellows.kappa:.2f}"
    axis.set_title(f"{fellows.pairs} patients{kappa}")
    return figure


def split_balance(split: pd.DataFrame) -> Figure:
    """Share of each grade in each part of the split, as grouped bars."""
    counts = splits.balance(split)
    if not counts.to_numpy().sum():
        return _nothing("No image has a grade: all are test images.")
    shares = counts.div(counts.sum(axis=1).clip(lower=1), axis=0)
    figure, axes = new_figure(1, 1, 6.2, 3.0)
    axis = axes[0, 0]
    for place, (name, colour) in enumerate(style.SPLIT_COLOURS.items()):
        at = np.arange(len(GRADES)) + (place - 1) * 0.27
        label = f"{name} ({counts.loc[name].sum()} images)"
        axis.bar(at, 100 * shares.loc[name], width=0.25, color=colour, label=label)
    axis.set_xticks(GRADES, [_grade_label(grade) for grade in GRADES])
    axis.set(xlabel="grade", ylabel="share of the part, %", title="Grades in the parts of the split")
    axis.legend()
    return figure


def leak(leaked: dict[str, float], by_patient: float) -> Figure:
    """Share of test images whose patient is also in train: split by image against split by patient.

    Args:
        leaked: Result of :func:`drstudy.data.splits.leak`.
        by_patient: The same share in a split by patient.
    """
    if np.isnan(leaked["expected"]):
        return _nothing("Too few graded images for a split by image.")
    figure, axes = new_figure(1, 1, 6.2, 1.9)
    axis = axes[0, 0]
    values = [100 * leaked["simulated"], 100 * by_patient]
    axis.barh(
        ["split by image", "split by patient"],
        values,
        color=list(style.SPLIT_BY_COLOURS.values()),
        height=0.55,
    )
    low, high = 100 * leaked["simulated_lo"], 100 * leaked["simulated_hi"]
    axis.plot([low, high], [0, 0], color="black", linewidth=2)
    for place, (value, end) in enumerate(zip(values, [high, values[1]])):
        axis.text(end + 1.5, place, f"{value:.0f} %", va="center")
    axis.set(
        xlim=(0, 108),
        xticks=range(0, 101, 20),
        xlabel="test images with another image of their patient in train, %",
    )
    axis.invert_yaxis()
    return figure


def examples_by_grade(store: ImageStore, split: pd.DataFrame, columns: int = 4) -> Figure:
    """Stored crops of train images, one row per grade, drawn at random but the same each time.

    Sources without grades show any images.
    """
    shown = split[split["image_id"].isin(store.index["image_id"])]
    graded = shown[shown["grade"].notna()]
    if graded.empty:
        return gallery(
            store, list(shown["image_id"][: 2 * columns]), list(shown["image_id"][: 2 * columns]), columns
        )
    train = graded[graded["split"] == "train"]
    present = [grade for grade in GRADES if (train["grade"] == grade).any()]
    figure, axes = new_figure(len(present), columns, 1.05 * columns + 0.5, 1.1 * len(present))
    for row, grade in enumerate(present):
        of_grade = train.loc[train["grade"] == grade, "image_id"]
        drawn = of_grade.sample(min(columns, len(of_grade)), random_state=GALLERY_SEED)
        _show(axes[row], store, list(drawn), [""] * columns)
        axes[row, 0].set_ylabel(_grade_label(grade), fontsize=8)
    return figure


def examples_of_amd(store: ImageStore, split: pd.DataFrame, columns: int = 4) -> Figure:
    """Stored crops of train images, one row per grade of AMD and one of eyes with both diseases, drawn at random but the same each time.

    Args:
        store: The crops.
        split: Result of :func:`drstudy.data.splits.make`, with a column of AMD.
        columns: Eyes in a row.
    """
    train = split[(split["split"] == "train") & split["image_id"].isin(store.index["image_id"])]
    groups = amd.groups(train)
    if not groups:
        return _nothing("No image of the training part has a label of AMD.")
    figure, axes = new_figure(len(groups), columns, 1.5 * columns + 0.5, 1.55 * len(groups))
    for row, (name, chosen) in enumerate(groups.items()):
        drawn = train.loc[chosen, "image_id"].sample(
            min(columns, int(chosen.sum())), random_state=GALLERY_SEED
        )
        _show(axes[row], store, list(drawn), [""] * columns)
        axes[row, 0].set_ylabel(name, fontsize=8)
    return figure


def gallery(store: ImageStore, image_ids: Sequence[str], titles: Sequence[str], columns: int = 6) -> Figure:
    """Stored crops in a grid, each with its title."""
    if not len(image_ids):
        return _nothing("Nothing to show.")
    columns = min(columns, len(image_ids))
    rows = -(-len(image_ids) // columns)
    figure, axes = new_figure(rows, columns, 1.5 * columns, 1.75 * rows)
    _show(axes.ravel(), store, image_ids, titles)
    return figure


def duplicate_pairs(store: ImageStore, pairs: pd.DataFrame, most: int = 6) -> Figure:
    """Pairs of duplicates, one above the other; pairs of different patients first."""
    if pairs.empty:
        return _nothing("No duplicates were found.")
    shown = pairs.sort_values("same_patient", kind="stable").head(most)
    figure, axes = new_figure(2, len(shown), max(4.5, 1.7 * len(shown)), 3.9)
    for row, name in enumerate(("image_id_a", "image_id_b")):
        _show(axes[row], store, list(shown[name]), list(shown[name]))
    for axis, pair in zip(axes[1], shown.itertuples()):
        whose = "same patient" if pair.same_patient else "two patients"
        axis.set_xlabel(f"{pair.kind}, {whose}", fontsize=8)
    return figure


def worst(store: ImageStore, audit: pd.DataFrame, columns: int = 6) -> Figure:
    """Flagged photographs, those with most flags first."""
    flagged = audit[audit["flags"] != ""]
    if flagged.empty:
        return _nothing("No photograph is flagged.")
    order = flagged["flags"].str.count(";").sort_values(ascending=False, kind="stable").index[: 2 * columns]
    return gallery(store, list(audit.loc[order, "image_id"]), list(audit.loc[order, "flags"]), columns)


def _show(axes: np.ndarray, store: ImageStore, image_ids: Sequence[str], titles: Sequence[str]) -> None:
    for axis in axes:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    for axis, image_id, title in zip(axes, image_ids, titles):
        axis.imshow(store.images[store.row(image_id)])
        axis.set_title(title.replace(";", "; "), fontsize=8)


def _grade_label(grade: int) -> str:
    return f"{grade}\n{GRADE_NAMES[grade].replace(' NPDR', '')}"


def _nothing(text: str) -> Figure:
    figure, axes = new_figure(1, 1, 5.0, 0.6)
    axes[0, 0].set_axis_off()
    axes[0, 0].text(0, 0.5, text, va="center")
    return figure
