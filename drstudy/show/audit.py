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
from drstudy.show import marks, style
from drstudy.show.figures import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GALLERY_SEED = 0


@style.theme()
def class_counts(counts: pd.DataFrame) -> Figure:
    """Images by grade, with their share. ``counts`` as :func:`drstudy.data.audit.class_counts`."""
    if not counts["images"].sum():
        return _nothing("No image has a grade.")
    figure, axes = new_figure(1, 1, 6.2, 3.0)
    axis = axes[0, 0]
    palette = dict(zip(GRADES, style.GRADE_COLOURS))
    bars = marks.bars(axis, counts, "grade", GRADES, palette, value="images", ends=None)
    labels = [f"{row.images} ({row.share:.1%})" for row in counts.itertuples()]
    for container, label in zip(bars.values(), labels):
        axis.bar_label(container, [label], padding=2)
    axis.margins(y=0.15)
    axis.set_xticks(GRADES, [_grade_label(grade) for grade in GRADES])
    axis.set(xlabel="grade", ylabel="images", title="Class counts")
    return figure


@style.theme()
def measurements(audit: pd.DataFrame) -> Figure:
    """Field of view and quality as histograms, with the thresholds of the flags as dashed lines."""
    import seaborn as sns

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
        span = (min(limits), max(limits))
        sns.histplot(values, bins=24, binrange=span, color=style.NEUTRAL, alpha=1, ax=axis)
        axis.set(xlabel=label, ylabel="")
        if threshold is not None:
            axis.axvline(threshold, color=style.INK, linestyle="--", linewidth=1)
    for axis in axes[:, 0]:
        axis.set_ylabel("images")
    figure.suptitle("Field of view and quality (dashed: threshold of a flag)", fontsize=11)
    return figure


@style.theme()
def fellow_eyes(fellows: audits.FellowEyes) -> Figure:
    """Left against right grade, one patient one count."""
    if not fellows.pairs:
        return _nothing("No patient has a graded image of each eye.")
    counts = fellows.table.to_numpy()
    figure, axes = new_figure(1, 1, 4.2, 3.6)
    axis = axes[0, 0]
    marks.matrix(axis, np.sqrt(counts), counts.astype(str), style.COUNTS_MAP, style.TEXT, square=True)
    axis.set(xlabel="grade of the right eye", ylabel="grade of the left eye")
    kappa = "" if fellows.kappa is None else f", quadratic kappa {fellows.kappa:.2f}"
    axis.set_title(f"{fellows.pairs} patients{kappa}")
    return figure


@style.theme()
def split_balance(split: pd.DataFrame) -> Figure:
    """Share of each grade in each part of the split, as grouped bars."""
    counts = splits.balance(split)
    if not counts.to_numpy().sum():
        return _nothing("No image has a grade: all are test images.")
    shares = 100 * counts.div(counts.sum(axis=1).clip(lower=1), axis=0)
    long = shares.rename_axis(index="part", columns="grade").stack().rename("share").reset_index()
    figure, axes = new_figure(1, 1, 6.2, 3.0)
    axis = axes[0, 0]
    bars = marks.bars(axis, long, "grade", GRADES, style.SPLIT_COLOURS, "part", value="share", ends=None)
    names = [f"{name} ({counts.loc[name].sum()} images)" for name in bars]
    axis.legend(bars.values(), names)
    axis.set_xticks(GRADES, [_grade_label(grade) for grade in GRADES])
    axis.set(xlabel="grade", ylabel="share of the part, %", title="Grades in the parts of the split")
    return figure


@style.theme()
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
    palette = {f"split by {name}": colour for name, colour in style.SPLIT_BY_COLOURS.items()}
    ends = [100 * leaked[name] for name in ("simulated", "simulated_lo", "simulated_hi")]
    rows = [ends, [100 * by_patient, np.nan, np.nan]]
    shares = pd.DataFrame(rows, columns=["value", *marks.ENDS]).assign(split=list(palette))
    marks.bars(axis, shares, "split", list(palette), palette, horizontal=True)
    for place, (value, end) in enumerate(zip(shares["value"], [ends[2], shares["value"].iloc[1]])):
        axis.text(end + 1.5, place, f"{value:.0f} %", va="center")
    axis.set(
        xlim=(0, 108),
        xticks=range(0, 101, 20),
        xlabel="test images with another image of their patient in train, %",
    )
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
